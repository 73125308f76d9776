"""The commands of a block of goods, the same each time they are asked for.

A new record and its external reference are made in the same batch. References to what the run has
made in an earlier phase are found by their external ids, like those of any other package.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from uuid import UUID

import msgspec

from appliance.base.ids import parse_uuid
from appliance.intake.ids import derived_id
from appliance.intake.refs import KIND as REF
from appliance.intake.refs import Key, Known, Refs, kind_of
from appliance.intake.runs import IntakeRun
from appliance.intake.target import Phase, Row, Step, create, fault
from appliance.intake.targets.goods.block import keys_of, linked_by
from appliance.intake.targets.goods.codes import FIELD as CODES
from appliance.intake.targets.goods.codes import compose_codes
from appliance.intake.targets.goods.facts import scale_of
from appliance.intake.targets.goods.fields import KINDS, LINKS
from appliance.intake.targets.goods.words import Words
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json
from appliance.write import Command, Op

# The step of a plan that links a record of ours with the id it has at the source.
LINK = "external_ref"


class Composer:
    """Makes the commands of blocks."""

    def __init__(self, ctx: Ctx, run: IntakeRun, refs: Refs, words: Words) -> None:
        self._ctx, self._run, self._refs, self._words = ctx, run, refs, words

    async def compose(self, rows: Sequence[Row], phase: Phase) -> list[Step]:
        """The steps of a block; a row whose reference has come to nothing says so."""
        keys = {key for row in rows for key in keys_of(row.entity, row.key, row.data)}
        known = await self._refs.find(keys)
        settled = linked_by(self._words, keys - known.keys())
        known |= {key: [Known(i, self._words.records.get(i, {}))] for key, i in settled.items()}
        steps = [self._step(row, phase, known) for row in rows]
        return _merged(steps)

    def _step(self, row: Row, phase: Phase, known: dict[Key, list[Known]]) -> Step:
        try:
            if row.entity == "price":
                return self._price(row, known)
            if row.entity == "stock":
                return self._stock(row, known)
            return self._record(row, phase, known)
        except LookupError as missing:
            entity, ext = missing.args
            return Step(row, faults=(fault("unmapped", f"a {entity} that is known here", ext),))

    def _record(self, row: Row, phase: Phase, known: dict[Key, list[Known]]) -> Step:
        kind = KINDS[row.entity]
        if row.sort == "gone":
            return Step(row, (self._update(kind, row.target, {"archived": True}),))
        is_tree = phase.name == "tree"
        fields: dict[str, Json] = {}
        for change in row.changes:
            if change.field not in (LINK, CODES) and (change.field == "parent") == is_tree:
                fields[change.field] = self._value(change.after, known, is_tree=is_tree)
        if is_tree:
            parent = fields.get("parent")
            ident = row.target or derived_id(self._run.id, f"{row.entity}:{row.key}")
            is_moved = parent is not None and parent != str(ident)
            return Step(row, (self._update(kind, ident, {"parent": parent}),) if is_moved else ())
        ident = row.target or derived_id(self._run.id, f"{row.entity}:{row.key}")
        product = fields.get("product") or self._product_of(row, known)
        codes = compose_codes(self._run, row, ident, product)
        if row.sort == "new":
            return self._new(row, kind, fields, codes)
        commands = [self._update(kind, row.target, fields)] if fields else []
        if row.after(LINK) is not None and row.target is not None:
            commands.append(self._reference(row, row.target))
        return Step(row, (*commands, *codes))

    def _product_of(self, row: Row, known: dict[Key, list[Known]]) -> Json:
        found = known.get((KINDS["product"], str(row.data.get("product_id") or "")))
        return str(found[0].id) if found else None

    def _new(self, row: Row, kind: str, fields: dict[str, Json], codes: list[Command]) -> Step:
        ident = derived_id(self._run.id, f"{row.entity}:{row.key}")
        if kind == "price_type":
            fields = {"key": f"{self._run.source}:{row.key}"[:255], **fields}
        made = create(kind, ident, fields)
        return Step(row, (made, self._reference(row, ident), *codes), ident)

    def _reference(self, row: Row, ident: UUID) -> Command:
        ref = derived_id(self._run.id, f"ref:{row.entity}:{row.key}")
        return create(REF, ref, self._refs.values(KINDS[row.entity], row.key, ident))

    def _price(self, row: Row, known: dict[Key, list[Known]]) -> Step:
        (change,) = row.changes
        run = self._run
        moment = run.options.valid_from or run.created_at.isoformat()
        fields = {
            **self._linked(row, known), "price": change.after, "currency": change.currency,
            "valid_from": moment,
            **scale_of(row.data, kind_of(self._ctx, "price"), self._words),
        }  # fmt: skip
        ident = derived_id(run.id, f"price:{row.no}")
        return Step(row, (create("price", ident, fields),))

    def _stock(self, row: Row, known: dict[Key, list[Known]]) -> Step:
        (change,) = row.changes
        fields = self._linked(row, known)
        if not row.data.get("warehouse_id"):
            fields["warehouse"] = str(self._words.default_warehouse())
        ext = str(row.data.get("warehouse_id") or "")
        found = known.get((KINDS["warehouse"], ext))
        data = (found[0].data if found else None) or self._words.records.get(
            UUID(str(fields["warehouse"])), {}
        )
        delta = Decimal(str(change.after)) - Decimal(str(change.before))
        fields |= {
            "moved_at": self._run.created_at.isoformat(), "quantity": f"{delta:f}",
            "reason": "count", "note": self._run.source,
        }  # fmt: skip
        ident = derived_id(self._run.id, f"stock:{row.no}")
        unit = parse_uuid(data.get("branch"))
        return Step(row, (create("stock_move", ident, fields, unit),))

    def _linked(self, row: Row, known: dict[Key, list[Known]]) -> dict[str, Json]:
        """The references of an entry. Raises LookupError."""
        found: dict[str, Json] = {}
        for name, (entity, ours) in LINKS[row.entity].items():
            ext = row.data.get(name)
            if isinstance(ext, str) and ext:
                found[ours] = self._value({entity: ext}, known)
        return found

    def _value(self, after: Json, known: dict[Key, list[Known]], *, is_tree: bool = False) -> Json:
        """A value, or the record that an external id means by now. Raises LookupError; a section
        of the catalogue whose parent is nowhere stands at the root.
        """
        if not isinstance(after, dict):
            return after
        ((entity, ext),) = after.items()
        found = known.get((KINDS[entity], str(ext)))
        if found:
            return str(found[0].id)
        if is_tree:
            return None
        raise LookupError(entity, str(ext))

    def _update(self, kind: str, ident: UUID | None, fields: dict[str, Json]) -> Command:
        return Command(op=Op.UPDATE, kind=kind, id=ident, fields=fields)


def _merged(steps: list[Step]) -> list[Step]:
    """A record stands once in a batch: what a later row of the run says of it joins the first."""
    places: dict[UUID, tuple[int, int]] = {}
    found: list[Step] = []
    for step in steps:
        kept: list[Command] = []
        for command in step.commands:
            assert command.id is not None, "commands of a run have ids"
            if command.id not in places:
                places[command.id] = (len(found), len(kept))
                kept.append(command)
                continue
            at, place = places[command.id]
            earlier = kept if at == len(found) else list(found[at].commands)
            fields = {**earlier[place].fields, **command.fields}
            earlier[place] = msgspec.structs.replace(earlier[place], fields=fields)
            if at < len(found):
                found[at] = msgspec.structs.replace(found[at], commands=tuple(earlier))
        found.append(msgspec.structs.replace(step, commands=tuple(kept)))
    return found
