"""The newest signed word of a hub on each stream, and how often an entry has taken too long."""

from __future__ import annotations

from appliance.db.migrations import run_beside

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Add it; the SQL stands beside this file."""
    run_beside(__file__, "0016_trust.sql")
