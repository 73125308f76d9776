"""What configuration records must fulfil beyond their fields: the checks of the `sys.*` kinds.

They run in stage 2 for every door but sync, whose entries were checked where they were made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from zoneinfo import ZoneInfo, available_timezones

import msgspec

from appliance.base import limits
from appliance.fields import TYPES
from appliance.kernel.context import Ctx, Door
from appliance.kernel.kind import Json, Kind
from appliance.kernel.ledger import REVERSES, Ledger
from appliance.kernel.number import is_pattern
from appliance.kernel.profile import ACTIONS, Mode, ScopeKind
from appliance.meta import SYSTEM_KINDS, build_field
from appliance.write.command import Op
from appliance.write.draft import Draft

NAME = re.compile(r"[a-z][a-z0-9_]{0,39}\Z")
RESERVED = frozenset(
    "id number version unit owner created_at created_by updated_at updated_by deleted fields "
    "display kind and or not any none from where select sort group limit".split()
)
_ZONES = frozenset(available_timezones())


def check_system(ctx: Ctx, drafts: Sequence[Draft]) -> None:
    """Add faults to drafts of configuration records."""
    if ctx.door is Door.SYNC:
        return
    for draft in drafts:
        check = _CHECKS.get(draft.command.kind)
        if check is not None and draft.kind is not None and not draft.faults:
            check(ctx, draft, drafts)


def merged(draft: Draft) -> dict[str, Json]:
    """The record's values as they will be."""
    before = draft.before.data if draft.before else {}
    return {k: v for k, v in {**before, **draft.values}.items() if v is not None}


def _check_kind(ctx: Ctx, draft: Draft, drafts: Sequence[Draft]) -> None:
    values = merged(draft)
    key = values.get("key")
    if draft.command.op is Op.CREATE:
        if not (isinstance(key, str) and NAME.match(key)):
            draft.fault(
                "/fields/key", "name_malformed",
                "A kind's key is up to 40 of a-z, 0-9 and _, and starts with a letter.",
            )  # fmt: skip
        elif key in SYSTEM_KINDS or key in ctx.schema.kinds:
            draft.fault("/fields/key", "taken", f"There is a kind {key} already.")
        if len(ctx.schema.kinds) >= limits.KINDS_PER_TENANT_MAX:
            draft.fault("/fields/key", "too_many", "This tenant has reached its limit of kinds.")
        draft.values.setdefault("home", "unit")
    elif "key" in draft.values:
        draft.fault("/fields/key", "fixed", "A kind's key never changes; change its labels.")
    if draft.command.op is Op.UPDATE:
        for fixed, what in (("home", "Where a kind's records live"), ("ledger", "A ledger's make")):
            if fixed in draft.values:
                draft.fault(f"/fields/{fixed}", "fixed", f"{what} never changes.")
    _check_ledger(draft, values.get("ledger"))
    series = values.get("series")
    if isinstance(series, str) and not is_pattern(series):
        draft.fault(
            "/fields/series", "series_malformed", "Use text with {n:6}, {node}, {yyyy}, {mm}."
        )


def _check_ledger(draft: Draft, declared: Json) -> None:
    if declared is None:
        return
    try:
        msgspec.convert(declared, Ledger)
    except msgspec.ValidationError as error:
        draft.fault(
            "/fields/ledger", "ledger_malformed", f"A ledger is {{sort, at, key, values}}: {error}."
        )


def _check_field(ctx: Ctx, draft: Draft, drafts: Sequence[Draft]) -> None:
    values = merged(draft)
    kind_key, name = str(values.get("kind")), str(values.get("name"))
    if draft.command.op is Op.DELETE:
        ledger = found.ledger if (found := ctx.schema.kinds.get(kind_key)) else None
        if ledger is not None and name in (ledger.at, *ledger.key, *ledger.values):
            draft.fault("/id", "ledger_field", "A ledger adds up by this field.", status=409)
        return
    if draft.command.op is Op.UPDATE:
        for fixed in ("kind", "name", "type", "fid"):
            if fixed in draft.values:
                draft.fault(f"/fields/{fixed}", "fixed", f"A field's {fixed} never changes.")
    if not NAME.match(name) or name in RESERVED:
        draft.fault(
            "/fields/name", "name_malformed",
            "A field's name is up to 40 of a-z, 0-9 and _, starts with a letter, no reserved word.",
        )  # fmt: skip
    born = {str(d.values.get("key")) for d in drafts if d.command.kind == "sys.kind"}
    known = ctx.schema.kinds.get(kind_key)
    if kind_key in SYSTEM_KINDS or (known is None and kind_key not in born):
        draft.fault("/fields/kind", "kind_unknown", "There is no such kind to add a field to.")
        return
    if draft.command.op is Op.CREATE:
        twins = [f for f in known.fields if f.name == name] if known else []
        twins_here = [
            d for d in drafts
            if d is not draft and d.command.kind == "sys.field" and d.place < draft.place
            and d.values.get("kind") == kind_key and d.values.get("name") == name
        ]  # fmt: skip
        if twins or twins_here:
            draft.fault("/fields/name", "taken", f"The kind has a field {name} already.")
        if known and len(known.fields) >= limits.FIELDS_PER_KIND_MAX:
            draft.fault("/fields/kind", "too_many", "This kind has reached its limit of fields.")
    _check_ledger_field(draft, values, known, drafts)
    _check_definition(draft, values)


