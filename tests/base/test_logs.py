"""A log on a full disk costs lines, never work, and says afterwards how many."""

import errno
import io
import json
import logging

import pytest
import structlog

from appliance.base import logs
from appliance.http.metrics import Metrics


class Disk(io.StringIO):
    """A log file whose disk may be full."""

    full = False

    def write(self, text):
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(text)


@pytest.fixture
def disk():
    found, root = Disk(), logging.root
    before = root.handlers, root.level
    logs.configure(found)
    yield found
    structlog.reset_defaults()
    root.handlers, root.level = before


def lines(disk):
    return [json.loads(line) for line in disk.getvalue().splitlines()]


def test_a_full_disk_is_swallowed_counted_and_told_of_later(disk):
    before = logs.lost_lines()
    logs.event("work.begun")
    disk.full = True
    for _ in range(3):
        logs.event("work.done", count=1)
    assert logs.lost_lines() - before == 3
    assert f"nexus_log_lines_lost {logs.lost_lines()}.0".encode() in Metrics().text()
    disk.full = False
    logs.event("work.ended")
    logs.event("work.ended")
    assert [(x["event"], x.get("count")) for x in lines(disk)] == [
        ("work.begun", None), ("work.ended", None), ("log.lines_lost", 3), ("work.ended", None)
    ]  # fmt: skip


def test_a_closed_log_is_no_fault_of_the_caller(disk):
    disk.close()
    logs.event("work.done")
