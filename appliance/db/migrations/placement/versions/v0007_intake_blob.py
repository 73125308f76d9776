"""Imports know from which state of the log they were planned."""

from __future__ import annotations

from appliance.db.migrations import run_beside

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add it; the SQL stands beside this file."""
    run_beside(__file__, "0007_intake_blob.sql")
