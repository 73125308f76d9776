"""Ids that stand twice in one input: which rows of them wait, and which are written once.

A reader streams, so of an id that comes again with other content it can put at fault only the
later row; here the earlier one joins it, because nobody can say which of them is right. An offer's
prices are one content, its stock another, an order's lines belong to their order.
"""

from __future__ import annotations

from uuid import UUID

from appliance.base import limits
from appliance.db.columns import Column
from appliance.db.database import Database
from appliance.db.values import text_of
from appliance.db.wire import Param, Statement

_SUBJECT = (
    "CASE r.entity WHEN 'order_line' THEN 'order' ELSE r.entity END AS entity, "
    "CASE r.entity WHEN 'order_line' THEN r.data->>'order_id' "
    "WHEN 'price' THEN split_part(r.key, '|', 1) WHEN 'stock' THEN split_part(r.key, '|', 1) "
    "ELSE r.key END AS id"
)
# Which of these ids, and rows of them that a reader took for sound.
_COPIES = Statement(
    f"WITH told AS (SELECT DISTINCT {_SUBJECT} FROM intake_row r WHERE r.tenant_id = $1 "
    "AND r.run = $2 AND r.sort = 'faulty' AND r.faults @> '[{\"code\": \"duplicate-id\"}]'), "
    f"sound AS (SELECT r.no, {_SUBJECT} FROM intake_row r WHERE r.tenant_id = $1 AND r.run = $2 "
    "AND r.sort NOT IN ('faulty', 'gone') AND EXISTS (SELECT 1 FROM told)) "
    "UPDATE intake_row i SET sort = 'faulty', faults = i.faults || jsonb_build_object("
    "'code', 'duplicate-id', 'expected', 'one ' || t.entity || ' for an id, or the same twice', "
    "'found', t.id, 'place', jsonb_build_object('sheet', i.sheet, 'row', i.line)) "
    "FROM sound s JOIN told t ON t.entity = s.entity AND t.id = s.id "
    "WHERE i.tenant_id = $1 AND i.run = $2 AND i.no = s.no RETURNING i.entity, i.key"
)
_REPEATED = Statement(
    "SELECT entity, key FROM intake_row WHERE tenant_id = $1 AND run = $2 "
    "AND sort NOT IN ('faulty', 'gone') GROUP BY entity, key HAVING count(*) > 1"
)
# Rows of one id in one file that say different things of the same field; of facts also in others.
_DIFFERENT = Statement(
    "SELECT DISTINCT entity, key FROM (SELECT r.entity, r.key FROM intake_row r, "
    "jsonb_each(r.data) AS f WHERE r.tenant_id = $1 AND r.run = $2 AND r.sort <> 'faulty' "
    "AND r.key = ANY($3::text[]) AND f.value <> 'null'::jsonb GROUP BY r.entity, r.key, "
    "CASE WHEN r.entity IN ('price', 'stock') THEN '' ELSE r.sheet END, f.key "
    "HAVING count(DISTINCT f.value) > 1) AS d"
)
_TWINS = Statement(
    "UPDATE intake_row SET sort = 'faulty', faults = faults || jsonb_build_object("
    "'code', 'duplicate-key', 'expected', 'one row for an id', 'found', key, "
    "'place', jsonb_build_object('sheet', sheet, 'row', line)) WHERE tenant_id = $1 AND run = $2 "
    "AND sort <> 'faulty' AND entity = $3 AND key = ANY($4::text[])"
)
# An entry of a ledger is written once.
_ONCE = Statement(
    "UPDATE intake_row r SET sort = 'unchanged' FROM (SELECT entity, key, min(no) AS no "
    "FROM intake_row WHERE tenant_id = $1 AND run = $2 AND sort <> 'faulty' "
    "AND entity IN ('price', 'stock') AND key = ANY($3::text[]) GROUP BY entity, key) AS f "
    "WHERE r.tenant_id = $1 AND r.run = $2 AND r.entity = f.entity AND r.key = f.key "
    "AND r.no <> f.no AND r.sort <> 'faulty'"
)
Keys = dict[str, set[str]]


async def mark_twins(db: Database, tenant: UUID, run: UUID) -> Keys:
    """Put rows at fault whose id says different things, all of them; their keys by entity."""
    found: Keys = {}
    async with db.transaction(tenant, timeout_ms=limits.EXPORT_TIMEOUT_MS) as tx:

        async def ask(statement: Statement, *args: Param) -> list[tuple[str, str]]:
            (rows,) = await tx.run((statement, (tenant, run, *args)))
            return [(text_of(entity), text_of(key)) for entity, key in rows]

        for entity, key in await ask(_COPIES):
            found.setdefault(entity, set()).add(key)
        if repeated := await ask(_REPEATED):
            keys = Column("text", sorted({key for _, key in repeated}))
            different: Keys = {}
            for entity, key in await ask(_DIFFERENT, keys):
                different.setdefault(entity, set()).add(key)
            for entity, twins in different.items():
                await ask(_TWINS, entity, Column("text", sorted(twins)))
                found.setdefault(entity, set()).update(twins)
            await ask(_ONCE, keys)
    return found
