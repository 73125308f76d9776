"""Sources of connector workers, files that were not taken, figures of runs."""

from __future__ import annotations

from appliance.db.migrations import run_beside

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Add it; the SQL stands beside this file."""
    run_beside(__file__, "0018_sources.sql")
