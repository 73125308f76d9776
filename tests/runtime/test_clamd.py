"""The node's scanner: what is said of it, its account, its signatures, good and broken."""

import asyncio
import os
import shutil
import signal
import stat
from pathlib import Path

import pytest

from appliance.runtime.clamd import LIMITS, scanner_state
from appliance.runtime.services import Given, Services
from appliance.runtime.signatures import PROBE, SignatureSets, official_files
from quarantine import signatures as baseline
from tests.runtime.conftest import alive, unit_of, until
from tests.runtime.scanner import program, running

pytestmark = pytest.mark.anyio
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to drop")
GIVEN = Given(url="host=/db", owner_url="host=/db", redis_url="redis://cache/0")
# The standard test file of the scanners' makers, in two parts so that no scanner takes this one.
EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}" + rb"$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
MARKER = b"marker-of-the-firm"
OWN = f"Own.Sign:0:*:{MARKER.hex()}\n"


async def scan(one, body):
    reader, writer = await asyncio.open_unix_connection(str(one.socket))
    writer.write(b"zINSTREAM\0" + len(body).to_bytes(4, "big") + body + bytes(4))
    answer = await reader.read(200)
    writer.close()
    return answer


async def until_async(check, seconds=20):
    async with asyncio.timeout(seconds):
        while not await check():
            await asyncio.sleep(0.05)


async def until_set(one, check):
    """Wait for a set that is active, loaded and good, and fits."""

    async def fits():
        _, active, good = one.ids()
        return active == good and await one.clamd.loaded() == good and check(good)

    await until_async(fits)
    return one.ids()[1]


def test_without_a_scanner_the_sentence_says_what_to_do():
    state = scanner_state(None)
    assert state.state == "absent" and "apt-get install clamav-daemon" in state.sentence
    assert "held" in state.sentence and state.socket == ""


def test_a_scanner_without_clamavs_signatures_says_so_loudly(data):
    state = scanner_state(Path("/usr/sbin/clamd"), data / "s", signatures=[data])
    assert state.state == "baseline" and state.socket == str(data / "s")
    assert "baseline signatures only" in state.sentence and "freshclam" in state.sentence
    (data / "freshclam.dat").write_text("")
    (data / "bytecode.cvd").write_text("")
    assert official_files([data]) == []
    (data / "daily.cld").write_text("")
    assert official_files([data / "none", data]) == [data / "daily.cld"]
    assert scanner_state(Path("/usr/sbin/clamd"), signatures=[data]).state == "present"


def test_both_planes_ask_for_the_set_in_the_same_way():
    assert baseline.PROBE == PROBE


def test_the_limits_are_above_those_of_the_policy():
    from quarantine.contract import Policy

    limits = dict(line.split() for line in LIMITS.splitlines())
    size = {k: int(v[:-1]) << 20 for k, v in limits.items() if v.endswith("M")}
    assert size["StreamMaxLength"] == size["MaxFileSize"] > Policy().bytes_max
    assert size["MaxScanSize"] > Policy().unpacked_bytes_max
    assert int(limits["MaxFiles"]) > Policy().entries_max
    assert int(limits["MaxRecursion"]) > Policy().depth_max + 2


async def test_it_runs_unprivileged_over_files_that_are_not_its_own(data):
    async with running(data) as one:
        account = one.clamd.account
        process = Path(f"/proc/{one.pid}")
        assert process.stat().st_uid == account.uid
        status = dict(
            line.split(":\t", 1) for line in (process / "status").read_text().splitlines()
        )
        assert int(status["CapEff"], 16) == 0 or os.geteuid()
        assert "Test.Eicar" in (await scan(one, EICAR)).decode()
        assert (await scan(one, b"good")) == b"stream: OK\0"
        found = one.socket.stat()
        assert stat.S_IMODE(found.st_mode) == 0o660 and found.st_gid == one.account.gid
        assert stat.S_IMODE(one.socket.parent.stat().st_mode) == 0o2710
        for path in [data / "clamd", *(data / "clamd").rglob("*")]:
            assert path.lstat().st_uid == os.geteuid()
            assert path.is_symlink() or not path.stat().st_mode & 0o022
        inodes = {line.split()[-1] for line in _listening(process)}
        assert inodes == {str(one.socket)}, "one socket, no port"


def _listening(process):
    own = {os.readlink(p)[8:-1] for p in (process / "fd").iterdir() if "socket" in os.readlink(p)}
    for name, inode in (("unix", 6), ("tcp", 9), ("tcp6", 9), ("udp", 9)):
        for line in (process / "net" / name).read_text().splitlines()[1:]:
            words = line.split()
            if words[inode] in own and not (name == "unix" and words[3] == "00000000"):
                yield line


