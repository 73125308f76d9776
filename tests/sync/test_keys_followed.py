"""A hub with another key: a site follows it by the proofs of the old one, and by nothing else."""

import asyncio

import pytest

from appliance.base.errors import Unauthenticated
from appliance.sync import keys, nodes
from appliance.sync.site import Begun
from tests.sync.pair import records, until
from tests.tenants import create

pytestmark = pytest.mark.anyio
KIND = "deal"


async def rotate(pair, data, *, prove=True):
    """What `nexus node rotate` does at the hub."""
    me = await nodes.find_self(pair.hub.db)
    old, new = keys.load_key(data), keys.begin_rotation(data)
    if prove:
        async with nodes.control_transaction(pair.hub.db) as conn:
            await nodes.keep_rotation(conn, keys.make_rotation(me.id, old, new))
    keys.finish_rotation(data)
    return new


async def test_the_agent_goes_on_by_itself_after_two_rotations(pair, tmp_path):
    await pair.hub.add_kind(KIND, [("title", "text")])
    await pair.sync()
    await rotate(pair, tmp_path / "hub")
    newest = await rotate(pair, tmp_path / "hub")
    await pair.site.apply(create(KIND, title="of the branch"))
    agent = pair.agent(tmp_path / "site", poll_seconds=0.3)

    stop = asyncio.Event()
    task = asyncio.create_task(agent.follow(stop))

    async def there():
        return "of the branch" in str(await records(pair.hub, KIND))

    try:
        await until(there, 20)
    finally:
        stop.set()
        await asyncio.wait_for(task, 10)
        await agent.waker.close()
    assert (await nodes.hub_of(pair.site.db)).public_key == newest.public


async def test_a_key_that_nobody_signed_for_is_not_followed(pair, tmp_path):
    await rotate(pair, tmp_path / "hub", prove=False)
    before = (await nodes.hub_of(pair.site.db)).public_key
    for _ in range(2):
        with pytest.raises(Unauthenticated):
            await pair.sync()
    assert (await nodes.hub_of(pair.site.db)).public_key == before


async def test_one_conversation_learns_it_and_the_next_speaks(pair, tmp_path):
    await rotate(pair, tmp_path / "hub")
    with pytest.raises(Begun):
        await pair.sync()
    pair.parts = type(pair.parts)(
        db=pair.parts.db, me=pair.parts.me, hub=await nodes.hub_of(pair.site.db),
        key=pair.parts.key, transport=pair.line,
    )  # fmt: skip
    await pair.sync()
