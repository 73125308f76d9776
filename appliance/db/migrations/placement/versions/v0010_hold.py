"""What a node holds of a tenant, and how what it no longer may hold leaves it."""

from __future__ import annotations

from appliance.db.migrations import run_beside

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add it; the SQL stands beside this file."""
    run_beside(__file__, "0010_hold.sql")
