"""A site that was tampered with: it speaks with the site's key and says whatever it likes."""

import contextlib

from appliance.base.clock import now
from appliance.base.ids import uuid7
from appliance.kernel.change import Body, Entry, Logged
from appliance.sync import messages as say
from appliance.sync.frames import encode_frame
from appliance.write.log import common_stream
from tests.sync.pair import joined


class Thief:
    """Speaks with the site's key and says whatever it likes."""

    def __init__(self, pair):
        self.pair, self.made, self.origin = pair, {}, pair.parts.me.origin
        self.north, self.south = pair.hub.units["north"], pair.hub.units["south"]
        self.shared = common_stream(pair.hub.id, "shared")
        self.schema = common_stream(pair.hub.id, "schema")
        self.actor, self.door = pair.hub.people["owner"], "http"
        self.talk = None

    def says(self, op, kind, ident, *, stream=None, tx=None, **body):
        stream = stream or self.north
        oseq = self.made[stream] = self.made.get(stream, 0) + 1
        hlc = int(now().timestamp() * 1000) << 16
        entry = Entry(
            stream=stream, origin=self.origin, oseq=oseq, tx=tx or oseq, hlc=hlc, actor=self.actor,
            door=self.door, kind=kind, record_id=ident, op=op, schema_rev=1, change_set=uuid7(),
            body=Body(**body),
        )  # fmt: skip
        return Logged(entry=entry, hash=b"", ehlc=hlc)

    async def pushes(self, *entries):
        """The reasons of what was parked."""
        if self.talk is None:
            self.talk = self.pair.talk()
            await self.talk.greet()
        stream = entries[0].entry.stream
        push = say.Push(stream, [encode_frame(stream, entries)])
        answer = await self.talk.client.exchange(say.Exchange([push], [], 1 << 20))
        (receipt,) = answer.receipts
        assert not receipt.problem, receipt
        return [p.reason.partition(":")[0] for p in receipt.parked]

    async def row(self, ident):
        rows = await self.pair.hub.sql(
            "SELECT kind, stream::text, unit_id::text, data->>'title' FROM record "
            "WHERE tenant_id = $1 AND id = $2", self.pair.hub.id, ident,
        )  # fmt: skip
        return rows[0] if rows else None


@contextlib.asynccontextmanager
async def thief_of(tenant, there, valkey_url, tmp_path, kind, fields):
    """Of a site of one branch."""
    units = [tenant.units["north"]]
    async with joined(tenant, there, valkey_url, tmp_path, units=units) as pair:
        await pair.hub.add_kind(kind, fields)
        await pair.sync()
        found = Thief(pair)
        yield found
        if found.talk:
            await found.talk.close()
