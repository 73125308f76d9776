"""The plaintext under scan: sealed where it lies in memory, gone afterwards, and never too large."""

import errno
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from quarantine.contract import Policy, Verdict
from quarantine.pipeline import MODULES, Pipeline
from quarantine.sandbox import plaintext
from quarantine.sandbox.parent import Sandbox
from quarantine.sandbox.plaintext import is_sealed, lay_out

pytestmark = pytest.mark.anyio
MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
BODY = b"number;name\n1;steel\n"


async def pieces(body=BODY):
    for start in range(0, len(body), 7):
        yield memoryview(body)[start : start + 7]


@pytest.fixture
def memory():
    if not plaintext._is_memory(MEMORY):
        pytest.skip("no memory is mounted there")
    found = Path(tempfile.mkdtemp(prefix="nexus-plaintext-", dir=MEMORY))
    yield found
    shutil.rmtree(found, ignore_errors=True)


async def test_in_memory_nobody_changes_a_byte_of_it(memory):
    async with lay_out(memory, "a", pieces(), size=len(BODY)) as path:
        assert path.read_bytes() == BODY and is_sealed(path) and not list(memory.iterdir())
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
            with pytest.raises(OSError) as refused:
                os.write(os.open(path, flags), b"x")
            assert refused.value.errno == errno.EPERM
    assert not path.exists()


async def test_elsewhere_it_is_a_file_that_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(plaintext, "_MEMORY", frozenset())
    async with lay_out(tmp_path, "a", pieces(), size=len(BODY)) as path:
        assert path == tmp_path / "a" and path.read_bytes() == BODY and not is_sealed(path)
        assert path.stat().st_mode & 0o777 == 0o600
    assert not list(tmp_path.iterdir())


async def test_what_breaks_off_leaves_nothing(memory, tmp_path, monkeypatch):
    async def broken():
        yield b"a"
        raise ConnectionError

    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ConnectionError):
        async with lay_out(memory, "a", broken(), size=5):
            pass
    monkeypatch.setattr(plaintext, "_MEMORY", frozenset())
    with pytest.raises(ConnectionError):
        async with lay_out(tmp_path, "a", broken(), size=5):
            pass
    assert len(os.listdir("/proc/self/fd")) == before and not list(tmp_path.iterdir())


async def test_the_size_of_the_scratch_folder_is_the_bound(memory):
    with pytest.raises(OSError) as full:
        async with lay_out(memory, "a", pieces(), size=1 << 50):
            pass
    assert full.value.errno == errno.ENOSPC


async def test_all_checks_read_sealed_bytes(memory, tmp_path):
    async with Sandbox(MODULES, tmp_path, lanes=1) as sandbox:
        pipeline = Pipeline(sandbox, {}, mandatory=[m.rpartition(".")[2] for m in MODULES])
        for sha256, verdict in (
            (hashlib.sha256(BODY).hexdigest(), Verdict.CLEAN),
            ("00" * 32, Verdict.ERROR),
        ):
            async with lay_out(memory, "a", pieces(), size=len(BODY)) as path:
                report = await pipeline.judge(
                    path, "a.csv", Policy(), sha256=sha256, size=len(BODY)
                )
            assert report.verdict is verdict, report
            assert report.sha256 == hashlib.sha256(BODY).hexdigest()
