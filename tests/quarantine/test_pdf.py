"""PDF: every active object is found by walking, in streams and under hexadecimal names too."""

import time

import pikepdf
import pytest

from quarantine.contract import Policy
from quarantine.engines.base import Unscannable
from tests.quarantine import benign_documents, corpus_documents
from tests.quarantine.examining import assert_clean, assert_held, assert_survives, examine, leaf_of
from tests.quarantine.other_files import PACKED, opens, pages_pdf, pdf, script

HOSTILE = [c for c in corpus_documents.CASES if c.engine == "pdf"]


@pytest.mark.parametrize("case", HOSTILE, ids=lambda c: c.name)
def test_hostile_is_held(case, tmp_path):
    assert_held(case, tmp_path)


@pytest.mark.parametrize("benign", benign_documents.BENIGN, ids=lambda b: b.name)
def test_everyday_is_clean(benign, tmp_path):
    assert_clean(benign, tmp_path, "pdf")


def test_words_in_the_bytes_would_not_have_found_it(tmp_path):
    """The case for walking: the name stands nowhere in the file."""
    path = tmp_path / "a.pdf"
    pdf(opens(script()), **PACKED)(path)
    assert b"JavaScript" not in path.read_bytes()
    assert [f.code for f in examine("pdf", leaf_of(path))] == ["pdf.javascript"]


def test_ten_megabytes_and_two_thousand_pages_in_a_moment(tmp_path):
    path = tmp_path / "a.pdf"
    pages_pdf(2_000, 5_000)(path)
    assert path.stat().st_size > 10_000_000
    started = time.monotonic()
    assert examine("pdf", leaf_of(path)) == []
    assert time.monotonic() - started < 2


def test_time_and_depth_are_bounded(tmp_path):
    path = tmp_path / "a.pdf"
    pages_pdf(2_000, 1)(path)
    with pytest.raises(Unscannable, match="longer than the policy"):
        examine("pdf", leaf_of(path), Policy(seconds_max=0))
    deep = pikepdf.Array([])
    for _ in range(300):
        deep = pikepdf.Array([deep])

    def nest(document):
        document.Root.Deep = deep

    pdf(nest)(path)
    with pytest.raises(Unscannable, match="deeper"):
        examine("pdf", leaf_of(path))


def test_a_pdf_under_another_name_is_looked_at(tmp_path):
    path = tmp_path / "invoice.txt"
    pdf(opens(script()))(path)
    assert [f.code for f in examine("pdf", leaf_of(path, type="text/plain"))] == ["pdf.javascript"]


def test_damaged_files_never_break_the_engine(tmp_path, capfd, caplog):
    assert_survives("pdf", HOSTILE + benign_documents.PDF, tmp_path, count=600)
    said = capfd.readouterr()
    assert (said.out, said.err, caplog.text) == ("", "", "")
