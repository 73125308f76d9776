"""A folder, keys, and a real S3-compatible server of its own process."""

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from uuid import UUID

import pytest

from appliance.base.ids import uuid7

from quarantine.store.incoming import Incoming
from quarantine.store.keys import MasterKey
from quarantine.store.places import LocalPlace, open_bucket
from quarantine.store.uploads import Uploads

TENANT = UUID(int=0xA)


@pytest.fixture
def tenant_key():
    master = MasterKey(os.urandom(32))
    return master.open_tenant_key(TENANT, master.make_tenant_key(TENANT))


@pytest.fixture
def incoming(tmp_path):
    return Incoming(tmp_path / "incoming", keep_free=0)


@pytest.fixture
def uploads(incoming):
    return Uploads(incoming)


def end_with_parent():
    """A test run that is killed leaves no server behind (prctl PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


@pytest.fixture(scope="session")
def s3_endpoint():
    """moto's server: the S3 of the tests speaks the protocol and is not ours."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    child = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=end_with_parent
    )
    end = time.monotonic() + 30
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            break
        assert child.poll() is None and time.monotonic() < end, "the S3 server did not start"
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    child.terminate()
    child.wait(10)


@pytest.fixture
def bucket(s3_endpoint):
    name = f"b{uuid7().hex[:12]}"
    asked = urllib.request.Request(f"{s3_endpoint}/{name}", method="PUT")
    urllib.request.urlopen(asked).close()
    return open_bucket(
        name, prefix="plane", endpoint=s3_endpoint, access_key_id="k", secret_access_key="s"
    )


@pytest.fixture(params=["local", "s3"])
def place(request, tmp_path):
    if request.param == "local":
        return LocalPlace(tmp_path, keep_free=0)
    return request.getfixturevalue("bucket")


async def pieces(data, step=70_000):
    for at in range(0, len(data), step):
        yield data[at : at + step]


@pytest.fixture
def run():
    return asyncio.run
