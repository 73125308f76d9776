"""Records that two nodes wrote beside one another, as receiving leaves them."""

import msgspec

from appliance.base.clock import now
from appliance.base.ids import uuid7
from appliance.db.wire import Statement

_ADD = Statement(
    "INSERT INTO conflict (tenant_id, record_id, sort, register, kind, stream, sides, since) "
    "VALUES ($1, $2, $3, $4, $5, $6, $7::jsonb, $8)"
)


async def noted(tenant, record, sort, register, kind, sides, since=None):
    """A row of the inbox."""
    (row,) = await tenant.sql(
        "SELECT stream::text FROM record WHERE tenant_id = $1 AND id = $2 UNION ALL "
        "SELECT stream::text FROM entry WHERE tenant_id = $1 AND id = $2",
        tenant.id, record,
    )  # fmt: skip
    text = msgspec.json.encode(sides).decode()
    async with tenant.db.transaction(tenant.id) as tx:
        call = (_ADD, (tenant.id, record, sort, register, kind, row[0], text, since or now()))
        await tx.run(call, commit=True)


def side(dot, actor, at="2026-11-20T10:00:00.000Z", **values):
    return {"dot": dot, "values": values, "actor": str(actor), "at": at}


async def opened_field(tenant, as_owner, kind, record, register, *others, mine=None):
    """`others`: (values, actor) of peers that wrote the register beside what stands here."""
    data, stamps, actor, stream = (
        await tenant.sql(
            "SELECT data, stamps, updated_by::text, stream::text FROM record "
            "WHERE tenant_id = $1 AND id = $2",
            tenant.id, record,
        )
    )[0]  # fmt: skip
    own = msgspec.json.decode(data)
    born = stamps.partition(";")[0]
    theirs = [f"{n}.{7000 + n}" for n, _ in enumerate(others, 2)]
    await as_owner(
        tenant.id, "UPDATE record SET stamps = %s WHERE id = %s",
        f"{born};{register}={'+'.join([born, *theirs])}", record,
    )  # fmt: skip
    at = f"@{stream.replace('-', '')}"
    fids = set().union(*(v for v, _ in others))
    sides = [side(born + at, mine or actor, **{f: own.get(f) for f in fids})]
    sides += [
        side(dot + at, who, "2026-11-20T11:00:00.000Z", **values)
        for dot, (values, who) in zip(theirs, others, strict=True)
    ]
    await noted(tenant, record, "field", register, kind, sides)
    return [s["dot"] for s in sides]


def stranger():
    return uuid7()
