"""Files that come back from an archive are judged by this plane, whatever the archive says of them."""

import asyncio
import contextlib
import shutil
import tempfile
from functools import partial
from pathlib import Path

import pytest

from appliance.base.errors import Clash, Refused
from appliance.base.settings import Files
from appliance.files import upload
from appliance.files.places import Place
from appliance.files.rows import find_file
from appliance.files.states import FileState
from appliance.files.tickets import make_current
from appliance.files.verdicts import Takes
from appliance.tenancy import (
    ask_for_verdicts,
    close_tenant,
    erase_tenant,
    export_tenant,
    find_tenant,
    import_tenant,
    restore_tenant,
    resume,
    suspend,
)
from appliance.work.node import WorkNode, system_context
from tests.http.conftest import valkey_url
from tests.plane import PlaneProcesses
from tests.quarantine.planes import pieces, until
from tests.runtime import scanner

__all__ = ["valkey_url"]
pytestmark = pytest.mark.anyio
GOOD = b"What was agreed, in plain words.\n" * 20_000
MARK = b"a word that nobody minded until today"
LATER = b"A letter.\n" + MARK + b"\nWith regards.\n"
SIGN = f"Later.Known:0:*:{MARK.hex()}\n"


class Bench:
    """A scanning plane, its scanner, and a worker's hand that takes its words."""

    def __init__(self, db, scanner_, processes):
        self.db, self.scanner, self.processes = db, scanner_, processes
        self.plane = processes.client()

    async def bring(self, tenant, body, name="letter.txt"):
        ctx = await tenant.ctx()
        file, given = await upload.begin(self.db, ctx, Files(), name=name, place=Place())
        return await upload.receive(self.db, ctx, self.plane, file, given, pieces(body))

    async def state(self, tenant, file, wanted, seconds=40):
        async def look():
            found = await find_file(self.db, tenant.id, file.id)
            return found if found is not None and found.state is wanted else None

        return (await until(look, seconds))[0]

    async def fetched(self, tenant, file):
        found = await find_file(self.db, tenant.id, file.id)
        await make_current(self.db, await tenant.ctx(), self.plane, found)
        return b"".join([part async for part in self.plane.read(tenant.id, file.id)])

    async def learn(self):
        self.scanner.add("later.ndb", SIGN)
        before = (await self.plane.status()).signatures

        async def knows():
            return (await self.plane.status()).signatures not in ("", before)

        await until(knows, 40)


@pytest.fixture
async def bench(valkey_url, db):
    home = Path(tempfile.mkdtemp(prefix="nexus-judged-"))
    home.chmod(0o755)
    async with scanner.running(home / "node") as one:
        processes = PlaneProcesses(home / "content", valkey_url, one.socket)
        processes.start("serve")
        processes.start("work")
        found = Bench(db, one, processes)
        node = WorkNode(db=db, redis_url=valkey_url, name="node", origin=1, seal=None)
        stop = asyncio.Event()
        takes = Takes(db, found.plane, partial(system_context, node))
        task = asyncio.create_task(takes.follow(stop))
        try:
            yield found
        finally:
            stop.set()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await found.plane.close()
            processes.stop()
            shutil.rmtree(home, ignore_errors=True)


async def erased(servers, bench, tenant):
    found = await find_tenant(servers, str(tenant.id))
    await close_tenant(servers, tenant.id)
    await bench.db.routes.refresh()
    return await erase_tenant(servers, tenant.id, found.slug, plane=bench.plane)


async def test_a_released_file_comes_back_released_and_is_served_when_it_was_scanned_again(
    bench, servers, tenant, tmp_path
):
    file = await bench.bring(tenant, GOOD)
    file = await bench.state(tenant, file, FileState.RELEASED)
    assert await bench.fetched(tenant, file) == GOOD
    await export_tenant(servers, tenant.id, tmp_path / "a.nxt", plane=bench.plane)
    assert (await erased(servers, bench, tenant)).files == 1
    bench.processes.kill("work")
    await import_tenant(servers, tmp_path / "a.nxt", "pool", plane=bench.plane, grace_s=0)
    await bench.db.routes.refresh()
    back = await find_file(bench.db, tenant.id, file.id)
    assert back == file and back.state is FileState.RELEASED
    with pytest.raises(Clash, match="came back from a backup"):
        await bench.fetched(tenant, file)
    with pytest.raises(Refused):
        [part async for part in bench.plane.read(tenant.id, file.id)]
    bench.processes.start("work")

    async def is_served():
        with contextlib.suppress(Clash):
            return await bench.fetched(tenant, file) == GOOD

    await until(is_served, 40)
    assert await find_file(bench.db, tenant.id, file.id) == file


async def test_what_was_clean_then_and_is_known_now_is_recalled_and_never_served(
    bench, servers, tenant, tmp_path
):
    file = await bench.state(tenant, await bench.bring(tenant, LATER), FileState.RELEASED)
    await export_tenant(servers, tenant.id, tmp_path / "a.nxt", plane=bench.plane)
    await erased(servers, bench, tenant)
    await bench.learn()
    # Judged while the tenant is being made: the word is for nobody then, and is asked for again.
    await import_tenant(servers, tmp_path / "a.nxt", "pool", plane=bench.plane, grace_s=0)
    await bench.db.routes.refresh()
    with pytest.raises((Clash, Refused)):
        await bench.fetched(tenant, file)

    async def is_judged():
        return (await bench.plane.look(tenant.id, file.id)).verdict == "rejected"

    await until(is_judged, 40)
    await ask_for_verdicts(servers, tenant.id, bench.plane, grace_s=0)
    recalled = await bench.state(tenant, file, FileState.RECALLED)
    assert recalled.verdict["verdict"] == "rejected"

    async def incidents():
        return await tenant.sql(
            "SELECT t2 FROM record WHERE tenant_id = $1 AND kind = 'sys.incident'", tenant.id
        )

    assert (await until(incidents))[0] == [["file.recalled"]]


async def test_what_was_judged_while_a_tenant_was_suspended_is_taken_over_when_it_is_resumed(
    bench, servers, tenant, tmp_path
):
    held = await bench.state(tenant, await bench.bring(tenant, LATER), FileState.RELEASED)
    await export_tenant(servers, tenant.id, tmp_path / "a.nxt", plane=bench.plane)
    await suspend(servers, tenant.id)
    await bench.db.routes.refresh()
    await bench.plane.purge(tenant.id, held.id)
    await bench.learn()
    await restore_tenant(servers, tmp_path / "a.nxt", replace=True, plane=bench.plane)

    async def is_judged():
        return (await bench.plane.look(tenant.id, held.id)).verdict == "rejected"

    await until(is_judged, 40)
    await asyncio.sleep(0.5)
    await resume(servers, tenant.id)
    await bench.db.routes.refresh()
    assert (await find_file(bench.db, tenant.id, held.id)).state is FileState.RELEASED
    assert await ask_for_verdicts(servers, tenant.id, bench.plane, grace_s=0) == 1
    await bench.state(tenant, held, FileState.RECALLED)
    assert await ask_for_verdicts(servers, tenant.id, bench.plane, grace_s=0) == 0
