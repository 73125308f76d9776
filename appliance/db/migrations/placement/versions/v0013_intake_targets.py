"""Staged rows of many sorts, and what the whole of a reading says."""

from __future__ import annotations

from appliance.db.migrations import run_beside

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Add it; the SQL stands beside this file."""
    run_beside(__file__, "0013_intake_targets.sql")
