"""Tenants: their places, their whole copies, their moves. Everything here runs as the owner role."""

from __future__ import annotations

from appliance.tenancy.archive import Manifest, TableSum, read_manifest
from appliance.tenancy.backup import Backup, backup_tenant, list_backups
from appliance.tenancy.blobs import FileSums
from appliance.tenancy.control import (
    Node,
    Placement,
    Tenant,
    activate,
    close_tenant,
    create_dedicated,
    create_placement,
    create_tenant,
    find_tenant,
    list_placements,
    list_tenants,
    register_node,
    rename_tenant,
    resume,
    suspend,
)
from appliance.tenancy.drill import Drill, run_drill
from appliance.tenancy.erase import Erasure, drop_placement, erase_tenant
from appliance.tenancy.files import ask_for_verdicts, count_files
from appliance.tenancy.move import Moved, Settled, move_tenant, settle
from appliance.tenancy.names import check_slug
from appliance.tenancy.servers import Progress, Servers
from appliance.tenancy.transfer import export_tenant, import_tenant, restore_tenant

__all__ = [
    "Backup",
    "Drill",
    "Erasure",
    "FileSums",
    "Manifest",
    "Moved",
    "Node",
    "Placement",
    "Progress",
    "Servers",
    "Settled",
    "TableSum",
    "Tenant",
    "activate",
    "ask_for_verdicts",
    "backup_tenant",
    "check_slug",
    "close_tenant",
    "count_files",
    "create_dedicated",
    "create_placement",
    "create_tenant",
    "drop_placement",
    "erase_tenant",
    "export_tenant",
    "find_tenant",
    "import_tenant",
    "list_backups",
    "list_placements",
    "list_tenants",
    "move_tenant",
    "read_manifest",
    "register_node",
    "rename_tenant",
    "restore_tenant",
    "resume",
    "run_drill",
    "settle",
    "suspend",
]
