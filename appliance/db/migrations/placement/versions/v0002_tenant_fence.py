"""The fence of a tenant that is being copied to or from this placement."""

from __future__ import annotations

from appliance.db.migrations import run_beside

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create everything; the SQL stands beside this file."""
    run_beside(__file__, "0002_tenant_fence.sql")
