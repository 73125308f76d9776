"""Runs that a connector worker elsewhere reads: taken, given up, repeated, told apart by epochs."""

import asyncio
import hashlib
from uuid import UUID

import msgspec
import pytest

from appliance.base.ids import uuid7
from appliance.intake import files, lease, runs, steps
from connectors.sdk import parent
from connectors.sdk.contract import Done, Failed, Fault, Found, Mapping, Place, Progress, Rows
from connectors.sdk.retry import Trouble
from connectors.work import looking, reading
from connectors.work.node import LOST, Node
from connectors.work.settings import Misconfigured, Source, Worker, check_node, read_key
from connectors.work.standing import Standing
from connectors.transports.places import FolderPlace
from connectors.transports.pull import PullPlace
from tests.connectors import servers
from tests.http.test_door import assert_problem

pytestmark = pytest.mark.anyio
PATH = "/api/v1/intake"
HEAD = "Article;Name;Price retail;Currency\n"
LIST = (HEAD + "".join(f"A{n};Bolt M{n} zinc plated;{n}.50;UAH\n" for n in range(1, 2_501))).encode()  # fmt: skip
OCTETS = {"content-type": "application/octet-stream"}
READER = "a" * 64
FRAMES = {"content-type": "application/msgpack"}


class Desk:
    """A run that waits for a worker, and what is asked about it."""

    def __init__(self, client, firm, folder):
        self.client, self.firm, self.folder = client, firm, folder
        self.worker = f"books-{uuid7().hex[-8:]}"

    async def bring(self, content=LIST, **options):
        brought = await self.client.post("/api/v1/files?name=list.csv", content=content, headers=OCTETS)  # fmt: skip
        body = {
            "connector": "price_list", "file": brought.json()["id"], "name": "list.csv",
            "source": "Supplier", "options": {"worker": self.worker, **options},
        }  # fmt: skip
        started = await self.client.post(f"{PATH}/runs", json=body)
        assert started.status_code == 202, started.text
        self.run = started.json()["id"]

        async def pieces():
            yield content

        # As the content plane would give it, had it released it.
        await files.receive(self.folder, self.firm.tenant.id, pieces())
        await self.prepare()
        return self.run

    async def prepare(self):
        async def quiet(_done, _total):
            pass

        tenant = self.firm.tenant
        await steps.prepare(tenant.db, tenant.id, UUID(self.run), self.folder, 1, quiet)

    async def take(self, reader=READER, **more):
        wish = {"worker": self.worker, "reader": reader, "connectors": ["price_list"], **more}
        return await self.client.post(f"{PATH}/work", json=wish)

    async def post(self, frame, epoch, no=0):
        return await self.client.post(
            f"{PATH}/work/{self.run}/frames?epoch={epoch}&no={no}",
            content=frame if isinstance(frame, bytes) else msgspec.msgpack.encode(frame),
            headers=FRAMES,
        )  # fmt: skip

    async def state(self):
        return (await self.client.get(f"{PATH}/runs/{self.run}")).json()

    async def lapse(self):
        """As if the worker had been silent for two minutes."""
        await self.firm.tenant.sql("UPDATE intake_work SET lease_until = now() - interval '1 s'")


@pytest.fixture
async def desk(firm, sign_in, node):
    return Desk(await sign_in(firm, "owner"), firm, node.settings.data_dir)


async def frames_of(tmp_path, content=LIST):
    path = tmp_path / "list.csv"
    path.write_bytes(content)
    async with parent.open_input("price_list", path) as opened:
        found = await opened.inspect({})
        return found, [f async for f in opened.read(found.proposal) if not isinstance(f, Progress)]


