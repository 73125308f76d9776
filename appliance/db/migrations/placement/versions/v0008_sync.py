"""What replication keeps beside the log."""

from __future__ import annotations

from appliance.db.migrations import run_beside

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add it; the SQL stands beside this file."""
    run_beside(__file__, "0008_sync.sql")
