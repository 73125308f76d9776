"""A node that writes entries without its database: what a bench sends, or is behind by."""

import random

from appliance.base.ids import uuid7
from appliance.kernel.change import Body, Entry, EntryOp, Logged, chain_hash, encode_body
from appliance.sync.frames import encode_frame
from appliance.write.log import CLOCK
from tests.bench.in_process import deal

FRAME = 1_000
LOG_KEY = b"k" * 32
COLUMNS = (
    "tenant_id", "stream", "seq", "origin", "oseq", "tx", "hlc", "ehlc", "actor", "door", "kind",
    "record_id", "op", "schema_rev", "change_set", "body", "hash",
)  # fmt: skip


class Author:
    """Entries of one origin in one stream, each a transaction unless `together` says otherwise."""

    def __init__(self, stream, origin, schema, person):
        self.stream, self.origin, self.rev, self.person = stream, origin, schema.rev, person
        self.oseq, self.tip, self.dice = 0, b"", random.Random(5)
        self.records, self.stamps, self.made = [], {}, 0
        self.together, self.set, self.tx = 1, None, 0
        self.log_key = LOG_KEY

    def add(self, op, record, body):
        self.oseq += 1
        if self.oseq >= self.tx + self.together:
            self.set, self.tx = uuid7(), self.oseq
        entry = Entry(
            stream=self.stream, origin=self.origin, oseq=self.oseq, tx=self.tx, hlc=CLOCK.tick(),
            actor=self.person, door="http", kind="deal", record_id=record, op=op,
            schema_rev=self.rev, change_set=self.set, body=body,
        )  # fmt: skip
        self.tip = chain_hash(self.log_key, self.tip, entry)
        return Logged(entry=entry, hash=self.tip, ehlc=entry.hlc)

    def create(self):
        self.made += 1
        record, given = uuid7(), deal(self.made).fields
        number = f"B-{self.made:06}"
        fields = {**given, "@unit": str(self.stream), "@owner": str(self.person), "@number": number}
        made = self.add(EntryOp.NEW, record, Body(fields=fields))
        self.records.append(record)
        self.stamps[record] = made.entry.dot
        return made

    def edit(self):
        record = self.dice.choice(self.records)
        city = f"City {self.dice.randrange(10_000)}"
        made = self.add(
            EntryOp.PUT, record, Body(fields={"city": city}, base={"city": [self.stamps[record]]})
        )
        self.stamps[record] = made.entry.dot
        return made

    def frames(self, make, count):
        """Frames of a thousand."""
        found = []
        for _ in range(count // FRAME):
            before = {self.origin: self.tip}
            found.append(encode_frame(self.stream, [make() for _ in range(FRAME)], before=before))
        return found

    def put_down(self, conn, tenant, count):
        """`count` new records into the log of the author's own node, and into no other table."""
        asked = "FROM stream WHERE tenant_id = %s AND id = %s"
        head, self.oseq, self.tip = conn.execute(
            f"SELECT head, oseq, hash {asked} FOR UPDATE", (tenant, self.stream)
        ).fetchone()
        self.tx = -self.together
        with conn.cursor().copy(f"COPY change ({', '.join(COLUMNS)}) FROM STDIN") as copy:
            for seq in range(head + 1, head + 1 + count):
                one = self.create()
                e = one.entry
                copy.write_row((
                    tenant, e.stream, seq, e.origin, e.oseq, e.tx, e.hlc, one.ehlc, e.actor, e.door,
                    e.kind, e.record_id, str(e.op), e.schema_rev, e.change_set, encode_body(e.body),
                    one.hash,
                ))  # fmt: skip
                self.records.clear()
                self.stamps.clear()
        conn.execute(
            "UPDATE stream SET head = %s, oseq = %s, hash = %s WHERE tenant_id = %s AND id = %s",
            (head + count, self.oseq, self.tip, tenant, self.stream),
        )
        conn.commit()
