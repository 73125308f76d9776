"""What each folder under connectors/systems inherits: sound, the same as before, hard to break."""

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from connectors.sdk import hostile
from connectors.sdk.commands.check import check_golden, check_manifest
from connectors.sdk.commands.new import LIKES
from connectors.sdk.contract import Refused, Rows
from connectors.sdk.golden import golden_inputs
from connectors.sdk.manifest import (
    faults_of,
    list_systems,
    read_manifest,
    read_vocabulary,
)
from connectors.sdk.reading import read_whole
from connectors.sdk.recognise import load_connector, read_head

ROOT = Path(__file__).resolve().parents[2]
SMALL = 320 << 20
every_system = pytest.mark.parametrize("system", list_systems())
# What APIs answered goes through one reader (formats/answers): one of them stands for all in CI.
ALIKE = {"kaspi", "prom", "rozetka", "wildberries", "yandex_market"}
every_reader = pytest.mark.parametrize(
    "system",
    [pytest.param(s, marks=pytest.mark.slow) if s in ALIKE else s for s in list_systems()],
)


def rows_of(system, path, **more):
    rows = []
    read = asyncio.run(read_whole(system, path, lambda f: rows.extend(f.rows), **more))
    return rows, read


@every_system
def test_its_manifest_and_vocabulary_are_sound(system):
    assert check_manifest(system) == []


@every_system
def test_its_golden_inputs_are_read_as_before_and_by_nobody_before_it(system):
    assert check_golden(system) == []


@every_system
def test_its_rows_are_of_its_vocabulary_and_counted(system):
    vocabulary = read_vocabulary(read_manifest(system).entities)
    staged = 0
    for path in golden_inputs(system):
        try:
            rows, read = rows_of(system, path)
        except Refused:
            continue
        assert [(r, f) for r in rows if (f := faults_of(r, vocabulary))] == []
        assert all(
            f.code and f.expected and (f.place.row or f.place.column or f.place.offset)
            for r in rows
            for f in r.faults
        )
        assert (read.done.rows, read.done.faulty) == (len(rows), sum(bool(r.faults) for r in rows))
        staged += len(rows)
    assert staged, "no golden input has a row"


@every_system
def test_its_keys_say_nothing_of_the_place_and_are_the_same_in_every_process(system, tmp_path):
    for path in golden_inputs(system):
        twin = tmp_path / f"another name.{path.suffix}"
        shutil.copyfile(path, twin)
        try:
            first, second = rows_of(system, path)[0], rows_of(system, twin)[0]
        except Refused:
            continue
        assert [(r.entity, r.key, r.values) for r in first] == [
            (r.entity, r.key, r.values) for r in second
        ]
        assert all(r.key for r in first if not r.faults)


@every_reader
def test_hostile_inputs_are_refused_or_told_of_within_bounds(system):
    assert hostile.try_system(system) == []


@every_reader
def test_what_needs_more_memory_than_there_is_is_refused(system, tmp_path):
    path = tmp_path / "large"
    head = golden_inputs(system)[0].read_bytes()
    with path.open("wb") as file:
        file.write(head[: len(head) // 2])
        for _ in range(40):
            file.write(b"7" * (4 << 20))
    try:
        rows, read = rows_of(system, path, memory=SMALL)
    except Refused as refused:
        assert refused.fault.code and refused.fault.expected
    else:
        assert any(r.faults for r in rows) or read.done.summary.holds or read.done.summary.warnings


@every_system
def test_its_recogniser_never_raises(system):
    recognises = getattr(load_connector(system), "recognises", None)
    if recognises is None:
        return
    for name, content in hostile.general_inputs():
        assert 0 <= recognises(content, name) <= 1
    for path in golden_inputs(system):
        assert recognises(read_head(path), path.name) > 0


@pytest.mark.parametrize("like", LIKES)
def test_a_new_connector_runs_as_it_is(like, tmp_path):
    shutil.copytree(
        ROOT / "connectors", tmp_path / "connectors", ignore=shutil.ignore_patterns("__pycache__")
    )

    def connectors(*words):
        return subprocess.run(
            [sys.executable, "-m", "connectors", *words], cwd=tmp_path, capture_output=True,
            text=True, env={"LC_ALL": "C.UTF-8"}, timeout=120,
        )  # fmt: skip

    made = connectors("new", "made_here", "--like", like)
    assert made.returncode == 0, made.stdout + made.stderr
    assert [line for line in made.stdout.splitlines() if line.endswith("sound")] == [
        "manifest  sound", "golden    sound", "hostile   sound",
    ]  # fmt: skip
    (given,) = [
        p
        for p in (tmp_path / "connectors/systems/made_here/golden").iterdir()
        if p.suffix != ".ndjson"
    ]
    ran = connectors("run", "made_here", str(given))
    assert ran.returncode in (0, 2) and "format " in ran.stdout and "rows " in ran.stdout
    seen = connectors("quality", str(given.parent))
    line = next(line for line in seen.stdout.splitlines() if line.startswith(given.name + " "))
    assert "made_here" in line
    assert connectors("new", "made_here", "--like", like).returncode == 1
    assert connectors("new", "../made", "--like", like).returncode == 1


def test_a_damaged_input_read_as_a_smaller_sound_one_is_found(tmp_path, monkeypatch):
    sound = hostile.Outcome("list", rows=3, figures="b")
    cut = hostile.Outcome("cut-1-list", rows=2, figures="d")
    proving = read_manifest("price_list").__class__(
        key="x", labels={}, entities="goods", proves_whole=True
    )
    assert hostile._judge(cut, sound, proving) == [
        "read as sound with other figures, though not whole"
    ]
    assert hostile._judge(cut, sound, read_manifest("price_list")) == []
    crashed = hostile.Outcome("cut-1-list", crash="KeyError: 1", peak_bytes=1 << 30)
    assert len(hostile._judge(crashed, sound, proving)) == 2


def test_constants_reach_the_reader(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text("Code,Name,Price\nA1,Bolt,1.50\n", "utf-8")
    frames = []
    asyncio.run(read_whole("price_list", path, frames.append, constants={"brand": "Metiz"}))
    assert isinstance(frames[0], Rows) and frames[0].rows[0].values["brand"] == "Metiz"
