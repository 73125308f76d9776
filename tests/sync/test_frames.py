"""Frames: nothing is lost on the way, chains are proved, and whatever a peer sends is survived."""

import pytest

from appliance.sync.frames import decode_frame, encode_frame
from tests.sync.sample import LOG_KEY, Life


@pytest.mark.parametrize("seed", range(30))
def test_what_a_company_writes_comes_back_as_it_was(seed):
    life = Life(seed)
    entries = life.live(1 + seed * 7)
    assert decode_frame(encode_frame(life.stream, entries), LOG_KEY).entries == tuple(entries)
