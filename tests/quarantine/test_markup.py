"""XML and its kin: entities and acting drawings are held, everyday types and pages are not."""

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
    samples,
)
from tests.quarantine.other_files import LAUGHS

HOSTILE = [c for c in corpus_documents.CASES if c.engine == "markup"]
XML = samples(".xml", ".ofx", ".qfx", ".html", ".svg")


@pytest.mark.parametrize("case", HOSTILE, ids=lambda c: c.name)
def test_hostile_is_held(case, tmp_path):
    assert_held(case, tmp_path)


@pytest.mark.parametrize("benign", benign_documents.BENIGN, ids=lambda b: b.name)
def test_everyday_is_clean(benign, tmp_path):
    assert_clean(benign, tmp_path, "markup")


@pytest.mark.skipif(not XML, reason="no samples beside the project")
def test_samples_are_clean():
    found = {p.name: f for p in XML if (f := examine("markup", leaf_of(p, type="text/xml")))}
    assert found == {}


def write_feed(path, offers):
    offer = (
        '<offer id="1" available="true"><name>Товар</name><price>12.50</price></offer>\n'.encode()
    )
    with path.open("wb") as file:
        file.write(b'<?xml version="1.0"?><!DOCTYPE yml_catalog SYSTEM "shops.dtd"><yml_catalog>')
        for _ in range(offers // 10_000):
            file.write(offer * 10_000)
        file.write(b"</yml_catalog>")


def check_feed(tmp_path, offers, seconds):
    write_feed(tmp_path / "small.xml", 10_000)
    write_feed(tmp_path / "large.xml", offers)
    started = time.monotonic()
    assert examine("markup", leaf_of(tmp_path / "large.xml", type="text/xml")) == []
    assert time.monotonic() - started < seconds
    grown, codes = peak_growth("markup", tmp_path / "large.xml", "text/xml")
    assert codes == "[]"
    assert grown < 12


def test_a_large_feed_is_read_in_constant_memory(tmp_path):
    check_feed(tmp_path, 500_000, 5)


@pytest.mark.slow
def test_three_hundred_megabytes_are_read_in_constant_memory(tmp_path):
    check_feed(tmp_path, 3_700_000, 20)
    assert (tmp_path / "large.xml").stat().st_size > 300_000_000


def test_laughs_are_not_laughed(tmp_path):
    path = tmp_path / "small.xml"
    path.write_text("<a/>", "utf-8")
    large = tmp_path / "large.xml"
    large.write_text(LAUGHS, "utf-8")
    started = time.monotonic()
    grown, codes = peak_growth("markup", large, "text/xml")
    assert codes == "['markup.dtd']"
    assert grown < 10 and time.monotonic() - started < 5


def test_no_other_file_is_ever_opened(tmp_path):
    secret = tmp_path / "secret.dtd"
    secret.write_text('<!ENTITY x "y">', "utf-8")
    path = tmp_path / "a.xml"
    path.write_text(f'<!DOCTYPE a SYSTEM "{secret.as_uri()}"><a>&x;</a>', "utf-8")
    assert examine("markup", leaf_of(path)) == []


def test_time_is_bounded(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text("<a/>", "utf-8")
    with pytest.raises(Unscannable, match="longer than the policy"):
        examine("markup", leaf_of(path), Policy(seconds_max=-1))


def test_damaged_files_never_break_the_engine(tmp_path):
    assert_survives("markup", HOSTILE + benign_documents.MARKUP, tmp_path, count=1_500)
