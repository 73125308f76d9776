"""Goods of another system: catalogue, prices, stock, counterparties and orders, by external id.

Nothing is matched by name. What a row does not say stays as it is; a reference to something that
is neither here nor in the run, and a word that is nothing here, stop the row and are counted, so
that one setting of the mapping brings all of them on the next reading.
"""

from __future__ import annotations

from collections.abc import Sequence

from appliance.db.database import Database
from appliance.fields.base import ValueFault
from appliance.intake.ids import derived_id
from appliance.intake.refs import Known, Refs, kind_of
from appliance.intake.runs import IntakeRun
from appliance.intake.stage import Change, Judged
from appliance.intake.target import Finished, Phase, Row, Step, fault
from appliance.intake.targets.goods.block import UNIQUE, Block
from appliance.intake.targets.goods.codes import BEARERS, Codes, further
from appliance.intake.targets.goods.compose import LINK, Composer
from appliance.intake.targets.goods.facts import Facts, lookups_of
from appliance.intake.targets.goods.fields import KINDS, LINKS, bring, values_of
from appliance.intake.targets.goods.finish import FULL, Ending, Seen, is_full
from appliance.intake.targets.goods.orders import is_order, may_become
from appliance.intake.targets.goods.words import NONE, Unknown, Words
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json, Kind
from appliance.kernel.text import fold
from appliance.write import Command
from connectors.sdk.contract import StagedRow, Summary

_FACTS = ("price", "stock")
# What the server gives a new record by itself.
_GIVEN = frozenset({"key"})


