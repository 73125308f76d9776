"""What a tenant has now, in the words of templates: the third side of every merge."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

import msgspec

from appliance.db.database import Database
from appliance.db.wire import Rows, Statement
from appliance.install.bundle import EMPTY, SORTS, Bundle, Item, Key, item, unpack
from appliance.kernel.kind import Json
from appliance.meta import SYSTEM_KINDS

_ITEMS = Statement(
    "SELECT id::text, kind, data, stamps, deleted_at IS NULL FROM record WHERE tenant_id = $1 "
    "AND kind = ANY($2::text[]) ORDER BY deleted_at IS NULL, id"
)
_INSTALLED = Statement(
    "SELECT id::text, data, stamps FROM record WHERE tenant_id = $1 AND kind = 'sys.template' "
    "AND deleted_at IS NULL ORDER BY id DESC LIMIT 1"
)
_SEEDS = Statement(
    "SELECT s.id::text, s.data, r.stamps, r.deleted_at IS NULL FROM record s LEFT JOIN record r "
    "ON r.tenant_id = s.tenant_id AND r.id = (s.data->>'record')::uuid "
    "WHERE s.tenant_id = $1 AND s.kind = 'sys.seed' AND s.deleted_at IS NULL ORDER BY s.id"
)
_decode = msgspec.json.Decoder(dict[str, Json]).decode
_SORT_OF = {kind: sort for sort, kind in SORTS.items()}


class Held(msgspec.Struct, frozen=True):
    """One record of configuration as the tenant holds it."""

    id: UUID
    item: Item
    version: str
    origin: dict[str, Json]
    live: bool
    enabled: bool


class Installed(msgspec.Struct, frozen=True):
    """The template a tenant stands on. `steps` are its installations, newest last."""

    id: UUID
    stamps: str
    bundle: Bundle
    steps: list[dict[str, Json]]


class Seed(msgspec.Struct, frozen=True):
    """A record that a template brought; `touched` when anybody has written it since."""

    id: UUID
    key: str
    kind: str
    record: UUID
    removable: bool
    live: bool
    touched: bool


class Snapshot(msgspec.Struct, frozen=True):
    """A tenant's configuration by sort and key, deleted ones too where no live one is."""

    held: dict[Key, Held]
    installed: Installed | None
    seeds: list[Seed]
    fids: dict[tuple[str, str], str]
    former: dict[str, list[str]]

    @property
    def base(self) -> Bundle:
        """What the tenant was given last."""
        return self.installed.bundle if self.installed else EMPTY

    def live(self, sort: str) -> list[Held]:
        """What there is of one sort, in the order it was made."""
        return [h for (s, _), h in self.held.items() if s == sort and h.live]

    def next_fid(self, kind: str, name: str, origin: int) -> str:
        """The id the write path will give a new field of this name (see write/schema_effects)."""
        known = self.former.get(kind, [])
        used = sum(1 for f in known if f == name or f.startswith(f"{name}~"))
        marked = f"{name}~{origin}" if origin != 1 or used else name
        return marked + (f".{used}" if used else "")


async def take_snapshot(db: Database, tenant: UUID) -> Snapshot:
    """Read a tenant's configuration in one round trip."""
    items, installed, seeds = await db.read(
        tenant, (_ITEMS, (tenant, [*SORTS.values()])), (_INSTALLED, (tenant,)), (_SEEDS, (tenant,))
    )
    rows = [
        (_uuid(i), _SORT_OF[_text(k)], _decode(d or b"{}"), _text(s), live == b"t")
        for i, k, d, s, live in items
    ]
    former: dict[str, list[str]] = {}
    fids: dict[tuple[str, str], str] = {}
    for _, sort, data, _, live in rows:
        if sort == "field":
            kind, fid = str(data.get("kind")), str(data.get("fid") or data.get("name"))
            former.setdefault(kind, []).append(fid)
            if live:
                fids[(kind, str(data.get("name")))] = fid
    profiles = {str(ident): str(data.get("key")) for ident, sort, data, _, _ in rows
                if sort == "profile"}  # fmt: skip
    names = {(kind, fid): "" for kind, known in former.items() for fid in known}
    names |= {(kind, fid): name for (kind, name), fid in fids.items()}
    held: dict[Key, Held] = {}
    # Deleted ones come first, so that a live one of the same key takes their place.
    for ident, sort, data, stamps, live in rows:
        origin = data.get("origin")
        stamp = origin if isinstance(origin, dict) else {}
        one = _item_of(sort, data, profiles, names)
        before = held.get((sort, one.key))
        # Somebody's own view may bear the key of a template's: that one stands for the key.
        if before is None or not before.live or stamp or not before.origin:
            held[(sort, one.key)] = Held(
                ident, one, stamps, stamp, live, data.get("enabled") is not False
            )
    return Snapshot(held, _installed(installed), [*map(_seed, seeds)], fids, former)


def _item_of(
    sort: str, data: dict[str, Json], profiles: dict[str, str], names: dict[tuple[str, str], str]
) -> Item:
    """A record as the item it would be in a template. Raises nothing: what is stored is canonical."""
    known = SYSTEM_KINDS[SORTS[sort]].by_name
    values = {name: value for name, value in data.items() if name in known}
    if sort == "field":
        key = f"{values.get('kind')}.{values.get('name')}"
    elif sort == "grant":
        kind = str(values.get("kind"))
        values["profile"] = profiles.get(str(values.get("profile")), "")
        modes = values.get("fields")
        if isinstance(modes, dict):
            # A mode of a field that is deleted is a right to nothing.
            live = {f: m for f, m in modes.items() if names.get((kind, f), f)}
            values["fields"] = {names.get((kind, f), f): m for f, m in live.items()}
        key = f"{values['profile']}/{kind}"
    else:
        key = str(values.get("key"))
    return item(sort, key, values)


def _installed(rows: Rows) -> Installed | None:
    row = rows.first()
    if row is None:
        return None
    data = _decode(row[1] or b"{}")
    steps = data.get("steps")
    return Installed(
        _uuid(row[0]), _text(row[2]), unpack(str(data.get("bundle"))),
        [s for s in steps if isinstance(s, dict)] if isinstance(steps, list) else [],
    )  # fmt: skip


def _seed(row: Iterable[bytes | None]) -> Seed:
    ident, raw, stamps, live = row
    data = _decode(raw or b"{}")
    return Seed(
        _uuid(ident), str(data.get("key")), str(data.get("kind")), UUID(str(data.get("record"))),
        data.get("removable") is True, live == b"t",
        # The first part of a version is its birth; every later write adds a part of its own.
        touched=";" in _text(stamps),
    )  # fmt: skip


def _uuid(value: bytes | None) -> UUID:
    return UUID(_text(value))


def _text(value: bytes | None) -> str:
    return value.decode() if value is not None else ""
