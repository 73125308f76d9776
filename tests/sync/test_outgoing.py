"""What goes to a peer: whole transactions in our order, past what it made itself, made once."""

import asyncio
import time

import psycopg
import pytest

from appliance.base.errors import ApplianceError, Clash
from appliance.base.ids import uuid7
from appliance.db.database import ENTER_GENERIC
from appliance.kernel.change import Body, EntryOp, encode_body
from appliance.sync import outgoing, positions
from appliance.sync.frames import decode_frame
from appliance.sync.outgoing import Veil, read_after
from appliance.write import dangling, known, load, refold
from tests.sync.sample import LOG_KEY, Life
from tests.tenants import create, update

pytestmark = pytest.mark.anyio
MANY = 64 << 20


class Log:
    """A stream filled from outside, in the order of the calls."""

    def __init__(self, dsns, tenant):
        self.dsns, self.tenant, self.stream, self.seq = dsns, tenant, uuid7(), 0
        with self.connect() as conn:
            conn.execute(
                "INSERT INTO stream (tenant_id, id, name, origin) VALUES (%s, %s, 'x', 1)",
                (tenant, self.stream),
            )

    def connect(self):
        return psycopg.connect(self.dsns.superuser)

    def life(self, seed, origin, **given):
        found = Life(seed, origin, **given)
        found.stream = self.stream
        return found

    def add(self, *logged):
        with self.connect() as conn, conn.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO change (tenant_id, stream, seq, origin, oseq, tx, hlc, ehlc, actor, door, "
                "kind, record_id, op, schema_rev, change_set, body, hash) VALUES "
                "(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                [self.row(one) for one in logged],
            )
            cursor.execute("UPDATE stream SET head = %s WHERE id = %s", (self.seq, self.stream))
        return list(logged)

    def row(self, one):
        e = one.entry
        self.seq += 1
        return (self.tenant, self.stream, self.seq, e.origin, e.oseq, e.tx, e.hlc, one.ehlc, e.actor,
                e.door, e.kind, e.record_id, str(e.op), e.schema_rev, e.change_set,
                encode_body(e.body), one.hash)  # fmt: skip

    def park(self, origin, oseq, entries, **given):
        values = {"reason": "unknown_op", "is_logged": True, "state": "waiting", **given}
        with self.connect() as conn:
            conn.execute(
                "INSERT INTO parked (tenant_id, id, stream, origin, oseq, peer, entries, reason, body, "
                "is_logged, state) VALUES (%s, %s, %s, %s, %s, 1, %s, %s, '', %s, %s)",
                (self.tenant, uuid7(), self.stream, origin, oseq, entries, *values.values()),
            )


@pytest.fixture
def log(dsns, tenant):
    return Log(dsns, tenant.id)


async def drain(db, log, after=0, *, max_bytes=MANY, key=LOG_KEY, **given):
    """Everything after a place, call by call, each call from where the one before ended."""
    found, calls = [], 0
    while True:
        batch = await read_after(db, log.tenant, log.stream, after, max_bytes=max_bytes, **given)
        for data in batch.frames:
            found += decode_frame(data, key).entries
        assert batch.upto > after or not batch.more
        after, calls = batch.upto, calls + 1
        if not batch.more:
            return found, after, calls


async def test_what_the_write_path_logged_arrives_as_it_is_with_its_hashes(tenant, db):
    await tenant.add_kind("deal", [("title", "text"), ("amount", "money")])
    made = [
        (await tenant.apply(create("deal", title=f"D{n}"), create("deal", title=f"E{n}"))).outcomes[
            0
        ]
        for n in range(5)
    ]
    for one in made:
        await tenant.apply(update("deal", one.id, amount="12.50"))
    stream = tenant.units["north"]
    rows = await tenant.sql("SELECT oseq, hash FROM change WHERE stream = $1 ORDER BY seq", stream)
    batch = await read_after(db, tenant.id, stream, 0, max_bytes=MANY)
    assert (batch.upto, batch.more) == (15, False)
    (frame,) = (decode_frame(data, b"k" * 32) for data in batch.frames)
    assert [[str(e.entry.oseq), "\\x" + e.hash.hex()] for e in frame.entries] == rows
    tail = await read_after(db, tenant.id, stream, 10, max_bytes=MANY)
    (frame,) = (decode_frame(data, b"k" * 32) for data in tail.frames)
    assert ["\\x" + e.hash.hex() for e in frame.entries] == [r[1] for r in rows[10:]]
    assert (await read_after(db, tenant.id, stream, 15, max_bytes=MANY)).frames == []
    assert (await read_after(db, tenant.id, uuid7(), 0, max_bytes=MANY)).upto == 0


