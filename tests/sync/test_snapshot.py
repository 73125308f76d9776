"""A stream by its states: what begins, comes back or was cut off ends like whoever read the log."""

import dataclasses
import random

import pytest

from appliance.base.errors import ApplianceError
from appliance.base.ids import uuid7
from tests.sync.pair import records
from tests.tenants import create, delete, restore, update

pytestmark = pytest.mark.anyio
KIND = "deal"
TABLES = {
    "record": "id::text, kind, stream::text, unit_id::text, owner_id::text, number, data::text, "
    "stamps, created_at::text, updated_at::text, deleted_at::text, deleted_by::text, "
    "encode(open, 'hex'), search::text",
    "record_link": "kind, fid, value, record_id::text",
    "unique_claim": "kind, rule, value, record_id::text",
    "conflict": "record_id::text, sort, register, sides::text",
    "entry": "id::text, data::text, key::text, at::text",
}


async def tables(tenant):
    """What the projections of a node hold, for comparing."""
    return {
        name: sorted(
            await tenant.sql(f"SELECT {columns} FROM {name} WHERE tenant_id = $1", tenant.id),
            key=str,
        )
        for name, columns in TABLES.items()
    }


async def add_deals(tenant):
    await tenant.add_kind(
        KIND,
        [("title", "text"), ("note", "long_text"), {"name": "code", "type": "text", "unique": True},
         {"name": "tags", "type": "multi_choice", "options": {"choices": [
             {"key": k, "labels": {"en": k}} for k in ("red", "blue")]}}],
    )  # fmt: skip


def by_states(pair):
    pair.parts = dataclasses.replace(pair.parts, states_after=0)


async def fill(tenant, count=30, edits=3):
    """Records with a past."""
    ids = [uuid7() for _ in range(count)]
    made = await tenant.apply(
        *[
            create(KIND, i, title=f"deal {n}", code=f"c{n}", **({"tags": ["red"]} if n % 2 else {}))
            for n, i in enumerate(ids)
        ]
    )
    assert made.committed, made
    for step in range(edits):
        for ident in ids[step::2]:
            await tenant.apply(update(KIND, ident, note=f"step {step}"))
    await tenant.apply(delete(KIND, ids[0]))
    return ids


async def test_a_new_site_begins_by_states(pair):
    await add_deals(pair.hub)
    ids = await fill(pair.hub)
    by_states(pair)
    await pair.sync()
    assert pair.line.asked.count("chunk") > 0
    assert await tables(pair.site) == await tables(pair.hub)
    # The log goes on from the cut, both ways.
    await pair.hub.apply(update(KIND, ids[1], title="of the hub"))
    assert (await pair.site.apply(update(KIND, ids[1], note="of the branch"))).committed
    await pair.sync()
    await pair.sync()
    assert await tables(pair.site) == await tables(pair.hub)
    ours = await records(pair.site, KIND)
    assert "of the hub" in str(ours) and "of the branch" in str(ours)
    assert (
        await pair.site.sql("SELECT 1 FROM stream_ahead WHERE tenant_id = $1", pair.site.id) == []
    )
    assert await pair.site.sql("SELECT 1 FROM stream_join WHERE tenant_id = $1", pair.site.id) == []


async def test_killed_twenty_times_costs_little(pair):
    await add_deals(pair.hub)
    for start in range(0, 4000, 1000):
        await pair.hub.apply(
            *[create(KIND, title=f"deal {n} {uuid7()}") for n in range(start, start + 1000)]
        )
    by_states(pair)
    whole = await _bytes_to_join(pair, kills=0)
    await pair.site.sql("DELETE FROM stream_join WHERE tenant_id = $1", pair.site.id)
    await _forget_site(pair)
    killed = await _bytes_to_join(pair, kills=20)
    assert await tables(pair.site) == await tables(pair.hub)
    assert killed <= 1.1 * whole, (killed, whole)


async def _forget_site(pair):
    import psycopg

    async with await psycopg.AsyncConnection.connect(pair.dsns.superuser, autocommit=True) as conn:
        for table in ("record", "unique_claim", "record_link", "change", "record_base",
                      "stream_base", "stream_vector", "peer_stream", "stream_ahead"):  # fmt: skip
            await conn.execute(f"DELETE FROM {table} WHERE tenant_id = %s", (pair.site.id,))
        await conn.execute(
            "UPDATE stream SET head = 0, floor = 0, oseq = 0, hash = '' WHERE tenant_id = %s",
            (pair.site.id,),
        )


