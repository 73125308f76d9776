"""`nexus conflict …`: the inbox on the command line, in a person's name and with their rights."""

from __future__ import annotations

import json
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from cyclopts import Parameter

from appliance.base.errors import Invalid
from appliance.base.ids import parse_uuid
from appliance.cli.acting import As, At, Call, run
from appliance.kernel.kind import Json
from appliance.sync.conflicts import Filter, Place, find, read_page
from appliance.sync.resolving import Choice, Keep, Rule, resolve, resolve_many
from appliance.sync.showing import Shown, show_many, show_one
from appliance.write import Conflict, Rejected

_PAGE = 200


def list_(
    *,
    tenant: str | None = None,
    by: As = None,
    kind: str | None = None,
    sort: str | None = None,
    mine: bool = False,
    limit: int = _PAGE,
    data: str | None = None,
) -> int:
    """List open conflicts, newest first; the first column is what `show` and `resolve` take.

    Parameters
    ----------
    tenant: the tenant's short name; not needed where there is one.
    by: the address of the person in whose name it is done.
    kind: only conflicts of this kind.
    sort: field, edit_vs_delete, proposal, unique, dangling_ref or negative_stock.
    mine: only of the person's own records, or with a side of theirs.
    limit: how many at most.
    """

    async def work(at: At) -> int:
        asked, after, left = Filter(kind=kind, sort=sort, mine=mine), None, limit
        while left > 0:
            helds, after = await read_page(
                at.node.db, at.ctx, asked, limit=min(left, _PAGE), after=after
            )
            for shown in await show_many(at.node.db, at.ctx, helds):
                _print_line(shown)
            left -= len(helds)
            if after is None:
                break
        return 0

    return run(Call(tenant, by, "records.use", data, None), work)


def show_(
    conflict: str, *, tenant: str | None = None, by: As = None, data: str | None = None
) -> int:
    """Show one conflict with all its sides, as JSON.

    Parameters
    ----------
    conflict: RECORD/SORT/REGISTER, as `list` prints it.
    """

    async def work(at: At) -> int:
        held = await find(at.node.db, at.ctx, *_key(conflict))
        shown = await show_one(at.node.db, at.ctx, held)
        print(msgspec.json.format(msgspec.json.encode(shown), indent=2).decode())
        return 0

    return run(Call(tenant, by, "records.use", data, None), work)


def resolve_(
    conflict: str = "",
    *,
    choose: str | None = None,
    values: str | None = None,
    keep: Keep | None = None,
    all_: Annotated[
        Literal["newest", "shown", "hub", "mine"] | None, Parameter(name="--all")
    ] = None,
    kind: str | None = None,
    sort: str | None = None,
    tenant: str | None = None,
    by: As = None,
    data: str | None = None,
) -> int:
    """Decide one conflict, or with --all every one of a filter by one rule.

    Parameters
    ----------
    conflict: RECORD/SORT/REGISTER, as `list` prints it.
    choose: the dot of the side that is right.
    values: a JSON object of the values that are to be.
    keep: of a record that one deleted and another changed: deleted, or record.
    all_: the rule.
    """

    async def work(at: At) -> int:
        if all_ is not None:
            return await _resolve_all(at, Filter(kind=kind, sort=sort), Rule(all_))
        held = await find(at.node.db, at.ctx, *_key(conflict))
        choice = Choice(choose, _values(values), keep)
        result = await resolve(at.node.db, at.ctx, held, choice)
        outcome = result.outcomes[0]
        if isinstance(outcome, Rejected):
            print("\n".join(f"{f.pointer}: {f.detail}" for f in outcome.faults))
        elif isinstance(outcome, Conflict):
            print("Somebody wrote this meanwhile; look at it again.")
        else:
            print(f"Resolved in change {result.change_set}.")
        return 0 if result.committed else 1

    return run(Call(tenant, by, "conflicts.resolve", data, None), work)


async def _resolve_all(at: At, asked: Filter, rule: Rule) -> int:
    after: Place | None = None
    left = 0
    while True:
        batch = await resolve_many(at.node.db, at.ctx, asked, rule, after=after)
        for decided in batch.decided:
            left += decided.status != "resolved"
            print(
                f"{decided.record}/{decided.sort}/{decided.register}  {decided.status}  "
                f"{decided.detail}"
            )
        after = batch.next
        if after is None:
            return 1 if left else 0


def _key(text: str) -> tuple[UUID, str, str]:
    record, _, rest = text.partition("/")
    sort, _, register = rest.partition("/")
    ident = parse_uuid(record)
    if ident is None or not sort or not register:
        raise Invalid("Expected RECORD/SORT/REGISTER, as `nexus conflict list` prints it.")
    return ident, sort, register


def _values(text: str | None) -> dict[str, Json] | None:
    if text is None:
        return None
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Invalid('Expected a JSON object, such as {"amount": "10.00"}.')
    return found


def _print_line(shown: Shown) -> None:
    sides = " | ".join(
        ", ".join(f"{k}={v}" for k, v in s.values.items()) or (s.text or "elsewhere")
        for s in shown.sides
    )
    print(
        f"{shown.record}/{shown.sort}/{shown.register}  {shown.kind}  {shown.text or ''}  {sides}"
    )