async def test_the_cursor_moves_past_what_is_left_out(db, log):
    site, other = log.life(1, 7), log.life(2, 8)
    mine, theirs = log.add(*site.live(300)), log.add(*other.live(40))
    log.add(*(last := site.live(30)))
    found, upto, _ = await drain(db, log, without=frozenset({7}))
    assert (found, upto) == (theirs, log.seq)
    found, upto, _ = await drain(db, log, origins=frozenset({7}))
    assert (found, upto) == (mine + last, log.seq)
    found, upto, _ = await drain(db, log, after=20, origins=frozenset({9}))
    assert (found, upto) == ([], log.seq)
    found, upto, calls = await drain(db, log, without=frozenset({7, 8}))
    assert (found, upto, calls) == ([], log.seq, 1)


@pytest.mark.parametrize("given", [{}, {"origins": frozenset({7, 8})}])
async def test_a_transaction_is_never_divided(db, log, given):
    site, other = log.life(3, 7), log.life(4, 8)
    made = []
    for size in (700, 1_500, 3, 2_300, 1, 999, 1, 1, 1_000):
        made += log.add(*site.create(size))
        made += log.add(other.edit())
    for after in (0, 1, 699, 700, 701, 2_000):
        whole = [e for e in made[after:]]
        batch = await read_after(db, log.tenant, log.stream, after, max_bytes=1, **given)
        seen = []
        while True:
            for data in batch.frames:
                entries = decode_frame(data).entries
                seen += entries
                assert (
                    len(entries) <= 1_000
                    or len({(e.entry.origin, e.entry.tx) for e in entries}) == 1
                )
            left = made[batch.upto : batch.upto + 1]
            assert not left or left[0].entry.tx == left[0].entry.oseq, "cut inside a transaction"
            if not batch.more:
                break
            batch = await read_after(
                db, log.tenant, log.stream, batch.upto, max_bytes=100_000, **given
            )
        assert [e.entry for e in seen] == [e.entry for e in whole]
        assert batch.upto == log.seq


async def test_bytes_are_bounded_and_one_frame_always_goes(db, log):
    log.add(*log.life(5, 7).live(4_000))
    sizes = []
    after, more = 0, True
    while more:
        batch = await read_after(db, log.tenant, log.stream, after, max_bytes=150_000)
        sizes.append(sum(map(len, batch.frames)))
        assert all(len(data) <= 65_536 for data in batch.frames)
        after, more = batch.upto, batch.more
    assert len(sizes) > 1 and max(sizes) <= 150_000
    tiny = await read_after(db, log.tenant, log.stream, 0, max_bytes=1)
    assert len(tiny.frames) == 1 and tiny.more


async def test_the_hubs_clock_and_what_waits_travel_along(db, log):
    life = log.life(6, 7)
    made = log.add(*life.create(3), life.edit(), *life.create(2), life.edit())
    with log.connect() as conn:
        conn.execute(
            "INSERT INTO clock_cut VALUES (%s, %s, 7, 4, %s)",
            (log.tenant, log.stream, made[3].entry.hlc - 5),
        )
    log.park(7, 5, 2)
    log.park(7, 1, 3, state="released")
    log.park(7, 7, 1, is_logged=False)
    found, _, _ = await drain(db, log)
    assert [e.parked for e in found] == [""] * 4 + ["unknown_op"] * 2 + [""]
    assert [e.entry.hlc - e.ehlc for e in found] == [0, 0, 0, 5, 0, 0, 0]
    with log.connect() as conn:
        conn.execute("UPDATE parked SET state = 'released' WHERE tenant_id = %s", (log.tenant,))
    found, _, _ = await drain(db, log)
    assert {e.parked for e in found} == {""}, "a page with parked entries is not kept"


