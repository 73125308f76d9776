"""The nodes of an installation."""

from __future__ import annotations

from appliance.db.migrations import run_beside

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add it; the SQL stands beside this file."""
    run_beside(__file__, "0002_nodes.sql")
