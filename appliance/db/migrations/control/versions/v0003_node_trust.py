"""Origins that are issued once, proofs of keys, the hub's epoch."""

from __future__ import annotations

from appliance.db.migrations import run_beside

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add it; the SQL stands beside this file."""
    run_beside(__file__, "0003_node_trust.sql")
