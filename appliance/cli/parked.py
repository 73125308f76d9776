"""`nexus parked …`: entries of other nodes that were not applied, and what becomes of them."""

from __future__ import annotations

from uuid import UUID

import msgspec

from appliance.cli.acting import As, At, Call, run
from appliance.sync.deciding import What, decide
from appliance.sync.parked import PAGE_MAX, Told, list_parked, show_parked

_CAPABILITY = "sync.manage"


def list_(
    *,
    tenant: str | None = None,
    by: As = None,
    state: str = "waiting",
    data: str | None = None,
) -> int:
    """List what waits, newest first.

    Parameters
    ----------
    tenant: the tenant's short name; not needed where there is one.
    by: the address of the person in whose name it is done.
    state: waiting, released or skipped.
    """

    async def work(at: At) -> int:
        for found in await list_parked(at.node.db, at.ctx, state=state, limit=PAGE_MAX):
            place = f"{found.origin}.{found.oseq}"
            sort = "held" if found.is_held else "logged"
            print(
                f"{found.id}  {place}  {found.entries} entries  {sort}  {found.reason}  "
                f"{found.detail}"
            )
        return 0

    return run(Call(tenant, by, _CAPABILITY, data, None), work)


def show_(ident: UUID, *, tenant: str | None = None, by: As = None, data: str | None = None) -> int:
    """Show one with its entries, as JSON, as far as the person may read their records."""

    async def work(at: At) -> int:
        _print(await show_parked(at.node.db, at.ctx, ident))
        return 0

    return run(Call(tenant, by, _CAPABILITY, data, None), work)


def release_(
    ident: UUID,
    *,
    reason: str = "",
    tenant: str | None = None,
    by: As = None,
    data: str | None = None,
) -> int:
    """Apply it after all; the exit code is 1 when it still cannot be applied."""
    return _decide(What.RELEASE, ident, reason, Call(tenant, by, _CAPABILITY, data, None))


def skip_(
    ident: UUID,
    *,
    reason: str,
    tenant: str | None = None,
    by: As = None,
    data: str | None = None,
) -> int:
    """Let it go. What it would have done is printed as commands to be edited and sent."""
    return _decide(What.SKIP, ident, reason, Call(tenant, by, _CAPABILITY, data, None))


def _decide(what: What, ident: UUID, reason: str, call: Call) -> int:
    async def work(at: At) -> int:
        told = await decide(at.node.db, at.ctx, ident, what, reason=reason)
        _print(told)
        return 1 if told.parked.state == "waiting" else 0

    return run(call, work)


def _print(told: Told) -> None:
    print(msgspec.json.format(msgspec.json.encode(told), indent=2).decode())
