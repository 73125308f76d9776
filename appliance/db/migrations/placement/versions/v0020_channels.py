"""What sales channels were given, their feeds, and what became of it."""

from __future__ import annotations

from appliance.db.migrations import run_beside

revision = "0020"
down_revision = "0018"


def upgrade() -> None:
    """Add it; the SQL stands beside this file."""
    run_beside(__file__, "0020_channels.sql")
