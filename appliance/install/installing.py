"""Install a template, bring it to another version, take that back.

Promises: a dry run says all that would happen and writes nothing; an installation is one change
set through the write path, so that taking it back is undoing it; a template's identity is fixed
once there is data; what a tenant changed survives, and what both sides changed is listed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from uuid import UUID

import msgspec

from appliance.audit import audit_calls
from appliance.base.clock import now
from appliance.base.errors import ApplianceError, Clash, FieldFault, Invalid, Refused
from appliance.base.ids import uuid7
from appliance.db.database import Database
from appliance.db.wire import Call, Rows, Statement
from appliance.install import seeds
from appliance.install.bundle import Bundle, Item, build, build_modules, pack
from appliance.install.plan import Choice, Chooser, Conflict, Plan, commands_of, make_plan
from appliance.install.snapshot import Snapshot, take_snapshot
from appliance.install.template import Template, with_required
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json
from appliance.meta import load_schema
from appliance.write import Command, Guard, Op, Rejected, Result, apply, undo
from appliance.write import Conflict as Clashed

_STEPS_KEPT = 20
_IN_NEW_KINDS = Statement(
    "WITH born AS (SELECT k.data->>'key' AS key FROM change c JOIN record k ON k.tenant_id = $1 "
    "AND k.id = c.record_id WHERE c.tenant_id = $1 AND c.change_set = $2 AND c.op = 'new' "
    "AND c.kind = 'sys.kind') SELECT r.kind, count(*) FROM record r WHERE r.tenant_id = $1 "
    "AND r.kind IN (SELECT key FROM born) AND r.deleted_at IS NULL AND NOT EXISTS (SELECT 1 "
    "FROM change c WHERE c.tenant_id = $1 AND c.record_id = r.id AND c.change_set = $2) "
    "GROUP BY r.kind UNION ALL SELECT kind, count(*) FROM entry WHERE tenant_id = $1 "
    "AND kind IN (SELECT key FROM born) GROUP BY kind"
)


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How to install. `choices` by place of a conflict; `rest` for those not named."""

    dry_run: bool = False
    samples: bool = True
    choices: Mapping[str, Choice] = msgspec.field(default_factory=dict)
    rest: Choice = "keep"


class Installation(msgspec.Struct, frozen=True):
    """What was done, or would be. `change_set` is None when nothing was written."""

    template: str
    version: str
    was: str | None
    counts: dict[str, dict[str, int]]
    records: int
    conflicts: list[Conflict]
    left: list[str]
    change_set: UUID | None
    units: dict[str, UUID] = {}


async def install(
    db: Database, ctx: Ctx, template: Template, options: Options | None = None
) -> Installation:
    """Install a template, or bring the installed one to this version. `ctx` is of Door.INSTALL.

    Raises Invalid for a template that cannot be used, Clash for another template than the
    installed one once there is data.
    """
    asked = options or Options()
    snapshot = await take_snapshot(db, ctx.tenant)
    switch = snapshot.installed is not None and snapshot.base.name != template.name
    if switch:
        await _check_switch(db, ctx.tenant, snapshot, template.name)
    theirs = _with_modules(build(template), [] if switch else snapshot.base.modules)
    plan = make_plan(theirs, snapshot, Chooser(asked.choices, asked.rest), switch=switch)
    fresh = snapshot.installed is None or switch
    samples = fresh and asked.samples
    records = _count_records(ctx, template, snapshot, samples=samples)
    same = plan.is_empty and not fresh and snapshot.base.version == template.version
    if asked.dry_run or (same and not records):
        return _answer(plan, snapshot, records)
    return await _carry_out(db, ctx, template, plan, snapshot, samples=samples)


async def _check_switch(db: Database, tenant: UUID, snapshot: Snapshot, name: str) -> None:
    blocking = await seeds.count_data(db, tenant, snapshot)
    if blocking:
        listed = ", ".join(f"{kind} {count}" for kind, count in sorted(blocking.items()))
        raise Clash(
            f"This tenant stands on {snapshot.base.name} and has data in it ({listed} records); "
            f"it cannot become {name}. Templates are switched while a tenant is empty.",
            code="template.locked", blocking=blocking,
            faults=tuple(FieldFault(f"/{k}", "has_records", str(n)) for k, n in blocking.items()),
        )  # fmt: skip


def _with_modules(bundle: Bundle, modules: Sequence[str]) -> Bundle:
    """A bundle with the modules that the tenant has switched on beside its template."""
    have = {i.key for i in bundle.items if i.sort == "module"}
    wanted = [m for m in modules if m not in have]
    if not wanted:
        return bundle
    more = [m for key, m in with_required(wanted).items() if key not in have]
    return msgspec.structs.replace(
        bundle, items=[*bundle.items, *_new_items(bundle, build_modules(more))],
        modules=[m.key for m in more],
    )  # fmt: skip