async def test_an_operation_of_a_newer_program_goes_on(db, log):
    life = log.life(7, 7)
    odd = life.log("redirect", life.records[0], Body(ext={"into": {"deep": [1, None, "x"]}}))
    assert (await drain(db, log))[0] == [] and log.add(odd, life.edit())
    found, _, _ = await drain(db, log)
    assert found[0] == odd and type(found[0].entry.op) is str and found[1].entry.op is EntryOp.PUT


async def test_what_a_reader_may_not_see_is_taken_out_and_the_rest_is_proved(db, log):
    life = log.life(8, 7)
    made = log.add(*life.create(4), *(life.edit() for _ in range(20)))
    hidden = {12, 15}

    def strip(one):
        if one.entry.oseq not in hidden:
            return one
        entry = one.entry
        bare = type(entry)(
            **{f: getattr(entry, f) for f in entry.__struct_fields__} | {"body": Body()}
        )
        return type(one)(entry=bare, hash=b"", ehlc=one.ehlc)

    found, _, _ = await drain(db, log, veil=Veil("m1", strip))
    assert found[:11] == made[:11]
    assert all(not e.hash for e in found[11:])
    found, _, _ = await drain(db, log, after=15, veil=Veil("m1", strip))
    assert found == made[15:], "a later frame is proved from the hash that was logged"
    found, _, _ = await drain(db, log)
    assert found == made, "another veil is another page"


async def test_two_hundred_sites_cost_one_encode(db, log, monkeypatch):
    hub, site = log.life(9, 1), log.life(10, 107)
    log.add(*hub.live(1_200), *site.live(300))
    made = []
    plain = outgoing.encode_frames
    monkeypatch.setattr(
        outgoing, "encode_frames", lambda *given: made.append(given) or plain(*given)
    )
    began = time.perf_counter()
    batches = await asyncio.gather(*(
        read_after(db, log.tenant, log.stream, 0, without=frozenset({n}), max_bytes=MANY)
        for n in range(100, 300)
    ))  # fmt: skip
    assert len(made) <= 3, "two pages, and one of them without what its reader wrote"
    assert {b.upto for b in batches} == {log.seq}
    assert len({tuple(b.frames) for b in batches}) == 2
    assert time.perf_counter() - began < 20
    log.add(site.edit())
    found, upto, _ = await drain(db, log, after=1_400, without=frozenset({9}))
    assert upto == log.seq and found[-1].entry.oseq == site.oseq, "the end of a stream is not kept"


async def test_what_is_asked_for_next_is_made_meanwhile(db, log, monkeypatch):
    log.add(*log.life(16, 7).live(5_000))
    made, plain = [], outgoing.encode_frames
    monkeypatch.setattr(
        outgoing, "encode_frames", lambda *given: made.append(given) or plain(*given)
    )
    asked = {"max_bytes": 40_000, "ahead": True}
    first = await read_after(db, log.tenant, log.stream, 0, **asked)
    assert first.more
    await outgoing._kept[db].ahead
    ready = len(made)
    second = await read_after(db, log.tenant, log.stream, first.upto, **asked)
    assert len(made) == ready and second.frames and second.upto > first.upto
    given = sum(map(len, first.frames))
    ahead = sum(outgoing._weight(p) for p in outgoing._kept[db]._pages.values()) - given
    assert ahead < 2 * given + 2 * 65_536, "no further than that"
    await outgoing._kept[db].ahead


async def test_two_nodes_in_one_process_do_not_share_what_is_kept(dsns, db, log):
    from tests.tenants import opened

    log.add(*log.life(11, 7).live(5))
    await drain(db, log)
    async with opened(dsns) as other:
        assert outgoing._kept.get(other) is None
        assert len((await drain(other, log))[0]) == log.seq


async def test_what_is_kept_is_bounded(db, log, monkeypatch):
    monkeypatch.setattr(outgoing, "KEPT_BYTES_MAX", 60_000)
    log.add(*log.life(12, 7).live(3_000))
    for _ in range(2):
        await drain(db, log)
    kept = outgoing._kept[db]
    assert 0 <= kept._weight <= 60_000
    assert kept._weight == sum(map(outgoing._weight, kept._pages.values()))
    assert len(kept._present) <= len(kept._pages)


