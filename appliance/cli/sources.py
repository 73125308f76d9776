"""`nexus source …`: sources of connector workers on the command line, and what failed for good."""

from __future__ import annotations

from datetime import datetime

import msgspec
from rich.console import Console
from rich.table import Table

from appliance.base.clock import now
from appliance.cli.acting import As, At, Call, read_id, run
from appliance.db.database import Database
from appliance.files.rows import find_file, why_not
from appliance.files.states import FileState
from appliance.intake import dead as letters
from appliance.intake import mappings, runs, sources
from appliance.kernel.context import Ctx
from appliance.work.jobs import enqueue


def list_(*, tenant: str | None = None, by: As = None, data: str | None = None) -> int:
    """List sources with their states; 2 when somebody has to do something about one.

    Parameters
    ----------
    tenant: the tenant's short name; not needed where there is one.
    by: the address of the person in whose name it is done.
    """

    async def work(at: At) -> int:
        table = Table("Source", "State", "Worker", "From", "Last file", "Next look", "Dead", "Why")
        found = await sources.list_sources(at.node.db, at.ctx.tenant)
        moment = now()
        states = [sources.state_of(row, moment) for row in found]
        for row, state in zip(found, states, strict=True):
            told = row.told
            why = f"{told.code}: {told.detail}" if told.code else ""
            table.add_row(
                row.key, state, row.worker, f"{told.place} {told.address}", _at(told.last_file_at),
                _at(told.next_look_at), str(row.lost or ""), why,
            )  # fmt: skip
        Console().print(table)
        return 2 if set(states) & set(sources.ALERTS) else 0

    return run(Call(tenant, by, "import.run", data, None), work)


def show_(key: str, *, tenant: str | None = None, by: As = None, data: str | None = None) -> int:
    """Show all that is known of a source.

    Parameters
    ----------
    key: the source, as its worker's file names it.
    """

    async def work(at: At) -> int:
        row = await sources.get_source(at.node.db, at.ctx.tenant, key)
        moment = now()
        facts = {
            "state": sources.state_of(row, moment), "overdue_since": sources.overdue(row, moment),
            "worker": row.worker, "is_paused": row.is_paused, "dead": row.lost,
            "known_at": row.known_at, "told_at": row.told_at,
            **msgspec.structs.asdict(row.told),
        }  # fmt: skip
        for name, value in facts.items():
            if name != "ended":
                print(f"{name:15} {_text(value)}")
        return 0

    return run(Call(tenant, by, "import.run", data, None), work)


def look(key: str, *, tenant: str | None = None, by: As = None, data: str | None = None) -> int:
    """Have a source looked at now.

    Parameters
    ----------
    key: the source.
    """

    async def work(at: At) -> int:
        await sources.ask_look(at.node.db, at.ctx, key)
        return _said(f"{key} is looked at as soon as its worker hears of it.")

    return run(Call(tenant, by, "import.run", data, None), work)


def pause(key: str, *, tenant: str | None = None, by: As = None, data: str | None = None) -> int:
    """Keep a source still until it is resumed.

    Parameters
    ----------
    key: the source.
    """

    async def work(at: At) -> int:
        await sources.pause(at.node.db, at.ctx, key)
        return _said(f"{key} is paused.")

    return run(Call(tenant, by, "import.approve", data, None), work)


def resume(key: str, *, tenant: str | None = None, by: As = None, data: str | None = None) -> int:
    """Let a source go on that was paused, or that permanent trouble has stopped.

    Parameters
    ----------
    key: the source.
    """

    async def work(at: At) -> int:
        await sources.resume(at.node.db, at.ctx, key)
        return _said(f"{key} goes on.")

    return run(Call(tenant, by, "import.approve", data, None), work)


def forget(key: str, *, tenant: str | None = None, by: As = None, data: str | None = None) -> int:
    """Take a source off the list that no worker has any more.

    Parameters
    ----------
    key: the source.
    """

    async def work(at: At) -> int:
        await sources.forget(at.node.db, at.ctx, key)
        return _said(f"{key} is forgotten.")

    return run(Call(tenant, by, "import.approve", data, None), work)


