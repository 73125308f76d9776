"""Frames of every release are read for ever: the bytes were kept when each format was new."""

import json

import pytest

from appliance.sync.frames import decode_frame, encode_frame
from tests.sync.keep_golden import FOLDER, story

KEPT = sorted(FOLDER.glob("v*/*.frame"))


def test_each_format_has_its_frames():
    assert {path.parent.name for path in KEPT} == {"v1"}
    assert len(KEPT) >= 6


@pytest.mark.parametrize("path", KEPT, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_a_kept_frame_reads_as_it_did(path):
    told = json.loads(path.with_suffix(".json").read_text("utf-8"))
    frame = decode_frame(path.read_bytes(), bytes.fromhex(told["log_key"]))
    assert str(frame.stream) == told["stream"]
    assert {str(o): h.hex() for o, h in frame.before.items()} == told["before"]
    assert sorted(frame.stripped) == told["stripped"]
    end = min(told["stripped"], default=len(frame.entries))
    for n, (one, other) in enumerate(zip(frame.entries, told["entries"], strict=True)):
        assert story(one) == {**other, "hash": other["hash"] if n < end else ""}
    if path.parent.name == "v1" and not told["stripped"]:
        again = encode_frame(frame.stream, frame.entries, before=frame.before)
        assert decode_frame(again) == decode_frame(path.read_bytes())
