"""The end of a plan of goods: what only the whole package shows.

Ids that stand twice and say different things, references that lead nowhere, loops of sections, an
older package after a newer one, and, of a full package only, what is gone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID

import msgspec

from appliance.base import limits
from appliance.db.columns import Column
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.intake.plan import count_rows, limits_hit, most_gone
from appliance.intake.refs import Refs
from appliance.intake.runs import IntakeRun, Options, Unmapped
from appliance.intake.target import Finished
from appliance.intake.targets.goods.fields import KINDS, LINKS
from appliance.intake.targets.goods.rests import Rests
from appliance.intake.targets.goods.twins import mark_twins
from appliance.intake.targets.goods.words import Words
from appliance.kernel.context import Ctx
from connectors.sdk.contract import Fault, Summary

GONE_SHARE_MAX = 10
# The fact of a reading that says of an entity that all of it is there.
FULL = {"product": "catalogue_full", "variant": "offers_full"}
UNMAPPED_TOLD = 100
_GONE_FROM = 1_000_000_000
_MISSING = Statement(
    "UPDATE intake_row SET sort = 'faulty', faults = faults || jsonb_build_object("
    "'code', 'unmapped', 'expected', $3::text, 'found', data->>$4) WHERE tenant_id = $1 "
    "AND run = $2 AND entity = $5 AND data->>$4 = ANY($6::text[]) "
    "AND (sort <> 'faulty' OR faults->0->>'code' = 'unmapped') "
    "RETURNING key, data->>$4"
)
_NO_PARENT = Statement(
    "UPDATE intake_row SET changes = coalesce((SELECT jsonb_agg(c) FROM "
    "jsonb_array_elements(changes) AS c WHERE c->>'field' <> 'parent'), '[]') "
    "WHERE tenant_id = $1 AND run = $2 AND entity = 'category' AND key = ANY($3::text[])"
)
_GONE = Statement(
    "INSERT INTO intake_row (tenant_id, run, no, sheet, line, entity, key, data, sort, target, changes) "
    "SELECT $1, $2, $3 + row_number() OVER (ORDER BY u.k), '', 0, $4, u.k, "
    "jsonb_build_object('name', p.data->>'name', 'sku', p.data->>'sku'), 'gone', p.id, "
    '\'[{"field": "archived", "from": false, "to": true}]\' '
    "FROM unnest($5::text[], $6::uuid[]) AS u(k, i) "
    "JOIN record p ON p.tenant_id = $1 AND p.id = u.i"
)
_APPLIED = Statement(
    "SELECT told->'facts' FROM intake_run WHERE tenant_id = $1 AND connector = $2 AND source = $3 "
    "AND state = 'applied' AND id <> $4 ORDER BY id DESC LIMIT 50"
)
_ORDER = ("category", "price_type", "warehouse", "counterparty", "product", "variant", "price",
          "stock", "order", "payment", "order_line")  # fmt: skip


class Seen:
    """What judging has seen of a run: keys of sound rows by entity, ids that were wanted and not
    there. `waiting`: keys of what a full package would else take for gone, though it is at fault.
    """

    def __init__(self) -> None:
        self.here: dict[str, set[str]] = {}
        self.waiting: dict[str, set[str]] = {}
        self.wanted: dict[str, set[str]] = {}
        self.unmapped: Counter[tuple[str, str]] = Counter()
        self.numbers: dict[tuple[str, str], str] = {}
        self.repeated: Counter[str] = Counter()
        self.parents: dict[str, str] = {}
        self.named: set[str] = set()
        self.currencies: dict[str, str] = {}
        # Documents that are not kept, and what was left out of rows: by code and expectation.
        self.passed: set[str] = set()
        self.left: Counter[tuple[str, str]] = Counter()

    def want(self, entity: str, external_id: str) -> None:
        """Note an id that only the whole run can explain."""
        self.wanted.setdefault(entity, set()).add(external_id)


def is_full(entity: str, facts: Mapping[str, str]) -> bool:
    """Whether what a package leaves out of an entity is gone. One that does not say so is of
    changes only.
    """
    return facts.get(FULL.get(entity, "")) == "yes"


class Ending:
    """Finishes the plan of one run."""

    def __init__(
        self, db: Database, ctx: Ctx, run: IntakeRun, refs: Refs, *, seen: Seen, words: Words
    ) -> None:
        self._db, self._tenant, self._run, self._refs, self._seen = db, ctx.tenant, run, refs, seen
        self._rests = Rests(db, ctx, run, refs, words)

    async def finish(self, summary: Summary) -> Finished:
        """Mark rows, add what is gone, count."""
        for entity, twins in (await mark_twins(self._db, self._tenant, self._run.id)).items():
            self._seen.here.get(entity, set()).difference_update(twins)
            self._seen.waiting.setdefault(entity, set()).update(twins)
        looped = _loops(self._seen.parents)
        if looped:
            await self._write(_NO_PARENT, Column("text", looped))
        await self._mark_missing()
        facts = {**(self._run.inspection.facts if self._run.inspection else {}), **summary.facts}
        former = await self._former()
        warnings = [Fault("loop", "a section below another one", key) for key in looped]
        for number, rows in sorted(self._seen.repeated.items()):
            if rows:
                expected = f"a {number} of its own; the first record has it, the others go without"
                warnings.append(Fault("number-repeated", expected, f"{rows} rows"))
        warnings += [
            Fault(code, said, f"{rows} rows")
            for (code, said), rows in sorted(self._seen.left.items())
        ]
        held = _older(facts, former)
        others = {i for told in former for i in _lines(told, "catalogue_id")}
        if others <= set(_lines(facts, "catalogue_id")):
            held += await self._find_gone(facts)
        elif any(is_full(entity, facts) for entity in FULL):
            expected = (
                "the catalogue that this source has brought before; nothing is taken for gone"
            )
            warnings.append(Fault("other-catalogue", expected, facts.get("catalogue_id", "")))
        counts = await count_rows(self._db, self._tenant, self._run.id)
        options = msgspec.structs.replace(self._run.options, gone_share_max=100)
        held += limits_hit(counts, _waiting(options, self._seen.unmapped))
        unmapped = tuple(
            Unmapped(what, value, rows)
            for (what, value), rows in self._seen.unmapped.most_common(UNMAPPED_TOLD)
        )
        return Finished(counts, tuple(held), tuple(warnings), unmapped)

    async def _mark_missing(self) -> None:
        """Rows that refer to what is neither here nor in the run, and rows that refer to those."""
        seen = self._seen
        for entity in _ORDER:
            lost: set[str] = set()
            for name, (target, _) in LINKS.get(entity, {}).items():
                if entity == "category":
                    continue  # A section whose parent is nowhere stands at the root.
                missing = seen.wanted.get(target, set()) - seen.here.get(target, set())
                if not missing:
                    continue
                expected = f"a {target} that is known here"
                args = (expected, name, entity, Column("text", sorted(missing)))
                for key, value in await self._change(_MISSING, *args):
                    lost.add(key)
                    seen.unmapped[(target, value)] += 1
            seen.here.get(entity, set()).difference_update(lost)
            seen.waiting.setdefault(entity, set()).update(lost)

    async def _find_gone(self, facts: Mapping[str, str]) -> list[str]:
        """Rows for what this source has brought and a full package leaves out: to be archived."""
        held = []
        for entity in FULL:
            # A package of prices alone names products by their ids: it is no catalogue of them.
            if entity not in self._seen.named or not is_full(entity, facts):
                continue
            known = await self._refs.all_of(KINDS[entity])
            here = self._seen.here.get(entity, set()) | self._seen.waiting.get(entity, set())
            live = await self._live({i for k, i in known.items() if k not in here})
            gone = sorted((k, i) for k, i in known.items() if k not in here and i in live)
            if not gone:
                continue
            start = _GONE_FROM + (_GONE_FROM // 2 if entity == "variant" else 0)
            columns = (Column("text", [k for k, _ in gone]), Column("uuid", [i for _, i in gone]))
            await self._write(_GONE, start, entity, *columns)
            held += self._share(len(gone), len(gone) + len(here & known.keys()), f"{entity}s")
        if facts.get(FULL["variant"]) == "yes" and "stock" in self._seen.here:
            held += self._share(*await self._rests.find_unsaid(), "positions of stock")
        return held

    def _share(self, gone: int, of: int, what: str) -> list[str]:
        """Whether what is gone is too much of what there was."""
        most = most_gone(self._run.options, GONE_SHARE_MAX)
        if not gone or gone * 100 < of * most:
            return []
        return [f"mass-removal: {gone} of {of} {what}, {gone * 100 // of} % (limit {most} %)"]

    async def _live(self, ids: set[UUID]) -> set[UUID]:
        """Those that are there and not archived."""
        found = await self._refs.read(ids)
        return {i for i, data in found.items() if data.get("archived") is not True}

    async def _former(self) -> list[dict[str, str]]:
        """The facts of what was applied from this source before, the last first."""
        run = self._run
        args = (self._tenant, run.connector, run.source, run.id)
        (rows,) = await self._db.read(self._tenant, (_APPLIED, args))
        return [msgspec.json.decode(raw, type=dict[str, str]) for raw in rows.column() if raw]

    async def _read(self, statement: Statement, *args: str | int | Column) -> list[tuple[str, str]]:
        call = (statement, (self._tenant, self._run.id, *args))
        (rows,) = await self._db.read(self._tenant, call, timeout_ms=limits.EXPORT_TIMEOUT_MS)
        return [((a or b"").decode(), (b or b"").decode()) for a, b in rows]

    async def _change(
        self, statement: Statement, *args: str | int | Column
    ) -> list[tuple[str, str]]:
        call = (statement, (self._tenant, self._run.id, *args))
        async with self._db.transaction(self._tenant, timeout_ms=limits.EXPORT_TIMEOUT_MS) as tx:
            (rows,) = await tx.run(call)
            return [((a or b"").decode(), (b or b"").decode()) for a, b in rows]

    async def _write(self, statement: Statement, *args: str | int | Column) -> None:
        async with self._db.transaction(self._tenant, timeout_ms=limits.EXPORT_TIMEOUT_MS) as tx:
            await tx.run((statement, (self._tenant, self._run.id, *args)))


def _waiting(options: Options, unmapped: Counter[tuple[str, str]]) -> Options:
    """Rows that wait for a mapping do not hold the others: they are counted by value."""
    return msgspec.structs.replace(options, faulty_share_max=100) if unmapped else options


def _loops(parents: Mapping[str, str]) -> list[str]:
    """Sections whose way up comes back to them."""
    state: dict[str, bool] = {}
    found: list[str] = []
    for start in parents:
        way: list[str] = []
        at: str | None = start
        while at is not None and at not in state:
            state[at] = False
            way.append(at)
            at = parents.get(at)
        if at is not None and at in way:
            found += way[way.index(at) :]
        state |= dict.fromkeys(way, True)
    return sorted(found)


def _lines(facts: Mapping[str, str], name: str) -> list[str]:
    """The values of a fact that a package of several parts says several times."""
    return facts[name].split("\n") if facts.get(name) else []


def _made(facts: Mapping[str, str]) -> datetime | None:
    found = [m for text in _lines(facts, "made_at") if (m := _moment(text)) is not None]
    return max(found, default=None)


def _older(facts: Mapping[str, str], former: Sequence[Mapping[str, str]]) -> list[str]:
    """A package that was made before one that is applied already waits for somebody."""
    made = _made(facts)
    last = max((m for told in former if (m := _made(told)) is not None), default=None)
    if made is None or last is None or made >= last:
        return []
    return [f"older-than-applied: made {made.isoformat()}, after one of {last.isoformat()}"]


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found
