"""The supervisor alone, over small real processes: order, deaths, grace, logs."""

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from appliance.base.errors import Unavailable
from appliance.runtime import logfiles
from appliance.runtime import supervisor as sup
from appliance.runtime.account import own_account
from appliance.runtime.supervisor import Supervisor, Unit, wait_for_stop
from tests.runtime.conftest import alive, kill, tree, until

pytestmark = pytest.mark.anyio


async def ready():
    return None


def unit(name, script, **more):
    more.setdefault("probe", ready)
    return Unit(
        name, ["/bin/sh", "-c", script], own_account(), env={"PATH": "/usr/bin:/bin"}, **more
    )


@pytest.fixture
async def watched(data):
    events = []
    found = Supervisor(data, own_account(), report=lambda name, **keys: events.append((name, keys)))
    found.events = events
    yield found
    await found.stop()


async def test_units_stop_in_reverse_each_by_its_signal(watched, data):
    note = data / "order"
    script = "trap 'sleep 0.1; echo %s >> %s; exit 0' %s; while :; do sleep 0.02; done"
    for name, sign in (("one", "INT"), ("two", "TERM"), ("three", "TERM")):
        stop = signal.SIGINT if sign == "INT" else signal.SIGTERM
        await watched.start(unit(name, script % (name, note, sign), stop_signal=stop))
    await asyncio.sleep(0.2)
    await watched.stop()
    assert note.read_text().split() == ["three", "two", "one"]
    assert watched.events == []


async def test_a_unit_that_outlives_its_grace_is_killed_with_its_children(watched):
    stubborn = unit("stubborn", "trap '' TERM; sleep 600 & sleep 600", grace_s=0.3)
    await watched.start(stubborn)
    await until(lambda: len(tree(stubborn.process.pid)) == 3)
    pids = tree(stubborn.process.pid)
    await watched.stop()
    await until(lambda: not any(map(alive, pids)), 3)
    assert [name for name, _ in watched.events] == ["unit.killed"]


async def test_a_dead_unit_comes_back_after_a_growing_pause(watched):
    short = unit("short", "exit 3")
    short.wait = False
    await watched.start(short)
    await until(lambda: short.restarts == 3)
    deaths = [keys["status"] for name, keys in watched.events if name == "unit.died"]
    assert deaths == [3, 3, 3]
    began = time.monotonic()
    await watched.stop()
    assert time.monotonic() - began < 0.5, "a pause does not hold the stop"


async def test_a_killed_unit_is_reported_and_its_children_go_too(watched):
    parent = unit("parent", "sleep 600 & wait")
    await watched.start(parent)
    await until(lambda: len(tree(parent.process.pid)) == 2)
    first = tree(parent.process.pid)
    kill(first[0])
    await until(lambda: [name for name, _ in watched.events] == ["unit.died", "unit.restarted"])
    assert not any(map(alive, first)) and alive(parent.process.pid)


async def test_children_of_a_unit_that_never_got_ready_go_with_it(watched, data, monkeypatch):
    monkeypatch.setattr(sup, "START_S", 0.0)
    note = data / "child"
    probe = lambda: asyncio.sleep(600)
    with pytest.raises(Unavailable):
        await watched.start(unit("leaver", f"sleep 600 & echo $! > {note}; exit 1", probe=probe))
    await until(lambda: not alive(int(note.read_text())), 3)


async def test_nothing_is_started_while_everything_stops(watched):
    slow = unit("slow", "trap 'sleep 0.8; exit 0' TERM; while :; do sleep 0.02; done")
    dying = unit("dying", "sleep 600")
    await watched.start(slow)
    await watched.start(dying)
    kill(dying.process.pid)
    await until(lambda: dying.process.returncode is not None)
    await watched.stop()
    assert dying.process.returncode is not None and slow.process.returncode == 0


@pytest.mark.parametrize("how", ["refuses", "cancelled"])
async def test_a_unit_that_does_not_become_ready_is_not_left_running(watched, how):
    async def probe():
        await asyncio.sleep(0.2 if how == "refuses" else 600)
        raise Unavailable("it does not answer", dependency="late")

    late = unit("late", "sleep 600", probe=probe)
    start = asyncio.create_task(watched.start(late))
    await asyncio.sleep(0.1)
    if how == "cancelled":
        start.cancel()
    with pytest.raises((Unavailable, asyncio.CancelledError)):
        await start
    assert late.process.returncode is not None and watched._units == []