async def test_behind_the_floor_records_have_to_be_compared(db, log):
    log.add(*log.life(13, 7).live(20))
    with log.connect() as conn:
        conn.execute("UPDATE stream SET floor = 10 WHERE id = %s", (log.stream,))
        conn.execute("SET session_replication_role = replica")
        conn.execute("DELETE FROM change WHERE stream = %s AND seq <= 10", (log.stream,))
    with pytest.raises(Clash, match="compare its records"):
        await drain(db, log, after=9)
    found, upto, _ = await drain(db, log, after=10)
    assert len(found) == log.seq - 10 and upto == log.seq
    assert not found[0].hash, "the hash before it is gone with the log"


async def test_a_cursor_never_moves_past_an_entry_that_is_gone(db, log):
    log.add(*log.life(15, 7).live(20))
    with log.connect() as conn:
        conn.execute("SET session_replication_role = replica")
        conn.execute("DELETE FROM change WHERE stream = %s AND seq = 12", (log.stream,))
    with pytest.raises(ApplianceError, match="lacks entries"):
        await drain(db, log)


async def test_a_page_is_read_by_its_place_and_not_by_all_of_the_log(db, log, dsns):
    log.add(*log.life(14, 7).live(6_000))
    with psycopg.connect(dsns.superuser, autocommit=True) as conn:
        conn.execute("ANALYZE change")
    for name, statement, params in (
        ("page", outgoing.PAGE, (log.tenant, log.stream, 3_000, 4_001, None, 1_001)),
        ("own", outgoing.PAGE, (log.tenant, log.stream, 3_000, 4_001, [7], 1_001)),
        ("before", outgoing.BEFORE, (log.tenant, log.stream, [7], [3_000])),
    ):  # fmt: skip
        plan = plan_of(dsns, log.tenant, statement, params)
        assert "Seq Scan on change" not in plan, (name, plan)
        if statement is outgoing.PAGE:
            assert "(oseq = c.oseq)" in plan, f"each cut by its place: {plan}"
            assert "(oseq <= c.oseq)" in plan, f"each parked transaction by its place: {plan}"
        assert "change_pkey" in plan or "change_tenant_id_stream_origin_oseq_key" in plan, plan


async def test_what_is_looked_up_by_key_is_searched_by_key_in_tables_nobody_has_analysed(log, dsns):
    """Of these the planner expects one row for a tenant: it joins the wrong way round, and keeps to
    that while the tables grow.
    """
    place = ([log.stream], [7], [3_000])
    for statement, params, wanted in (
        (positions.PENDING, (log.tenant, *place), "(origin = u.origin) AND (oseq > u.got)"),
        (known.LEAVES, (log.tenant, *place), "(origin = u.o) AND (oseq = u.q)"),
        (refold.OF_PLACES, (log.tenant, *place), "(origin = u.o) AND (oseq = u.q)"),
        (outgoing.BEFORE, (log.tenant, log.stream, [7], [3_000]), "(oseq = u.oseq)"),
        (load.CLAIMS, (log.tenant, ["a"], ["b"], ["c"]), "(rule = w.rule) AND (value = w.value)"),
        (dangling.ABSENT["record"], (log.tenant, [log.stream]), "(id = u.id)"),
        (load.LOCK_ROWS, (log.tenant, [log.stream]), "(id = ANY ($2))"),
    ):  # fmt: skip
        plan = plan_of(dsns, log.tenant, statement, params)
        found = [line for line in plan.splitlines() if "Index Cond" in line and wanted in line]
        assert found, plan


def plan_of(dsns, tenant, statement, params):
    """The plan that any values get, in a transaction of the write path."""
    with psycopg.connect(dsns.pool_dsn) as conn:
        conn.execute(b"PREPARE enter AS " + ENTER_GENERIC.sql)
        conn.execute(psycopg.sql.SQL("EXECUTE enter({})").format(str(tenant)))
        conn.execute(b"PREPARE p AS " + statement.sql)
        given = psycopg.sql.SQL(", ").join(map(psycopg.sql.Literal, params))
        rows = conn.execute(psycopg.sql.SQL("EXPLAIN EXECUTE p({})").format(given)).fetchall()
    return "\n".join(row[0] for row in rows)
