"""`nexus template …` and `nexus module …`: what a tenant is made of, from the terminal.

Exit codes: 0 done (or nothing to do), 1 refused, 5 a dry run or upgrade that has conflicts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import UUID

from appliance import install as rooms
from appliance.base.errors import Invalid, Refused
from appliance.cli.node import Opened, opened, read_settings
from appliance.db.wire import Statement
from appliance.kernel.context import Ctx

CONFLICTS = 5
_FIRST_PERSON = Statement(
    "SELECT id::text FROM record WHERE tenant_id = $1 AND kind = 'sys.person' "
    "AND deleted_at IS NULL ORDER BY id LIMIT 1"
)
Work = Callable[[Opened, Ctx], Awaitable[int]]


def list_() -> None:
    """The templates this program ships."""
    for name in rooms.template_names():
        one = rooms.read(name)
        print(f"{name:20} {one.version:6} {one.labels.get('en', '')}")


def preview(template: str, *, tenant: str | None = None, data: str | None = None) -> int:
    """What a template brings, and with --tenant what it would do there.

    Parameters
    ----------
    template: a shipped template's name, or a file.
    tenant: the tenant's short name.
    """
    chosen = _read(template)
    if tenant is None:
        _show_preview(asyncio.run(rooms.preview(chosen)))
        return 0

    async def work(node: Opened, ctx: Ctx) -> int:
        found = await rooms.preview(chosen, node.db, ctx)
        _show_preview(found)
        return _show(found.would) if found.would else 0

    return _run(tenant, data, work)


def install(
    template: str, *, tenant: str, dry_run: bool = False, samples: bool = True,
    take: tuple[str, ...] = (), take_all: bool = False, data: str | None = None,
) -> int:  # fmt: skip
    """Install a template on a tenant without data, or bring it to the version of the file.

    Parameters
    ----------
    template: a shipped template's name, or a file.
    tenant: the tenant's short name.
    dry_run: say what would happen, write nothing.
    samples: bring records to look at, which can be removed again.
    take: a place of a conflict where the template's side is taken.
    take_all: take the template's side everywhere.
    """
    chosen = _read(template)
    asked = _options(dry_run=dry_run, samples=samples, take=take, take_all=take_all)

    async def work(node: Opened, ctx: Ctx) -> int:
        return _show(await rooms.install(node.db, ctx, chosen, asked))

    return _run(tenant, data, work)


def upgrade(
    template: str | None = None, *, tenant: str, dry_run: bool = False,
    take: tuple[str, ...] = (), take_all: bool = False, data: str | None = None,
) -> int:  # fmt: skip
    """Bring the installed template to the shipped version, or to that of a file.

    Parameters
    ----------
    template: a file; without it the shipped template of the same name.
    tenant: the tenant's short name.
    dry_run: say what would happen, write nothing.
    take: a place of a conflict where the template's side is taken.
    take_all: take the template's side everywhere.
    """
    asked = _options(dry_run=dry_run, samples=False, take=take, take_all=take_all)

    async def work(node: Opened, ctx: Ctx) -> int:
        base = (await rooms.take_snapshot(node.db, ctx.tenant)).base
        chosen = _read(template or base.name)
        if chosen.name != base.name:
            raise Invalid(f"{tenant} stands on {base.name or 'no template'}, not on {chosen.name}.")
        return _show(await rooms.install(node.db, ctx, chosen, asked))

    return _run(tenant, data, work)


def rollback(*, tenant: str, data: str | None = None) -> int:
    """Undo the last upgrade."""

    async def work(node: Opened, ctx: Ctx) -> int:
        await rooms.roll_back(node.db, ctx)
        base = (await rooms.take_snapshot(node.db, ctx.tenant)).base
        print(f"{tenant} stands on {base.name} {base.version} again.")
        return 0

    return _run(tenant, data, work)


def publish(*, tenant: str, name: str, version: str, to: Path, data: str | None = None) -> int:
    """Write a tenant's configuration as a template file.

    Parameters
    ----------
    tenant: the tenant's short name.
    name: what the template is called.
    version: its version.
    to: the file to write.
    """

    async def work(node: Opened, ctx: Ctx) -> int:
        made = await rooms.publish(node.db, ctx, name, version)
        to.write_text(rooms.write_toml(made), "utf-8")
        print(f"Wrote {name} {version} to {to}.")
        return 0

    return _run(tenant, data, work)


def remove_samples(*, tenant: str, dry_run: bool = False, data: str | None = None) -> int:
    """Delete the samples that nobody has touched, and say which stay."""

    async def work(node: Opened, ctx: Ctx) -> int:
        found = await rooms.remove_samples(node.db, ctx, dry_run=dry_run)
        word = "Would remove" if dry_run else "Removed"
        print(f"{word} {len(found.removed)} samples; {len(found.kept)} stay.")
        for one in found.kept:
            print(f"  {one.kind}/{one.key}: {one.why}")
        return 0

    return _run(tenant, data, work)


def list_modules(*, tenant: str, data: str | None = None) -> int:
    """The modules of a tenant, and those it could have."""

    async def work(node: Opened, ctx: Ctx) -> int:
        for module in await rooms.list_modules(node.db, ctx):
            print(f"{module.key:16} {module.state:10} {module.labels.get('en', '')}")
        return 0

    return _run(tenant, data, work)


def impact(module: str, *, tenant: str, data: str | None = None) -> int:
    """What switching a module would do."""

    async def work(node: Opened, ctx: Ctx) -> int:
        _show_impact(await rooms.find_impact(node.db, ctx, module))
        return 0

    return _run(tenant, data, work)


def enable(module: str, *, tenant: str, data: str | None = None) -> int:
    """Switch a module on with all it requires; a shipped one is installed."""

    async def work(node: Opened, ctx: Ctx) -> int:
        _show_impact(await rooms.enable(node.db, ctx, module, install=ctx))
        return 0

    return _run(tenant, data, work)


def disable(module: str, *, tenant: str, data: str | None = None) -> int:
    """Switch a module off: its kinds vanish, the data stays."""

    async def work(node: Opened, ctx: Ctx) -> int:
        _show_impact(await rooms.disable(node.db, ctx, module))
        return 0

    return _run(tenant, data, work)


def _run(tenant: str, data: str | None, work: Work) -> int:
    async def go() -> int:
        async with opened(read_settings(data)) as node:
            found = node.db.routes.by_slug(tenant).tenant
            (rows,) = await node.db.read(found, (_FIRST_PERSON, (found,)))
            person = rows.first()
            if person is None:
                raise Refused(f"{tenant} has no people yet.", code="person.unknown")
            actor = UUID((person[0] or b"").decode())
            ctx = await rooms.install_context(node.db, found, actor, node.origin)
            return await work(node, ctx)

    return asyncio.run(go())


def _read(template: str) -> rooms.Template:
    """A file when there is one of this name, else a shipped template."""
    path = Path(template)
    if path.suffix == ".toml" or path.is_file():
        try:
            return rooms.parse(path.read_bytes())
        except OSError as bad:
            raise Invalid(f"{path}: cannot be read: {bad.strerror}.") from None
    return rooms.read(template)


def _options(
    *, dry_run: bool, samples: bool, take: tuple[str, ...], take_all: bool
) -> rooms.Options:
    choices: dict[str, rooms.Choice] = dict.fromkeys(take, "take")
    rest: rooms.Choice = "take" if take_all else "keep"
    return rooms.Options(dry_run=dry_run, samples=samples, choices=choices, rest=rest)


def _show(done: rooms.Installation) -> int:
    was = f" (was {done.was})" if done.was else ""
    print(f"{done.template} {done.version}{was}")
    for sort, counts in done.counts.items():
        print(f"  {sort:10} " + ", ".join(f"{n} {op}" for op, n in counts.items()))
    if done.records:
        print(f"  {'record':10} {done.records} create")
    for one in done.conflicts:
        note = " (cannot be taken)" if one.fixed else ""
        print(f"  conflict {one.at}: yours {one.ours!r}, theirs {one.theirs!r}: {one.choice}{note}")
    for left in done.left:
        print(f"  stays    {left}")
    if not done.counts and not done.records:
        print("  nothing to do")
    print(f"  change set {done.change_set}" if done.change_set else "  nothing was written")
    return CONFLICTS if done.conflicts else 0


def _show_preview(found: rooms.Preview) -> None:
    print(f"{found.name} {found.version}: {found.labels.get('en', '')}")
    for sort, count in found.counts.items():
        names = ", ".join(n.key for n in found.items.get(sort, ()))
        print(f"  {sort:10} {count:4}  {names}")
    print(f"  {'record':10} {found.records:4}  and {found.samples} samples")


def _show_impact(found: rooms.Impact) -> None:
    print(f"{found.module} is {found.state}")
    for kind in found.kinds:
        print(f"  {kind.key:20} {kind.records} records")
    for name in ("views", "dashboards", "workflows", "profiles", "blocked_by", "brings"):
        listed = getattr(found, name)
        if listed:
            print(f"  {name.replace('_', ' ')}: {', '.join(listed)}")
    for one in found.references:
        print(f"  {one.kind}.{one.field} points to {one.target}")
