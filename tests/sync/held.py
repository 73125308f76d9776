"""Entries of another node, as they would come."""

from appliance.base.clock import now
from appliance.base.ids import uuid7
from appliance.kernel.change import Body, Entry, EntryOp, Logged


def sale(tenant, ctx, *, origin=9, oseq=1, unit="north", kind="deal", **fields):
    """One transaction: a new deal."""
    hlc = int(now().timestamp() * 1000) << 16
    values = {"title": "Late", "@unit": str(tenant.units[unit]), **fields}
    entry = Entry(
        stream=tenant.units[unit], origin=origin, oseq=oseq, tx=oseq, hlc=hlc,
        actor=tenant.people["owner"], door="http", kind=kind, record_id=uuid7(), op=EntryOp.NEW,
        schema_rev=ctx.schema.rev, change_set=uuid7(), body=Body(fields=values),
    )  # fmt: skip
    return [Logged(entry=entry, hash=b"", ehlc=hlc)]
