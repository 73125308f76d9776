"""Which nodes have ever been given signed heads."""

from __future__ import annotations

from appliance.db.migrations import run_beside

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add it; the SQL stands beside this file."""
    run_beside(__file__, "0006_attested.sql")