def _new_items(bundle: Bundle, items: Sequence[Item]) -> list[Item]:
    known = bundle.by_key().keys()
    return [i for i in items if (i.sort, i.key) not in known]


async def add_modules(db: Database, ctx: Ctx, keys: Sequence[str]) -> Installation:
    """Bring shipped modules that the tenant's template does not have."""
    snapshot = await take_snapshot(db, ctx.tenant)
    theirs = _with_modules(snapshot.base, [*snapshot.base.modules, *keys])
    plan = make_plan(theirs, snapshot, Chooser({}))
    nothing = Template(name=snapshot.base.name, version=snapshot.base.version)
    return await _carry_out(db, ctx, nothing, plan, snapshot, samples=False)


async def _carry_out(
    db: Database, ctx: Ctx, template: Template, plan: Plan, snapshot: Snapshot, *, samples: bool
) -> Installation:
    """Two batches, one change set: the second writes records of kinds that the first has made."""
    change_set = uuid7()
    ctx = msgspec.structs.replace(ctx, request_id=change_set)
    units, ids = seeds.unit_commands(template, ctx.unit_tree, samples=samples)
    installed = _installed_command(plan.theirs, snapshot, change_set)
    try:
        commands = [*units, *commands_of(plan, snapshot, ctx.origin), installed]
        await run(db, ctx, commands, event=Event("template.installed", str(change_set)))
        made = await _write_records(db, ctx, template, snapshot, ids, samples=samples)
    except ApplianceError:
        # Whatever was written before the refusal goes again; nothing may have been.
        with contextlib.suppress(Refused):
            await _take_back(db, ctx, change_set)
        raise
    return _answer(plan, snapshot, made, change_set, ids)


async def _write_records(
    db: Database, ctx: Ctx, template: Template, snapshot: Snapshot, ids: dict[str, UUID], *,
    samples: bool,
) -> int:  # fmt: skip
    schema = await load_schema(db, ctx.tenant)
    seeds.check_entries(template, schema)
    root = ctx.unit or next(iter(ids.values()), None)
    later = msgspec.structs.replace(ctx, schema=schema, unit=root)
    # What belongs to a module that is off waits for the next version.
    here = [e for e in template.records if schema.kind(e.kind) is not None]
    template = msgspec.structs.replace(template, records=here)
    commands = seeds.record_commands(template, snapshot, ids, samples=samples)
    await run(db, later, commands)
    return len(commands) // 2


def _installed_command(theirs: Bundle, snapshot: Snapshot, change_set: UUID) -> Command:
    before = snapshot.installed
    steps: list[Json] = [*(before.steps if before else [])]
    step: dict[str, Json] = {
        "change_set": str(change_set), "at": now().isoformat(timespec="seconds"),
        "template": theirs.name, "version": theirs.version,
        "was": f"{snapshot.base.name}@{snapshot.base.version}" if before else None,
    }  # fmt: skip
    values: dict[str, Json] = {
        "name": theirs.name, "version": theirs.version, "labels": dict(theirs.labels),
        "modules": [*theirs.modules] or None, "bundle": pack(theirs),
        "steps": [*steps, step][-_STEPS_KEPT:],
    }  # fmt: skip
    if before is None:
        given: dict[str, Json] = {n: v for n, v in values.items() if v is not None}
        return Command(op=Op.CREATE, kind="sys.template", fields=given)
    return Command(
        op=Op.UPDATE, kind="sys.template", id=before.id, fields=values, expect=before.stamps
    )


async def roll_back(db: Database, ctx: Ctx) -> UUID:
    """Undo the last installation, upgrade or added module. Raises Clash when that is not possible.

    Not possible: after the first installation, when something it brought was changed since, or
    when kinds that it brought have records.
    """
    snapshot = await take_snapshot(db, ctx.tenant)
    steps = snapshot.installed.steps if snapshot.installed else []
    if not steps or steps[-1].get("was") is None:
        raise Clash("There is no upgrade to take back.", code="template.nothing_to_roll_back")
    change_set = UUID(str(steps[-1].get("change_set")))
    (rows,) = await db.read(ctx.tenant, (_IN_NEW_KINDS, (ctx.tenant, change_set)))
    blocking = {(kind or b"").decode(): int(count or 0) for kind, count in rows}
    if blocking:
        listed = ", ".join(f"{kind} {count}" for kind, count in sorted(blocking.items()))
        raise Clash(
            f"Kinds that came with it have records by now ({listed}); they would vanish.",
            code="template.has_records", blocking=blocking,
        )  # fmt: skip
    return await _take_back(db, ctx, change_set)


