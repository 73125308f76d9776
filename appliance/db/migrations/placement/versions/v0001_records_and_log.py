"""One placement: records, log, sessions, audit, outbox, under forced row-level security."""

from __future__ import annotations

from appliance.db.migrations import run_beside

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create everything; the SQL stands beside this file."""
    run_beside(__file__, "0001_records_and_log.sql")
