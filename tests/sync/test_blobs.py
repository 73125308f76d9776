"""Bytes of files between two real planes: whatever is cut, killed or flipped on the way."""

import asyncio
import random
from hashlib import sha256

import pytest

from appliance.base.errors import ApplianceError, Refused, Unauthenticated, Unavailable
from appliance.base.ids import uuid7
from appliance.sync.bloblink import HUB_FILES, UNKNOWN, UNWANTED, WHOLE
from appliance.sync.blobs import doubt_hub, forget_files
from appliance.sync.pieces import CHUNK, PIECE
from tests.http.conftest import make_node
from tests.http.conftest import valkey_url
from tests.sync.branch import MEBI, body_of, far, far_dsns, pair
from tests.sync.sites import site

__all__ = ["far", "far_dsns", "valkey_url"]
pytestmark = pytest.mark.anyio


@pytest.fixture
async def two(db, dsns, far, far_dsns, tenant, valkey_url, tmp_path):
    node = make_node(db, valkey_url)
    async with pair(node, dsns, far, far_dsns, tenant, valkey_url, tmp_path) as found:
        yield found
    await node.redis.aclose()


async def until_whole(two, ident, at, runs=400):
    """Run the lane until a node has it all; how many runs were broken off."""
    broken = 0
    for _ in range(runs):
        try:
            await two.run()
        except ApplianceError:
            broken += 1
        if await at.has(ident):
            return broken
        await two.soon()
        await asyncio.sleep(0.1)
    raise AssertionError("it never became whole")


async def test_what_is_made_at_the_site_goes_to_the_hub_and_is_held_there_until_its_own_scan(two):
    bodies = [body_of(n, n) for n in (1, PIECE, CHUNK, CHUNK + 1, 3 * CHUNK + 77)] + [b""]
    idents = [await two.both(body) for body in bodies]
    moved = await two.run()
    assert (moved.files, moved.more) == (5, False) and moved.up == sum(map(len, bodies))
    for ident, body in zip(idents, bodies, strict=True):
        assert await two.hub.read(ident) == body
        look = await two.hub.plane.look(two.hub.tenant, ident)
        assert look.verdict is None, "the site's word is not the hub's"
    assert (await two.run()).up == 0, "nothing is sent twice"
    assert not two.hub.bench.waiting()


async def test_what_people_need_comes_down_small_ones_by_themselves_asked_ones_first(two):
    small, large, held = body_of(50_000), body_of(2 * MEBI, 2), body_of(9_000, 3)
    a, b = await two.central(small), await two.central(large)
    c = await two.central(held, verdict=None)
    moved = await two.run(budget=100_000)
    assert await two.branch.has(a) and not await two.branch.has(b) and moved.more
    wanted = await two.central(body_of(300_000, 4))
    await two.run(budget=1)
    await two.branch.sql("UPDATE file_copy SET asked_at = now() WHERE file_id = %s", wanted)
    await two.run(budget=310_000)
    assert await two.branch.has(wanted) and not await two.branch.has(b)
    await two.run()
    assert await two.branch.read(b) == large
    assert not await two.branch.has(c), "the hub has not proved it"
    assert (await two.branch.plane.look(two.branch.tenant, a)).verdict is None
    assert (await two.run()).up == 0, "what came from the hub does not go back"


