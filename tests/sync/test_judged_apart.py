"""Two nodes judge one file, each with its own scanner: the strictest word holds it everywhere."""

from datetime import timedelta
from functools import partial
from uuid import UUID

import msgspec
import pytest

from appliance.base.clock import now
from appliance.base.errors import Clash, Refused
from appliance.base.ids import uuid7
from appliance.base.settings import Files
from appliance.files import keeping, parts, review, tickets, upload
from appliance.files.incidents import open_missed
from appliance.files.places import Place
from appliance.files.rows import find_file
from appliance.files.states import FileState, after_verdict
from appliance.files.verdicts import Takes
from appliance.kernel.change import Body, Entry, EntryOp
from appliance.kernel.registers import Registers, merge
from appliance.kernel.shown import show
from appliance.meta.system import FILE
from appliance.sync.blobs import is_asked
from appliance.work.node import WorkNode, system_context
from quarantine.contract import Verdict
from tests.http.conftest import make_node, valkey_url
from tests.quarantine.planes import HOSTILE, TEXT, open_folder, pieces, until
from tests.runtime.scanner import running
from tests.sync.branch import body_of, far, far_dsns, pair

__all__ = ["far", "far_dsns", "valkey_url"]
pytestmark = pytest.mark.anyio


@pytest.fixture
async def node(db, valkey_url):
    found = make_node(db, valkey_url)
    yield found
    await found.redis.aclose()


@pytest.fixture
async def two(node, dsns, far, far_dsns, tenant, valkey_url, tmp_path):
    async with pair(node, dsns, far, far_dsns, tenant, valkey_url, tmp_path) as found:
        yield found


@pytest.fixture
async def scanned(node, dsns, far, far_dsns, tenant, valkey_url, tmp_path):
    """The hub has a scanner, the site's plane says what the test says."""
    with open_folder() as data:
        async with running(data) as clamd:
            async with pair(
                node, dsns, far, far_dsns, tenant, valkey_url, tmp_path, clamd.socket
            ) as found:
                yield found


async def at_site(two):
    ctx = await two.branch.world.ctx()
    return msgspec.structs.replace(ctx, origin=2)


async def ticket(two, redis, ident):
    ctx = await at_site(two)
    file = await find_file(two.branch.db, ctx.tenant, ident)
    return await tickets.issue(
        two.branch.db, ctx, two.branch.plane, redis, file, token="nxs_x", inline=False
    )


async def judged(two, redis_url, ident):
    """Until the hub's scanner has spoken of a file, and the hub has written it down."""
    worker = WorkNode(db=two.hub.db, redis_url=redis_url, name="hub", origin=1, seal=None)
    takes = Takes(two.hub.db, two.hub.plane, partial(system_context, worker))

    async def look():
        await takes.take_once()
        return (await two.hub.plane.look(two.hub.tenant, ident)).verdict

    await until(look, 40)
    await takes.take_once()


async def incidents(node, ident):
    return await node.sql(
        "SELECT data->'evidence'->>'node', jsonb_array_length(data->'evidence'->'readers') "
        "FROM record WHERE kind = 'sys.incident' AND t5 = %s", str(ident),
    )  # fmt: skip


async def test_what_the_hub_rejects_is_held_at_the_site_that_had_released_it(
    scanned, node, valkey_url
):
    two = scanned
    bad, good = await two.both(HOSTILE), await two.both(TEXT)
    assert (await ticket(two, node.redis, bad)).url, "the site's own scanner let it out"
    await two.run()
    for ident in (bad, good):
        await judged(two, valkey_url, ident)
    states = [await two.hub.state(i) for i in (bad, good)]
    assert states == ["recalled", "released"]
    assert await incidents(two.hub, bad) == [("1", 0)]
    await two.branch.put_row(bad, HOSTILE, "recalled", stream=two.stream)
    with pytest.raises(Clash) as held:
        await ticket(two, node.redis, bad)
    assert held.value.code == "file.recalled"
    # The site says who read it there; once.
    ctx = await at_site(two)
    assert (await open_missed(two.branch.db, ctx), await open_missed(two.branch.db, ctx)) == (1, 0)
    assert await incidents(two.branch, bad) == [("2", 1)]
    async with two.talking() as link:
        with pytest.raises(Refused):
            async for _ in link.get(bad, 0, 9, 1 << 18):
                pass


async def test_a_released_file_without_its_bytes_is_asked_for_and_scanned_before_it_is_given(
    two, node
):
    body = body_of(2_000_000)
    ident = await two.central(body)
    for _ in range(2):
        with pytest.raises(Clash) as away:
            await ticket(two, node.redis, ident)
        assert away.value.code == "file.not_here" and "fetched" in away.value.detail
    ((asked,),) = await two.branch.sql(
        "SELECT asked_at IS NOT NULL FROM file_copy WHERE file_id = %s", ident
    )
    assert asked and await is_asked(two.branch.db, two.branch.tenant)
    await two.run()
    assert not await is_asked(two.branch.db, two.branch.tenant)
    with pytest.raises(Clash) as waits:
        await ticket(two, node.redis, ident)
    assert waits.value.code == "file.rescanning"
    two.branch.say(ident)
    assert (await ticket(two, node.redis, ident)).url
    ctx = await at_site(two)
    gone = await two.hub.bring(b"", stream=two.stream, also=(two.branch,))
    file = await find_file(two.branch.db, ctx.tenant, gone)
    with pytest.raises(Clash):
        await review.review(two.branch.db, ctx, two.branch.plane, file, "rescan", "")
    two.branch.say(ident, "rejected")
    with pytest.raises(Clash) as recalled:
        await ticket(two, node.redis, ident)
    assert recalled.value.code == "file.recalled", "this node's own scanner has the last word here"


