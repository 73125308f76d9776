"""What a withdrawn stream left outside of the database: files in the content plane, live updates."""

import shutil
import tempfile
from pathlib import Path
from urllib.parse import unquote

import msgspec
import pytest
import redis.asyncio as aioredis

from appliance.base.errors import Refused
from appliance.db.wire import Statement
from appliance.intake.files import FOLDER, forget_tenant
from appliance.kernel.context import Door
from appliance.sync.purge import Tools, purge
from appliance.sync.withdrawal import Proof
from tests.http.conftest import valkey_url
from tests.plane import PlaneProcesses
from tests.quarantine.planes import job, pieces
from tests.sync.test_purge import HUB, acknowledge, held, narrow
from tests.tenants import create

__all__ = ["held", "valkey_url"]
pytestmark = pytest.mark.anyio


@pytest.fixture
def processes(valkey_url):
    folder = Path(tempfile.mkdtemp(prefix="nexus-purge-"))
    folder.chmod(0o755)
    found = PlaneProcesses(folder / "content", valkey_url)
    found.start("serve")
    yield found
    found.stop()
    shutil.rmtree(folder, ignore_errors=True)


def holds(folder, marker):
    return [p.name for p in folder.rglob("*") if p.is_file() and marker.encode() in p.read_bytes()]


async def bring(tenant, plane, unit, marker):
    """A file of a unit: its bytes in the plane, its record here."""
    given = msgspec.structs.replace(job(tenant.id), name=f"{marker}.txt")
    await plane.put(given, pieces(f"{marker} in the bytes\n".encode()))
    made = create(
        "sys.file", given.blob, name=f"{marker}.txt", state="released", unit=tenant.units[unit]
    )
    assert (await tenant.apply(made, ctx=await tenant.ctx(door=Door.SYSTEM))).committed
    return given.blob


async def test_files_and_live_updates_leave_with_their_stream(
    db, tenant, dsns, held, processes, valkey_url, tmp_path
):
    site, key, gone, kept = held
    plane, events = processes.client(), aioredis.Redis.from_url(valkey_url)
    blobs = [await bring(tenant, plane, u, m) for u, m in (("north", gone), ("south", kept))]
    async with db.transaction(tenant.id) as tx:
        run = Statement(
            "UPDATE intake_run SET blob = $2 WHERE tenant_id = $1 AND units = ARRAY[$3::uuid]"
        )
        spare = msgspec.structs.replace(job(tenant.id), name="list.xlsx")
        await plane.put(spare, pieces(gone.encode()))
        await tx.run((run, (tenant.id, spare.blob, tenant.units["north"])))
    await events.xadd(f"events:{tenant.id}", {"data": gone})
    (tmp_path / FOLDER / tenant.id.hex).mkdir(parents=True)
    (tmp_path / FOLDER / tenant.id.hex / "a").write_text(gone)
    server = Path(unquote(valkey_url.partition("@")[2].partition("?")[0])).parents[1] / "valkey"
    await narrow(db, tenant, site)
    await acknowledge(tenant)
    tools = Tools(
        hub=HUB, sign=key.sign, plane=plane, events=events,
        forget_files=lambda t: forget_tenant(tmp_path, t),
    )  # fmt: skip
    signed = await purge(db, tenant.id, tools)
    assert msgspec.msgpack.decode(signed.proof, type=Proof).gone[tenant.units["north"]][1] == 1
    for blob in (blobs[0], spare.blob):
        with pytest.raises(Refused):
            await plane.look(tenant.id, blob)
    await plane.look(tenant.id, blobs[1])
    assert holds(processes.folder, gone) == []
    assert not await events.exists(f"events:{tenant.id}")
    assert server.is_dir() and holds(server, gone) == []
    assert holds(tmp_path, gone) == []
    await plane.close()
    await events.aclose()
