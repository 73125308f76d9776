"""`nexus doctor` says ok of nothing that is not."""

import time
from datetime import timedelta

import anyio
import msgspec
import pytest

from appliance.base.clock import now
from appliance.base.settings import Files, Settings
from appliance.cli.doctor import (
    Level,
    describe_held,
    describe_notices,
    describe_scanner,
    look_at_content,
)
from appliance.runtime.clamd import ScannerState
from quarantine.contract import Status

pytestmark = pytest.mark.anyio
KNOWN = ScannerState("present", "A virus scanner (clamd) with ClamAV's signatures.")
WELL = Status("ready", "It works with signatures official-1.", "official-1", 0, 0.0, 3, 99, 0)


def told(**changes):
    return msgspec.structs.replace(WELL, **changes)


def settings_of(plane, folder):
    key = folder / "doctor.key"
    key.write_bytes(plane.key)
    return Settings(data=str(folder), files=Files(plane_url=plane.url, key_path=str(key)))


async def levels(settings):
    found = await look_at_content(settings, KNOWN)
    return {f.what: f.level for f in found}, {f.what: f.sentence for f in found}


async def test_a_plane_that_nobody_scans_for_is_a_fault_and_a_dead_one_too(deaf, folder):
    settings = settings_of(deaf, folder)
    how, said = await levels(settings)
    assert how["Content plane"] is Level.OK and how["Scanner"] is Level.FAULT
    assert "Nobody scans" in said["Scanner"] and "held" in said["Scanner"]
    stranger = folder / "other.key"
    stranger.write_bytes(b"k" * 32)
    other = Settings(data=str(folder), files=Files(plane_url=deaf.url, key_path=str(stranger)))
    how, said = await levels(other)
    assert how["Content plane"] is Level.FAULT and "not the content plane" in said["Content plane"]
    deaf.kill("serve")
    began = time.monotonic()
    how, said = await levels(settings)
    assert time.monotonic() - began < 6
    assert {how["Content plane"], how["Scanner"]} == {Level.FAULT}
    assert deaf.url in said["Content plane"]


async def test_baseline_signatures_are_a_warning(scanning, folder):
    settings = settings_of(scanning, folder)
    with anyio.fail_after(30):
        while (await levels(settings))[0]["Scanner"] is Level.FAULT:
            await anyio.sleep(0.1)
    how, said = await levels(settings)
    assert how["Scanner"] is Level.WARNING and "knows no virus" in said["Scanner"]
    assert how["Held files"] is Level.OK


async def test_a_node_that_has_no_plane_says_so(tmp_path):
    how, said = await levels(Settings(data=str(tmp_path)))
    assert how["Content plane"] is Level.FAULT and "nexus up" in said["Content plane"]


def test_old_signatures_are_a_warning_with_their_age():
    for days, level in ((0, Level.OK), (6, Level.OK), (9, Level.WARNING)):
        found = describe_scanner(told(signatures_dated=now() - timedelta(days=days)), KNOWN)
        assert (found.level, f"{days} days old" in found.sentence) == (level, True)
    assert describe_scanner(WELL, KNOWN).level is Level.OK
    absent = ScannerState(
        "absent", "No virus scanner. Install it with: apt-get install clamav-daemon"
    )
    down = describe_scanner(told(scanner="down", sentence="It does not answer."), absent)
    assert down.level is Level.FAULT and "apt-get" in down.sentence


def test_what_waits_long_is_a_warning():
    assert describe_held(WELL).level is Level.OK
    assert describe_held(told(held=2, oldest_held_s=30.0)).level is Level.OK
    long = describe_held(told(held=2, oldest_held_s=7_300.0))
    assert long.level is Level.WARNING and "2 wait, the oldest for 2 h" in long.sentence
    assert describe_notices(told(notices=5)).level is Level.OK
    assert describe_notices(told(notices=500)).level is Level.WARNING
