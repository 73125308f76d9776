"""Uploads in parts over HTTP: who may, what is refused and how, and what is there at the end."""

import asyncio
import base64
import contextlib
import json
import os
import sqlite3
import zlib
from datetime import timedelta
from hashlib import sha256

import pytest

from appliance.base.clock import now
from appliance.base.errors import Limited, Refused
from appliance.base.ids import uuid7
from appliance.base.settings import Files
from appliance.files import keeping, parts, upload
from appliance.files.places import Place
from appliance.files.rows import bytes_used, find_file, move
from appliance.files.states import FileState
from appliance.http.door import is_streamed
from appliance.http.routes.uploads import CHUNK_MAX
from quarantine.signing import Signer
from tests.http.conftest import client_of
from tests.http.test_door import assert_problem
from tests.quarantine.planes import pieces

pytestmark = pytest.mark.anyio
PATH = "/api/v1/uploads"
MEDIA = "application/offset+octet-stream"


def crc(body):
    return "crc32 " + base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()


async def begin(who, size, **more):
    answer = await who.post(PATH, json={"name": "list.csv", "size": size, **more})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


async def send(who, ident, at, body, **headers):
    given = {"Content-Type": MEDIA, "Upload-Offset": str(at), **headers}
    return await who.patch(f"{PATH}/{ident}", content=body, headers=given)


async def where(who, ident):
    """Where to go on, once the part before has ended: 423 until then."""
    for _ in range(100):
        answer = await who.head(f"{PATH}/{ident}")
        if answer.status_code == 200:
            return int(answer.headers["upload-offset"])
        assert (answer.status_code, answer.headers["retry-after"]) == (423, "1")
        await asyncio.sleep(0.05)
    raise AssertionError("the part before does not end")


async def state(node, firm, ident):
    found = await find_file(node.db, firm.tenant.id, ident)
    return found.state, found.reason


async def deal_of(firm, sign_in, who, number):
    """A deal that is this person's own."""
    owner, deal = await sign_in(firm, "owner"), firm.records["north"]["deal"][number]
    answer = await owner.patch(
        f"/api/v1/records/deal/{deal}", json={"fields": {}, "owner": str(firm.tenant.people[who])}
    )
    assert answer.status_code == 200, answer.text
    return deal


async def test_parts_become_a_file_that_is_held(client, firm, sign_in, node):
    seller, body = await sign_in(firm, "seller"), os.urandom(300_000)
    deal = await deal_of(firm, sign_in, "seller", 0)
    answer = await seller.post(PATH, json={
        "name": "list.csv", "size": len(body), "kind": "deal", "record": str(deal),
        "sha256": sha256(body).hexdigest(),
    })  # fmt: skip
    begun = answer.json()
    assert (begun["offset"], begun["size"], begun["chunk_max"]) == (0, len(body), CHUNK_MAX)
    assert (answer.headers["location"], begun["state"]) == (f"{PATH}/{begun['id']}", "receiving")
    assert begun["expires_at"] > now().isoformat()[:19]
    ident = begun["id"]
    done = await send(seller, ident, 0, body[:100_000])
    assert (done.status_code, done.content) == (204, b"")
    assert done.headers["upload-offset"] == "100000" and done.headers["upload-expires"]
    # The same person on another machine.
    fresh = await client.post("/api/v1/session", json=firm.credentials("seller"))
    seller.headers["Authorization"] = f"Bearer {fresh.json()['token']}"
    for method in ("HEAD", "GET"):
        answer = await seller.request(method, f"{PATH}/{ident}")
        assert (answer.status_code, answer.headers["upload-offset"]) == (200, "100000")
        assert answer.headers["upload-length"] == str(len(body)) and bool(answer.content) == (
            method == "GET"
        )
    rest = body[100_000:]
    done = await send(seller, ident, 100_000, rest, **{"Upload-Checksum": crc(rest)})
    assert (done.status_code, done.headers["upload-offset"]) == (204, str(len(body)))
    file = (await seller.get(f"/api/v1/files/{ident}")).json()
    assert (file["state"], file["size"], file["record"]) == ("held", len(body), str(deal))
    assert file["sha256"] == sha256(body).hexdigest()
    # The last acknowledgement was lost: who asks learns that all is there.
    again = await seller.get(f"{PATH}/{ident}")
    assert again.json()["state"] == "held" and again.json()["expires_at"] is None
    assert (await send(seller, ident, len(body), b"")).status_code == 204
    answer = await send(seller, ident, 100_000, rest)
    assert_problem(answer, 409, "upload.offset")
    assert answer.headers["upload-offset"] == str(len(body))
    assert_problem(await seller.delete(f"{PATH}/{ident}"), 409, "file.state")