async def test_a_run_waits_is_taken_read_and_planned_as_one_of_this_node(desk, tmp_path):
    await desk.bring()
    waits = await desk.state()
    assert (waits["state"], waits["job"]) == ("received", None) and desk.worker in waits["detail"]
    assert (await desk.take(connectors=["another"])).status_code == 204
    taken = (await desk.take()).json()
    assert (taken["run"], taken["epoch"], taken["next"]) == (desk.run, 1, 0)
    assert taken["sha256"] == hashlib.sha256(LIST).hexdigest() and taken["size"] == len(LIST)
    assert (await desk.take()).status_code == 204
    got = await desk.client.get(f"{PATH}/work/{desk.run}/file?epoch=1")
    assert got.content == LIST
    found, frames = await frames_of(tmp_path)
    assert_problem(await desk.post(frames[0], 1), 409, "intake.frame_gap")
    kept = (await desk.post(found, 1)).json()
    assert msgspec.convert(kept["mapping"], Mapping) == found.proposal
    assert len(frames) > 3
    for no, frame in enumerate(frames):
        assert_problem(await desk.post(frame, 1, no + 1), 409, "intake.frame_gap")
        for _ in range(2):
            answer = await desk.post(frame, 1, no)
            assert (answer.status_code, answer.json()["next"]) == (200, no + 1), answer.text
    assert (await desk.post(Progress(2_400, 2_500), 1)).status_code == 200
    progress = (await desk.client.get(f"{PATH}/runs/{desk.run}")).json()
    assert progress["job"] is not None and progress["state"] == "received"
    await desk.prepare()
    ended = await desk.state()
    # This tenant has no products: what matters is that the very staging has begun.
    assert ended["state"] in ("planned", "failed") and ended["detail"] != waits["detail"]
    assert_problem(await desk.post(frames[0], 1, 0), 409, LOST)


async def test_a_dead_worker_is_followed_by_its_like_where_it_was_and_by_others_anew(
    desk, tmp_path
):
    await desk.bring()
    found, frames = await frames_of(tmp_path)
    assert (await desk.take()).json()["epoch"] == 1
    await desk.post(found, 1)
    await desk.post(frames[0], 1, 0)
    await desk.lapse()
    again = (await desk.take()).json()
    assert (again["epoch"], again["next"]) == (2, 1)
    assert msgspec.convert(again["mapping"], Mapping) == found.proposal
    for late in (frames[1], Progress(1), found, Failed(Fault("x", "y"))):
        assert_problem(await desk.post(late, 1, 1), 409, LOST)
    assert_problem(await desk.client.get(f"{PATH}/work/{desk.run}/file?epoch=1"), 409, LOST)
    await desk.lapse()
    other = (await desk.take("b" * 64)).json()
    assert (other["epoch"], other["next"], other["mapping"]) == (3, 0, None)
    await desk.post(found, 3)
    wrong = msgspec.structs.replace(frames[-1], sha256="0" * 64)
    assert_problem(await desk.post(wrong, 3, 0), 422, "intake.other_file")
    refused = Failed(Fault("balance-mismatch", "a sum", "another"))
    assert (await desk.post(refused, 3)).status_code == 200
    state = await desk.state()
    assert (state["state"], state["detail"]) == (
        "failed", "balance-mismatch: expected a sum, found another.",
    )  # fmt: skip
    assert (await desk.take()).status_code == 204


async def test_a_file_that_kills_every_worker_is_given_up(desk):
    await desk.bring()
    for epoch in range(1, lease.TAKES_MAX + 1):
        assert (await desk.take()).json()["epoch"] == epoch
        await desk.lapse()
    assert (await desk.take()).status_code == 204
    state = await desk.state()
    assert state["state"] == "failed" and "died" in state["detail"]


async def test_a_cancelled_run_and_another_mapping_end_what_is_under_way(desk, tmp_path):
    await desk.bring()
    found, frames = await frames_of(tmp_path)
    await desk.take()
    await desk.post(found, 1)
    await desk.post(frames[0], 1, 0)
    tables = tuple(
        msgspec.structs.replace(t, columns=t.columns[:-1]) for t in found.proposal.tables
    )
    other = msgspec.structs.replace(found.proposal, tables=tables)
    answer = await desk.client.put(f"{PATH}/runs/{desk.run}/mapping", content=msgspec.json.encode(other), headers={"content-type": "application/json"})  # fmt: skip
    assert answer.status_code == 202, answer.text
    await desk.prepare()
    assert_problem(await desk.post(frames[1], 1, 1), 409, LOST)
    taken = (await desk.take()).json()
    assert (taken["next"], taken["mapping"]) == (0, None)
    kept = (await desk.post(found, taken["epoch"])).json()
    assert msgspec.convert(kept["mapping"], Mapping) == other
    stopped = await desk.client.post(f"{PATH}/runs/{desk.run}/cancel")
    assert stopped.json()["state"] == "cancelled"
    assert_problem(await desk.post(frames[0], taken["epoch"], 0), 409, LOST)
    assert (await desk.take()).status_code == 204


