"""What a balance may not do: sink below zero, or promise more than another ledger holds.

Looked at behind a lock of each key, so that two sellers cannot both take the last piece, in
whichever branches they sit; a large batch locks the ledger instead of thousands of keys. Sums
come from turnover, so the cost does not grow with the years.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from hashlib import blake2b
from uuid import UUID

from appliance.db.wire import Call, Param, Rows, Statement
from appliance.fields import type_of
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Field, Kind
from appliance.kernel.ledger import entry_key
from appliance.write.balances import amount_of, balance_fields, key_of
from appliance.write.draft import Draft
from appliance.write.load import Loaded

_KEYS_MAX = 256
_LOCK = Statement(
    "SELECT pg_advisory_xact_lock_shared(l) FROM (SELECT unnest($1::bigint[]) AS l ORDER BY 1) AS a "
    "UNION ALL "
    "SELECT pg_advisory_xact_lock(k) FROM (SELECT unnest($2::bigint[]) AS k ORDER BY 1) AS b"
)
_SLOT_TYPES = {"t": "text", "n": "bigint", "d": "timestamptz", "r": "uuid"}


@dataclass(slots=True)
class _Group:
    """Drafts of one ledger. `holder` is the ledger whose balance bounds it, None for itself."""

    kind: Kind
    drafts: list[Draft]
    holder: Kind | None = None

    def key(self, draft: Draft) -> UUID:
        """The key of the balance that a draft is judged by."""
        if self.holder is None:
            return key_of(self.kind, draft.values)
        assert self.holder.ledger is not None, "a ledger is bounded by a ledger"
        values = (draft.values.get(f.fid) for f in self.shared())
        return entry_key([str(v) if v is not None else None for v in values])

    def shared(self) -> list[Field]:
        """The fields of this ledger that make a key of the one that bounds it."""
        assert self.holder is not None and self.holder.ledger is not None, "asked of bounded ones"
        return [self.kind.by_name[name] for name in self.holder.ledger.key]

    @property
    def ledger(self) -> Kind:
        """The ledger whose keys are locked."""
        return self.holder or self.kind


class Floors:
    """Bounds of the balances that a batch changes."""

    def __init__(self, ctx: Ctx, drafts: Sequence[Draft], loaded: Loaded) -> None:
        self._ctx, self._loaded = ctx, loaded
        found: dict[tuple[str, bool], _Group] = {}
        for draft in drafts:
            kind = draft.kind
            if kind is None or kind.ledger is None:
                continue
            if kind.ledger.floor and not self._lifted(kind, kind.ledger.unless, draft):
                found.setdefault((kind.key, False), _Group(kind, [])).drafts.append(draft)
            holder = ctx.schema.kind(kind.ledger.within) if kind.ledger.within else None
            if holder is None or holder.ledger is None or not _is_bounded(kind, holder):
                continue
            if not self._lifted(kind, holder.ledger.unless, draft):
                found.setdefault((kind.key, True), _Group(kind, [], holder)).drafts.append(draft)
        self._groups = list(found.values())

    def calls(self) -> list[Call]:
        """Lock the keys and ask for the balances, behind the locks of the streams."""
        if not self._groups:
            return []
        found: list[Call] = [self._lock()]
        for group in self._groups:
            values = tuple(str(f.slot) for f in balance_fields(group.ledger)[1])
            keys = sorted({group.key(d) for d in group.drafts})
            found.append((_sums_statement(values), (self._ctx.tenant, group.ledger.key, keys)))
            if group.holder is not None:
                found.append(self._promised(group))
        return found

    def check(self, answers: Sequence[Rows]) -> None:
        """Refuse each draft that goes beyond its bound, in the batch's order."""
        waiting = iter(answers[1:])
        for group in self._groups:
            rows = next(waiting)
            left = {
                UUID((row[0] or b"").decode()): [int(v or b"0") for v in row[1:]] for row in rows
            }
            if group.holder is not None:
                fields = balance_fields(group.ledger)[1]
                keys = list(_places(group))
                for key, (promised,) in zip(keys, next(waiting), strict=True):
                    left.setdefault(key, [0] * len(fields))[0] -= int(promised or b"0")
            for draft in group.drafts:
                fields = balance_fields(group.kind)[1]
                self._take(group, draft, left.setdefault(group.key(draft), [0] * len(fields)))

    def _lock(self) -> Call:
        kinds = {g.ledger.key for g in self._groups}
        keys = {(g.ledger.key, k) for g in self._groups for k in map(g.key, g.drafts)}
        tenant = self._ctx.tenant
        whole = [_lock_key(tenant, kind, None) for kind in sorted(kinds)]
        if len(keys) > _KEYS_MAX:
            return (_LOCK, ([], whole))
        return (_LOCK, (whole, [_lock_key(tenant, kind, key) for kind, key in sorted(keys)]))

    def _promised(self, group: _Group) -> Call:
        """What the bounded ledger holds already by the key of the other, in all its own keys."""
        places = _places(group)
        columns: list[list[Param]] = [list(c) for c in zip(*places.values(), strict=True)]
        slots = tuple((str(f.slot), f.required) for f in group.shared())
        value = str(balance_fields(group.kind)[1][0].slot)
        return (_promised_statement(value, slots), (self._ctx.tenant, group.kind.key, *columns))

    def _take(self, group: _Group, draft: Draft, left: list[int]) -> None:
        fields = balance_fields(group.kind)[1]
        steps = [amount_of(f, draft.values) for f in fields]
        if group.holder is not None:
            # A promise takes from what is free; taking one back gives it free again.
            steps = [-step for step in steps]
        for n, (field, step) in enumerate(zip(fields, steps, strict=True)):
            if step < 0 and left[n] + step < 0:
                code = "below_zero" if group.holder is None else "not_free"
                there = (
                    f"{_shown(field, left[n])} are {'there' if group.holder is None else 'free'}"
                )
                draft.fault(
                    f"/fields/{field.name}", code, f"There is not enough: {there}.", status=409
                )
                return
        for n, step in enumerate(steps):
            left[n] += step

    def _lifted(self, kind: Kind, unless: str, draft: Draft) -> bool:
        """Whether the record that a bound depends on allows less than nothing."""
        reference, _, flag = unless.partition(".")
        field = kind.by_name.get(reference)
        target_id = draft.values.get(field.fid) if field else None
        target = self._loaded.targets.get(UUID(target_id)) if isinstance(target_id, str) else None
        held = self._ctx.schema.kind(target.kind) if target else None
        lifting = held.by_name.get(flag) if held else None
        return bool(target and lifting and target.data.get(lifting.fid) is True)


