"""Entries of another node, as they would come."""

from appliance.base.clock import now
from appliance.base.ids import uuid7
from appliance.kernel.context import Door
from appliance.write.receive import receive
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


class Peer:
    """Another node that writes one stream: its entries, in its own order."""

    def __init__(self, tenant, ctx, *, origin=2, unit="north"):
        self.tenant, self.ctx, self.origin = tenant, ctx, origin
        self.stream, self.oseq = tenant.units[unit], 0
        self.person = uuid7()

    def writes(self, op, kind, ident, *, ahead_ms=0, **body):
        """One entry, a transaction of its own."""
        self.oseq += 1
        hlc = (int(now().timestamp() * 1000) + ahead_ms) << 16
        entry = Entry(
            stream=self.stream, origin=self.origin, oseq=self.oseq, tx=self.oseq, hlc=hlc,
            actor=self.person, door="http", kind=kind, record_id=ident, op=op,
            schema_rev=self.ctx.schema.rev, change_set=uuid7(), body=Body(**body),
        )  # fmt: skip
        return Logged(entry=entry, hash=b"", ehlc=hlc)

    def makes(self, kind, **fields):
        """A new record."""
        fields = {"@unit": str(self.stream), **fields}
        return self.writes(EntryOp.NEW, kind, uuid7(), fields=fields)

    async def sends(self, *entries):
        """Have them received, as the hub does."""
        ctx = await self.tenant.ctx(door=Door.SYNC)
        return await receive(
            self.tenant.db, ctx, self.stream, entries, peer=self.origin, from_hub=False
        )
