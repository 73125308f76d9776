"""Messages and what adapts to a link: forward compatible, bounded, never a thundering herd."""

import msgspec
import pytest

from appliance.base.errors import Clash, Malformed
from appliance.base.ids import uuid7
from appliance.sync import messages as say
from appliance.sync.pace import BACK_OFF_MAX_S, BackOff, Pace


def test_a_newer_programs_message_is_read_by_an_older_one():
    asked = say.Waiting(b"standing", 5_000)
    longer = [*msgspec.msgpack.decode(say.encode(asked)), "what comes later", 7]
    assert say.decode(msgspec.msgpack.encode(longer), say.Waiting) == asked
    shorter = msgspec.msgpack.encode([b"standing", 5_000])
    assert say.decode(shorter, say.Waiting) == asked


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x90", b"\x92\x01\x02", b"\xff" * 9, b"[]"])
def test_what_is_no_message_is_refused(body):
    with pytest.raises(Malformed):
        say.decode(body, say.Waiting)


def test_the_highest_common_protocol_is_spoken():
    assert say.agree((1, 3), ours=(2, 4)) == 3
    assert say.agree((1, 1), ours=(1, 2)) == 1
    with pytest.raises(Clash) as refused:
        say.agree((1, 1), ours=(2, 3))
    assert "upgrade the site" in refused.value.detail
    with pytest.raises(Clash) as refused:
        say.agree((5, 6), ours=(2, 3))
    assert "upgrade the hub" in refused.value.detail


def test_a_standing_says_that_something_is_another():
    one, other = uuid7(), uuid7()
    known = say.stand_of(1, 0, [(one, 1, 5), (other, 1, 9)])
    assert known == say.stand_of(1, 0, [(other, 1, 9), (one, 1, 5)])
    for changed in (
        say.stand_of(2, 0, [(one, 1, 5), (other, 1, 9)]),
        say.stand_of(1, 3, [(one, 1, 5), (other, 1, 9)]),
        say.stand_of(1, 0, [(one, 1, 5), (other, 1, 10)]),
        say.stand_of(1, 0, [(one, 1, 5)]),
    ):
        assert changed != known


def test_the_size_follows_the_link():
    pace = Pace()
    for _ in range(20):
        pace.note(pace.size, 0.1)
    assert pace.size == say.ASK_BYTES_MAX
    pace.lose()
    assert pace.size == say.ASK_BYTES_MAX // 2
    # A link of 8 000 bytes a second: within a few questions one takes about five seconds.
    for _ in range(30):
        pace.note(pace.size, pace.size / 8_000)
    assert say.ASK_BYTES_MIN <= pace.size <= 110_000
    before = pace.size
    pace.note(500, 0.2)
    assert pace.size == before, "what was not full says nothing of the link"


def test_failures_are_waited_out_with_jitter():
    back = BackOff()
    waits = [back.next_s() for _ in range(40)]
    assert all(0 <= wait <= BACK_OFF_MAX_S for wait in waits)
    assert len(set(waits[10:])) > 20
    assert back.next_s(30.0) >= 30.0
    back.succeed()
    assert back.next_s() <= 1.0