def _is_bounded(kind: Kind, holder: Kind) -> bool:
    """Whether the key of the one ledger is part of the other's, with one value to compare."""
    assert kind.ledger is not None and holder.ledger is not None, "ledgers only"
    same = set(holder.ledger.key) <= set(kind.ledger.key)
    return same and len(kind.ledger.values) == len(holder.ledger.values) == 1


def _places(group: _Group) -> dict[UUID, list[Param]]:
    """The slot values of each key of the group, once."""
    found: dict[UUID, list[Param]] = {}
    for draft in group.drafts:
        values = [
            type_of(f.type).slot_value(f, v) if (v := draft.values.get(f.fid)) is not None else None
            for f in group.shared()
        ]
        found.setdefault(group.key(draft), list(values))
    return found


@lru_cache(maxsize=100)
def _sums_statement(values: tuple[str, ...]) -> Statement:
    sums = ", ".join(f"sum({v})::bigint" for v in values)
    return Statement(
        f"SELECT key::text, {sums} FROM turnover WHERE tenant_id = $1 AND kind = $2 "
        "AND key = ANY($3::uuid[]) GROUP BY key"
    )


@lru_cache(maxsize=100)
def _promised_statement(value: str, slots: tuple[tuple[str, bool], ...]) -> Statement:
    arrays = ", ".join(f"${n}::{_SLOT_TYPES[slot[0]]}[]" for n, (slot, _) in enumerate(slots, 3))
    names = ", ".join(f"c{n}" for n in range(len(slots)))
    same = " AND ".join(
        f"t.{slot} = u.c{n}" if required else f"t.{slot} IS NOT DISTINCT FROM u.c{n}"
        for n, (slot, required) in enumerate(slots)
    )
    return Statement(
        f"SELECT (SELECT sum(t.{value})::bigint FROM turnover t WHERE t.tenant_id = $1 "
        f"AND t.kind = $2 AND {same}) FROM unnest({arrays}) WITH ORDINALITY AS u({names}, place) "
        "ORDER BY u.place"
    )


def _lock_key(tenant: UUID, kind: str, key: UUID | None) -> int:
    text = kind.encode() + b"\0" + (key.bytes if key else b"")
    digest = blake2b(text, digest_size=8, key=tenant.bytes, person=b"floor").digest()
    return int.from_bytes(digest, "big", signed=True)


def _shown(field: Field, amount: int) -> str:
    scale = type_of(field.type).slot_scale(field)  # type: ignore[attr-defined]
    return f"{(Decimal(amount) / 10**scale).normalize():f}"
