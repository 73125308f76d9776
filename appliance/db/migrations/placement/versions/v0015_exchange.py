"""What 1C brought by its exchange with a web site, and what became of it."""

from __future__ import annotations

from appliance.db.migrations import run_beside

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Add it; the SQL stands beside this file."""
    run_beside(__file__, "0015_exchange.sql")