def _check_ledger_field(
    draft: Draft, values: dict[str, Json], kind: Kind | None, drafts: Sequence[Draft]
) -> None:
    """What a ledger adds up by has a place in the index, and nothing in it is searched for."""
    ledger = kind.ledger if kind else None
    for other in drafts:
        declared = other.values.get("ledger") if other.command.kind == "sys.kind" else None
        if declared is not None and other.values.get("key") == values.get("kind"):
            ledger = msgspec.convert(declared, Ledger) if not other.faults else None
    if ledger is None:
        return
    name = str(values.get("name"))
    if name == REVERSES:
        draft.fault("/fields/name", "taken", f"Every ledger has a field {REVERSES} of its own.")
    if values.get("searchable") is True or values.get("unique") is True:
        draft.fault(
            "/fields/name", "not_possible", "A ledger's fields are neither searched nor unique."
        )
    if name in (*ledger.key, *ledger.values):
        draft.values["filterable"] = True


def _check_definition(draft: Draft, values: dict[str, Json]) -> None:
    if str(values.get("type")) not in TYPES:
        known = ", ".join(sorted(TYPES))
        draft.fault("/fields/type", "type_unknown", f"There is no such field type; known: {known}.")
        return
    field = build_field(values)
    assert field is not None, "the type is known"
    for bad in TYPES[field.type].check_definition(field):
        draft.fault(f"/fields{bad.pointer}", bad.code, bad.detail)


def _check_unit(ctx: Ctx, draft: Draft, drafts: Sequence[Draft]) -> None:
    values = merged(draft)
    if str(values.get("tz", "UTC")) not in _ZONES:
        draft.fault("/fields/tz", "zone_unknown", "Use an IANA zone name such as Europe/Kyiv.")
    else:
        ZoneInfo(str(values.get("tz", "UTC")))
    parent, steps = values.get("parent"), 0
    while isinstance(parent, str) and steps <= len(ctx.unit_tree):
        if parent == str(draft.id):
            draft.fault("/fields/parent", "cycle", "A unit cannot be below itself.")
            return
        node = next((n for n in ctx.unit_tree.values() if str(n.id) == parent), None)
        parent = str(node.parent) if node and node.parent else None
        steps += 1


def _check_grant(ctx: Ctx, draft: Draft, drafts: Sequence[Draft]) -> None:
    values = merged(draft)
    actions, fields = values.get("actions"), values.get("fields")
    if isinstance(actions, dict):
        for action, scope in actions.items():
            named = isinstance(scope, str) and scope in ScopeKind.__members__.values()
            ruled = isinstance(scope, dict) and scope.keys() == {"where"}
            if action not in ACTIONS or not (named or ruled):
                draft.fault(
                    f"/fields/actions/{action[:40]}", "scope_unknown",
                    f"Use one of {', '.join(ACTIONS)} with none, own, unit, subtree, all or a "
                    "where rule.",
                )  # fmt: skip
    elif actions is not None:
        draft.fault("/fields/actions", "wrong_type", "Expected an object of action and scope.")
    if isinstance(fields, dict):
        for fid, mode in fields.items():
            if Mode.parse(mode) is None:
                draft.fault(
                    f"/fields/fields/{fid[:40]}", "mode_unknown",
                    "Use hidden, masked, read or write.",
                )  # fmt: skip
    elif fields is not None:
        draft.fault("/fields/fields", "wrong_type", "Expected an object of field and mode.")


def _check_file(ctx: Ctx, draft: Draft, drafts: Sequence[Draft]) -> None:
    """What a file is comes from the content plane: no hand, no undo and no import changes it."""
    if ctx.door is not Door.SYSTEM and draft.command.op is not Op.DELETE:
        draft.fault("/kind", "action_denied", "Files change by /api/v1/files only.", status=403)


def _check_webhook(ctx: Ctx, draft: Draft, drafts: Sequence[Draft]) -> None:
    """Where data goes to, and under whose rights, is proved by the API of webhooks alone."""
    if ctx.door is not Door.SYSTEM:
        draft.fault(
            "/kind", "action_denied", "Webhooks change by /api/v1/webhooks only.", status=403
        )


_CHECKS: dict[str, Callable[[Ctx, Draft, Sequence[Draft]], None]] = {
    "sys.kind": _check_kind,
    "sys.field": _check_field,
    "sys.unit": _check_unit,
    "sys.grant": _check_grant,
    "sys.file": _check_file,
    "sys.webhook": _check_webhook,
}
