"""What a block of rows is looked up against: external references, settings, and what is taken.

A product with a number of its own, or a counterparty with a tax id, may be here already without a
reference. It is linked only when a setting says so (`link_by` = `sku`, `tax_id`, or both); without
it the row waits, because a second record of that number cannot be made. Sources repeat such numbers
among their own records (an article for all variants): the first one has it, the others go without.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from appliance.base import limits
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.fields.base import ValueFault
from appliance.intake.refs import Key, Known, Refs, folded, kind_of, slot_of
from appliance.intake.targets.goods.fields import KINDS, LINKS
from appliance.intake.targets.goods.orders import own_lines
from appliance.intake.targets.goods.words import Unknown, Words
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json
from appliance.kernel.text import fold
from connectors.sdk.contract import StagedRow

UNIQUE = {"product": "sku", "variant": "sku", "counterparty": "tax_id"}
_decode = msgspec.json.Decoder(dict[str, Json]).decode


class Block:
    """The look-ups of one block. `by_setting`: what is known without a reference so far."""

    def __init__(
        self,
        known: dict[Key, list[Known]],
        by_setting: set[Key],
        taken: dict[Key, list[Known]],
        brought: set[UUID],
    ) -> None:
        self._known, self.by_setting, self._taken = known, by_setting, taken
        self._brought = brought

    @classmethod
    async def load(
        cls, db: Database, ctx: Ctx, refs: Refs, words: Words, rows: Sequence[StagedRow]
    ) -> Block:
        """Everything that the rows name."""
        sound = [r for r in rows if not r.faults]
        keys = {key for row in sound for key in keys_of(row.entity, row.key, row.values)}
        known = await refs.find(keys)
        linked = linked_by(words, keys - known.keys())
        held = {**words.records, **await refs.read(set(linked.values()) - words.records.keys())}
        taken = await _taken(db, ctx, sound)
        brought = await refs.brought({k.id for found in taken.values() for k in found})
        rule = {n.strip() for n in words.setting("link_by").split(",")}
        for row in sound:
            key = (KINDS.get(row.entity, ""), row.key)
            number = UNIQUE.get(row.entity, "")
            found = taken.get((row.entity, fold(str(row.values.get(number) or ""))))
            is_free = key not in known and key not in linked
            if found and number in rule and is_free and found[0].id not in brought:
                linked[key], held[found[0].id] = found[0].id, found[0].data or {}
                brought.add(found[0].id)
        for key, ident in (await own_lines(db, ctx, sound, known)).items():
            linked[key] = ident
        held |= await refs.read(set(linked.values()) - held.keys())
        by_setting = {key: [Known(i, held.get(i))] for key, i in linked.items()}
        return cls(known | by_setting, set(by_setting), taken, brought)

    def own(self, row: StagedRow) -> Known | None:
        """The record that a row is about. Raises ValueFault."""
        key = (KINDS[row.entity], row.key)
        if found := self._known.get(key):
            return _only(found, row.entity)
        number = UNIQUE.get(row.entity, "")
        if any(holder not in self._brought for holder in self.holders(row)):
            raise ValueFault(
                f"{number.replace('_', '-')}-taken",
                f"A {row.entity} with a {number} of its own; to link the one that is here, map its "
                f"id, or set link_by to {number}.",
            )
        return None

    def holders(self, row: StagedRow) -> list[UUID]:
        """The records that have the unique number of a row already, its own among them."""
        value = str(row.values.get(UNIQUE.get(row.entity, "")) or "")
        found = self._taken.get((row.entity, fold(value))) if value else None
        return [known.id for known in found or ()]

    def link(self, entity: str, external_id: str) -> Known | None:
        """What an id means; None when only the whole run can say. Raises ValueFault."""
        found = self._known.get((KINDS[entity], external_id))
        return _only(found, entity) if found else None


def keys_of(entity: str, key: str, values: Any) -> list[Key]:
    """The ids by which a row's own record and its references are looked up."""
    found = [(KINDS[entity], key)] if entity in KINDS and key else []
    for name, (target, _) in LINKS.get(entity, {}).items():
        ext = values.get(name)
        if isinstance(ext, str) and ext:
            found.append((KINDS[target], ext))
            if (entity, target) == ("order_line", "product"):
                # A marketplace sells by one number, whether it is of a product or of a variant.
                found.append((KINDS["variant"], ext))
    return found


def linked_by(words: Words, keys: set[Key]) -> dict[Key, UUID]:
    """What settings say of ids; a setting that names nothing is none."""
    found: dict[Key, UUID] = {}
    for kind, ext in keys:
        try:
            ident = words.linked(_ENTITIES[kind], kind, ext)
        except Unknown:
            continue
        if ident is not None:
            found[(kind, ext)] = ident
    return found


_ENTITIES = {kind: entity for entity, kind in KINDS.items()}


async def _taken(db: Database, ctx: Ctx, rows: Sequence[StagedRow]) -> dict[Key, list[Known]]:
    """Records that have the unique numbers of rows without a reference: by entity and number."""
    found: dict[Key, list[Known]] = {}
    for entity, number in UNIQUE.items():
        values = [
            str(r.values[number]) for r in rows if r.entity == entity and r.values.get(number)
        ]
        if not values:
            continue
        kind = kind_of(ctx, KINDS[entity])
        statement = Statement(
            "SELECT id::text, data FROM record WHERE tenant_id = $1 AND kind = $2 "
            f"AND deleted_at IS NULL AND {slot_of(kind, number)} = ANY($3::text[])"
        )
        (answer,) = await db.read(ctx.tenant, (statement, (ctx.tenant, kind.key, folded(values))))
        for ident, raw in answer:
            known = Known(UUID((ident or b"").decode()), _decode(raw or b"{}"))
            value = fold(str((known.data or {}).get(kind.by_name[number].fid)))
            found.setdefault((entity, value[: limits.TEXT_SLOT_CHARS_MAX]), []).append(known)
    return found


def _only(found: Sequence[Known], entity: str) -> Known:
    """The one record that is meant. Raises ValueFault."""
    if len(found) > 1:
        listed = ", ".join(str(k.id) for k in found[:3])
        raise ValueFault("several-matches", f"One {entity} of this id; there are {listed}.")
    if found[0].data is None:
        raise ValueFault(
            "target-deleted", f"A {entity} that is there; restore it, or delete its reference."
        )
    return found[0]