def dead(
    *,
    source: str = "",
    limit: int = 50,
    tenant: str | None = None,
    by: As = None,
    data: str | None = None,
) -> int:
    """List files that failed for good; the first column is what `replay` and `dismiss` take.

    Parameters
    ----------
    source: of this source alone.
    limit: the newest so many.
    """

    async def work(at: At) -> int:
        table = Table("Letter", "Source", "File", "Stage", "Why", "Since", "Tries")
        most = min(max(1, limit), letters.LIST_MAX)
        for one in await letters.list_letters(at.node.db, at.ctx, source=source, limit=most):
            tries = f"{one.tries}, asked again" if one.is_asked else str(one.tries)
            table.add_row(
                str(one.id), one.source_key or one.source, one.name, one.stage,
                one.detail if one.run else f"{one.code}: {one.detail}", _at(one.failed_at), tries,
            )  # fmt: skip
        Console().print(table)
        return 0

    return run(Call(tenant, by, "import.run", data, None), work)


def replay(
    letter: str,
    *,
    mapping: str | None = None,
    tenant: str | None = None,
    by: As = None,
    data: str | None = None,
) -> int:
    """Fetch or read a file again that failed.

    Parameters
    ----------
    letter: its id, as `dead` prints it.
    mapping: read it by the kept mapping of this name.
    """

    async def work(at: At) -> int:
        db, ctx, ident = at.node.db, at.ctx, read_id(letter, "a dead letter")
        key = await letters.find_lost(db, ctx, ident)
        if key is not None:
            await letters.ask_again(db, ctx, ident, key)
            return _said(f"The worker of {key} fetches it again.")
        return await _read_again(db, ctx, await letters.find_failed(db, ctx, ident), mapping)

    return run(Call(tenant, by, "import.run", data, None), work)


def dismiss(
    letter: str,
    *,
    note: str = "",
    tenant: str | None = None,
    by: As = None,
    data: str | None = None,
) -> int:
    """Put a file aside that failed; its worker moves it to `failed` where it may.

    Parameters
    ----------
    letter: its id, as `dead` prints it.
    note: why.
    """

    async def work(at: At) -> int:
        db, ctx, ident = at.node.db, at.ctx, read_id(letter, "a dead letter")
        key = await letters.find_lost(db, ctx, ident)
        if key is not None:
            await letters.dismiss_lost(db, ctx, ident, key, note=note[:300])
        else:
            run_ = await letters.find_failed(db, ctx, ident)
            await letters.dismiss_run(db, ctx, run_, note[:300])
        return _said("It is put aside.")

    return run(Call(tenant, by, "import.run", data, None), work)


async def _read_again(db: Database, ctx: Ctx, failed: runs.IntakeRun, mapping: str | None) -> int:
    named = None
    if mapping is not None:
        named = (await mappings.get_named(db, ctx.tenant, failed.connector, mapping)).mapping
    refusal = None
    if failed.blob is not None:
        file = await find_file(db, ctx.tenant, failed.blob)
        if file is None or file.state is not FileState.RELEASED:
            refusal = why_not(file) if file is not None else "The file is not here any more."
    if not await letters.begin_anew(db, ctx, failed, refusal=refusal, mapping=named):
        return _said(f"The worker of {failed.source_key} fetches it again.")
    payload: dict[str, str] = {"run": str(failed.id)}
    job = await enqueue(db, ctx.tenant, "intake.prepare", {**payload}, by=ctx.actor)
    async with db.transaction(ctx.tenant) as tx:
        await tx.run(runs.set_call(ctx.tenant, failed.id, "job_id", job), commit=True)
    return _said(f"Run {failed.id} is read again.")


def _said(text: str) -> int:
    print(text)
    return 0


def _at(moment: datetime | None) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%SZ") if moment is not None else "-"


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return _at(value)
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