async def test_only_who_began_it_goes_on(client, firm, rival, sign_in, node):
    seller = await sign_in(firm, "seller")
    ident = await begin(seller, 10)
    for who in ("owner", "admin", "south"):
        other = await sign_in(firm, who)
        assert_problem(await send(other, ident, 0, b"other"), 404, "upload.unknown")
        for method in ("GET", "HEAD", "DELETE"):
            assert (await other.request(method, f"{PATH}/{ident}")).status_code == 404
    stranger = await sign_in(rival, "owner")
    assert (await send(stranger, ident, 0, b"other")).status_code == 404
    assert (await send(client_of(client._transport.app), ident, 0, b"other")).status_code == 401
    assert (await send(seller, uuid7(), 0, b"bytes")).status_code == 404
    assert (await seller.get(f"{PATH}/{ident}")).json()["offset"] == 0


async def test_what_is_refused_and_what_it_says(client, firm, sign_in, node):
    seller, body = await sign_in(firm, "seller"), os.urandom(50_000)
    ident = await begin(seller, len(body))
    await send(seller, ident, 0, body[:20_000])
    ahead = await send(seller, ident, 20_001, body[20_001:])
    assert_problem(ahead, 409, "upload.offset")
    assert ahead.headers["upload-offset"] == "20000"
    assert_problem(await send(seller, ident, 10_000, b"other"), 409, "file.changed")
    assert (await send(seller, ident, 10_000, body[10_000:20_000])).status_code == 204
    spoiled = await send(seller, ident, 20_000, body[20_000:], **{"Upload-Checksum": crc(body)})
    assert_problem(spoiled, 460, "upload.spoiled")
    assert spoiled.headers["upload-offset"] == "20000"
    assert_problem(await send(seller, ident, 20_000, body), 413)
    for bad in ("", "-1", "1.0", "x", "\u00b2".encode(), "9" * 19):
        assert_problem(await send(seller, ident, bad, b"x", **{"Upload-Offset": bad}), 400)
    for bad in ("sha1 AAAAAA==", "crc32", "crc32 AAAA", "crc32 AAAAAA=="[::-1], ""):
        answer = await send(seller, ident, 20_000, b"x", **{"Upload-Checksum": bad})
        assert_problem(answer, 400, "upload.checksum")
    for media in ("application/json", "text/plain", ""):
        answer = await send(seller, ident, 20_000, b"{}", **{"Content-Type": media})
        assert_problem(answer, 415)
    at = await where(seller, ident)
    assert (await send(seller, ident, at, body[at:])).status_code == 204
    found = await find_file(node.db, firm.tenant.id, ident)
    assert found.sha256 == sha256(body).hexdigest()


