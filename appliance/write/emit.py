"""Stage 7: what leaves the transaction, as outbox rows in the same transaction.

Nothing else leaves it: live updates, workflows, webhooks and jobs all start from these rows, so
losing Redis delays and never loses.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import msgspec

from appliance.db.wire import Call, Statement
from appliance.kernel.context import Ctx
from appliance.meta import RIGHTS_KINDS, SCHEMA_KINDS
from appliance.write.command import Op
from appliance.write.draft import Draft
from appliance.write.outcome import Effect

_OUTBOX = Statement(
    "INSERT INTO outbox (tenant_id, topic, payload) SELECT $1, t, p::jsonb "
    "FROM unnest($2::text[], $3::text[]) AS u(t, p)",
    leaves=True,
)
_BUMP = Statement(
    "UPDATE tenant_state SET schema_rev = schema_rev + $2, rights_rev = rights_rev + $3 "
    "WHERE tenant_id = $1"
)
_ADD_STREAM = Statement(
    "INSERT INTO stream (tenant_id, id, name, origin) SELECT $1, i, n, $2 "
    "FROM unnest($3::uuid[], $4::text[]) AS u(i, n) ON CONFLICT DO NOTHING"
)
NAMED_CHANGES_MAX = 500
# Change sets of one frame that are named; of more it is told that there were many.
CHANGE_SETS_MAX = 100
Job = tuple[str, dict[str, object]]


def emit_calls(
    ctx: Ctx, drafts: Sequence[Draft], jobs: Sequence[Job]
) -> tuple[list[Call], tuple[Effect, ...]]:
    """Outbox rows, revisions of schema and rights, streams of new units; and the effects."""
    calls = _emitted(ctx, [_told(ctx.request_id, drafts)], drafts, jobs, adds_streams=True)
    effects = [Effect("changes", len(drafts))]
    effects += [Effect(f"job.{kind}", 1) for kind, _ in jobs]
    return calls, tuple(effects)


def received_calls(
    ctx: Ctx, drafts: Sequence[Draft], jobs: Sequence[Job], *, adds_streams: bool
) -> list[Call]:
    """The same for entries of peers: one telling, with the change sets of their authors."""
    if not drafts:
        return _emitted(ctx, [], drafts, jobs, adds_streams=adds_streams)
    sets = {e.change_set.int for d in drafts for e in d.entries}
    if len(sets) > CHANGE_SETS_MAX:
        told = _told(ctx.request_id, drafts, named_max=0) | {"change_sets": []}
    else:
        named = sorted(str(UUID(int=value)) for value in sets)
        told = _told(ctx.request_id, drafts) | {"change_sets": named}
    return _emitted(ctx, [told], drafts, jobs, adds_streams=adds_streams)


def _told(
    change_set: UUID, drafts: Sequence[Draft], *, named_max: int = NAMED_CHANGES_MAX
) -> dict[str, object]:
    named = [
        {"kind": d.command.kind, "id": str(d.id), "op": d.command.op.value}
        for d in drafts[:named_max]
    ]
    return {
        "change_set": str(change_set),
        "changes": named,
        "more": len(drafts) - len(named),
        "kinds": sorted({d.command.kind for d in drafts}),
    }


def _emitted(
    ctx: Ctx,
    told: Sequence[dict[str, object]],
    drafts: Sequence[Draft],
    jobs: Sequence[Job],
    *,
    adds_streams: bool,
) -> list[Call]:
    rows = [("changes", _json(payload)) for payload in told]
    rows += [(f"job.{kind}", _json(body)) for kind, body in jobs]
    if not rows:
        return []
    topics, payloads = zip(*rows, strict=True)
    calls: list[Call] = [(_OUTBOX, (ctx.tenant, topics, payloads))]
    kinds = {d.command.kind for d in drafts}
    schema, rights = bool(kinds & SCHEMA_KINDS), bool(kinds & RIGHTS_KINDS)
    if schema or rights:
        calls.append((_BUMP, (ctx.tenant, int(schema), int(rights))))
    units = [d for d in drafts if d.command.kind == "sys.unit" and d.command.op is Op.CREATE]
    if units and adds_streams:
        names = [str(d.values.get("name")) for d in units]
        calls.append((_ADD_STREAM, (ctx.tenant, ctx.origin, [d.id for d in units], names)))
    return calls


def stream_call(tenant: UUID, origin: int, streams: Sequence[tuple[UUID, str]]) -> Call:
    """Create streams that do not exist yet."""
    ids, names = zip(*streams, strict=True)
    return _ADD_STREAM, (tenant, origin, ids, names)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
