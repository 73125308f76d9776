"""Which profiles a person may sign in under today: the memberships that hold."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec

from appliance.access.load import first_zone, is_live, read_ids
from appliance.db.wire import Call, Rows, Statement
from appliance.kernel.kind import Json

_decode = msgspec.json.Decoder(dict[str, Json]).decode
_CHOICES = Statement(
    "SELECT m.data, p.id::text, p.data, person.data, (SELECT u.data->>'tz' FROM record u "
    "WHERE u.tenant_id = $1 AND u.kind = 'sys.unit' AND u.r1 IS NULL AND u.deleted_at IS NULL "
    "ORDER BY u.id LIMIT 1) FROM record m "
    "JOIN record p ON p.tenant_id = m.tenant_id AND p.id = m.r2 AND p.kind = 'sys.profile' "
    "AND p.deleted_at IS NULL "
    "JOIN record person ON person.tenant_id = m.tenant_id AND person.id = m.r1 "
    "AND person.kind = 'sys.person' AND person.deleted_at IS NULL "
    "WHERE m.tenant_id = $1 AND m.kind = 'sys.membership' AND m.r1 = $2 "
    "AND m.deleted_at IS NULL ORDER BY m.id"
)


class Choice(msgspec.Struct, frozen=True):
    """A profile a person may work under, over the units of all its memberships that hold."""

    profile: UUID
    key: str
    labels: dict[str, str]
    units: tuple[UUID, ...]


def choices_call(tenant: UUID, person: UUID) -> Call:
    """Ask for a person's memberships and their profiles."""
    return _CHOICES, (tenant, person)


def read_choices(rows: Rows, at: datetime) -> list[Choice]:
    """One entry for each profile, in the order of the memberships."""
    found: dict[UUID, Choice] = {}
    for member, ident, profile, person, tz in rows:
        data, named = _decode(member or b"{}"), _decode(profile or b"{}")
        zone = first_zone(_decode(person or b"{}").get("tz"), (tz or b"").decode())
        if not is_live(data, at.astimezone(ZoneInfo(zone)).date()):
            continue
        key = UUID((ident or b"").decode())
        before = found[key].units if key in found else ()
        labels = named.get("labels")
        found[key] = Choice(
            key, str(named.get("key")),
            {str(k): str(v) for k, v in labels.items()} if isinstance(labels, dict) else {},
            (*before, *read_ids(data.get("units"))),
        )  # fmt: skip
    return list(found.values())
