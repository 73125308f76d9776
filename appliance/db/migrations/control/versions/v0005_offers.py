"""Which nodes have given back to a restored hub what it had lost, and what a code says besides."""

from __future__ import annotations

from appliance.db.migrations import run_beside

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add it; the SQL stands beside this file."""
    run_beside(__file__, "0005_offers.sql")