async def _take_back(db: Database, ctx: Ctx, change_set: UUID) -> UUID:
    schema = await load_schema(db, ctx.tenant)
    step = msgspec.structs.replace(ctx, schema=schema, request_id=uuid7())
    result = await undo(db, step, change_set)
    if result.committed:
        event = Event("template.taken_back", str(change_set))
        async with db.transaction(ctx.tenant) as tx:
            await tx.run(*event.calls_of(step), commit=True)
        return result.change_set
    faults = []
    for outcome in result.outcomes:
        match outcome:
            case Clashed(id=ident, fields=fields):
                faults += [FieldFault(f"/{ident}/{f.field}", "changed_since", "Changed since.")
                           for f in fields]  # fmt: skip
            case Rejected(id=ident, faults=found):
                faults += [FieldFault(f"/{ident}{f.pointer}", f.code, f.detail) for f in found]
    raise Clash(
        f"This cannot be taken back: {len(faults)} places were changed since.",
        code="template.changed_since", faults=tuple(faults),
    )  # fmt: skip


async def remove_samples(db: Database, ctx: Ctx, *, dry_run: bool = False) -> seeds.Removal:
    """Delete the samples that nobody has touched; the answer lists those that stay, and why."""
    snapshot = await take_snapshot(db, ctx.tenant)
    found = await seeds.find_removal(db, ctx, snapshot.seeds)
    if not dry_run:
        await run(db, ctx, found.commands)
    return found


class Event(msgspec.Struct, frozen=True):
    """What the audit says of a batch; `subject` is an id or a key, never typed by people."""

    action: str
    subject: str

    def calls_of(self, ctx: Ctx, *, commands: int = 0) -> list[Call]:
        """The statements that record it."""
        return audit_calls(
            ctx.tenant, self.action, actor=ctx.actor, subject=self.subject,
            request_id=ctx.request_id, details={"commands": commands},
        )  # fmt: skip


class _Audited(msgspec.Struct, frozen=True):
    """Writes the event in the transaction of the batch."""

    ctx: Ctx
    event: Event

    def calls(self, result: Result) -> list[Call]:
        return self.event.calls_of(self.ctx, commands=len(result.outcomes))

    def take(self, answers: Sequence[Rows]) -> None:
        """An event answers nothing."""


async def run(
    db: Database, ctx: Ctx, commands: Sequence[Command], *, guard: Guard | None = None,
    event: Event | None = None,
) -> Result | None:  # fmt: skip
    """One batch of an installation. Raises Invalid naming the records that were refused."""
    if not commands:
        return None
    echo = _Audited(ctx, event) if event else None
    result = await apply(db, ctx, commands, guard=guard, echo=echo)
    if result.committed:
        return result
    faults: list[FieldFault] = []
    for command, outcome in zip(commands, result.outcomes, strict=True):
        what = command.fields.get("key") or command.fields.get("name") or ""
        if command.kind == "sys.field":
            what = f"{command.fields.get('kind')}.{what}"
        if isinstance(outcome, Rejected):
            place = f"/{command.kind}/{what}"
            faults += [FieldFault(place + f.pointer, f.code, f.detail) for f in outcome.faults]
    if not faults:
        raise Clash("Somebody changed the configuration meanwhile; try again.")
    listed = "; ".join(f"{f.pointer}: {f.detail}" for f in faults[:5])
    raise Invalid(
        f"The template does not install: {listed}", code="template.invalid", faults=tuple(faults)
    )


def _count_records(ctx: Ctx, template: Template, snapshot: Snapshot, *, samples: bool) -> int:
    """How many records would be brought now: not those of kinds that are off."""
    known = {s.key for s in snapshot.seeds}
    wanted = [*template.records, *(template.samples if samples else [])]
    off = {key for key, kind in ctx.schema.kinds.items() if not kind.enabled}
    return sum(1 for e in wanted if e.key not in known and (samples or e.kind not in off))


def _answer(
    plan: Plan, snapshot: Snapshot, records: int, change_set: UUID | None = None,
    units: dict[str, UUID] | None = None,
) -> Installation:  # fmt: skip
    was = f"{snapshot.base.name}@{snapshot.base.version}" if snapshot.installed else None
    return Installation(
        plan.theirs.name, plan.theirs.version, was, plan.counts(), records, plan.conflicts,
        plan.left, change_set, units or {},
    )  # fmt: skip
