"""Whether the scanner is awake: right, asleep, badly configured, gone."""

import asyncio
import contextlib
import os
import signal
import subprocess
from datetime import UTC, datetime

import pytest

from appliance.runtime.account import child_setup, service_account
from quarantine.canary import EICAR, State, check_scanner
from quarantine.engines.clam import ClamScanner, Patience
from tests.quarantine.test_clam import speaking
from tests.runtime.conftest import until
from tests.runtime.scanner import program, running

pytestmark = pytest.mark.anyio
SHORT = Patience(connect_s=0.5, write_s=0.5, reply_s=0.7)


async def test_a_scanner_with_our_baseline_is_up_and_says_that_it_is_no_more(data):
    async with running(data) as one:
        health = await check_scanner(ClamScanner(one.socket))
        assert health.state is State.BASELINE and health.is_up
        assert "baseline signatures only" in health.sentence and "freshclam" in health.sentence
        assert health.signatures.startswith("baseline-") and health.age_days is None
        strict = await check_scanner(ClamScanner(one.socket, baseline_is_enough=False))
        assert strict.state is State.DOWN and "baseline_is_enough" in strict.sentence
        one.add("own.ndb", f"Own.Sign:0:*:{b'marker-of-the-firm'.hex()}\n")
        for _ in range(100):
            health = await check_scanner(ClamScanner(one.socket))
            if health.state is State.READY:
                break
            await asyncio.sleep(0.1)
        assert "without ClamAV's" in health.sentence
        os.kill(one.pid, signal.SIGSTOP)
        try:
            health = await check_scanner(ClamScanner(one.socket, patience=SHORT))
        finally:
            os.kill(one.pid, signal.SIGCONT)
        assert health.state is State.DOWN and not health.is_up and "within" in health.sentence


async def test_no_scanner_is_down(data):
    health = await check_scanner(ClamScanner(data / "nothing.sock"))
    assert health.state is State.DOWN and "does not take a connection" in health.sentence


async def test_a_scanner_that_passes_everything_is_down(data):
    async with speaking(data, b"stream: OK\0") as path:
        health = await check_scanner(ClamScanner(path), at=datetime(2026, 12, 1, tzinfo=UTC))
    assert health.state is State.DOWN and "clean for the standard test file" in health.sentence
    assert health.version == "ClamAV 1.4.6" and health.signatures == "official-27800"
    assert health.signatures_dated == datetime(2026, 11, 21, 8, 11, 2, tzinfo=UTC)
    assert 9 < health.age_days < 10


async def test_a_scanner_that_finds_everything_is_down(data):
    async with speaking(data, b"stream: X FOUND\0") as path:
        health = await check_scanner(ClamScanner(path))
    assert health.state is State.DOWN and "virus.found for a clean document" in health.sentence


async def test_a_scanner_with_the_defaults_of_its_package_is_down(data):
    """It finds the test file, and says OK to what is encrypted and beyond its limits."""
    async with foreign(data, f"T:0:*:{EICAR.hex()}\n") as path:
        health = await check_scanner(ClamScanner(path))
    assert health.state is State.DOWN and "clean for an encrypted archive" in health.sentence


async def test_a_scanner_whose_rules_did_not_load_is_down(data):
    async with foreign(data, "T:0:*:aabbccddeeff00112233\n", "rule x { broken") as path:
        health = await check_scanner(ClamScanner(path))
    assert health.state is State.DOWN and "the standard test file" in health.sentence


@contextlib.asynccontextmanager
async def foreign(data, signatures, rules=""):
    """A clamd that is not ours."""
    account = service_account()
    folder = data / "foreign"
    (folder / "db").mkdir(parents=True)
    (folder / "db" / "a.ndb").write_text(signatures)
    if rules:
        (folder / "db" / "b.yar").write_text(rules)
    os.chown(folder, account.uid, account.gid)
    conf = folder / "clamd.conf"
    conf.write_text(f"Foreground yes\nLocalSocket {folder}/s\nDatabaseDirectory {folder}/db\n")
    child = subprocess.Popen(
        [program(), f"--config-file={conf}"], preexec_fn=child_setup(account),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await until((folder / "s").exists)
        yield folder / "s"
    finally:
        child.kill()
        child.wait()
