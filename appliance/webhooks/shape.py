"""What a webhook is: addresses, watches and what of them can be wrong, all faults at once."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Sequence
from datetime import datetime
from urllib.parse import urlsplit
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from appliance.base.errors import FieldFault, Invalid
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json
from appliance.kernel.query import Query, decode_condition
from appliance.read import plan_query, visible_fields
from connectors.sdk.egress import is_own, pick_address
from connectors.sdk.retry import Trouble

KIND = "sys.webhook"
ACTIONS = ("created", "updated", "deleted", "restored", "left")
WEBHOOKS_MAX = 50
WATCHES_MAX = 50
URL_CHARS_MAX = 2_000
NAME_CHARS_MAX = 200
# What the internet's HTTPS servers listen on; other ports are for hosts that the settings allow.
PORTS = frozenset({443, 8443})


class Watch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One kind and what of it is told: which actions, of which rows (a condition of the query
    language), with which fields (all that the profile sees when none is named).
    """

    kind: str
    actions: list[str] = msgspec.field(default_factory=lambda: [*ACTIONS])
    where: Json = None
    fields: list[str] = []


class NewWebhook(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A webhook to be: `profile` is the key of one that you may lend, over `units` (yours if none)."""

    name: str
    url: str
    watches: list[Watch]
    profile: str
    units: list[UUID] = []


class Changes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What of a webhook becomes otherwise."""

    name: str | UnsetType = UNSET
    url: str | UnsetType = UNSET
    watches: list[Watch] | UnsetType = UNSET
    profile: str | UnsetType = UNSET
    units: list[UUID] | UnsetType = UNSET


class WebhookView(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook as people see it. `lag`: entries of the log not looked at yet; `cursor` is a place
    to replay from; `missed_at`: entries had left the log before they could be told.
    """

    id: UUID
    name: str
    url: str
    watches: list[Watch]
    profile: str
    profile_id: UUID
    units: list[UUID]
    maker: UUID
    state: str
    reason: str
    delivered: int
    failed: int
    waiting: int
    dead: int
    lag: int
    failures: int
    failing_since: datetime | None
    next_try_at: datetime | None
    last_at: datetime | None
    last_ok_at: datetime | None
    missed_at: datetime | None
    former_secret_until: datetime | None
    cursor: str


class Made(msgspec.Struct, frozen=True):
    """The secret is shown this once. `former_until`: until then both secrets sign."""

    id: UUID
    secret: str
    former_until: datetime | None = None


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One event on its way: how often it was tried, and how the last try ended."""

    id: str
    type: str
    record: UUID
    state: str
    attempts: int
    occurred_at: datetime
    last_at: datetime | None
    next_try_at: datetime | None
    status: int | None
    code: str
    duration_ms: int | None


class Replay(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From where events are told once more: exactly one of a moment, a cursor, named events, or all
    dead letters.
    """

    since: datetime | None = None
    cursor: str | None = None
    events: list[str] = []
    dead: bool = False


def read_watches(value: Json) -> list[Watch]:
    """Watches as they are stored; one that cannot be read is left out, so it tells nothing."""
    found = []
    for item in value if isinstance(value, list) else ():
        try:
            found.append(msgspec.convert(item, Watch))
        except msgspec.ValidationError:
            continue
    return found


def check_shape(
    ctx: Ctx, name: str, url: str, watches: Sequence[Watch], allowed: Collection[str]
) -> None:
    """Everything but whose rights it has. `ctx` is that of the subscriber. Raises Invalid."""
    faults = []
    if not 0 < len(name.strip()) <= NAME_CHARS_MAX:
        faults.append(
            _fault("/name", "out_of_range", f"Expected 1 to {NAME_CHARS_MAX} characters.")
        )
    if (wrong := fault_of_url(url, allowed)) is not None:
        faults.append(_fault("/url", "url_refused", wrong))
    if not 0 < len(watches) <= WATCHES_MAX:
        faults.append(_fault("/watches", "out_of_range", f"Expected 1 to {WATCHES_MAX} watches."))
    if len({w.kind for w in watches}) != len(watches):
        faults.append(_fault("/watches", "repeated", "A kind stands in one watch only."))
    for n, watch in enumerate(watches[:WATCHES_MAX]):
        faults += _watch_faults(ctx, watch, f"/watches/{n}")
    if faults:
        raise Invalid("The webhook cannot be made like this.", faults=tuple(faults))


def fault_of_url(url: str, allowed: Collection[str]) -> str | None:
    """What is wrong with an address as it is written; where its name leads is seen at each try."""
    if len(url) > URL_CHARS_MAX or not url.isascii() or any(c <= " " for c in url):
        return f"Expected an https address of at most {URL_CHARS_MAX} plain characters."
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "This is no address; expected one like https://example.com/hook."
    if not host or parts.scheme not in ("https", "http"):
        return "This is no address; expected one like https://example.com/hook."
    if parts.username is not None or parts.password is not None or parts.fragment:
        return "Leave out name, password and fragment: the signature proves who calls."
    if (inside := _leads_inside(host, allowed)) is not None:
        return inside
    is_ours = _is_allowed(host, allowed)
    if parts.scheme == "http" and not is_ours:
        return (
            "Only https leaves the node; http is for networks and hosts that the operator allows "
            "(webhooks.allow)."
        )
    if port is not None and port not in PORTS and not is_ours:
        return "Only ports 443 and 8443, unless the operator allows the host (webhooks.allow)."
    return None


def _leads_inside(host: str, allowed: Collection[str]) -> str | None:
    """What is wrong with an address that is written as a number; names are looked at when used."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return None
    try:
        pick_address(host, 443, [host], allowed)
    except Trouble as trouble:
        return f"{trouble.detail} (webhooks.allow)."
    return None


def _is_allowed(host: str, allowed: Collection[str]) -> bool:
    """Whether a host as written may be one of those allowed; a name may lead into a network."""
    if host in allowed:
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        # Where a name leads is known at the time of sending only, and is checked there.
        return any("/" in a or a[:1].isdigit() for a in allowed)
    return is_own(host, host, allowed)


def _watch_faults(ctx: Ctx, watch: Watch, at: str) -> list[FieldFault]:
    kind = ctx.schema.kind(watch.kind)
    if kind is None or not ctx.profile.sees(kind):
        return [_fault(f"{at}/kind", "kind_unknown", "There is no such kind for this profile.")]
    faults = []
    if not watch.actions or not set(watch.actions) <= set(ACTIONS):
        known = ", ".join(ACTIONS)
        faults.append(_fault(f"{at}/actions", "action_unknown", f"Expected some of {known}."))
    seen = {field.name for field, _ in visible_fields(ctx, kind)}
    for n, name in enumerate(watch.fields):
        if name not in seen:
            detail = "There is no such field for this profile."
            faults.append(_fault(f"{at}/fields/{n}", "unknown_field", detail))
    if watch.where is not None:
        try:
            where = decode_condition(watch.where, f"{at}/where")
            plan_query(ctx, Query(source=kind.key, where=where))
        except Invalid as error:
            faults += error.faults or [_fault(f"{at}/where", error.code, error.detail)]
    return faults


def _fault(pointer: str, code: str, detail: str) -> FieldFault:
    return FieldFault(pointer, code, detail)