async def test_a_unit_that_dies_at_once_is_tried_again_for_a_while(watched, data, monkeypatch):
    monkeypatch.setattr(sup, "START_S", 1.0)
    never = unit("never", "echo tried; exit 1", probe=lambda: asyncio.sleep(600))
    with pytest.raises(Unavailable, match=r"log/never\.log"):
        await watched.start(never)
    tries = (data / "log" / "never.log").read_text().split()
    assert len(tries) >= 2


async def test_a_program_that_cannot_be_started_again_is_reported(watched, data):
    program = data / "program"
    program.write_text("#!/bin/sh\nsleep 600\n")
    program.chmod(0o755)
    gone = Unit("gone", [str(program)], own_account(), ready)
    await watched.start(gone)
    program.rename(data / "away")
    kill(gone.process.pid)
    await until(
        lambda: ("unit.restart_failed", "gone") in [(n, k["service"]) for n, k in watched.events]
    )
    (data / "away").rename(program)
    await until(lambda: "unit.restarted" in [n for n, _ in watched.events])


async def test_logs_are_kept_within_bounds_and_read_by_the_operator(watched, data, monkeypatch):
    monkeypatch.setattr(sup, "LOG_BYTES_MAX", 100)
    (data / "log").mkdir()
    path = data / "log" / "talker.log"
    path.write_text("x" * 101)
    await watched.start(unit("talker", "echo out; echo err >&2; sleep 600"))
    await until(lambda: path.read_text().split() == ["out", "err"])
    assert (data / "log" / "talker.log.1").stat().st_size == 101
    assert path.stat().st_mode & 0o777 == 0o640


async def test_a_log_is_cut_while_its_unit_goes_on_writing(watched, data, monkeypatch):
    monkeypatch.setattr(sup, "LOG_BYTES_MAX", 2_000)
    monkeypatch.setattr(sup, "LOG_CHECK_S", 0.02)
    path = data / "log" / "talker.log"
    script = "n=0; while :; do n=$((n+1)); echo line $n; done"
    talker = unit("talker", f"{script} | while read l; do echo $l; sleep 0.0005; done")
    await watched.start(talker)
    await until(lambda: len(watched.events) > 3, 20)
    assert {(n, k["service"], k["outcome"]) for n, k in watched.events} == {
        ("unit.log_rotated", "talker", "kept")
    }
    size = path.stat().st_size
    assert b"\0" not in path.read_bytes(), "appended, not written at the old place"
    assert size < 100_000
    former = path.with_name("talker.log.1")
    assert former.stat().st_mode & 0o777 == 0o640
    assert former.read_bytes().startswith(b"line ")
    assert talker.restarts == 0


async def test_a_log_that_cannot_be_copied_is_cut_all_the_same(watched, data, monkeypatch):
    monkeypatch.setattr(sup, "LOG_BYTES_MAX", 100)
    monkeypatch.setattr(sup, "LOG_CHECK_S", 0.02)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(logfiles, "_write_all", full)
    path = data / "log" / "talker.log"
    await watched.start(unit("talker", "sleep 0.1; head -c 300 /dev/zero; sleep 600"))
    await until(lambda: watched.events)
    assert watched.events[0][1]["outcome"] == "dropped"
    assert path.stat().st_size == 0
    assert not path.with_name("talker.log.1").exists()


async def test_sockets_are_inherited(watched, data):
    read, write = os.pipe()
    await watched.start(
        unit("heir", f"echo here > /proc/self/fd/{write}; sleep 600", pass_fds=(write,))
    )
    os.close(write)
    assert await asyncio.to_thread(os.read, read, 10) == b"here\n"
    os.close(read)


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_signal_asks_for_the_end(sign):
    before = signal.getsignal(sign)
    waiting = asyncio.create_task(wait_for_stop())
    await asyncio.sleep(0.05)
    os.kill(os.getpid(), sign)
    assert await asyncio.wait_for(waiting, 2) is sign
    assert signal.getsignal(sign) in (before, signal.SIG_DFL, signal.default_int_handler)


def test_the_lock_is_not_a_link_to_somewhere_else(data):
    (data / "nexus.lock").symlink_to(data / "elsewhere")
    with pytest.raises(OSError):
        Supervisor(data, own_account()).lock()
    assert not Path(data / "elsewhere").exists()
