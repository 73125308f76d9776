"""Whatever an engine does inside, the file is held, the next file is judged, and nothing is left."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from quarantine.contract import Policy
from quarantine.engines.base import Unscannable
from quarantine.sandbox.parent import Sandbox
from quarantine.sandbox.walls import _probe

ROGUES = Path(__file__).with_name("rogues")
CORE = ("quarantine.engines.names", "quarantine.engines.types", "quarantine.engines.containers")
QUICK = Policy(seconds_max=2.0)
WALLS = [
    pytest.param(True, id="bwrap", marks=pytest.mark.skipif(not _probe(), reason="no bubblewrap")),
    pytest.param(False, id="limits"),
]
# Each either kills its process or breaks inside the engine: both hold the file.
HELD = [
    "abort", "break", "exit", "exit-badly", "raise", "recurse", "sleep", "spin", "fork", "clone",
    "run", "exec", "connect", "local-socket", "hog", "map", "write-much", "babble", "lie",
    "kill-server", "kill-all", "stop-server", "unscannable", "unlimited",
]  # fmt: skip


def run(work):
    return asyncio.run(work)


def opened(tmp_path, walls, lanes=1):
    return Sandbox((*CORE, "rogue"), tmp_path, lanes=lanes, bubblewrap=walls, paths=(ROGUES,))


async def ask(sandbox, tmp_path, act, policy=QUICK, seconds=None):
    path = tmp_path / f"file-{time.monotonic_ns()}"
    path.write_text(act)
    return await sandbox.inspect(path, "a.txt", policy, seconds=seconds)


def children():
    mine = str(os.getpid())
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                fields = (process / "stat").read_text().rpartition(")")[2].split()
                ours = b"quarantine.sandbox" in (process / "cmdline").read_bytes()
            except OSError:
                continue
            if fields[1] == mine and fields[0] != "Z" and ours:
                found.append(process.name)
    return found


@pytest.mark.parametrize("walls", WALLS)
def test_every_misdeed_holds_the_file_and_the_next_is_judged(walls, tmp_path):
    async def work():
        told = {}
        async with opened(tmp_path, walls) as sandbox:
            for act in HELD:
                try:
                    answer = await ask(sandbox, tmp_path, act)
                    ran = {e.engine for e in answer.engines}
                    errors = [f.code for f in answer.findings if f.verdict == "error"]
                    told[act] = "" if "rogue" in ran or not errors else errors[0]
                except Unscannable as reason:
                    told[act] = str(reason)
                answer = await ask(sandbox, tmp_path, "nothing")
                assert not answer.findings and len(answer.engines) == 4, act
        return told

    told = run(work())
    for act, how in told.items():
        print(f"{act:14} {how}")
    assert all(told.values()), told
    assert not children()


@pytest.mark.parametrize("walls", WALLS)
def test_nothing_stays_behind_for_the_next_file(walls, tmp_path):
    async def work():
        async with opened(tmp_path, walls) as sandbox:
            for act in ("leave", "look-around", "threads", "see-environment"):
                answer = await ask(sandbox, tmp_path, act)
                assert not answer.findings, (act, answer.findings)
        assert not [p for p in tmp_path.iterdir() if p.name.startswith("lane-")]

    run(work())


@pytest.mark.skipif(not _probe(), reason="no bubblewrap")
def test_walls_hide_disk_and_processes(tmp_path):
    async def work():
        async with opened(tmp_path, True) as sandbox:
            for act in ("see-disk", "see-processes"):
                answer = await ask(sandbox, tmp_path, act)
                assert not answer.findings, answer.findings

    run(work())


@pytest.mark.parametrize("walls", WALLS)
def test_answer_is_bounded_and_keeps_its_gravity(walls, tmp_path):
    async def work():
        async with opened(tmp_path, walls) as sandbox:
            answer = await ask(sandbox, tmp_path, "many", seconds=20)
            assert len(answer.findings) == 200 and len(answer.findings[0].detail) == 500

    run(work())


@pytest.mark.parametrize("walls", WALLS)
def test_two_files_are_looked_at_at_once(walls, tmp_path):
    async def work():
        async with opened(tmp_path, walls, lanes=2) as sandbox:
            await sandbox.warm()
            began = time.monotonic()
            await asyncio.gather(*(ask(sandbox, tmp_path, "wait 1") for _ in range(2)))
            assert time.monotonic() - began < 1.7

    run(work())


@pytest.mark.parametrize("walls", WALLS)
def test_time_out_is_of_the_wall_and_leaves_no_process(walls, tmp_path):
    async def work():
        async with opened(tmp_path, walls) as sandbox:
            await sandbox.warm()
            began = time.monotonic()
            with pytest.raises(Unscannable, match="in time"):
                await ask(sandbox, tmp_path, "sleep", seconds=0.4)
            assert time.monotonic() - began < 3
            assert not children()

    run(work())


def test_cancelled_look_frees_its_lane(tmp_path):
    async def work():
        async with opened(tmp_path, None) as sandbox:
            await sandbox.warm()
            looking = asyncio.create_task(ask(sandbox, tmp_path, "sleep"))
            await asyncio.sleep(0.2)
            looking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await looking
            assert not (await ask(sandbox, tmp_path, "nothing")).findings

    run(work())


def test_server_killed_between_files_is_started_anew_after_one_error(tmp_path):
    async def work():
        async with opened(tmp_path, None) as sandbox:
            await sandbox.warm()
            os.killpg(int(children()[0]), 9)
            await asyncio.sleep(0.2)
            with pytest.raises(Unscannable):
                await ask(sandbox, tmp_path, "nothing")
            assert not (await ask(sandbox, tmp_path, "nothing")).findings

    run(work())


def test_missing_engine_is_told(tmp_path):
    async def work():
        async with Sandbox((*CORE, "quarantine.engines.no_such"), tmp_path) as sandbox:
            ready, _ = await sandbox.warm()
            assert ready.missing == ("quarantine.engines.no_such",)
            assert ready.engines == ("names", "types", "containers")

    run(work())


def test_sandbox_that_cannot_start_says_so(tmp_path):
    async def work():
        with pytest.raises(Unscannable, match="cannot be started"):
            async with Sandbox(CORE, tmp_path / "missing-folder") as sandbox:
                await ask(sandbox, tmp_path, "nothing")

    run(work())
