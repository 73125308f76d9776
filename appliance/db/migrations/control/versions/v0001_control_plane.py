"""The control plane: nodes, placements, tenants, routing, staff."""

from __future__ import annotations

from appliance.db.migrations import run_beside

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create everything; the SQL stands beside this file."""
    run_beside(__file__, "0001_control_plane.sql")
