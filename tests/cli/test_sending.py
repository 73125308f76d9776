"""`nexus file put` of a large file: part by part, on over a plane that is killed meanwhile."""

import asyncio
import contextlib
import random
import sqlite3

import pytest

from appliance.base.errors import Clash, TooLarge, Unavailable
from appliance.base.settings import Files, Settings
from appliance.cli import files, sending
from appliance.cli.acting import At
from appliance.cli.node import Opened
from appliance.files.places import Place
from appliance.files.rows import find_file
from appliance.files.states import FileState
from tests.cli.test_files import at

pytestmark = pytest.mark.anyio
MEBI = 1 << 20


@pytest.fixture
def large(tmp_path):
    path = tmp_path / "large.csv"
    path.write_bytes(random.Random(1).randbytes(40 * MEBI))
    return path


async def bring(here, path):
    with files.upload_bar() as bar:
        return await files.bring(here, path, Place(), bar)


async def newest(firm):
    rows = await firm.tenant.sql(
        "SELECT id::text FROM record WHERE tenant_id = $1 AND kind = 'sys.file' ORDER BY id DESC LIMIT 1",
        firm.tenant.id,
    )
    return rows[0][0]


async def test_a_plane_that_is_killed_and_comes_back_costs_a_part_at_most(db, firm, deaf, large):
    parts = []

    async with at(db, firm, deaf, "manager") as here:
        append = here.plane.append

        async def counted(job, offset, pieces, crc32):
            parts.append(offset)
            return await append(job, offset, pieces, crc32)

        here.plane.append = counted
        bringing = asyncio.create_task(bring(here, large))
        kills = 0
        while kills < 3 and not bringing.done():
            seen = len(parts)
            while len(parts) < seen + 2 and not bringing.done():
                await asyncio.sleep(0.002)
            deaf.kill("serve")
            kills += 1
            await asyncio.sleep(0.1)
            await asyncio.to_thread(deaf.start, "serve")
        file = await bringing
        assert file.state is FileState.HELD and file.size == 40 * MEBI
        deaf_bytes = await whole(deaf, here, file)
    assert kills == 3 and deaf_bytes == large.read_bytes()
    assert 10 <= len(parts) <= 10 + 3 * 3, "only what was on its way is sent again"


async def whole(processes, here, file):
    with contextlib.closing(sqlite3.connect(processes.folder / "ledger.sqlite3", timeout=20)) as db:
        db.execute("UPDATE blob SET verdict = 'clean' WHERE id = ?", (file.id.hex,))
        db.commit()
    return b"".join([p async for p in here.plane.read(here.ctx.tenant, file.id)])


async def test_a_large_file_is_judged_like_any_other(db, firm, scanning, tmp_path):
    path = tmp_path / "large.csv"
    path.write_bytes(b"Date,Sum\n2026-11-21,10\n" * 400_000)
    async with at(db, firm, scanning, "manager") as here:
        assert path.stat().st_size > sending.IN_PARTS_FROM
        rested = await files.follow(here, await bring(here, path), 60)
        assert rested.state is FileState.RELEASED, rested.reason


async def test_a_small_file_goes_in_one_piece(db, firm, deaf, tmp_path):
    path = tmp_path / "small.csv"
    path.write_bytes(b"a,b\n")
    async with at(db, firm, deaf) as here:

        async def never(*_):
            raise AssertionError("in parts")

        here.plane.append = never
        assert (await bring(here, path)).state is FileState.HELD


async def test_what_is_given_up_expires(db, firm, deaf, large, monkeypatch):
    monkeypatch.setattr(sending, "PATIENCE_S", 0.3)
    async with at(db, firm, deaf) as here:
        append = here.plane.append

        async def edited(job, offset, pieces, crc32):
            if offset == 8 * MEBI:
                with large.open("r+b") as file:
                    file.seek(20 * MEBI)
                    file.write(b"other bytes")
            return await append(job, offset, pieces, crc32)

        here.plane.append = edited
        with pytest.raises(Clash, match="changed while it was being sent"):
            await bring(here, large)
        assert (await find_file(db, firm.tenant.id, await newest(firm))).state is FileState.EXPIRED

        async def shorter(job, offset, pieces, crc32):
            with large.open("r+b") as file:
                file.truncate(12 * MEBI)
            return await append(job, offset, pieces, crc32)

        here.plane.append = shorter
        with pytest.raises(Clash, match="shorter"):
            await bring(here, large)
        here.plane.append = append
        small = At(
            Opened(Settings(files=Files(bytes_max=9 * MEBI)), None, db, None, 1),
            here.ctx,
            here.plane,
        )
        with pytest.raises(TooLarge):
            await bring(small, large)

        async def killed(job, offset, pieces, crc32):
            if "serve" in deaf.running:
                deaf.kill("serve")
            return await append(job, offset, pieces, crc32)

        here.plane.append = killed
        with pytest.raises(Unavailable):
            await bring(here, large)
        assert (await find_file(db, firm.tenant.id, await newest(firm))).state is FileState.EXPIRED
