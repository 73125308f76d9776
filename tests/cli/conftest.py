"""A content plane that scans, and a worker's hand that takes its verdicts."""

import asyncio
import contextlib
import shutil
import tempfile
from functools import partial
from pathlib import Path

import pytest

from appliance.files.verdicts import Takes
from appliance.work.node import WorkNode, system_context
from tests.http.conftest import _firm, valkey_url
from tests.plane import PlaneProcesses
from tests.runtime import scanner

__all__ = ["valkey_url"]


@pytest.fixture(scope="session")
def kept():
    """Tenants are dear: one for all tests of commands."""
    return {}


@pytest.fixture
async def firm(db, dsns, kept):
    return await _firm(db, dsns, kept, "terminal")


@pytest.fixture
def folder():
    # Not pytest's own, which every further run of pytest closes to other accounts.
    found = Path(tempfile.mkdtemp(prefix="nexus-cli-"))
    found.chmod(0o755)
    yield found
    shutil.rmtree(found, ignore_errors=True)


@pytest.fixture
def deaf(folder, valkey_url):
    """A plane without a scanner and without its worker."""
    found = PlaneProcesses(folder / "deaf", valkey_url)
    found.start("serve")
    yield found
    found.stop()


@pytest.fixture
async def scanning(folder, valkey_url, db):
    """A plane with a scanner (our own signatures), whose verdicts are taken over."""
    async with scanner.running(folder / "node") as one:
        found = PlaneProcesses(folder / "content", valkey_url, one.socket)
        found.start("serve")
        found.start("work")
        client = found.client()
        node = WorkNode(db=db, redis_url=valkey_url, name="node", origin=1, seal=None)
        stop = asyncio.Event()
        takes = Takes(db, client, partial(system_context, node))
        task = asyncio.create_task(takes.follow(stop))
        try:
            yield found
        finally:
            stop.set()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await client.close()
            found.stop()
