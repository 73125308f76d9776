"""Modules of one tenant: what there is, what switching one off would hide, switching.

Off: its kinds are gone from schema, menu, queries and API; the data stays, and on brings all of
it back. It is a change of records like any other, so no process is reloaded and no neighbour
notices. A shipped module that the template does not bring is installed when it is switched on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

import msgspec

from appliance.base.errors import Clash, FieldFault, Refused
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.install import template as files
from appliance.install.bundle import label_of
from appliance.install.installing import Event, add_modules, run
from appliance.install.snapshot import Held, Snapshot, take_snapshot
from appliance.kernel.context import Ctx, Door
from appliance.kernel.kind import Json, Labels
from appliance.kernel.profile import ScopeKind
from appliance.write import Command, Guard, Op

ON, OFF, AVAILABLE = "on", "off", "available"
_COUNTS = Statement(
    "SELECT kind, count(*) FROM record WHERE tenant_id = $1 AND kind = ANY($2::text[]) "
    "AND deleted_at IS NULL GROUP BY kind UNION ALL "
    "SELECT kind, count(*) FROM entry WHERE tenant_id = $1 AND kind = ANY($2::text[]) GROUP BY kind"
)
_STATES = Statement(
    "SELECT kind, data->>'key', coalesce(data->>'enabled', 'true') = 'true', data->'stay_off' "
    "FROM record WHERE tenant_id = $1 AND kind IN ('sys.module', 'sys.kind') "
    "AND deleted_at IS NULL"
)


class ModuleView(msgspec.Struct, frozen=True):
    """One module. `state` is on, off, or available: shipped, and not brought by the template."""

    key: str
    version: str
    labels: Labels
    help: Labels
    icon: str
    order: int
    requires: list[str]
    state: str
    kinds: list[str]


class KindImpact(msgspec.Struct, frozen=True):
    """A kind that would vanish or come, and how many records it has; None where the reader may not
    read them all.
    """

    key: str
    labels: Labels
    records: int | None


class Reference(msgspec.Struct, frozen=True):
    """A field of a kind outside of the module that points into it."""

    kind: str
    field: str
    target: str


class Impact(msgspec.Struct, frozen=True):
    """What switching a module would do. `blocked_by`: modules to be switched off first;
    `brings`: modules that are switched on with it.
    """

    module: str
    state: str
    kinds: list[KindImpact]
    views: list[str]
    dashboards: list[str]
    workflows: list[str]
    profiles: list[str]
    references: list[Reference]
    blocked_by: list[str]
    brings: list[str]


class _State(msgspec.Struct, frozen=True):
    """The snapshot, which modules and kinds are on, and kinds that were off before their module."""

    snapshot: Snapshot
    modules: dict[str, bool]
    kinds: dict[str, bool]
    stay_off: dict[str, set[str]]


async def list_modules(db: Database, ctx: Ctx) -> list[ModuleView]:
    """The tenant's modules and the shipped ones that it could have, in menu order.

    Who does not manage the schema sees what is on and theirs to read.
    """
    tenant = ctx.tenant
    found = await _all_modules(db, tenant)
    if ctx.door is Door.INSTALL or ctx.profile.may("schema.manage"):
        return found
    seen = [
        msgspec.structs.replace(
            m, kinds=[k for k in m.kinds if (kind := ctx.schema.kind(k)) and ctx.profile.sees(kind)]
        )
        for m in found
        if m.state == ON
    ]
    return [m for m in seen if m.kinds]


async def _all_modules(db: Database, tenant: UUID) -> list[ModuleView]:
    state = await _load(db, tenant)
    found = [_view(state, h) for h in state.snapshot.live("module")]
    known = {m.key for m in found}
    for key in files.module_names():
        if key not in known:
            shipped = files.read_module(key)
            found.append(
                ModuleView(
                    key, shipped.version, shipped.labels, shipped.help, shipped.icon,
                    shipped.order, shipped.requires, AVAILABLE, [k.key for k in shipped.kinds],
                )
            )  # fmt: skip
    return sorted(found, key=lambda m: (m.order, m.key))


async def find_impact(db: Database, ctx: Ctx, key: str) -> Impact:
    """What switching a module off (or on, when it is off) would do. Raises Refused."""
    tenant = ctx.tenant
    state = await _load(db, tenant)
    if key not in state.modules:
        return _impact_of_available(state, key)
    kinds = _kinds_of(state, key)
    (rows,) = await db.read(tenant, (_COUNTS, (tenant, kinds)))
    counts = {(k or b"").decode(): int(n or 0) for k, n in rows}
    held = state.snapshot.held
    inside = set(kinds)
    on = state.modules[key]
    return Impact(
        module=key,
        state=ON if on else OFF,
        kinds=[KindImpact(k, label_of(held[("kind", k)].item), _shown(ctx, k, counts)) for k in kinds],
        views=_named(state, "view", "kind", inside),
        dashboards=[
            h.item.key for h in state.snapshot.live("dashboard") if h.item.values.get("module") == key
        ],
        workflows=_named(state, "workflow", "kind", inside),
        profiles=sorted(
            {str(h.item.values["profile"]) for h in state.snapshot.live("grant")
             if h.item.values["kind"] in inside}
        ),
        references=_references(state, inside),
        blocked_by=_dependents(state, key) if on else [],
        brings=[] if on else [k for k in _needed(state, [key]) if k != key],
    )  # fmt: skip


def _shown(ctx: Ctx, kind: str, counts: dict[str, int]) -> int | None:
    """A count, for who may read every record of the kind anyway."""
    reads_all = ctx.profile.scope(kind, "read").kind is ScopeKind.ALL
    return counts.get(kind, 0) if reads_all or ctx.door is Door.INSTALL else None


def _impact_of_available(state: _State, key: str) -> Impact:
    if key not in files.module_names():
        raise Refused(f"There is no module {key[:60]!r}.", code="module.unknown")
    shipped = files.read_module(key)
    return Impact(
        key, AVAILABLE, [KindImpact(k.key, k.labels, 0) for k in shipped.kinds],
        [str(v["key"]) for v in shipped.views], [str(d["key"]) for d in shipped.dashboards],
        [str(w["key"]) for w in shipped.workflows], [], [], [],
        [k for k in _needed(state, [key]) if k != key],
    )  # fmt: skip


async def disable(db: Database, ctx: Ctx, key: str, *, guard: Guard | None = None) -> Impact:
    """Switch a module off. Raises Refused for one that is not there, Clash when others need it."""
    impact = await find_impact(db, ctx, key)
    if impact.state == AVAILABLE:
        raise Refused(f"The module {key} is not installed here.", code="module.unknown")
    if impact.blocked_by:
        listed = ", ".join(impact.blocked_by)
        raise Clash(
            f"{listed} need{'s' if len(impact.blocked_by) == 1 else ''} the module {key}; switch "
            "off first what needs it.",
            code="module.needed",
            faults=tuple(FieldFault(f"/{m}", "requires", key) for m in impact.blocked_by),
        )
    if impact.state == ON:
        state = await _load(db, ctx.tenant)
        going = [k for k in _kinds_of(state, key) if state.kinds[k]]
        stay_off: list[Json] = [k for k in _kinds_of(state, key) if not state.kinds[k]]
        commands = [
            _switch(state, "module", key, on=False, stay_off=stay_off),
            *(_switch(state, "kind", k, on=False) for k in going),
        ]
        await run(db, ctx, commands, guard=guard, event=Event("module.disabled", key))
    return await find_impact(db, ctx, key)


async def enable(
    db: Database, ctx: Ctx, key: str, *, install: Ctx, guard: Guard | None = None
) -> Impact:
    """Switch a module on, and all it requires. `install` is the context that new kinds are
    written in, through the door of installation. Raises Refused for an unknown module.
    """
    state = await _load(db, ctx.tenant)
    if key not in state.modules and key not in files.module_names():
        raise Refused(f"There is no module {key[:60]!r}.", code="module.unknown")
    needed = _needed(state, [key])
    commands: list[Command] = []
    for module in needed:
        if state.modules.get(module) is False:
            coming = set(_kinds_of(state, module)) - state.stay_off[module]
            commands.append(_switch(state, "module", module, on=True))
            commands += [
                _switch(state, "kind", k, on=True) for k in sorted(coming) if not state.kinds[k]
            ]
    await run(db, ctx, commands, guard=guard, event=Event("module.enabled", key))
    missing = [m for m in needed if m not in state.modules]
    if missing:
        await add_modules(db, install, missing)
    return await find_impact(db, ctx, key)


def _switch(
    state: _State, sort: str, key: str, *, on: bool, stay_off: list[Json] | None = None
) -> Command:
    held = state.snapshot.held[(sort, key)]
    fields: dict[str, Json] = {"enabled": on}
    if sort == "module":
        fields["stay_off"] = stay_off
    return Command(op=Op.UPDATE, kind=f"sys.{sort}", id=held.id, fields=fields, expect=held.version)


async def _load(db: Database, tenant: UUID) -> _State:
    snapshot = await take_snapshot(db, tenant)
    (rows,) = await db.read(tenant, (_STATES, (tenant,)))
    found = _State(snapshot, {}, {}, {})
    for kind, raw, enabled, stay_off in rows:
        key = (raw or b"").decode()
        if kind == b"sys.module":
            found.modules[key] = enabled == b"t"
            named = msgspec.json.decode(stay_off) if stay_off else None
            found.stay_off[key] = {str(k) for k in named} if isinstance(named, list) else set()
        else:
            found.kinds[key] = enabled == b"t"
    return found


def _view(state: _State, held: Held) -> ModuleView:
    values, key = held.item.values, held.item.key
    order = values.get("order")
    return ModuleView(
        key, str(values.get("version") or ""), label_of(held.item), _texts(values.get("help")),
        str(values.get("icon") or ""), order if isinstance(order, int) else 0, _requires(held),
        ON if state.modules[key] else OFF, _kinds_of(state, key),
    )  # fmt: skip


def _texts(value: Json) -> Labels:
    return {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else {}


def _requires(held: Held) -> list[str]:
    named = held.item.values.get("requires")
    return [str(m) for m in named] if isinstance(named, list) else []


def _kinds_of(state: _State, key: str) -> list[str]:
    """Kinds of a module that exist, those a tenant put into it included."""
    kinds = state.snapshot.live("kind")
    return [h.item.key for h in kinds if h.item.values.get("module") == key]


def _named(state: _State, sort: str, by: str, kinds: set[str]) -> list[str]:
    return [h.item.key for h in state.snapshot.live(sort) if h.item.values.get(by) in kinds]


def _dependents(state: _State, key: str) -> list[str]:
    """Modules that are on and require this one."""
    return sorted(
        h.item.key
        for h in state.snapshot.live("module")
        if state.modules[h.item.key] and key in _requires(h)
    )


def _needed(state: _State, keys: Sequence[str]) -> list[str]:
    """The modules themselves and all they require that is not on."""
    found: list[str] = []
    waiting = list(keys)
    while waiting:
        key = waiting.pop()
        if key in found or state.modules.get(key) is True:
            continue
        found.append(key)
        held = state.snapshot.held.get(("module", key))
        live = held is not None and held.live
        waiting += _requires(held) if held and live else files.read_module(key).requires
    return found


def _references(state: _State, inside: set[str]) -> list[Reference]:
    """Fields of other kinds that are on and point into the module."""
    found = []
    for held in state.snapshot.live("field"):
        values = held.item.values
        options, kind = values.get("options"), str(values["kind"])
        named: Iterable[Json] = (
            (options.get("target"), options.get("kind")) if isinstance(options, dict) else ()
        )
        for target in named:
            if target in inside and kind not in inside and state.kinds.get(kind):
                found.append(Reference(kind, str(values["name"]), str(target)))
    return found
