"""`nexus file`: the same rules as the API, from the terminal."""

import contextlib
import io
import subprocess
import sys
import zipfile

import pytest

from appliance.base.errors import ApplianceError, Clash, Forbidden, Invalid, Refused, Unavailable
from appliance.base.ids import uuid7
from appliance.base.settings import Files, Settings
from appliance.cli import files
from appliance.cli.acting import At, only_person, only_tenant
from appliance.cli.fetching import fetch
from appliance.cli.acting import actor_of
from appliance.cli.node import Opened
from appliance.files.places import REVIEW, Place
from appliance.files.review import review
from appliance.files.states import FileState
from appliance.kernel.context import Door
from quarantine.contract import Status
from tests.plane import ROOT
from tests.ports import free_port

pytestmark = pytest.mark.anyio
EICAR = r"X5O!P%@AP[4\PZX54(P^)7CC)7}" + "$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
REASON = "Looked at it with the customer"


def locked_zip():
    """One entry that is marked as encrypted."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(zipfile.ZipInfo("a.txt"), b"twelve bytes and the text")
    body = bytearray(out.getvalue())
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        body[body.index(header) + flags] |= 1
    return bytes(body)


@contextlib.asynccontextmanager
async def at(db, firm, plane, who="owner", capability=files.USE):
    ctx = await actor_of(
        db, firm.slug, f"{who}@example.org", 1, capability=capability, door=Door.HTTP
    )
    client = plane.client()
    yield At(Opened(Settings(), None, db, None, 1), ctx, client)
    await client.close()


async def put(here, path, body, place=None):
    path.write_bytes(body)
    with files.upload_bar() as bar:
        return await files.bring(here, path, place or Place(), bar)


async def actions(firm, ident):
    rows = await firm.tenant.sql(
        "SELECT action, actor::text, details::text FROM audit WHERE tenant_id = $1 AND subject = $2 "
        "ORDER BY id", firm.tenant.id, str(ident),
    )  # fmt: skip
    return [(a, who) for a, who, _ in rows], [d for *_, d in rows]


async def test_a_file_goes_in_is_released_and_comes_out_audited(
    db, firm, scanning, tmp_path, capsys
):
    body = b"Date,Sum\n2026-11-21,10\n" * 100_000
    deal = firm.records["north"]["deal"][0]
    async with at(db, firm, scanning, "manager") as here:
        file = await put(here, tmp_path / "sums.csv", body, Place("deal", deal))
        assert file.state is FileState.HELD
        rested = await files.follow(here, file, 30)
        assert rested.state is FileState.RELEASED and files.CODES[rested.state] == 0
        said = capsys.readouterr().out
        assert "held" in said and "released" in said
        told = []
        target = await fetch(
            db, here.ctx, here.plane, rested, tmp_path / "out.csv", report=told.append
        )
        assert target.read_bytes() == body and sum(told) == len(body)
        assert target.stat().st_mode & 0o777 == 0o600
        with pytest.raises(Invalid, match="there already"):
            await fetch(db, here.ctx, here.plane, rested, target, report=told.append)
        assert [f.id for f in await files.find_files(here, None, str(deal))] == [file.id]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.csv", "sums.csv"]
    done, details = await actions(firm, file.id)
    manager = str(firm.tenant.people["manager"])
    assert done[-2:] == [("file.ticket_issued", manager), ("file.downloaded", manager)]
    assert f'"bytes": {len(body)}' in details[-1]


async def test_bad_files_never_come_out_and_say_why(db, firm, scanning, tmp_path):
    async with at(db, firm, scanning) as here:
        bad = await files.follow(here, await put(here, tmp_path / "a.txt", EICAR.encode()), 30)
        assert bad.state is FileState.REJECTED and "EICAR" in bad.reason
        odd = await files.follow(here, await put(here, tmp_path / "b.zip", locked_zip()), 30)
        assert odd.state is FileState.SUSPICIOUS
        for file in (bad, odd):
            with pytest.raises(Clash, match=file.state.value):
                await fetch(db, here.ctx, here.plane, file, tmp_path / "out", report=print)
    assert not (tmp_path / "out").exists()
    assert files.worst([files.CODES[bad.state], files.CODES[odd.state], 0]) == 5


async def test_a_recall_needs_two_reviewers_again(db, firm, scanning, tmp_path):
    async with at(db, firm, scanning, "seller") as here:
        file = await files.follow(here, await put(here, tmp_path / "b.zip", locked_zip()), 30)
    async with (
        at(db, firm, scanning, "owner", REVIEW) as first,
        at(db, firm, scanning, "admin", REVIEW) as second,
    ):
        for who, decision, then in (
            (first, "release", FileState.SUSPICIOUS), (second, "release", FileState.RESTRICTED),
            (first, "recall", FileState.RECALLED), (second, "release", FileState.RECALLED),
            (first, "release", FileState.RESTRICTED),
        ):  # fmt: skip
            file = await review(db, who.ctx, who.plane, file, decision, REASON)
            assert file.state is then, decision
        with pytest.raises(Clash, match="ticket"):
            await fetch(db, first.ctx, first.plane, file, tmp_path / "out", report=print)


async def test_without_a_scanner_a_file_is_held_and_the_time_is_kept(
    db, firm, deaf, tmp_path, capsys
):
    async with at(db, firm, deaf, "seller") as here:
        file = await files.follow(here, await put(here, tmp_path / "n.txt", b"a note"), 0.3)
        assert file.state is FileState.HELD and files.CODES[file.state] == 3
        assert "Nobody scans" in file.reason and "Nobody scans" in capsys.readouterr().out
        with pytest.raises(Clash, match="held"):
            await fetch(db, here.ctx, here.plane, file, tmp_path / "out", report=print)
        with pytest.raises(Invalid, match="cannot be read"):
            with files.upload_bar() as bar:
                await files.bring(here, tmp_path / "none", Place(), bar)
        with pytest.raises(Refused):
            await files.see(here, str(uuid7()))
        with pytest.raises(Forbidden):
            await files.find_files(here, "held", None)
    async with at(db, firm, deaf, "south") as here:
        with pytest.raises(Refused):
            await files.see(here, str(file.id))
    async with at(db, firm, deaf, "owner", REVIEW) as here:
        assert file.id in [f.id for f in await files.find_files(here, "held", None)]
        with pytest.raises(Invalid, match="expected one of"):
            await files.find_files(here, "lost", None)
        deaf.kill("serve")
        assert "does not answer" in (await files.explain(here, file)).reason


async def test_nobody_is_guessed(db, firm):
    node = Opened(Settings(), None, db, None, 1)
    with pytest.raises(Invalid, match="--as"):
        await only_person(node, firm.slug)
    if len(db.routes.all()) > 1:
        with pytest.raises(Invalid, match="--tenant"):
            only_tenant(node)
    with pytest.raises(Refused, match="files.review"):
        await actor_of(db, firm.slug, "seller@example.org", 1, capability=REVIEW, door=Door.HTTP)


def test_a_place_reads_as_kind_record_and_field():
    ident = uuid7()
    assert files.read_place(None) == Place()
    assert files.read_place(f"deal/{ident}") == Place("deal", ident)
    assert files.read_place(f"deal/{ident}.contract") == Place("deal", ident, "contract")
    for wrong in ("deal", "deal/7", f"/{ident}", f"{ident}"):
        with pytest.raises(Invalid, match="KIND/ID"):
            files.read_place(wrong)


@pytest.mark.parametrize(
    ("key", "says"),
    [(False, "no content plane yet"), (True, "does not answer at http://127.0.0.1")],
)
def test_a_node_that_is_not_there_is_said_in_one_sentence(tmp_path, key, says):
    if key:
        (tmp_path / "content.key").write_bytes(b"k" * 32)
    (tmp_path / "a.txt").write_text("a")
    ran = subprocess.run(
        [sys.executable, "-m", "appliance", "file", "put", str(tmp_path / "a.txt"), "--tenant", "t",
         "--data", str(tmp_path), "--port", str(free_port())],
        capture_output=True, text=True, cwd=ROOT, timeout=60,
    )  # fmt: skip
    assert ran.returncode == 1 and says in ran.stderr and "Traceback" not in ran.stderr
    assert ran.stdout == ""
