"""What stands for a log that is not here: leaves, chains and the progress of a snapshot."""

from __future__ import annotations

from appliance.db.migrations import run_beside

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Add it; the SQL stands beside this file."""
    run_beside(__file__, "0011_states.sql")