@AS_ROOT
async def test_as_root_it_has_an_account_of_its_own_and_cannot_read_secrets(data):
    async with running(data) as one:
        assert one.clamd.account.name == "nexus-scan" != one.account.name
        secret = data / "secret"
        secret.write_bytes(EICAR)
        secret.chmod(0o600)
        os.chown(secret, one.account.uid, one.account.gid)
        reader, writer = await asyncio.open_unix_connection(str(one.socket))
        writer.write(f"zSCAN {secret}\0".encode())
        assert b"FOUND" not in await reader.read(500)
        writer.close()


async def test_a_file_of_the_operators_counts_within_seconds_and_goes_again(data):
    async with running(data) as one:
        first = one.ids()[1]
        assert (await scan(one, MARKER)) == b"stream: OK\0"
        path = one.add("own.ndb", OWN)
        second = await until_set(one, lambda i: i != first)
        assert b"Own.Sign" in await scan(one, MARKER)
        assert one.clamd._unit.restarts == 0, "reloaded, not started again"
        path.unlink()
        assert await until_set(one, lambda i: i != second) == first
        assert (await scan(one, MARKER)) == b"stream: OK\0"
        assert one.ids()[0] == [first], "only the set in use stays"


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("bad.yar", 'rule x { strings: $a = "x condition: $a }\n', "cannot read all of it"),
        ("half.yar", 'rule a { strings: $a = "abcdefgh" condition: $a }\nrule b {', "all of it"),
        ("bad.ndb", "No colons\n", "cannot read all of it"),
        ("half.ndb", OWN + "Second:0:*\n", "cannot read all of it"),
        ("bad.hdb", "zzzz:5:Name\n", "cannot read all of it"),
        ("empty.ndb", "", "it is empty"),
        ("remarks.ndb", "# nothing\n", "is not used"),
        ("broad.ndb", f"All:0:*:{b'Nexus.Test'.hex()}\n", "known to be good"),
        ("own.ign2", "Nexus.Test.Eicar\n", "signatures.d takes"),
        ("own.fp", "x:1:x\n", "signatures.d takes"),
        ("with space.ndb", OWN, "signatures.d takes"),
    ],
)
async def test_a_broken_file_is_left_out_and_named_and_the_rest_counts(data, name, text, says):
    def prepare(one):
        one.add(name, text)
        one.add("other.ndb", OWN)

    async with running(data, prepare=prepare) as one:
        await until_set(one, bool)
        good = one.clamd.sets.last_good()
        assert len(good.refused) == 1 and name in good.refused[0] and says in good.refused[0]
        assert str(data) not in good.refused[0]
        assert b"Own.Sign" in await scan(one, MARKER)
        assert b"Test.Eicar" in await scan(one, EICAR)


async def test_a_file_that_breaks_keeps_its_last_good_version(data):
    async with running(data, prepare=lambda one: one.add("own.ndb", OWN)) as one:
        before = one.ids()[1]
        one.add("own.ndb", "broken now\n")
        await until(lambda: one.clamd.sets.last_good().refused)
        assert one.ids()[1] == before
        assert b"Own.Sign" in await scan(one, MARKER)
        assert "The former own.ndb stays in use." in one.clamd.sets.last_good().refused


@AS_ROOT
async def test_what_others_may_not_read_is_not_published_and_links_are_not_followed(data):
    secret = data / "secret.ndb"
    secret.write_text(OWN)
    secret.chmod(0o600)

    def prepare(one):
        one.add("closed.ndb", OWN, mode=0o600)
        (one.clamd.sets.operators / "link.ndb").symlink_to(secret)

    async with running(data, prepare=prepare) as one:
        refused = " ".join(one.clamd.sets.last_good().refused)
        assert "closed.ndb is not used: others may not read it" in refused
        assert "link.ndb is not used" in refused
        assert (await scan(one, MARKER)) == b"stream: OK\0"


@pytest.mark.parametrize("text", ["this is no signature file", "ClamAV-VDB:" + "x" * 600])
async def test_data_of_clamavs_that_is_broken_does_not_stop_the_scanner(data, text):
    official = data / "official"
    official.mkdir(mode=0o755)
    (official / "daily.cvd").write_text(text)
    (official / "daily.cvd").chmod(0o644)
    async with running(data, official) as one:
        await until_set(one, bool)
        assert one.clamd.sets.last_good().level == "baseline"
        assert b"Test.Eicar" in await scan(one, EICAR)


