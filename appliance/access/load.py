"""Everything a session's rights are made of, read in one round trip.

A session reaches the units of its person's memberships under its profile that hold today, and what is below them; an API key and a session of platform
staff reach the units they were made with and what is below them, and nothing else.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from appliance.access.compile import Reach, compile_profile
from appliance.base.ids import parse_uuid
from appliance.db.wire import Call, Row, Rows, Statement
from appliance.kernel.context import UnitNode
from appliance.kernel.kind import Json, Kind
from appliance.kernel.period import day_start
from appliance.kernel.profile import Profile

Data = dict[str, Json]
_decode = msgspec.json.Decoder(dict[str, Json]).decode

_SESSION = Statement(
    "SELECT s.id::text, s.person_id::text, s.profile_id::text, s.sort, "
    "array_to_string(s.unit_ids, ','), array_to_string(s.networks, ','), s.staff_grant_id::text, "
    "p.data FROM session s LEFT JOIN record p ON p.tenant_id = s.tenant_id AND p.id = s.person_id "
    "AND p.kind = 'sys.person' AND p.deleted_at IS NULL "
    "WHERE s.tenant_id = $1 AND s.secret_hash = $2"
)
_PROFILE = Statement(
    "SELECT p.id::text, p.data, g.data FROM session s JOIN record p ON p.tenant_id = s.tenant_id "
    "AND p.id = s.profile_id AND p.kind = 'sys.profile' AND p.deleted_at IS NULL "
    "LEFT JOIN record g ON g.tenant_id = s.tenant_id AND g.kind = 'sys.grant' AND g.r1 = p.id "
    "AND g.deleted_at IS NULL WHERE s.tenant_id = $1 AND s.secret_hash = $2 ORDER BY g.id"
)
_MEMBERSHIPS = Statement(
    "SELECT m.data FROM session s JOIN record m ON m.tenant_id = s.tenant_id "
    "AND m.kind = 'sys.membership' AND m.r1 = s.person_id AND m.r2 = s.profile_id "
    "AND m.deleted_at IS NULL WHERE s.tenant_id = $1 AND s.secret_hash = $2 ORDER BY m.id"
)
_UNITS = Statement(
    "SELECT id::text, data FROM record WHERE tenant_id = $1 AND kind = 'sys.unit' "
    "AND deleted_at IS NULL ORDER BY id"
)


class Loaded(msgspec.Struct, frozen=True):
    """Rights of one session. `until` is when a membership begins or ends next."""

    session: UUID
    person: UUID
    sort: str
    profile: Profile
    units: frozenset[UUID]
    subtree: frozenset[UUID]
    unit: UUID | None
    tree: dict[UUID, UnitNode]
    tz: str
    locale: str
    networks: tuple[str, ...]
    staff_grant: UUID | None
    until: datetime | None

    def admits(self, address: str) -> bool:
        """Whether the session may be used from an address; only keys are bound to networks."""
        if not self.networks:
            return True
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
        return any((mapped or found) in ipaddress.ip_network(n) for n in self.networks)


def load_calls(tenant: UUID, secret_hash: bytes) -> list[Call]:
    """The statements whose answers `read_loaded` takes."""
    both = (tenant, secret_hash)
    return [(_SESSION, both), (_PROFILE, both), (_MEMBERSHIPS, both), (_UNITS, (tenant,))]


def read_loaded(
    answers: Sequence[Rows], rights_rev: int, at: datetime, kinds: Mapping[str, Kind] | None = None
) -> Loaded | None:
    """The rights of a session; None when its profile, person or every membership is gone."""
    sessions, profiles, memberships, units = answers
    session, rows = sessions.first(), list(profiles)
    if session is None or not rows or (session[3] != b"staff" and session[7] is None):
        return None
    person = _decode(session[7]) if session[7] else {}
    sort, tree = _text(session[3]), read_tree(units)
    members = [_decode(m or b"{}") for m in memberships.column()]
    top = next(iter(sorted(roots(tree))), None)
    # Memberships begin and end at midnight of the person, else of the head office.
    calendar = first_zone(person.get("tz"), tree[top].tz if top else None)
    today = at.astimezone(ZoneInfo(calendar)).date()
    live = [m for m in members if is_live(m, today)]
    if sort == "login" and not live:
        return None
    own = _own_units(session, live, tree, sort)
    below_own = below(tree, own)
    ident = UUID(_text(session[1]))
    profile = compile_profile(
        _text(rows[0][0]), _decode(rows[0][1] or b"{}"), [_decode(r[2]) for r in rows if r[2]],
        rights_rev, reach=Reach(ident, own, below_own), kinds=kinds,
    )  # fmt: skip
    first = next((u for m in live for u in read_ids(m.get("units")) if u in own), None)
    unit = first or next(iter(sorted(own)), None)
    return Loaded(
        session=UUID(_text(session[0])),
        person=ident,
        sort=sort,
        profile=profile,
        units=own,
        subtree=below_own,
        unit=unit,
        tree=tree,
        tz=first_zone(person.get("tz"), tree[unit].tz if unit else None, calendar),
        locale=str(person.get("locale") or "en"),
        networks=tuple(filter(None, _text(session[5]).split(","))),
        staff_grant=UUID(_text(session[6])) if session[6] else None,
        until=_next_boundary(members, today, calendar) if sort == "login" else None,
    )


def _own_units(
    session: Row, live: list[Data], tree: dict[UUID, UnitNode], sort: str
) -> frozenset[UUID]:
    """A membership that names no unit is one of the whole tenant; a key without units reaches none."""
    if sort != "login":
        return frozenset(_uuids(_text(session[4]).split(",")) & tree.keys())
    found: set[UUID] = set()
    for member in live:
        named = member.get("units")
        found |= set(read_ids(named)) if named else roots(tree)
    return frozenset(found & tree.keys())


def read_tree(units: Rows) -> dict[UUID, UnitNode]:
    """The org tree by id."""
    tree: dict[UUID, UnitNode] = {}
    for ident, raw in units:
        data, key = _decode(raw or b"{}"), UUID(_text(ident))
        tree[key] = UnitNode(
            id=key,
            parent=parse_uuid(data.get("parent")),
            name=str(data.get("name") or ""),
            tz=str(data.get("tz") or "UTC"),
            currency=str(data.get("currency") or ""),
            prefix=str(data.get("prefix") or ""),
        )
    return tree


def below(tree: Mapping[UUID, UnitNode], above: frozenset[UUID]) -> frozenset[UUID]:
    """The units themselves and all below them."""
    return descend(((n.id, n.parent) for n in tree.values()), above & tree.keys())


def descend(parents: Iterable[tuple[UUID, UUID | None]], above: Iterable[UUID]) -> frozenset[UUID]:
    """These units and all below them; `parents` are pairs of unit and parent. Loops do no harm."""
    children: dict[UUID | None, list[UUID]] = {}
    for ident, parent in parents:
        children.setdefault(parent, []).append(ident)
    found: set[UUID] = set()
    fresh = list(above)
    while fresh:
        unit = fresh.pop()
        if unit not in found:
            found.add(unit)
            fresh += children.get(unit, [])
    return frozenset(found)


def roots(tree: Mapping[UUID, UnitNode]) -> frozenset[UUID]:
    """The units that stand under no other."""
    return frozenset(n.id for n in tree.values() if n.parent is None)


def is_live(member: Data, today: date) -> bool:
    """Whether a membership holds on a day; one whose dates cannot be read does not."""
    try:
        first, last = _day(member.get("valid_from")), _day(member.get("valid_to"))
    except ValueError:
        return False
    return (first is None or first <= today) and (last is None or today <= last)


def first_zone(*named: Json) -> str:
    """The first that is the name of a time zone; UTC when none is."""
    for name in named:
        if isinstance(name, str) and name:
            try:
                return ZoneInfo(name).key
            except (ZoneInfoNotFoundError, ValueError, OSError):
                continue
    return "UTC"


def _next_boundary(members: list[Data], today: date, tz: str) -> datetime | None:
    days: list[date] = []
    for member in members:
        try:
            first, last = _day(member.get("valid_from")), _day(member.get("valid_to"))
        except ValueError:
            continue
        days += [d for d in (first, last + timedelta(days=1) if last else None) if d and d > today]
    return day_start(min(days), tz).astimezone(UTC) if days else None


def _day(value: Json) -> date | None:
    """A date. Raises ValueError for what is none."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError("not a date")  # noqa: TRY004 - one error for every unreadable date
    return date.fromisoformat(value)


def read_ids(value: Json) -> list[UUID]:
    """The ids of a set of references; what is none is left out."""
    found = (parse_uuid(v) for v in value) if isinstance(value, list) else ()
    return [u for u in found if u is not None]


def _uuids(texts: Sequence[str]) -> set[UUID]:
    return {u for t in texts if (u := parse_uuid(t)) is not None}


def _text(value: bytes | None) -> str:
    return value.decode() if value is not None else ""