@pytest.mark.parametrize(
    "every", [*(pytest.param(n, marks=pytest.mark.slow) for n in (60_000, 200_000)), 960_000]
)
async def test_a_link_that_is_cut_every_so_many_bytes_costs_little(two, every):
    size = 4 * MEBI
    chance = random.Random(every)
    two.link.cut_after = lambda: chance.randint(every // 2, every * 3 // 2)
    body = body_of(size, every)
    ident = await two.both(body)
    broken = await until_whole(two, ident, two.hub)
    assert await two.hub.read(ident) == body and broken
    share = two.link.up / size - 1
    print(f"up, cut about every {every}: {broken} cuts, {share:.2%} more than the file")
    # Requests have heads, and a session anew after each cut: 5 % where a cut comes every 30 s.
    assert share < (0.05 if every > 900_000 else 0.25)
    two.link.up = two.link.down = 0
    there = await two.central(body[::-1])
    two.hub.say(there)
    broken = await until_whole(two, there, two.branch)
    assert await two.branch.read(there) == body[::-1]
    share = two.link.down / size - 1
    print(f"down, cut about every {every}: {broken} cuts, {share:.2%} more than the file")
    assert share < (0.05 if every > 900_000 else 0.25)


async def test_kills_of_either_plane_and_of_the_site_lose_nothing_that_was_acknowledged(two):
    chance = random.Random(5)
    body = body_of(6 * MEBI, 6)
    ident = await two.both(body)
    await two.run(budget=1)
    for _ in range(6):
        run = asyncio.create_task(two.run())
        await asyncio.sleep(chance.uniform(0.02, 0.25))
        victim = chance.choice((two.hub, two.branch, None))
        if victim is None:
            run.cancel()
        else:
            victim.bench.processes.kill("serve")
            victim.bench.processes.start("serve")
        await asyncio.gather(run, return_exceptions=True)
        await two.soon()
    await until_whole(two, ident, two.hub)
    assert await two.hub.read(ident) == body


async def test_a_flipped_byte_is_found_where_it_is_and_costs_a_piece(two):
    body = body_of(2 * MEBI, 7)
    ident = await two.both(body)
    await two.run(budget=1)
    before = two.link.up
    two.link.flip_at = ("up", before + 700_000)
    await two.run()
    assert not await two.hub.has(ident)
    await until_whole(two, ident, two.hub)
    assert await two.hub.read(ident) == body
    assert (two.link.up - before) / len(body) < 1.2
    there = await two.central(body[::-1])
    await two.run(budget=1)
    two.link.flip_at = ("down", two.link.down + 700_000)
    await two.run()
    assert not await two.branch.has(there)
    await until_whole(two, there, two.branch)
    assert await two.branch.read(there) == body[::-1]


async def test_bytes_that_are_not_those_of_the_record_never_become_its_file(two):
    ident = await two.both(body_of(300_000, 8))
    other = body_of(300_000, 9)
    await two.hub.put_row(ident, other, stream=two.stream)
    await two.branch.put_row(ident, other, stream=two.stream)
    await two.run()
    assert not await two.hub.has(ident)
    ((tries, at),) = await two.branch.sql(
        "SELECT tries, hub_at FROM file_copy WHERE file_id = %s", ident
    )
    assert (tries, at) == (1, None), "it waits, the others go on"


async def test_a_file_exists_for_nodes_of_its_stream_alone(two):
    body = body_of(20_000)
    ident = await two.hub.bring(body, stream=uuid7())
    held = await two.central(body, verdict=None)
    rejected = await two.central(body, state="rejected", verdict="rejected")
    mine = await two.central(body)
    stranger = await site(two.hub.db, uuid7())
    async with two.talking() as link:
        said = [(i.bytes, sha256(body).digest()) for i in (ident, held, rejected, mine, uuid7())]
        assert await link.have(said) == [UNKNOWN, WHOLE, WHOLE, WHOLE, UNKNOWN]
        for hidden in (ident, held, rejected, uuid7()):
            with pytest.raises(Refused):
                async for _ in link.get(hidden, 0, CHUNK, CHUNK):
                    pass
            if hidden != held:
                with pytest.raises(ApplianceError) as refused:
                    await link.put(hidden, 0, body, CHUNK)
                assert refused.value.code in ("file.unknown", "file.state")
        for offset, length in ((20_000, 9), (CHUNK, 9), (10**9, 9), (0, 0), (9, CHUNK), (-1, 9)):
            with pytest.raises(ApplianceError):
                async for _ in link.get(mine, offset, length, CHUNK):
                    pass
        # The same once more is fine, and so are bytes that do not follow: the answer says where.
        assert await link.put(mine, 0, body, CHUNK) == WHOLE
    async with two.talking(stranger) as link:
        with pytest.raises(Unauthenticated):
            await link.have([])
    big = uuid7()
    for node in (two.hub, two.branch):
        await node.put_row(big, body, stream=two.stream, size=10**9)
    async with two.talking() as link:
        assert await link.have([(big.bytes, sha256(body).digest())]) == [UNWANTED]


async def test_old_files_make_room_when_the_hub_has_them_and_come_back_when_asked(two):
    bodies = [body_of(400_000, n) for n in range(4)]
    idents = [await two.both(body) for body in bodies]
    unsent = await two.branch.bring(body_of(400_000, 9), stream=two.stream)
    await two.run()
    await two.branch.sql("UPDATE file_copy SET here_at = now() - interval '2 days'")
    await two.branch.sql(
        "UPDATE file_copy SET read_at = now() - interval '1 day' WHERE file_id = %s", idents[0]
    )
    moved = await two.run(keep_bytes=1_300_000)
    assert moved.dropped == 2
    assert [await two.branch.has(i) for i in idents] == [True, False, False, True]
    # The hub has lost what it had: then nothing is let go.
    for ident in (idents[0], idents[3]):
        await two.hub.plane.purge(two.hub.tenant, ident)
    assert (await two.run(keep_bytes=1)).dropped == 0
    assert await two.branch.has(unsent) and (await two.run()).down == 0
    await two.run()
    assert await two.hub.has(idents[0]), "and it is sent again"
    two.hub.say(idents[1])
    await two.branch.sql("UPDATE file_copy SET asked_at = now() WHERE file_id = %s", idents[1])
    assert (await two.run()).files == 1 and await two.branch.read(idents[1]) == bodies[1]


async def test_a_hub_that_is_away_is_said_so_and_nothing_is_lost(two):
    ident = await two.both(body_of(10_000))
    two.hub.bench.processes.kill("serve")
    with pytest.raises(Unavailable) as without_files:
        await two.run()
    assert without_files.value.dependency == HUB_FILES, "records go on"
    two.hub.bench.processes.start("serve")
    two.branch.bench.processes.kill("serve")
    with pytest.raises(Unavailable) as without_plane:
        await two.run()
    assert without_plane.value.dependency == "content plane"
    two.branch.bench.processes.start("serve")
    await two.soon()
    await two.link.stop()
    with pytest.raises(Unavailable) as without_hub:
        await two.run()
    assert without_hub.value.dependency == "hub" and await two.branch.has(ident)


async def test_a_full_disk_at_the_site_fetches_nothing_in_vain(two):
    ident = await two.central(body_of(300_000))
    for node in (two.hub, two.branch):
        await node.sql(
            "UPDATE record SET data = data || '{\"size\": 900000000000000}' WHERE id = %s", ident
        )
    with pytest.raises(Unavailable) as full:
        await two.run()
    assert full.value.status == 507 and two.link.down < 5_000


async def test_a_hub_that_was_put_back_is_given_again_what_it_lost(two):
    ident = await two.both(body_of(30_000))
    await two.run()
    await two.hub.plane.purge(two.hub.tenant, ident)
    assert (await two.run()).up == 0
    await doubt_hub(two.branch.db, two.branch.tenant)
    assert (await two.run()).files == 1 and await two.hub.has(ident)
    # A row that says that bytes are here, and a plane that has them not: they come back.
    two.hub.say(ident)
    await two.branch.plane.purge(two.branch.tenant, ident)
    await doubt_hub(two.branch.db, two.branch.tenant)
    await two.hub.plane.purge(two.hub.tenant, ident)
    assert (await two.run()).files == 0
    ((here,),) = await two.branch.sql("SELECT here_at FROM file_copy WHERE file_id = %s", ident)
    assert here is None


async def test_a_stream_that_is_held_no_longer_leaves_no_bytes(two):
    half, whole = await two.central(body_of(900_000, 2)), await two.central(body_of(10_000))
    await two.run(budget=100_000)
    assert await two.branch.has(whole) and two.branch.bench.waiting()
    await forget_files(two.branch.db, two.branch.plane, two.branch.tenant, [whole, half])
    assert not await two.branch.has(whole) and not two.branch.bench.waiting()
    assert not await two.branch.sql("SELECT FROM file_copy WHERE file_id = ANY(%s)", [whole, half])