async def test_data_that_breaks_later_leaves_the_last_good_set(data):
    """clamd ends when it cannot load what it is told to: it comes back with what worked."""
    official = data / "official"
    official.mkdir(mode=0o755)
    async with running(data, official, lambda one: one.add("own.ndb", OWN)) as one:
        before = one.ids()[1]
        (official / "daily.cvd").write_text("ClamAV-VDB:" + "x" * 600)
        (official / "daily.cvd").chmod(0o644)
        await until(lambda: one.clamd._bad)
        assert await until_set(one, bool) == before
        assert b"Own.Sign" in await scan(one, MARKER)
        (official / "daily.cvd").unlink()
        one.add("more.ndb", f"More.Sign:0:*:{b'another-marker'.hex()}\n")
        await until_set(one, lambda i: i != before)
        assert b"More.Sign" in await scan(one, b"another-marker")


async def test_a_set_is_used_again_at_the_next_start_without_being_made(data):
    async with running(data, prepare=lambda one: one.add("own.ndb", OWN)) as one:
        found = one.ids()[1]
        stamp = (one.clamd.sets.sets / found).stat().st_ctime_ns
    async with running(data) as one:
        assert await until_set(one, bool) == found
        assert (one.clamd.sets.sets / found).stat().st_ctime_ns == stamp


async def test_an_emptied_set_is_made_again_and_a_scanner_without_one_says_nothing(data):
    async with running(data, prepare=lambda one: one.add("own.ndb", OWN)) as one:
        (place,) = (p for p in one.clamd.sets.sets.iterdir() if p.is_dir())
        for path in place.iterdir():
            path.unlink()
        first = one.pid
        os.kill(first, signal.SIGKILL)
        await until(lambda: one.pid != first)
        await until_set(one, bool)
        assert b"Own.Sign" in await scan(one, MARKER)


async def test_other_limits_are_another_set(data):
    async def fine(_):
        return ""

    async with running(data):
        pass
    ids = [(await SignatureSets(data / "clamd", [], text, fine).build()).id for text in "ab"]
    assert len(set(ids)) == 2


async def test_a_killed_scanner_comes_back_and_leaves_nobodys_content(data):
    async with running(data) as one:
        left = one.clamd._temporary / "clamav-0123.tmp"
        left.write_bytes(b"content of a file")
        first = one.pid
        os.kill(first, signal.SIGKILL)
        await until(lambda: not alive(first))
        await until_async(one.clamd.is_ready)
        assert one.pid != first and not left.exists()
        temporary = one.clamd._temporary
    assert not temporary.exists()


async def test_a_node_starts_one_and_stops_it(data):
    program()
    services = Services(data, GIVEN, signatures=data / "none")
    async with services:
        found = services.endpoints().scanner
        assert found.state == "baseline" and found.socket == str(services.clamd.socket)
        await until_async(services.clamd.is_ready)
        pid = unit_of(services, "clamd").process.pid
    assert not alive(pid) and not services.clamd.socket.exists()


async def test_a_node_that_is_given_a_scanner_starts_none(data):
    given = Given(
        url="host=/db", owner_url="host=/db", redis_url="redis://cache/0", scanner_socket="/run/c.s"
    )
    async with Services(data, given) as services:
        found = services.endpoints().scanner
        assert (found.state, found.socket, services.clamd) == ("present", "/run/c.s", None)


async def test_freshclam_is_kept_running_also_without_a_network(data):
    program()
    async with Services(data, GIVEN, signatures=data / "none", freshclam=True) as services:
        unit = unit_of(services, "freshclam")
        log = data / "log" / "freshclam.log"
        await until(lambda: "update process started" in log.read_text())
        assert Path(f"/proc/{unit.process.pid}").stat().st_uid == unit.account.uid
        assert unit.restarts == 0
        assert (data / "freshclam").stat().st_uid == unit.account.uid
        assert (data / "freshclam") in services.clamd.sets._official


@pytest.mark.parametrize("name", ["Дані вузла, 1", 'it\'s "100%" #1', "long" * 30])
async def test_the_data_folder_may_have_any_name(data, name):
    folder = data / name
    folder.mkdir()
    async with running(folder, prepare=lambda one: one.add("own.ndb", OWN)) as one:
        assert b"Own.Sign" in await scan(one, MARKER)
        assert len(str(one.socket)) < 100
        sockets = one.socket.parent
    if sockets.parent == Path("/tmp"):
        shutil.rmtree(sockets)
