"""Imports whose files are read by a connector worker elsewhere."""

from __future__ import annotations

from appliance.db.migrations import run_beside

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Add it; the SQL stands beside this file."""
    run_beside(__file__, "0014_intake_work.sql")
