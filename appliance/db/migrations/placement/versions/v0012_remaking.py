"""How entries get other names at a site whose own are taken, and an index for what is pending."""

from __future__ import annotations

from appliance.db.migrations import run_beside

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Add it; the SQL stands beside this file."""
    run_beside(__file__, "0012_remaking.sql")
