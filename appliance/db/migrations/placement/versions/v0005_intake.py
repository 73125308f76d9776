"""Imports: runs and their staged rows."""

from __future__ import annotations

from appliance.db.migrations import run_beside

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Create everything; the SQL stands beside this file."""
    run_beside(__file__, "0005_intake.sql")