async def test_what_another_node_still_takes_in_is_left_to_it(two):
    ident = uuid7()
    for one in (two.hub, two.branch):
        await one.put_row(ident, b"x" * 10, "receiving", stream=two.stream)
    ctx = await two.hub.world.ctx()
    later = now() + timedelta(days=3)
    await keeping.purge_due(two.hub.db, ctx, two.hub.plane, at=later)
    assert await two.hub.state(ident) == "receiving"
    await two.hub.sql("UPDATE record SET owner_id = %s WHERE id = %s", ctx.actor, ident)
    with pytest.raises(Refused) as elsewhere:
        await parts.find_own(two.hub.db, ctx, ident)
    assert elsewhere.value.code == "upload.elsewhere"


async def test_bytes_go_where_another_node_has_ended_the_file(two):
    ident = await two.central(b"gone soon")
    await two.run()
    assert await two.branch.has(ident)
    await two.branch.put_row(ident, b"gone soon", "purged", stream=two.stream)
    await keeping.purge_due(two.branch.db, await at_site(two), two.branch.plane)
    assert not await two.branch.has(ident)


async def test_a_site_alone_takes_judges_and_gives_files(scanned, node, valkey_url):
    """The hub is gone; nothing asks for it. The plane with the scanner is the site's here."""
    two, plane = scanned, scanned.hub.plane
    await two.link.stop()
    db, ctx = two.branch.db, await at_site(two)
    file, job = await upload.begin(db, ctx, Files(), name="a.txt", place=Place())
    held = await upload.receive(db, ctx, plane, file, job, pieces(TEXT))
    assert held.state is FileState.HELD and held.made_by == 2
    worker = WorkNode(db=db, redis_url=valkey_url, name="site", origin=2, seal=None)
    takes = Takes(db, plane, partial(system_context, worker))

    async def released():
        await takes.take_once()
        return (await find_file(db, ctx.tenant, file.id)).state is FileState.RELEASED

    await until(released, 40)
    found = await find_file(db, ctx.tenant, file.id)
    assert found.verdict["node"] == 2
    for said, is_ours in (
        ({"node": 2, "verdict": "suspicious"}, True), ({"node": 1, "verdict": "suspicious"}, False),
        ({"node": 2, "verdict": "clean"}, False), ({"verdict": "suspicious"}, True),
    ):  # fmt: skip
        assert msgspec.structs.replace(found, verdict=said).is_held_by(2) is is_ours
    assert (await tickets.issue(
        db, ctx, plane, node.redis, found, token="nxs_x", inline=False
    )).url  # fmt: skip


async def test_without_a_scanner_a_site_holds_files_and_says_so(two):
    ctx = await at_site(two)
    db, plane = two.branch.db, two.branch.plane
    file, job = await upload.begin(db, ctx, Files(), name="a.txt", place=Place())
    held = await upload.receive(db, ctx, plane, file, job, pieces(TEXT))
    assert held.state is FileState.HELD
    assert "scan" in (await plane.look(ctx.tenant, file.id)).why.lower()
    ((here,),) = await two.branch.sql(
        "SELECT here_at IS NOT NULL FROM file_copy WHERE file_id = %s", file.id
    )
    assert here
    with pytest.raises(Clash):
        tickets.check_downloadable(ctx, held)


def test_a_clean_word_frees_only_what_the_same_node_held():
    held, clean = FileState.SUSPICIOUS, Verdict.CLEAN
    assert after_verdict(held, clean) is FileState.RELEASED
    assert after_verdict(held, clean, is_ours=False) is None
    assert after_verdict(held, Verdict.REJECTED, is_ours=False) is FileState.REJECTED
    for state in (FileState.REJECTED, FileState.RECALLED):
        assert after_verdict(state, clean) is None
    assert after_verdict(FileState.RELEASED, Verdict.REJECTED) is FileState.RECALLED


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (2, 1, 0)])
@pytest.mark.parametrize("strict", ["suspicious", "rejected"])
def test_of_two_words_at_once_the_stricter_stands_whichever_is_newer(order, strict):
    def entry(origin, oseq, state, base, hlc, op=EntryOp.PUT):
        body = Body(fields={"state": state}, base={"state": base} if base else {})
        return Entry(
            stream=UUID(int=9), origin=origin, oseq=oseq, tx=oseq, hlc=hlc, actor=UUID(int=1),
            door="system", kind="sys.file", record_id=UUID(int=2), op=op, schema_rev=1,
            change_set=UUID(int=3), body=body,
        )  # fmt: skip

    made = [
        entry(2, 1, "held", None, 1 << 16, EntryOp.NEW),
        entry(2, 2, "released", ["2.1"], 9 << 16),
        entry(1, 1, strict, ["2.1"], 5 << 16),
    ]
    record, known = Registers(), set()
    for one in (made[i] for i in order):
        merge(record, one, known.__contains__)
        known.add(f"{one.dot}@{one.stream.hex}")
    found = show(record, FILE)
    assert (found.data["state"], found.conflicts) == (strict, ())