async def test_a_part_has_a_bound_and_what_came_up_to_it_is_kept(client, firm, sign_in):
    seller = await sign_in(firm, "seller")
    ident = await begin(seller, CHUNK_MAX + 2_000_000)

    async def too_much():
        for _ in range(CHUNK_MAX // 2**20 + 1):
            yield bytes(2**20)

    answer = await send(seller, ident, 0, too_much())
    assert_problem(answer, 413, "upload.part_too_large")
    at = await where(seller, ident)
    assert 0 < at <= CHUNK_MAX
    assert (await seller.delete(f"{PATH}/{ident}")).status_code == 204


@pytest.mark.parametrize(
    ("given", "status"),
    [({"size": 0}, 422), ({"size": -1}, 422), ({"size": 104_857_601}, 413), ({"size": "9"}, 422),
     ({"name": "a/b"}, 422), ({"name": ""}, 422), ({"name": "\0"}, 422), ({"sha256": "abc"}, 422),
     ({"kind": "deal", "record": str(uuid7())}, 404), ({"kind": "sys.person"}, 404), ({"more": 1}, 422)],
)  # fmt: skip
async def test_what_does_not_begin(client, firm, sign_in, given, status):
    seller = await sign_in(firm, "seller")
    before = await firm.tenant.sql("SELECT count(*)::text FROM record WHERE kind = 'sys.file'")
    answer = await seller.post(PATH, json={"name": "a.txt", "size": 5, **given})
    assert_problem(answer, status)
    after = await firm.tenant.sql("SELECT count(*)::text FROM record WHERE kind = 'sys.file'")
    assert before == after


async def test_a_field_takes_its_types_and_sizes_also_at_the_end(
    client, firm, sign_in, node, holding
):
    owner = await sign_in(firm, "owner")
    options = {"extensions": ["csv"], "bytes_max": 100}
    field = {"name": "paper", "type": "file", "options": options}
    answer = await owner.post("/api/v1/kinds", json={"key": "folder", "fields": [field]})
    assert answer.status_code == 201, answer.text
    made = await owner.post("/api/v1/records/folder", json={"fields": {}})
    place = {"kind": "folder", "record": made.json()["id"], "field": "paper"}
    for given, status in (
        ({"name": "a.exe", "size": 5}, 422),
        ({"name": "a.csv", "size": 101}, 413),
    ):
        assert_problem(await owner.post(PATH, json={**given, **place}), status)
    ident = await begin(owner, 5, **place)
    assert (await send(owner, ident, 0, b"bytes")).status_code == 204
    with contextlib.closing(sqlite3.connect(holding.folder / "ledger.sqlite3")) as ledger:
        query = "SELECT policy FROM blob WHERE id = ?"
        (policy,) = ledger.execute(query, (ident.replace("-", ""),)).fetchone()
    assert {k: json.loads(policy)[k] for k in options} == options, "it is judged by these"
    late = await begin(owner, 5, **place)
    await send(owner, late, 0, b"byt")
    await owner.delete(f"/api/v1/records/folder/{made.json()['id']}")
    assert_problem(await send(owner, late, 3, b"es"), 404, "record.unknown")
    found, reason = await state(node, firm, late)
    assert found is FileState.EXPIRED and "no such record" in reason
    assert_problem(await owner.get(f"{PATH}/{late}"), 404, "upload.ended")


async def test_rights_that_went_meanwhile_end_it(client, firm, sign_in, node):
    seller = await sign_in(firm, "seller")
    deal = await deal_of(firm, sign_in, "seller", 1)
    ident = await begin(seller, 5, kind="deal", record=str(deal))
    await send(seller, ident, 0, b"byt")
    owner = await sign_in(firm, "owner")
    moved = await owner.patch(
        f"/api/v1/records/deal/{deal}", json={"fields": {}, "unit": str(firm.tenant.units["south"])}
    )
    assert moved.status_code == 200, moved.text
    answer = await send(seller, ident, 3, b"es")
    assert answer.status_code in (403, 404), answer.text
    assert (await state(node, firm, ident))[0] is FileState.EXPIRED


async def test_what_is_not_the_file_that_was_announced_expires(client, firm, sign_in, node):
    seller = await sign_in(firm, "seller")
    ident = await begin(seller, 5, sha256=sha256(b"other").hexdigest())
    assert_problem(await send(seller, ident, 0, b"bytes"), 409, "file.changed")
    assert (await state(node, firm, ident))[0] is FileState.EXPIRED
    assert (await seller.head(f"{PATH}/{ident}")).status_code == 404


async def test_an_end_that_was_cut_short_is_ended_by_whoever_looks(client, firm, sign_in, node):
    seller = await sign_in(firm, "seller")
    for is_finished in (False, True):
        ident = await begin(seller, 5)
        file = await find_file(node.db, firm.tenant.id, ident)
        job = upload.job_of(file, firm.tenant.id, priority=0)

        # As far as a node came that was killed then.
        await node.content.append(job, 0, pieces(b"bytes"), None)
        if is_finished:
            await node.content.finish(job)
        assert (await state(node, firm, ident))[0] is FileState.RECEIVING
        answer = await seller.head(f"{PATH}/{ident}")
        assert (answer.status_code, answer.headers["upload-offset"]) == (200, "5")
        assert (await state(node, firm, ident))[0] is FileState.HELD


async def test_room_is_kept_from_the_beginning(client, firm, sign_in, node):
    seller = await sign_in(firm, "seller")
    actor = firm.tenant.people["seller"]
    _, used = await bytes_used(node.db, firm.tenant.id, actor)
    ident = await begin(seller, 1_000)
    assert (await bytes_used(node.db, firm.tenant.id, actor))[1] == used + 1_000
    assert (await seller.delete(f"{PATH}/{ident}")).status_code == 204
    assert (await bytes_used(node.db, firm.tenant.id, actor))[1] == used
    ctx = await firm.tenant.ctx(person="seller")
    limits = Files(person_bytes_max=used + 1_000)
    with pytest.raises(Limited, match="space for files is used up"):
        await upload.begin(node.db, ctx, limits, name="a.txt", place=Place(), size=1_001)


async def test_the_chore_expires_what_the_plane_gave_up_and_nothing_that_goes_on(
    client, firm, sign_in, node
):
    seller = await sign_in(firm, "seller")
    alive, silent, whole = [await begin(seller, 10) for _ in range(3)]
    plain, _ = await upload.begin(
        node.db, await firm.tenant.ctx(), Files(), name="a.txt", place=Place()
    )
    await node.content.give_up(firm.tenant.id, silent)
    file = await find_file(node.db, firm.tenant.id, whole)
    job = upload.job_of(file, firm.tenant.id, priority=0)

    await node.content.append(job, 0, pieces(b"0123456789"), None)
    await node.content.finish(job)
    ctx = await firm.tenant.ctx()
    states = []
    for hours in (0.9, 1.1, 30):
        await keeping.purge_due(node.db, ctx, node.content, at=now() + timedelta(hours=hours))
        found = [
            await find_file(node.db, firm.tenant.id, i) for i in (alive, silent, whole, plain.id)
        ]
        states.append([f.state.value for f in found])
    on, over = "receiving", "expired"
    assert states == [[on, on, on, on], [on, over, on, on], [on, over, on, over]]
    assert (await send(seller, alive, 0, b"0123456789")).status_code == 204
    assert (await state(node, firm, silent))[1] == "Nothing came for an hour."


def test_bodies_are_streamed_to_files_and_parts_alone():
    ident = uuid7()
    for method, path in (
        ("POST", "/api/v1/files"), ("POST", "/api/v1/files/"), ("PATCH", f"{PATH}/{ident}"),
        ("PATCH", f"//api/v1/uploads//{ident}/"), ("PUT", f"/api/v1/sync/blobs/{ident}/0"),
    ):  # fmt: skip
        assert is_streamed(method, path), path
    for method, path in (
        ("POST", PATH), ("PATCH", PATH), ("PUT", f"{PATH}/{ident}"), ("POST", f"{PATH}/{ident}"),
        ("PATCH", f"{PATH}/{ident}/more"), ("PATCH", f"/api/v1/records/uploads/{ident}"),
        ("PATCH", "/api/v1/files"), ("POST", "/api/v1/query"), ("POST", "/api/v1/sync/blobs/have"), ("DELETE", f"{PATH}/{ident}"),
    ):  # fmt: skip
        assert not is_streamed(method, path), path


@pytest.mark.parametrize(
    "path", ["/api/v1//uploads/{}", "/api/v1/uploads/{}/", "/api/v1/uploads//{}//"]
)
async def test_every_way_to_write_the_address_is_one(client, firm, sign_in, path):
    seller = await sign_in(firm, "seller")
    path = path.format(await begin(seller, 5))
    headers = {"Content-Type": MEDIA, "Upload-Offset": "0"}
    assert (await seller.patch(path, content=b"bytes", headers=headers)).status_code == 204


async def test_a_plane_that_does_not_know_our_orders_ends_no_upload(client, firm, sign_in, node):
    """A clock that is wrong, another key: the plane answers as to anybody, and nothing expires."""
    seller = await sign_in(firm, "seller")
    ident = await begin(seller, 5)
    signer, node.content.signer = node.content.signer, Signer(bytes(32))
    assert (await seller.head(f"{PATH}/{ident}")).status_code == 404
    assert (await send(seller, ident, 0, b"bytes")).status_code == 404
    later = now() + timedelta(hours=2)
    await keeping.purge_due(node.db, await firm.tenant.ctx(), node.content, at=later)
    node.content.signer = signer
    assert (await state(node, firm, ident))[0] is FileState.RECEIVING
    assert (await send(seller, ident, 0, b"bytes")).status_code == 204


async def test_an_end_that_meets_a_giving_up_leaves_no_bytes(client, firm, sign_in, node):
    seller = await sign_in(firm, "seller")
    ident = await begin(seller, 5)
    ctx = await firm.tenant.ctx(person="seller")
    door = parts.Door(node.db, ctx, Files(), node.content)
    file = await find_file(node.db, firm.tenant.id, ident)
    await node.content.append(
        upload.job_of(file, firm.tenant.id, priority=0), 0, pieces(b"bytes"), None
    )
    finish = node.content.finish

    async def slowly(job):
        stored = await finish(job)
        await move(node.db, ctx, file, FileState.EXPIRED, "file.expired")
        return stored

    node.content.finish = slowly
    with pytest.raises(Refused, match="ended"):
        await parts.finish(door, file)
    with pytest.raises(Refused):
        await node.content.look(firm.tenant.id, file.id)


async def test_who_was_signed_out_while_the_last_part_came_does_not_end_it(
    client, firm, sign_in, node
):
    fresh = await client.post("/api/v1/session", json=firm.credentials("seller"))
    leaving, staying = client_of(client._transport.app), await sign_in(firm, "seller")
    leaving.headers["Authorization"] = f"Bearer {fresh.json()['token']}"
    ident = await begin(leaving, 10)

    async def bytes_and_out():
        yield b"01234"
        assert (await leaving.delete("/api/v1/session")).status_code == 204
        yield b"56789"

    assert_problem(await send(leaving, ident, 0, bytes_and_out()), 401)
    assert (await state(node, firm, ident))[0] is FileState.RECEIVING
    assert await where(staying, ident) == 10
    assert (await state(node, firm, ident))[0] is FileState.HELD