async def test_bad_frames_and_those_who_may_not(desk, firm, sign_in, tmp_path):
    await desk.bring()
    found, frames = await frames_of(tmp_path)
    await desk.take()
    assert_problem(await desk.post(b"\xc1garbage", 1), 400, "frame.malformed")
    assert_problem(await desk.post(msgspec.msgpack.encode({"type": "inspect", "learned": {}}), 1), 400)  # fmt: skip
    assert_problem(await desk.post(b"", 1), 400)
    await desk.post(found, 1)
    first = frames[0].rows[0]
    nul = Rows((msgspec.structs.replace(first, values={"name": "a\0b"}),))
    assert_problem(await desk.post(nul, 1, 0), 422, "text.unstorable")
    slash = Rows((msgspec.structs.replace(first, values={"name": "a\\u0000b"}),))
    assert (await desk.post(slash, 1, 0)).status_code == 200
    for bad in ("epoch=0", "epoch=x", "epoch=1&no=-1", "no=1", "epoch=1&other=2"):
        answer = await desk.client.post(f"{PATH}/work/{desk.run}/frames?{bad}", content=b"\x80", headers=FRAMES)  # fmt: skip
        assert answer.status_code in (400, 422), bad
    json = {"content-type": "application/json"}
    assert_problem(await desk.client.post(f"{PATH}/work/{desk.run}/frames?epoch=1", content=b"{}", headers=json), 415)  # fmt: skip
    assert_problem(await desk.client.post(f"{PATH}/work/{uuid7()}/frames?epoch=1", content=b"\x80", headers=FRAMES), 400)  # fmt: skip
    for wish in ({"worker": "No!"}, {"reader": "x"}, {"connectors": []}):
        assert_problem(await desk.take(**wish), 422)
    seller = await sign_in(firm, "seller")
    assert_problem(await seller.post(f"{PATH}/work", json={"worker": "w", "reader": READER, "connectors": ["a"]}), 403)  # fmt: skip
    # Another key, though it may: the run is held by who took it.
    admin = await sign_in(firm, "admin")
    own, desk.client = desk.client, admin
    assert_problem(await desk.post(frames[0], 1, 1), 409, LOST)
    desk.client = own


async def test_a_plan_that_nobody_asked_for_is_asked_for_by_the_next_look(desk, tmp_path):
    await desk.bring()
    found, frames = await frames_of(tmp_path)
    await desk.take()
    await desk.post(found, 1)
    tenant = desk.firm.tenant
    run = await runs.get_run(tenant.db, tenant.id, UUID(desk.run))
    holder = UUID((await tenant.sql("SELECT holder::text FROM intake_work WHERE run = $1", UUID(desk.run)))[0][0])  # fmt: skip
    for no, frame in enumerate(frames):
        # The process that kept the last frame dies before it asks.
        await lease.keep_frame(tenant.db, tenant.id, run, frame, no=no, epoch=1, holder=holder)
    assert (await desk.take()).status_code == 204
    assert (await desk.state())["job"] is None
    await tenant.sql("UPDATE intake_work SET whole_at = now() - interval '2 minutes'")
    assert (await desk.take()).status_code == 204
    assert (await desk.state())["job"] is not None


@pytest.fixture
def worker(desk, tmp_path):
    made = Worker(name=desk.worker, node="http://127.0.0.1", key="k", data=tmp_path / "data")
    node = Node(made, READER)
    own = node._http
    client = desk.client.__class__(transport=desk.client._transport, base_url="http://node/api/v1")
    client.headers.update(desk.client.headers)
    node._http = client
    for folder in ("in", "books"):
        (made.data / folder).mkdir(parents=True)
    yield node, made.data
    asyncio.run(own.aclose())


async def test_the_worker_reads_a_run_and_resumes_one(desk, worker):
    node, data = worker
    await desk.bring()
    taken = await node.take(["price_list"])
    posted = []
    plain = node.post

    async def dying(taken, no, frame, *more):
        if no == 1 and not isinstance(frame, (Progress, Found)):
            raise Trouble("connection-failed", "cut")
        return await plain(taken, no, frame, *more)

    node.post = dying
    with pytest.raises(Trouble):
        await reading.read_run(node, taken, data / "in")
    assert list((data / "in").iterdir()) == []
    await desk.lapse()

    async def counting(taken, no, frame, *more):
        posted.append((no, type(frame).__name__))
        return await plain(taken, no, frame, *more)

    node.post = counting
    taken = await node.take(["price_list"])
    assert taken.next == 1
    await reading.read_run(node, taken, data / "in")
    assert posted == [(1, "Rows"), (2, "Rows"), (3, "Done")]
    assert (await desk.state())["job"] is not None


