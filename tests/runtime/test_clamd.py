"""The scanner: what is said without one, and a real one where it is installed."""

import asyncio
from pathlib import Path

import pytest

from appliance.runtime.account import service_account
from appliance.runtime.clamd import Clamd, has_signatures, scanner_state
from appliance.runtime.engines import locate_clamd
from appliance.runtime.services import Given, Services
from appliance.runtime.supervisor import Supervisor, Unit

pytestmark = pytest.mark.anyio
INSTALLED = locate_clamd(service_account())
NEEDED = pytest.mark.skipif(INSTALLED is None, reason="clamav-daemon is not installed")
GIVEN = Given(url="host=/db", owner_url="host=/db", redis_url="redis://cache/0")
# The standard test file of the scanners' makers, in two parts so that no scanner takes this one.
EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}" + rb"$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"


def test_without_a_scanner_the_sentence_says_what_to_do():
    state = scanner_state(None)
    assert state.state == "absent" and "apt-get install clamav-daemon" in state.sentence
    assert "held" in state.sentence and state.socket == ""


def test_a_scanner_without_signatures_is_none(data):
    state = scanner_state(Path("/usr/sbin/clamd"), signatures=data)
    assert state.state == "no_signatures" and "freshclam" in state.sentence
    (data / "freshclam.dat").write_text("")
    assert not has_signatures(data)
    (data / "daily.cld").write_text("")
    assert scanner_state(Path("/usr/sbin/clamd"), signatures=data).state == "present"


async def test_a_node_starts_without_one(data):
    async with Services(data, GIVEN, signatures=data / "none") as services:
        expected = "absent" if INSTALLED is None else "no_signatures"
        assert services.endpoints().scanner.state == expected


@NEEDED
async def test_a_real_scanner_starts_unprivileged_and_finds_the_test_file(data):
    account = service_account()
    signatures = data / "signatures"
    signatures.mkdir(mode=0o755)
    (signatures / "own.ndb").write_text(f"Test.Eicar:0:*:{EICAR.hex()}\n")
    server = Clamd(INSTALLED, data, account, signatures=signatures)
    server.prepare()
    supervisor = Supervisor(data, account)
    unit = Unit("clamd", server.argv(), account, server.wait_ready, {"PATH": "/usr/bin:/bin"})
    await supervisor.start(unit)
    try:
        assert Path(f"/proc/{unit.process.pid}").stat().st_uid == account.uid
        answer = await scan(server.socket, EICAR)
        assert b"Test.Eicar" in answer and b"FOUND" in answer
        assert (await scan(server.socket, b"good")).endswith(b"OK\0")
    finally:
        await supervisor.stop()


@NEEDED
async def test_a_scanner_that_cannot_read_its_signatures_does_not_hold_the_node(data):
    signatures = data / "signatures"
    signatures.mkdir(mode=0o755)
    (signatures / "daily.cvd").write_text("this is no signature file")
    async with asyncio.timeout(5):
        async with Services(data, GIVEN, signatures=signatures) as services:
            assert services.endpoints().scanner.state == "present"


async def scan(socket, body):
    reader, writer = await asyncio.open_unix_connection(str(socket))
    writer.write(b"zINSTREAM\0" + len(body).to_bytes(4, "big") + body + bytes(4))
    answer = await reader.read(200)
    writer.close()
    return answer
