"""Entries of ledgers and their turnover."""

from __future__ import annotations

from appliance.db.migrations import run_beside

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create everything; the SQL stands beside this file."""
    run_beside(__file__, "0004_ledgers.sql")
