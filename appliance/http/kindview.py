"""A kind as one reader sees it: labels in their language, their field modes, what they may do.

What the profile hides is not there, and nothing that is there names it: options that point to a
hidden kind and layouts that mention a hidden field are cut.
"""

from __future__ import annotations

import msgspec

from appliance.http.ask import Ask
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Field, Json, Kind, Labels, label_of
from appliance.kernel.profile import ACTIONS, Mode, ScopeKind

_POINTING = ("target", "kind")


class FieldView(msgspec.Struct, frozen=True):
    """One field; `mode` is what the reader may do with it."""

    name: str
    type: str
    label: str
    labels: Labels
    help: Labels
    mode: str
    options: dict[str, Json]
    required: bool
    default: Json
    min: str | None
    max: str | None
    pattern: str | None
    sensitivity: str
    filterable: bool
    searchable: bool
    unique: bool
    policy: str
    order: int


class KindView(msgspec.Struct, frozen=True):
    """One kind; `actions` are those the reader has somewhere."""

    key: str
    label: str
    labels: Labels
    home: str
    display: str | None
    system: bool
    actions: list[str]
    fields: list[FieldView]
    layout: Json = None


def view_kind(ctx: Ctx, kind: Kind, layout: Json = None) -> KindView:
    """The reader's view of a kind they see."""
    modes = {f.name: ctx.profile.mode(kind.key, f) for f in kind.fields}
    shown = [f for f in kind.fields if modes[f.name] is not Mode.HIDDEN]
    hidden = frozenset(modes) - {f.name for f in shown}
    return KindView(
        key=kind.key,
        label=label_of(kind.labels, ctx.locale, kind.key),
        labels=kind.labels,
        home=kind.home.value,
        display=kind.display if kind.display not in hidden else None,
        system=kind.system,
        actions=[a for a in ACTIONS if ctx.profile.scope(kind.key, a).kind is not ScopeKind.NONE],
        fields=[_view_field(ctx, f, modes[f.name]) for f in shown],
        layout=_without(layout, hidden),
    )


def tag_of(ask: Ask) -> str:
    """The entity tag of every schema answer: schema and rights at their revisions."""
    ctx = ask.ctx
    return f'"{ctx.schema.rev}.{ctx.profile.rev}.{ctx.profile.id}.{ctx.locale}"'


def _view_field(ctx: Ctx, field: Field, mode: Mode) -> FieldView:
    return FieldView(
        name=field.name, type=field.type, label=label_of(field.labels, ctx.locale, field.name),
        labels=field.labels, help=field.help, mode=mode.name.lower(),
        options=_visible_options(ctx, field), required=field.required,
        default=field.default if mode >= Mode.READ else None,
        min=field.min, max=field.max, pattern=field.pattern, sensitivity=field.sensitivity.value,
        filterable=field.filterable and field.slot_ready, searchable=field.searchable,
        unique=field.unique, policy=field.policy.value, order=field.order,
    )  # fmt: skip


def _visible_options(ctx: Ctx, field: Field) -> dict[str, Json]:
    for option in _POINTING:
        target = field.option(option)
        if isinstance(target, str) and field.type in ("reference", "references", "rollup"):
            kind = ctx.schema.kind(target)
            if kind is None or not ctx.profile.sees(kind):
                return {}
            named = [field.option("via"), field.option("field")]
            seen = {f.name for f in kind.fields if ctx.profile.mode(kind.key, f) >= Mode.READ}
            if any(isinstance(n, str) and n not in seen for n in named):
                return {}
    return field.options


def _without(value: Json, hidden: frozenset[str]) -> Json:
    """A layout without anything that names a hidden field."""
    if not hidden:
        return value
    match value:
        case dict():
            kept = {k: v for k, v in value.items() if k not in hidden and not _is_named(v, hidden)}
            return {k: _without(v, hidden) for k, v in kept.items()}
        case list():
            return [_without(v, hidden) for v in value if not _is_named(v, hidden)]
        case _:
            return None if _is_named(value, hidden) else value


def _is_named(value: Json, hidden: frozenset[str]) -> bool:
    return isinstance(value, str) and value.removeprefix("-").partition(".")[0] in hidden
