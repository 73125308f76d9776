"""Events out of the log: each entry once, in the order of what was seen, whatever the batches."""

from uuid import UUID, uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.kernel.change import Body, encode_body
from appliance.webhooks.events import decisions_of, event_id, read_events
from appliance.write.parked import decide_parked, park_logged
from tests.webhooks.receiver import receiving

HOOK = UUID(int=1)
STREAMS = [UUID(int=n) for n in (10, 11, 12)]
ACTIONS = {"deal": ("created", "updated")}
BODY = b"\\x" + encode_body(Body(fields={"title": "x"})).hex().encode()


def row(stream, head, cursor, entry=None):
    name = str(stream).encode()
    begin = (name, b"%d" % head, b"0", b"%d" % cursor)
    if entry is None:
        return (*begin, *[None] * 10, name)
    seq, clock, op, record = entry
    actor = str(HOOK).encode()
    return (
        *begin, b"%d" % seq, b"1", b"%d" % seq, b"%d" % clock, actor, b"deal",
        str(record).encode(), op.encode(), actor, BODY, name,
    )  # fmt: skip


def ask(logs, cursors, limit):
    """What PostgreSQL answers: of each stream what is behind its cursor, up to the limit."""
    rows = []
    for stream, entries in logs.items():
        cursor = cursors.get(str(stream), 0)
        if len(entries) > cursor:
            behind = [e for e in entries if e[0] > cursor and e[2] != "other"][:limit]
            rows += [row(stream, len(entries), cursor, e) for e in behind or [None]]
    return rows


_ops = st.sampled_from(["new", "put", "arrive", "move", "other"])


@given(st.lists(st.tuples(st.sampled_from(STREAMS), _ops, st.integers(0, 3)), max_size=60),
       st.integers(1, 9))  # fmt: skip
def test_every_entry_once_and_never_before_one_it_had_seen(history, limit):
    """`history` is in the order in which it happened, each entry knowing all before it."""
    logs = {s: [] for s in STREAMS}
    happened = []
    for clock, (stream, op, record) in enumerate(history, 1):
        entry = (len(logs[stream]) + 1, clock, op, uuid5(HOOK, str(record)))
        logs[stream].append(entry)
        if op in ("new", "put", "arrive"):
            happened.append((stream, entry[0]))
    cursors, told, rounds = {}, [], 0
    while rows := ask(logs, cursors, limit):
        found = read_events(rows, {}, HOOK, ACTIONS, limit)
        assert found.events or found.cursors != {s: cursors.get(s, 0) for s in found.cursors}
        cursors |= found.cursors
        told += [(e.stream, e.seq) for e in found.events]
        rounds += 1
        assert rounds <= 200
    assert told == happened
    assert cursors == {str(s): len(entries) for s, entries in logs.items() if entries}


def test_ids_are_those_of_the_entry_and_the_webhook():
    one = event_id(HOOK, STREAMS[0], 1, 7)
    assert one == event_id(HOOK, STREAMS[0], 1, 7) and one.version == 8
    others = {event_id(HOOK, STREAMS[1], 1, 7), event_id(HOOK, STREAMS[0], 17, 0),
              event_id(UUID(int=2), STREAMS[0], 1, 7), one}  # fmt: skip
    assert len(others) == 4


@pytest.mark.anyio
async def test_what_was_held_back_is_told_when_it_is_let_in(desk, courier):
    """A transaction that is parked is no event; its release makes it one, at that place."""
    tenant = desk.firm.tenant
    async with receiving() as receiver:
        ident = await desk.make(0, url=f"http://127.0.0.1:{receiver.port}/")
        await desk.call("POST", f"/{ident}/pause")
        deal = await desk.deal(title="held")
        place = await tenant.sql(
            "SELECT stream::text, origin, oseq FROM change WHERE record_id = $1", UUID(deal)
        )
        stream, origin, oseq = place[0]
        async with tenant.db.transaction(tenant.id) as tx:
            where = (UUID(stream), int(origin), int(oseq))
            await park_logged(tx, tenant.id, where, peer=1, reason="poison: by the test")
        (parked,) = await tenant.sql("SELECT id::text FROM parked WHERE oseq = $1", int(oseq))
        await desk.call("POST", f"/{ident}/resume")
        await desk.until(ident, lambda s: s["lag"] == s["waiting"] == 0)
        assert not receiver.got
        async with tenant.db.transaction(tenant.id) as tx:
            await decide_parked(tx, await tenant.ctx(), UUID(parked[0]), release=True)
        await receiver.until(lambda: receiver.got)
        assert (receiver.types(), receiver.got[0].event["data"]["id"]) == (["deal.created"], deal)


def test_decisions_are_found_among_the_rows():
    decided = UUID(int=99)
    rows = [row(STREAMS[0], 2, 0, (1, 1, "new", HOOK)), row(STREAMS[0], 2, 0, (2, 2, "resolve", decided))]  # fmt: skip
    assert decisions_of(rows) == {decided}
    late = row(STREAMS[1], 9, 9, (5, 1, "put", HOOK))
    found = read_events(rows, {decided: [late]}, HOOK, ACTIONS)
    assert [(e.action, e.id) for e in found.events] == [
        ("created", event_id(HOOK, STREAMS[0], 1, 1)), ("updated", event_id(HOOK, STREAMS[1], 1, 5)),
    ]  # fmt: skip
