"""Pictures: claims are held against the policy before a pixel is unfolded; damage is seen."""

import time

import pytest

from quarantine.contract import Policy
from quarantine.engines.base import Unscannable
from tests.quarantine import benign_documents, corpus_documents
from tests.quarantine.examining import (
    assert_clean,
    assert_held,
    assert_survives,
    examine,
    leaf_of,
    peak_growth,
)
from tests.quarantine.other_files import noise, picture, png_bomb

HOSTILE = [c for c in corpus_documents.CASES if c.engine == "images"]


@pytest.mark.parametrize("case", HOSTILE, ids=lambda c: c.name)
def test_hostile_is_held(case, tmp_path):
    assert_held(case, tmp_path)


@pytest.mark.parametrize("benign", benign_documents.BENIGN, ids=lambda b: b.name)
def test_everyday_is_clean(benign, tmp_path):
    assert_clean(benign, tmp_path, "images")


def test_a_bomb_costs_neither_memory_nor_time(tmp_path):
    picture()(tmp_path / "small.png")
    png_bomb()(tmp_path / "large.png")
    started = time.monotonic()
    assert [f.code for f in examine("images", leaf_of(tmp_path / "large.png"))] == ["image.pixels"]
    assert time.monotonic() - started < 0.5
    grown, codes = peak_growth("images", tmp_path / "large.png", "image/png")
    assert codes == "['image.pixels']"
    assert grown < 10


def test_the_policy_decides_how_many_pixels(tmp_path):
    path = tmp_path / "a.png"
    picture((100, 100))(path)
    assert examine("images", leaf_of(path), Policy(pixels_max=10_000)) == []
    codes = [f.code for f in examine("images", leaf_of(path), Policy(pixels_max=9_999))]
    assert codes == ["image.pixels"]


def test_all_frames_together_are_bounded(tmp_path):
    frames = [noise((50, 50)) for _ in range(20)]
    path = tmp_path / "a.tif"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert examine("images", leaf_of(path)) == []
    codes = [f.code for f in examine("images", leaf_of(path), Policy(pixels_max=3_000))]
    assert codes == ["image.frames"]


def test_time_is_bounded(tmp_path):
    path = tmp_path / "a.png"
    picture()(path)
    with pytest.raises(Unscannable, match="longer than the policy"):
        examine("images", leaf_of(path), Policy(seconds_max=-1))


def test_damaged_files_never_break_the_engine(tmp_path):
    small = [c for c in HOSTILE if "bomb" not in c.name and "thousands" not in c.name]
    cases = small + [b for b in benign_documents.IMAGES if "megapixels" not in b.name]
    assert_survives("images", cases, tmp_path, count=400)