async def _bytes_to_join(pair, kills):
    """Bytes of pieces that came in, with so many answers lost on their way."""
    before = len(pair.line.carried)
    for attempt in range(kills + 1):
        talk = pair.talk()
        talk.states.rows = 10
        pair.line.lose_after = 12 if attempt < kills else None
        try:
            await talk.greet()
            await talk.catch_up()
        except ApplianceError:
            assert attempt < kills
        finally:
            await talk.close()
    return sum(size for verb, size in pair.line.carried[before:] if verb == "chunk")


@pytest.mark.parametrize("seed", range(4))
async def test_what_is_written_meanwhile_counts_once(pair, seed):
    """Both write between the pieces; everything in the pieces comes again by the tail."""
    chance = random.Random(seed)
    await add_deals(pair.hub)
    ids = await fill(pair.hub, 40)
    by_states(pair)
    units = list(pair.hub.units.values())

    async def write(tenant, *, at_site):
        for _ in range(3):
            ident = chance.choice(ids)
            match chance.randrange(7):
                case 0:
                    await tenant.apply(delete(KIND, ident))
                case 1:
                    await tenant.apply(restore(KIND, ident))
                case 2 if not at_site:
                    await tenant.apply(update(KIND, ident, unit=chance.choice(units)))
                case 3:
                    await tenant.apply(update(KIND, ident, tags=[chance.choice(["red", "blue"])]))
                case _:
                    await tenant.apply(update(KIND, ident, title=f"{at_site} {chance.random()}"))
                    await tenant.apply(update(KIND, ident, note=f"{at_site} {chance.random()}"))

    async def meanwhile(verb):
        if verb == "chunk":
            await write(pair.hub, at_site=False)
            await write(pair.site, at_site=True)

    pair.line.meanwhile = meanwhile
    talk = pair.talk()
    talk.states.rows = 7
    await talk.greet()
    await talk.catch_up()
    await talk.close()
    pair.line.meanwhile = None
    await pair.sync()
    await pair.sync()
    ours, theirs = await tables(pair.site), await tables(pair.hub)
    for name in ours:
        assert ours[name] == theirs[name], name


async def test_ledgers_come_once(pair):
    """Entries are a union, and what is added up from them is right however often they came."""
    from tests.write.test_ledgers import MOVE

    hub = pair.hub
    await hub.add_kind("product", [("name", "text")], home="shared")
    await hub.add_kind("warehouse", [("name", "text"), ("allow_negative", "yes_no")])
    await hub.add_kind(
        "stock_move", MOVE,
        ledger={"sort": "balance", "at": "moved_at", "key": ["product", "warehouse"],
                "values": ["quantity"], "floor": True, "unless": "warehouse.allow_negative"},
    )  # fmt: skip
    product, warehouse = uuid7(), uuid7()
    made = await hub.apply(
        create("product", product, name="bolt"), create("warehouse", warehouse, name="W")
    )
    assert made.committed, made

    def move(quantity):
        return create(
            "stock_move", product=str(product), warehouse=str(warehouse), quantity=quantity
        )

    for n in range(5):
        done = await hub.apply(*[move(str(n + 1)) for _ in range(4)])
        assert done.committed, done
    by_states(pair)
    pair.line.meanwhile = _writing(pair, move)
    talk = pair.talk()
    talk.states.rows = 3
    await talk.greet()
    await talk.catch_up()
    await talk.close()
    pair.line.meanwhile = None
    # As if it had been killed before it kept how far it was.
    await pair.site.sql("UPDATE peer_stream SET cursor = 0 WHERE tenant_id = $1", pair.site.id)
    await pair.sync()
    await pair.sync()
    assert await tables(pair.site) == await tables(hub)
    sums = "SELECT key::text, month::text, n1 FROM turnover WHERE tenant_id = $1 ORDER BY 1, 2"
    assert await pair.site.sql(sums, hub.id) == await hub.sql(sums, hub.id) != []


def _writing(pair, move):
    async def meanwhile(verb):
        if verb == "chunk":
            await pair.hub.apply(move("7"))

    return meanwhile
