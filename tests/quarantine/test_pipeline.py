"""Clean is proved: every engine ran, none found anything, and the bytes are the bytes that came."""

import asyncio
import hashlib
import importlib.util
import os
from pathlib import Path

import pytest

from quarantine.contract import EngineRun, Finding, Policy, Verdict
from quarantine.engines.base import Unscannable
from quarantine.pipeline import INSIDE, MODULES, OUTSIDE, Pipeline
from quarantine.sandbox.parent import Sandbox
from tests.quarantine.benign_containers import BENIGN
from tests.quarantine.corpus_containers import CASES

SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "samples"
ROGUES = Path(__file__).with_name("rogues")
CORE = INSIDE[:3]
CORE_MODULES = MODULES[:3]


class Scan:
    def __init__(self, engine="clamd", findings=()):
        self.findings = tuple(findings)
        self.run = EngineRun(engine, "1", "7")


class Outside:
    """An engine beside the sandbox, with a behaviour for each test."""

    def __init__(self, act):
        self.act = act
        self.asked = []

    async def scan(self, body, size):
        self.asked.append((body, size))
        return await self.act(body)


async def fine(body):
    return Scan()


async def virus(body):
    return Scan(findings=[Finding("clamd", "virus.found", Verdict.REJECTED, "It has a virus.")])


async def cut(body):
    raise Unscannable("It is too large.")


async def down(body):
    raise ConnectionError("clamd does not answer.")


async def disguised(body):
    return Scan("names")


def judge(tmp_path, data, name="a.csv", *, act=fine, modules=CORE_MODULES, mandatory=None, **more):
    path = tmp_path / "plaintext"
    path.write_bytes(data)
    sha256 = more.pop("sha256", hashlib.sha256(data).hexdigest())
    size = more.pop("size", len(data))
    policy = more.pop("policy", Policy(seconds_max=8.0))
    outside = {"clamd": Outside(act)} if act else {}

    async def work():
        async with Sandbox(modules, tmp_path, lanes=1, paths=(ROGUES,)) as sandbox:
            pipeline = Pipeline(sandbox, outside, mandatory=mandatory or (*CORE, *OUTSIDE))
            return await pipeline.judge(path, name, policy, sha256=sha256, size=size)

    return asyncio.run(work())


def codes(report):
    return [finding.code for finding in report.findings]


def test_clean_names_every_engine_and_the_bytes(tmp_path):
    report = judge(tmp_path, b"a,b\n1,2\n")
    assert report.verdict is Verdict.CLEAN and not report.findings
    assert [run.engine for run in report.engines] == [*CORE, "clamd"]
    assert all(run.version for run in report.engines)
    assert report.sha256 == hashlib.sha256(b"a,b\n1,2\n").hexdigest() and report.size == 8
    assert report.type == "text/csv"


@pytest.mark.parametrize(
    ("act", "verdict", "code"),
    [
        (virus, Verdict.REJECTED, "virus.found"),
        (cut, Verdict.ERROR, "engine.unscannable"),
        (down, Verdict.ERROR, "engine.failed"),
        (disguised, Verdict.ERROR, "engine.failed"),
        (None, Verdict.ERROR, "engine.missing"),
    ],
    ids=["virus", "too-large", "down", "disguised", "missing"],
)
def test_scanner_that_does_not_say_fine_holds_the_file(tmp_path, act, verdict, code):
    report = judge(tmp_path, b"a,b\n1,2\n", act=act)
    assert (report.verdict, codes(report)) == (verdict, [code])


def test_engine_that_is_not_there_is_an_error(tmp_path):
    modules = (*CORE_MODULES, "quarantine.engines.no_such")
    report = judge(tmp_path, b"a,b\n", modules=modules, mandatory=(*CORE, "no_such", "clamd"))
    assert (report.verdict, codes(report)) == (Verdict.ERROR, ["engine.missing"])


@pytest.mark.parametrize("act", ["abort", "exit", "raise", "sleep", "babble", "lie", "kill-server"])
def test_engine_that_breaks_is_an_error(tmp_path, act):
    report = judge(
        tmp_path, act.encode(), "a.txt", modules=(*CORE_MODULES, "rogue"),
        mandatory=(*CORE, "rogue", "clamd"), policy=Policy(seconds_max=2.0),
    )  # fmt: skip
    assert report.verdict is Verdict.ERROR, report
    assert "rogue" not in [run.engine for run in report.engines]


