"""`nexus node scope`: what a node holds of a tenant, changed after its consequences were shown."""

from __future__ import annotations

import asyncio

from appliance.cli.node import opened, read_settings
from appliance.sync import enrol, nodes
from appliance.sync.foreseen import Foreseen, foresee, read_masks

ALL = "all"


def scope(
    name: str,
    *,
    tenant: str,
    units: str | None = None,
    mask: str | None = None,
    yes: bool = False,
    data: str | None = None,
) -> None:
    """Say anew which units a node holds and which fields are kept from it.

    Without --yes it says what that would do and does nothing, unless nothing has to be purged.

    Parameters
    ----------
    name: the node's name or id, as `nexus node list` shows it.
    tenant: the short name of the tenant.
    units: names of units by comma, with all below them, or all; as they are when left out.
    mask: fields by comma, as deal.margin,card.cost; empty for none; as they are when left out.
    yes: do it.
    data: the data folder of the hub (NEXUS_DATA).
    """

    async def go() -> tuple[nodes.PeerNode, Foreseen, bool]:
        async with opened(read_settings(data)) as node:
            db, ident = node.db, node.db.routes.by_slug(tenant).tenant
            peer = await nodes.find_named(db, name, ident)
            peer = await nodes.find_of_tenant(db, peer.id, ident)
            wanted = list(peer.unit_ids) if peer.unit_ids is not None else None
            if units is not None:
                named = [part.strip() for part in units.split(",") if part.strip()]
                wanted = None if named == [ALL] else await enrol.find_units(db, ident, named)
                await enrol.check_units(db, ident, wanted)
            masks = read_masks(mask) if mask is not None else None
            told = await foresee(db, peer.id, ident, units=wanted, masks=masks)
            is_done = yes or not told.purges
            if is_done:
                peer = await nodes.set_units(db, peer.id, ident, wanted, masks=masks)
            return peer, told, is_done

    peer, told, is_done = asyncio.run(go())
    for unit in told.adds:
        print(f"{peer.name} gets {unit}.")
    for purge in told.purges:
        again = ", which come again without what is kept from it" if purge.comes_again else ""
        print(f"{peer.name} deletes {purge.records} records of {purge.name}{again}.")
    if told.purges:
        print("It first hands in what was made there, then proves that nothing is left.")
    if is_done:
        print(f"Epoch {peer.epoch}; it hears of it with its next contact.")
    else:
        print("Nothing was changed. Repeat with --yes.")
