"""`nexus bank …`: match bank lines with invoices on the command line, in a person's name."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from appliance.banking import Settled, confirm, propose_matches, unmatch
from appliance.cli.acting import At, Call, read_id, run
from appliance.kernel.kind import Json
from appliance.kernel.query import decode_query
from appliance.read import stream

As = Annotated[str | None, Parameter(name="--as")]
_SELECT = ["id", "line.booked", "amount", "currency", "invoice.number", "score", "reason"]


def match(
    *,
    tenant: str | None = None,
    by: As = None,
    since: date | None = None,
    dry_run: bool = False,
    data: str | None = None,
) -> int:
    """Propose which open invoices bank lines are for.

    Parameters
    ----------
    tenant: the tenant's short name; not needed where there is one.
    by: the address of the person in whose name it is done.
    since: lines booked since this day (180 days).
    dry_run: say what would be proposed, and keep nothing.
    """

    async def work(at: At) -> int:
        done = await propose_matches(at.node.db, at.ctx, since=since, dry_run=dry_run)
        print(
            f"{done.lines} lines, {done.invoices} open invoices: {done.proposed} proposals for "
            f"{done.lines_proposed} lines; {done.outdated} no longer hold."
        )
        return 0

    return run(Call(tenant, by, "records.use", data, None), work)


def list_(
    *,
    tenant: str | None = None,
    by: As = None,
    state: Literal["proposed", "confirmed", "undone", "declined", "outdated"] = "proposed",
    data: str | None = None,
) -> int:
    """List matches, the surest first; the first column is what `confirm` and `unmatch` take.

    Parameters
    ----------
    state: of which state.
    """

    async def work(at: At) -> int:
        query: Json = {
            "from": "bank_match", "select": [*_SELECT], "sort": ["-score"],
            "where": {"field": "state", "op": "eq", "value": state},
        }  # fmt: skip
        table = Table("Match", "Booked", "Amount", "", "Invoice", "Score", "Reason")
        async for _, rows in stream(at.node.db, at.ctx, decode_query(query)):
            for row in rows:
                found = msgspec.json.decode(row)
                table.add_row(*(str(found[name] or "") for name in _SELECT))
        Console().print(table)
        return 0

    return run(Call(tenant, by, "records.use", data, None), work)


def confirm_(
    *matches: str, tenant: str | None = None, by: As = None, data: str | None = None
) -> int:
    """Confirm proposals: payments and allocations are made.

    Parameters
    ----------
    matches: their ids, as `list` prints them.
    """

    async def work(at: At) -> int:
        wanted = [read_id(m, "a match") for m in matches]
        return _print(await confirm(at.node.db, at.ctx, matches=wanted))

    return run(Call(tenant, by, "records.use", data, None), work)


def unmatch_(
    *matches: str, tenant: str | None = None, by: As = None, data: str | None = None
) -> int:
    """Take confirmed matches back; their history stays.

    Parameters
    ----------
    matches: their ids, as `list --state confirmed` prints them.
    """

    async def work(at: At) -> int:
        return _print(await unmatch(at.node.db, at.ctx, [read_id(m, "a match") for m in matches]))

    return run(Call(tenant, by, "records.use", data, None), work)


def _print(done: Settled) -> int:
    print(f"{len(done.matches)} matches, {len(done.payments)} payments; change {done.change_set}.")
    return 0