def test_worst_finding_decides_and_stands_first(tmp_path):
    report = judge(tmp_path, b"#!/bin/sh\n", "a.sh", act=virus)
    assert report.verdict is Verdict.REJECTED
    assert codes(report) == ["virus.found", "type.script"]
    report = judge(tmp_path, b"#!/bin/sh\n", "a.sh", act=down)
    assert report.verdict is Verdict.ERROR and codes(report) == ["engine.failed", "type.script"]


def test_other_bytes_than_came_in_are_an_error(tmp_path):
    for wrong in ({"sha256": "0" * 64}, {"size": 7}):
        report = judge(tmp_path, b"a,b\n1,2\n", **wrong)
        assert (report.verdict, codes(report)) == (Verdict.ERROR, ["blob.changed"])


def test_bytes_changed_and_changed_back_are_an_error(tmp_path):
    async def touch(body):
        data = body.read_bytes()
        body.write_bytes(b"z" * len(data))
        await asyncio.sleep(0.05)
        body.write_bytes(data)
        return Scan()

    report = judge(tmp_path, b"a,b\n1,2\n", act=touch)
    assert codes(report) == ["blob.changed"]


def test_child_that_writes_to_the_file_is_found_out(tmp_path):
    report = judge(
        tmp_path, b"write-back", "a.txt", modules=(*CORE_MODULES, "rogue"),
        mandatory=(*CORE, "rogue", "clamd"),
    )  # fmt: skip
    assert report.verdict is Verdict.ERROR and "blob.changed" in codes(report)


def test_too_large_is_refused_before_anybody_reads_it(tmp_path):
    report = judge(tmp_path, b"a" * 100, policy=Policy(bytes_max=99))
    assert (report.verdict, codes(report)) == (Verdict.REJECTED, ["file.too_large"])


def test_every_engine_of_the_registry_that_is_here_can_be_loaded():
    for name, module in zip(INSIDE, MODULES, strict=True):
        if importlib.util.find_spec(module):
            assert importlib.import_module(module).ENGINE.name == name


def judge_all(tmp_path, modules, mandatory, files):
    """The files whose verdict is not the expected one, each through the real sandbox."""
    wrong = {}

    async def work():
        async with Sandbox(modules, tmp_path) as sandbox:
            pipeline = Pipeline(sandbox, {"clamd": Outside(fine)}, mandatory=mandatory)
            path = tmp_path / "plaintext"
            for name, make, verdict, extensions in files:
                data = make()
                path.write_bytes(data)
                sha256 = hashlib.sha256(data).hexdigest()
                policy = Policy(extensions=extensions, seconds_max=60.0)
                report = await pipeline.judge(path, name, policy, sha256=sha256, size=len(data))
                if str(report.verdict) != verdict:
                    wrong[name] = (report.verdict, [(f.engine, f.code) for f in report.findings])

    asyncio.run(work())
    return wrong


def test_hostile_corpus_through_the_real_sandbox(tmp_path):
    files = [(case.name, case.make, case.verdict, case.extensions) for case in CASES]
    assert not judge_all(tmp_path, CORE_MODULES, (*CORE, "clamd"), files)


def test_no_engine_holds_what_is_benign(tmp_path):
    files = [(name.rpartition("/")[2], make, "clean", ()) for name, make in BENIGN.items()]
    assert not judge_all(tmp_path, MODULES, (*INSIDE, "clamd"), files)


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the samples lie beside the project")
def test_no_engine_holds_a_sample(tmp_path):
    files = [(p.name, p.read_bytes, "clean", ()) for p in SAMPLES.rglob("*") if p.is_file()]
    wrong = judge_all(tmp_path, MODULES, (*INSIDE, "clamd"), files)
    # One is a PDF that is called .csv, one a workbook with a macro: both are to be held.
    assert sorted(wrong) == ["tafia__vba.xlsm", "vsoch__pricing-transparency-faq.csv"], wrong


def test_memory_of_the_plane_is_flat_in_the_size_of_the_file(tmp_path):
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    block = b"name,price\n" * 100_000
    path = tmp_path / "plaintext"
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(90):
            file.write(block)
            digest.update(block)
    size = path.stat().st_size

    async def work():
        async with Sandbox(CORE_MODULES, tmp_path, lanes=1) as sandbox:
            pipeline = Pipeline(sandbox, {"clamd": Outside(fine)}, mandatory=(*CORE, "clamd"))
            before = resident()
            report = await pipeline.judge(
                path, "a.csv", Policy(), sha256=digest.hexdigest(), size=size
            )
            assert report.verdict is Verdict.CLEAN and report.size == size
            assert resident() - before < 20 << 20

    asyncio.run(work())
