"""Webhooks: what this node delivers to whom, how far it is, and what waits."""

from __future__ import annotations

from appliance.db.migrations import run_beside

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Add it; the SQL stands beside this file."""
    run_beside(__file__, "0017_webhooks.sql")
