"""A disk that is really full: a small file system of its own, in a name space of the test."""

import subprocess
import sys

import pytest

FULL = """
import asyncio, os, sys
from pathlib import Path
from uuid import uuid4, UUID
from quarantine.store.blobs import Blobs
from quarantine.store.contents import join
from quarantine.store.faults import NoSpace
from quarantine.store.incoming import Incoming
from quarantine.store.keys import MasterKey
from quarantine.store.places import LocalPlace, address_of
from quarantine.store.uploads import Uploads

MEBI, TENANT = 1024 * 1024, UUID(int=1)

async def pieces(data):
    for at in range(0, len(data), 70_000):
        yield data[at : at + 70_000]

async def refused(call):
    try:
        await call
    except NoSpace as error:
        assert "room" in str(error)
        return
    raise AssertionError("it was taken")

async def main(root, keep_free):
    master = MasterKey(os.urandom(32))
    key = master.open_tenant_key(TENANT, master.make_tenant_key(TENANT))
    incoming = Incoming(root / "incoming", keep_free=keep_free)
    place = LocalPlace(root, keep_free=keep_free)
    blobs, uploads = Blobs(place, incoming), Uploads(incoming)
    first = os.urandom(2 * MEBI)
    content = join(None, await incoming.receive(uuid4(), key, pieces(first), limit=10**9)).content
    await blobs.settle(content)
    blob = uuid4()
    await uploads.start(blob, key, size=3 * MEBI)
    await uploads.append(blob, key, 0, pieces(first[:MEBI]))
    before = os.statvfs(root).f_bfree
    for size in (30, 8):
        await refused(incoming.receive(uuid4(), key, pieces(os.urandom(size * MEBI)), limit=10**9))
        assert os.statvfs(root).f_bfree == before, "something was left"
    await refused(uploads.start(uuid4(), key, size=8 * MEBI))
    await refused(place.put(address_of(TENANT, "ab" * 32, uuid4()), pieces(bytes(8 * MEBI))))
    stuffed = root / "others"
    with stuffed.open("wb") as file:  # another program fills the disk
        try:
            while True:
                file.write(bytes(65536)); file.flush()
        except OSError:
            pass
    await refused(uploads.append(blob, key, MEBI, pieces(first[MEBI:])))
    again = Uploads(Incoming(root / "incoming", keep_free=keep_free))
    assert (await again.look(blob, key)).offset == MEBI
    await refused(incoming.receive(uuid4(), key, pieces(b"tiny" * 3000), limit=10**9))
    assert await (await blobs.open(content, key)).read() == first
    stuffed.unlink()
    rest = first[MEBI:]
    assert (await uploads.append(blob, key, MEBI, pieces(rest))).offset == 2 * MEBI
    assert sorted(p.name for p in incoming.folder.iterdir()) == [f"{blob.hex}.upload"]
    print("held", flush=True)

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


@pytest.mark.parametrize("keep_free", [0, 1024 * 1024])
def test_a_full_disk_refuses_and_touches_nothing(tmp_path, keep_free):
    mount = f'mount -t tmpfs -o size=10m none "{tmp_path}"'
    probe = subprocess.run(["unshare", "-Urm", "sh", "-c", mount], capture_output=True)
    if probe.returncode:
        pytest.skip("this machine lets nobody make a file system of his own")
    command = f'{mount} && exec "$0" -c "$1" "{tmp_path}" {keep_free}'
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", command, sys.executable, FULL],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout == "held\n", done.stdout + done.stderr
