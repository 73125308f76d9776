"""A clamd of the node for tests; where it is not installed a test says so and fails."""

import asyncio
import contextlib
import os

import pytest

from appliance.runtime.account import service_account
from appliance.runtime.clamd import Clamd
from appliance.runtime.engines import locate_clamd
from appliance.runtime.supervisor import Supervisor

LOOK_S = 0.1


def program():
    """The path of clamd. `make test` installs it where it may."""
    found = locate_clamd(service_account())
    if found is None:
        text = "clamd is not installed. Run: apt-get install clamav-daemon clamav"
        if os.geteuid() == 0:
            pytest.fail(text)
        pytest.skip(text)
    return found


class Running:
    """A scanner with its keeper, as a node runs it."""

    def __init__(self, data, official):
        self.data, self.official = data, official
        self.account = service_account()
        self.clamd = Clamd(program(), data, self.account, signatures=[official])
        self.clamd.prepare()
        self.supervisor = Supervisor(data, self.account)

    @property
    def socket(self):
        return self.clamd.socket

    @property
    def pid(self):
        return self.clamd._unit.process.pid

    def add(self, name, text, mode=0o644):
        """An operator puts a file of signatures there."""
        path = self.clamd.sets.operators / name
        path.write_text(text)
        path.chmod(mode)
        return path

    def ids(self):
        """Which sets there are, the active and the last good one."""
        sets = self.clamd.sets
        return (
            sorted(p.name for p in sets.sets.iterdir() if p.is_dir()),
            sets.active.readlink().name,
            sets._good.readlink().name if sets._good.is_symlink() else "",
        )


@contextlib.asynccontextmanager
async def running(data, official=None, prepare=None):
    """A scanner that is up with its first set, and goes with the test."""
    one = Running(data, official or data / "none")
    if prepare:
        prepare(one)
    keeper = asyncio.create_task(one.clamd.run(one.supervisor, look_s=LOOK_S))
    try:
        async with asyncio.timeout(30):
            while not one.clamd.sets._good.is_symlink():
                assert not keeper.done(), keeper
                await asyncio.sleep(0.05)
        yield one
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        await one.supervisor.stop()
        one.clamd.remove_temporary()
