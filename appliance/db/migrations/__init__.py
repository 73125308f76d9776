"""Alembic trees: `control` for the control plane, `placement` for databases of tenants."""

from __future__ import annotations

from pathlib import Path

from alembic import op


def run_beside(script: str, name: str) -> None:
    """Run the SQL file `name` that stands beside the migration script `script`."""
    sql = Path(script).with_name(name).read_text("utf-8")
    # The driver reads % as a placeholder even when there are no parameters.
    op.get_bind().exec_driver_sql(sql.replace("%", "%%"))
