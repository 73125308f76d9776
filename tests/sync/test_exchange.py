"""A hub and a site over the real protocol: what either writes reaches the other, once."""

import asyncio
import time
from secrets import token_hex

import pytest

from appliance.base.errors import Unavailable
from appliance.base.ids import uuid7
from appliance.kernel.context import Door
from appliance.write.log import CLOCK

from tests.sync.pair import records
from tests.tenants import create, update

pytestmark = pytest.mark.anyio
KIND = "deal"


async def add_deals(tenant):
    await tenant.add_kind(KIND, [("title", "text"), ("note", "text")])


async def test_what_the_hub_has_reaches_the_site(pair):
    await add_deals(pair.hub)
    await pair.hub.apply(*[create(KIND, title=f"deal {n}") for n in range(5)])
    talk = await pair.sync()
    assert await records(pair.site, KIND) == await records(pair.hub, KIND)
    assert len(await records(pair.site, KIND)) == 5
    assert not talk.notices


async def test_what_the_site_writes_reaches_the_hub(pair):
    await add_deals(pair.hub)
    await pair.sync()
    done = await pair.site.apply(create(KIND, title="made at the branch"))
    assert done.committed
    await pair.sync()
    assert await records(pair.hub, KIND) == await records(pair.site, KIND)
    (row,) = await pair.hub.sql("SELECT origin FROM change WHERE kind = $1", KIND)
    assert int(row[0]) == pair.parts.me.origin


async def heads(tenant):
    return await tenant.sql(
        "SELECT count(*), count(DISTINCT (stream, origin, oseq)) FROM change WHERE tenant_id = $1",
        tenant.id,
    )


async def test_an_answer_that_was_lost_costs_a_repetition(pair):
    await add_deals(pair.hub)
    await pair.sync()
    await pair.site.apply(*[create(KIND, title=f"deal {n}") for n in range(3)])
    pair.line.lose = 1
    with pytest.raises(Unavailable):
        await pair.sync()
    talk = pair.talk()
    await talk.greet()
    pair.line.lose = 1
    with pytest.raises(Unavailable):
        await talk.catch_up()
    await talk.close()
    # The hub has committed it; the site asks again and hears that it is known.
    await pair.sync()
    assert await records(pair.hub, KIND) == await records(pair.site, KIND)
    assert len(await records(pair.hub, KIND)) == 3
    ((total, distinct),) = await heads(pair.hub)
    assert total == distinct


async def test_an_answer_to_a_pull_may_come_twice(pair):
    await add_deals(pair.hub)
    talk = pair.talk()
    await talk.greet()
    pair.line.lose = 1
    with pytest.raises(Unavailable):
        await talk.catch_up()
    await talk.close()
    await pair.sync()
    before = await heads(pair.site)
    # As if the site had been killed before it kept its cursors.
    await pair.site.sql("UPDATE peer_stream SET cursor = 0 WHERE tenant_id = $1", pair.site.id)
    await pair.sync()
    assert await heads(pair.site) == before == await heads(pair.hub)


async def test_both_sides_write_and_both_end_alike(pair):
    await add_deals(pair.hub)
    deal = uuid7()
    await pair.hub.apply(create(KIND, deal, title="first", note="one"))
    await pair.sync()
    assert (await pair.hub.apply(update(KIND, deal, note="of the hub"))).committed
    assert (await pair.site.apply(update(KIND, deal, title="of the branch"))).committed
    await pair.sync()
    await pair.sync()
    ours, theirs = await records(pair.hub, KIND), await records(pair.site, KIND)
    assert ours == theirs
    assert "of the hub" in str(ours) and "of the branch" in str(ours)


async def test_a_field_added_at_the_hub_is_there_before_what_was_written_with_it(pair):
    await add_deals(pair.hub)
    await pair.sync()
    await pair.hub.apply(
        create("sys.field", kind=KIND, name="colour", type="text", order=9),
        ctx=await pair.hub.ctx(door=Door.INSTALL),
    )
    await pair.hub.apply(create(KIND, title="red one", colour="red"))
    await pair.sync()
    assert "red" in str(await records(pair.site, KIND))
    assert (await pair.site.apply(create(KIND, title="blue one", colour="blue"))).committed
    await pair.sync()
    assert await records(pair.site, KIND) == await records(pair.hub, KIND)


async def test_a_long_history_comes_in_small_answers(pair):
    await add_deals(pair.hub)
    for _ in range(3):
        rows = [create(KIND, title=token_hex(32), note=token_hex(96)) for _ in range(400)]
        await pair.hub.apply(*rows)
    talk = pair.talk()
    talk.client.pace.size = 16 * 1024
    await talk.greet()
    await talk.catch_up()
    await talk.close()
    assert pair.line.asked.count("exchange") > 2
    assert await records(pair.site, KIND) == await records(pair.hub, KIND)
    assert await heads(pair.site) == await heads(pair.hub)
    assert await pair.hub.sql("SELECT DISTINCT peer FROM peer_stream WHERE tenant_id = $1",
                              pair.hub.id) == [[str(pair.parts.me.origin)]]  # fmt: skip


async def test_news_of_a_wait_are_fetched_with_one_question(pair):
    await add_deals(pair.hub)
    await pair.sync()
    talk = pair.talk()
    await talk.greet()
    await talk.catch_up()
    waiting = asyncio.create_task(talk.wait(20.0))
    await asyncio.sleep(0.3)
    await pair.hub.apply(create(KIND, title="news"))
    assert await waiting is True
    pair.line.asked.clear()
    await talk.catch_up()
    assert "news" in str(await records(pair.site, KIND))
    assert pair.line.asked == ["exchange"]
    # What was written between an answer and the wait is told at once, and fetched as well.
    await pair.hub.apply(create(KIND, title="more of them"))
    assert await talk.wait(20.0) is True
    await talk.catch_up()
    assert "more of them" in str(await records(pair.site, KIND))
    await talk.close()


async def test_an_idle_site_costs_little(pair):
    await pair.sync()
    talk = pair.talk()
    await talk.greet()
    await talk.catch_up()
    talk.client.count.take()
    assert await talk.wait(1.0) is False
    sent, received = talk.client.count.take()
    await talk.close()
    # One wait in 52 s at least; the server adds its name and the date.
    assert (sent + received + 60) * 60 / 52 < 2_000, (sent, received)


async def test_a_clock_that_was_cut_is_heard_of_though_the_receipt_was_lost(pair):
    await add_deals(pair.hub)
    await pair.sync()
    CLOCK._last = (time.time_ns() // 1_000_000 + 5 * 3_600_000) << 16
    assert (await pair.site.apply(create(KIND, title="of tomorrow"))).committed
    CLOCK._last = 0
    talk = pair.talk()
    await talk.greet()
    pair.line.lose = 1
    with pytest.raises(Unavailable):
        await talk.catch_up()
    await talk.close()
    moments = (
        "SELECT data->>'title', updated_at::text FROM record WHERE tenant_id = $1 AND kind = $2"
    )
    at_hub = await pair.hub.sql(moments, pair.hub.id, KIND)
    assert at_hub and at_hub != await pair.site.sql(moments, pair.hub.id, KIND)
    await pair.sync()
    assert await pair.site.sql(moments, pair.hub.id, KIND) == at_hub