class Goods:
    """The target of one run; see target.Target."""

    phases = (
        Phase("base", ("category", "price_type", "warehouse", "counterparty")),
        Phase("tree", ("category",)),
        Phase("product", ("product",)),
        Phase("variant", ("variant",)),
        Phase("fact", _FACTS),
        Phase("order", ("order",)),
        Phase("line", ("order_line", "payment")),
    )
    written = ("new", "changed", "gone")

    def __init__(self, db: Database, ctx: Ctx, run: IntakeRun, words: Words) -> None:
        self._db, self._ctx, self._run, self._words = db, ctx, run, words
        self._refs, self._seen = Refs(db, ctx, run.source), Seen()
        self._codes = Codes({})
        self._facts = run.inspection.facts if run.inspection else {}

    @classmethod
    async def open(cls, db: Database, ctx: Ctx, run: IntakeRun) -> Goods:
        """Raises Invalid when the tenant has no external references."""
        settings = run.mapping.constants if run.mapping else {}
        return cls(db, ctx, run, await Words.read(db, ctx, settings))

    async def judge(self, rows: Sequence[StagedRow]) -> list[Judged]:
        """See Target."""
        block = await Block.load(self._db, self._ctx, self._refs, self._words, rows)
        self._codes = await Codes.load(self._db, self._ctx, self._refs, rows)
        facts = Facts(self._ctx, self._run, self._words, block, self._seen)
        await facts.load(self._db, lookups_of(rows))
        found = []
        for row in rows:
            if row.faults:
                found.append(Judged("faulty"))
                self._note(row, found[-1])
                continue
            judge = facts.judge if row.entity in _FACTS else self._judge_record
            try:
                judged = judge(row, block)
            except Unknown as unknown:
                judged = self._unmapped(unknown)
            except ValueFault as bad:
                judged = Judged("faulty", faults=(fault(bad.code, bad.detail, row.key),))
            self._note(row, judged)
            found.append(judged)
        return found

    def _judge_record(self, row: StagedRow, block: Block) -> Judged:
        entity, words = row.entity, self._words
        if entity == "unit":
            words.unit(str(row.values.get("name") or ""), str(row.values.get("code") or ""))
            return Judged("unchanged")
        if self._is_passed(row):
            return Judged("unchanged")
        kind = kind_of(self._ctx, KINDS[entity])
        now = block.own(row)
        if entity == "counterparty" and now is not None and str(now.id) == row.key:
            # Our own customer, as we told of it ourselves.
            return Judged("unchanged", now.id)
        if entity == "payment" and row.values.get("is_deleted"):
            return self._withdrawn(now)
        is_again = now is None and row.key in self._seen.here.get(entity, ())
        values = values_of(entity, row.values, words, is_new=not (now or is_again))
        if now is not None and row.values.get("name") and is_full(entity, self._facts):
            # Gone from one full package, back in the next.
            values.setdefault("archived", False)
        if entity == "order" and now is not None:
            self._keep_state(values, (now.data or {}).get(kind.by_name["state"].fid))
        if self._is_repeated(row, now, block):
            values.pop(UNIQUE[entity], None)
        steps, faults = _steps(kind, (now.data if now else None) or {}, values)
        if faults:
            return Judged("faulty", faults=tuple(faults))
        steps += self._links(row, kind, now, block)
        steps += self._further_codes(row, now)
        if now is not None:
            if (kind.key, row.key) in block.by_setting:
                steps.append(Change(LINK, None, row.key))
            # The base unit of a product is what its stock and prices are counted in.
            is_base = any(s.field == "measure" and s.before is not None for s in steps)
            sort = "suspicious" if is_base and entity == "product" else "changed"
            return Judged(sort if steps else "unchanged", now.id, tuple(steps))
        if is_again:
            target = derived_id(self._run.id, f"{entity}:{row.key}")
            return Judged("changed" if steps else "unchanged", target, tuple(steps))
        given = {s.field for s in steps} | _GIVEN
        if any(f.required and f.default is None and f.name not in given for f in kind.fields):
            # An offer for a product that nobody has told of.
            raise Unknown(entity, row.key)
        return Judged("new", None, tuple(steps))

    def _is_passed(self, row: StagedRow) -> bool:
        """Documents that are no orders, their lines, and payments where they come another way."""
        passed, values = self._seen.passed, row.values
        if row.entity == "order" and not is_order(values):
            passed.add(row.key)
            what = str(values.get("operation") or "a document below an order")
            self._seen.left["document-not-kept", f"an order or a payment, not {what}"] += 1
            return True
        is_kept = self._ctx.schema.kind("payment") and self._words.setting("payments") != NONE
        if row.entity == "payment" and not is_kept:
            self._seen.left["document-not-kept", "payments of the bank alone"] += 1
            return True
        return row.entity in ("order_line", "payment") and str(values.get("order_id")) in passed

    def _keep_state(self, values: dict[str, Json], now: Json) -> None:
        """A state that is behind ours is left out, and told."""
        told = values.get("state")
        if isinstance(told, str) and not may_become(now, told):
            del values["state"]
            self._seen.left["state-kept", f"an order that is not {now} yet, to become {told}"] += 1

    def _withdrawn(self, now: Known | None) -> Judged:
        """A payment that was deleted there: money that is here is nobody's to take back unseen."""
        if now is None:
            return Judged("unchanged")
        expected = "a payment that stands; take it back here if it does not"
        return Judged("faulty", now.id, faults=(fault("payment-withdrawn", expected),))

    def _further_codes(self, row: StagedRow, now: Known | None) -> list[Change]:
        """Barcodes beside the first; one that an earlier row of the run has taken stays there."""
        codes = further(row) if row.entity in BEARERS and row.values.get("barcodes") else []
        if not codes or self._ctx.schema.kind("barcode") is None:
            return []
        first = self._seen.numbers
        own = [c for c in codes if first.setdefault(("barcode", fold(c)), row.key) == row.key]
        steps, refused = self._codes.step(own, row.entity, now.id if now else None)
        self._seen.repeated["barcode"] += refused + len(codes) - len(own)
        return steps

    def _is_repeated(self, row: StagedRow, now: Known | None, block: Block) -> bool:
        """Whether the number of a row, unique here, is that of another record of the source."""
        number = UNIQUE.get(row.entity, "")
        value = str(row.values.get(number) or "")
        if not value:
            return False
        own = now.id if now else None
        first = self._seen.numbers.setdefault((row.entity, fold(value)), row.key)
        is_repeated = first != row.key or any(i != own for i in block.holders(row))
        self._seen.repeated[number] += is_repeated
        return is_repeated

    def _links(self, row: StagedRow, kind: Kind, now: Known | None, block: Block) -> list[Change]:
        """References of a row: to what is here, or to what the run will have made by then."""
        steps: list[Change] = []
        data = (now.data if now else None) or {}
        for name, (entity, ours) in LINKS.get(row.entity, {}).items():
            ext, field = row.values.get(name), kind.by_name.get(ours)
            if not isinstance(ext, str) or not ext or field is None:
                continue
            if self._words.setting(f"{entity}:{ext}") == NONE:
                continue
            found, before = block.link(entity, ext), data.get(field.fid)
            sold = self._sold(row, name, ext, block) if found is None else None
            if sold is not None:
                links = {"product": sold[0], "variant": str(sold[1].id)}
                had = {f: data.get(kind.by_name[f].fid) for f in links}
                steps += [Change(f, had[f], v) for f, v in links.items() if had[f] != v]
            elif found is None:
                self._seen.want(entity, ext)
                steps.append(Change(ours, before, {entity: ext}))
            elif before != str(found.id):
                steps.append(Change(ours, before, str(found.id)))
        return steps

    def _sold(self, row: StagedRow, name: str, ext: str, block: Block) -> tuple[Json, Known] | None:
        """The product and the variant that a line means by a number which is no product's."""
        if (row.entity, name) != ("order_line", "product_id") or row.values.get("variant_id"):
            return None
        variant = block.link("variant", ext)
        if variant is None:
            return None
        fid = kind_of(self._ctx, "variant").by_name["product"].fid
        return (variant.data or {}).get(fid), variant

    def _unmapped(self, unknown: Unknown) -> Judged:
        self._seen.unmapped[(unknown.what, unknown.value)] += 1
        said = fault("unmapped", f"a {unknown.what} that is known here", unknown.value)
        return Judged("faulty", faults=(said,))

    def _note(self, row: StagedRow, judged: Judged) -> None:
        """Keep of a row what the end of the plan needs."""
        if judged.sort == "faulty":
            if row.entity in FULL:
                self._seen.waiting.setdefault(row.entity, set()).add(row.key)
            return
        self._seen.here.setdefault(row.entity, set()).add(row.key)
        if row.entity == "price_type" and (word := row.values.get("currency")):
            self._seen.currencies[row.key] = self._words.currency(str(word))
        if row.entity == "category" and (parent := row.values.get("parent_id")):
            self._seen.parents[row.key] = str(parent)
        if row.values.get("name"):
            self._seen.named.add(row.entity)

    async def finish(self, summary: Summary) -> Finished:
        """See Target."""
        ending = Ending(
            self._db, self._ctx, self._run, self._refs, seen=self._seen, words=self._words
        )
        return await ending.finish(summary)

    async def prologue(self) -> list[Command]:
        """Nothing stands before the rows."""
        return []

    async def compose(self, rows: Sequence[Row], phase: Phase) -> list[Step]:
        """See Target."""
        composer = Composer(self._ctx, self._run, self._refs, self._words)
        return await composer.compose(rows, phase)


def _steps(
    kind: Kind, held: dict[str, Json], values: dict[str, Json]
) -> tuple[list[Change], list[dict[str, Json]]]:
    """What would change of the fields that a row speaks of."""
    found, faults = bring(kind, values)
    steps = []
    for name, value in found.items():
        field = kind.by_name[name]
        before = held.get(field.fid)
        is_same = before is None and value is False and field.default is not True
        if before != value and not is_same:
            steps.append(Change(name, before, value))
    return steps, faults
