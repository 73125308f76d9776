"""How a site of this hub is given one more tenant: by a code too, which only its own key can use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

import msgspec

from appliance.base import logs
from appliance.base.errors import Clash
from appliance.db.database import Database
from appliance.meta import load_schema
from appliance.sync.enrol import MINUTES, Invitation, check_units, hash_code, make_code
from appliance.sync.nodes import ACTIVE, PeerNode, note, run_control
from appliance.sync.scope import check_masks


async def invite_site(
    db: Database,
    tenant: UUID,
    site: PeerNode,
    *,
    hub_key: bytes,
    units: Sequence[UUID] | None = None,
    masks: Mapping[str, list[str]] | None = None,
    minutes: int = MINUTES,
    actor: UUID | None = None,
) -> Invitation:
    """A code that gives a site of this hub one more tenant. Raises Invalid, Clash."""
    wanted = sorted(set(units)) if units is not None else None
    await check_units(db, tenant, wanted)
    check_masks(masks or {}, (await load_schema(db, tenant)).kinds, masks or {})
    if site.role != "site" or site.is_self or site.state != ACTIVE:
        raise Clash(f"{site.name} is no site of this hub; give a new one a prefix.",
                    code="node.no_site")  # fmt: skip
    held = await run_control(
        db, "SELECT state FROM node_scope WHERE node_id = %s AND tenant_id = %s", site.id, tenant
    )
    if held:
        raise Clash(f"{site.name} has had this tenant ({held[0][0]}); it is not given twice.",
                    code="node.has_tenant")  # fmt: skip
    code, ends = make_code(hub_key, minutes)
    await run_control(
        db,
        "INSERT INTO node_invitation (code_hash, name, prefix, tenant_id, unit_ids, expires_at, "
        "masks, for_node) VALUES (%s, %s, %s, %s, %s::uuid[], %s, %s::jsonb, %s)",
        hash_code(code), site.name, site.prefix, tenant, wanted, ends, msgspec.json.encode(masks or {}).decode(), site.id,
    )  # fmt: skip
    details: dict[str, object] = {"minutes": minutes, "units": len(wanted or ())}
    await note(db, tenant, "node.invited", actor=actor, subject=site.id, details=details)
    logs.event("sync.node_invited", tenant=tenant, node=site.id)
    return Invitation(code, site.name, site.prefix, ends)
