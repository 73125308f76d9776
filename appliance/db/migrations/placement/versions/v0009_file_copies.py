"""Where the bytes of files are."""

from __future__ import annotations

from appliance.db.migrations import run_beside

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add it; the SQL stands beside this file."""
    run_beside(__file__, "0009_file_copies.sql")