async def test_a_refused_file_and_a_lost_run_end_without_noise(desk, worker):
    node, data = worker
    await desk.bring(b"%PDF-1.7 no table")
    taken = await node.take(["price_list"])
    await reading.read_run(node, taken, data / "in")
    state = await desk.state()
    assert state["state"] == "failed" and state["detail"].startswith("not-a-table")
    await desk.bring(LIST + b"Z;Last;1;UAH\n")
    taken = await node.take(["price_list"])
    await desk.client.post(f"{PATH}/runs/{desk.run}/cancel")
    await reading.read_run(node, taken, data / "in")


async def test_a_source_is_given_once_and_a_dated_copy_not_again(desk, worker, tmp_path):
    node, data = worker
    box = tmp_path / "box"
    box.mkdir()
    (box / "Price.CSV").write_bytes(LIST)
    (box / "other.txt").write_bytes(b"no")
    source = Source(
        key="supplier", connector="price_list", name="Supplier", pattern="price*.csv",
        place=FolderPlace(folder=str(box)),
    )  # fmt: skip
    given = [await looking.look(node, source, data) for _ in range(3)]
    assert given == [0, 1, 0]
    before = (await desk.client.get(f"{PATH}/runs?limit=50")).json()["runs"]
    assert before[0]["options"]["worker"] == desk.worker and before[0]["name"] == "Price.CSV"
    (box / "Price.CSV").touch()
    assert [await looking.look(node, source, data) for _ in range(2)] == [0, 1]
    after = (await desk.client.get(f"{PATH}/runs?limit=50")).json()["runs"]
    assert [r["id"] for r in after] == [r["id"] for r in before]


async def test_a_page_without_a_mark_is_known_by_its_bytes(desk, worker, tmp_path):
    node, data = worker
    both, alone = servers.make_certificate(tmp_path)
    body = [LIST]
    with servers.run_https(both, lambda to: to.say(200, body[0])) as address:
        place = PullPlace(url=f"{address}/list.csv", allowed=("127.0.0.1/32", "::1/128"), ca_file=str(alone))  # fmt: skip
        source = Source(key="page", connector="price_list", name="Page", place=place)
        standing = Standing()

        async def count():
            await looking.look(node, source, data, standing=standing)
            found = (await desk.client.get(f"{PATH}/runs?limit=200")).json()["runs"]
            return sum(r["source"] == "Page" for r in found)

        assert [await count() for _ in range(2)] == [1, 1]
        body[0] = LIST + b"Z;Last;1;UAH\n"
        assert [await count() for _ in range(2)] == [2, 2]
        body[0] = LIST
        # What it was before the last is new again.
        assert await count() == 3 and standing.files == 3


def test_blocks_are_cut_alike_and_one_row_beyond_all_bounds_is_refused(monkeypatch):
    from connectors.sdk.contract import Refused, StagedRow

    rows = tuple(StagedRow(Place(row=n), "e", str(n), {"name": "x" * 1_000}) for n in range(1, 101))
    monkeypatch.setattr(reading, "FRAME_BYTES_MAX", 20_000)
    parts = list(reading.cut(Rows(rows)))
    assert len(parts) > 4 and tuple(r for p in parts for r in p.rows) == rows
    assert all(len(msgspec.msgpack.encode(p)) <= 20_000 for p in parts)
    assert list(reading.cut(Done(1, 0, "x"))) == [Done(1, 0, "x")]
    with pytest.raises(Refused, match="row-too-large"):
        list(reading.cut(Rows((StagedRow(Place(row=3), "e", "k", {"name": "x" * 30_000}),))))


def test_a_key_is_not_carried_in_the_clear_nor_read_by_others(tmp_path):
    assert check_node("https://node.example/", is_plain_allowed=False) == "https://node.example"
    assert check_node("http://127.0.0.1:8470", is_plain_allowed=False)
    assert check_node("http://10.0.0.1:8470", is_plain_allowed=True)
    for url in ("http://10.0.0.1:8470", "ftp://x", "https://u:p@x", "node"):
        with pytest.raises(Misconfigured):
            check_node(url, is_plain_allowed=False)
    key = tmp_path / "key"
    key.write_text("nxk_x\n")
    key.chmod(0o644)
    with pytest.raises(Misconfigured, match="chmod 600"):
        read_key(key)
    key.chmod(0o600)
    assert read_key(key) == "nxk_x"
