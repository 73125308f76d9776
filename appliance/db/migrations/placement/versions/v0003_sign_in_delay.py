"""The brake on guessing, and requests of platform staff."""

from __future__ import annotations

from appliance.db.migrations import run_beside

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create everything; the SQL stands beside this file."""
    run_beside(__file__, "0003_sign_in_delay.sql")
