"""Everything a session's rights are made of, read in one round trip."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import msgspec

from appliance.access.compile import compile_profile
from appliance.db.wire import Call, Rows, Statement
from appliance.kernel.context import UnitNode
from appliance.kernel.kind import Json
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
    "AND g.deleted_at IS NULL WHERE s.tenant_id = $1 AND s.secret_hash = $2"
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
        return any(found in ipaddress.ip_network(n) for n in self.networks)


def load_calls(tenant: UUID, secret_hash: bytes) -> list[Call]:
    """The statements whose answers `read_loaded` takes."""
    both = (tenant, secret_hash)
    return [(_SESSION, both), (_PROFILE, both), (_MEMBERSHIPS, both), (_UNITS, (tenant,))]


def read_loaded(answers: Sequence[Rows], rights_rev: int, at: datetime) -> Loaded | None:
    """The rights of a session; None when its profile or every membership is gone."""
    sessions, profiles, memberships, units = answers
    session, rows = sessions.first(), list(profiles)
    if session is None or not rows:
        return None
    person = _decode(session[7]) if session[7] else {}
    sort = _text(session[3])
    tree = read_tree(units)
    members = [_decode(m or b"{}") for m in memberships.column()]
    today = at.date()
    live = [m for m in members if _is_live(m, today)]
    if sort == "login" and not live:
        return None
    own = _own_units(session, live, tree, sort)
    profile = compile_profile(
        _text(rows[0][0]), _decode(rows[0][1] or b"{}"), [_decode(r[2]) for r in rows if r[2]], rights_rev
    )
    first = next((u for m in live for u in _ids(m.get("units")) if u in tree), None)
    unit = first or next(iter(sorted(own)), None) or _root(tree)
    node = tree.get(unit) if unit else None
    return Loaded(
        session=UUID(_text(session[0])),
        person=UUID(_text(session[1])),
        profile=profile,
        units=own,
        subtree=below(tree, own),
        unit=unit,
        tree=tree,
        tz=str(person.get("tz") or (node.tz if node else "UTC")),
        locale=str(person.get("locale") or "en"),
        networks=tuple(filter(None, _text(session[5]).split(","))),
        staff_grant=UUID(_text(session[6])) if session[6] else None,
        until=_next_boundary(members, today),
    )


def _own_units(
    session: Sequence[bytes | None], live: list[Data], tree: dict[UUID, UnitNode], sort: str
) -> frozenset[UUID]:
    """Units of the memberships; a key may be narrowed to fewer; no unit named means the root."""
    named = {u for m in live for u in _ids(m.get("units"))}
    if not named and (live or sort != "login") and (root := _root(tree)):
        named = {root}
    if session[4] is not None:
        narrowed = {UUID(u) for u in _text(session[4]).split(",") if u}
        named = narrowed & below(tree, frozenset(named)) if sort == "api_key" else narrowed
    return frozenset(named & tree.keys())


def read_tree(units: Rows) -> dict[UUID, UnitNode]:
    """The org tree by id."""
    tree: dict[UUID, UnitNode] = {}
    for ident, raw in units:
        data, key = _decode(raw or b"{}"), UUID(_text(ident))
        parent = data.get("parent")
        tree[key] = UnitNode(
            id=key,
            parent=UUID(parent) if isinstance(parent, str) else None,
            name=str(data.get("name") or ""),
            tz=str(data.get("tz") or "UTC"),
            currency=str(data.get("currency") or ""),
            prefix=str(data.get("prefix") or ""),
        )
    return tree


def below(tree: dict[UUID, UnitNode], roots: frozenset[UUID]) -> frozenset[UUID]:
    """The units themselves and all below them."""
    children: dict[UUID | None, list[UUID]] = {}
    for node in tree.values():
        children.setdefault(node.parent, []).append(node.id)
    found: set[UUID] = set()
    fresh = [r for r in roots if r in tree]
    while fresh:
        unit = fresh.pop()
        if unit not in found:
            found.add(unit)
            fresh += children.get(unit, [])
    return frozenset(found)


def _root(tree: dict[UUID, UnitNode]) -> UUID | None:
    return next((n.id for n in tree.values() if n.parent is None), None)


def _is_live(member: Data, today: date) -> bool:
    first, last = _day(member.get("valid_from")), _day(member.get("valid_to"))
    return (first is None or first <= today) and (last is None or today <= last)


def _next_boundary(members: list[Data], today: date) -> datetime | None:
    days = [d for m in members if (d := _day(m.get("valid_from"))) and d > today]
    days += [d + timedelta(days=1) for m in members if (d := _day(m.get("valid_to"))) and d >= today]
    return datetime.combine(min(days), datetime.min.time(), UTC) if days else None


def _day(value: Json) -> date | None:
    return date.fromisoformat(value) if isinstance(value, str) else None


def _ids(value: Json) -> list[UUID]:
    return [UUID(v) for v in value if isinstance(v, str)] if isinstance(value, list) else []


def _text(value: bytes | None) -> str:
    return value.decode() if value is not None else ""
