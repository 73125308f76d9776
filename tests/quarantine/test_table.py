"""The table: every hostile and every everyday file through a whole plane, expected beside actual.

Hostile is never clean; everyday is always clean. A case may end worse than its own engine says,
because others see it too, and what no engine came to an end with is held with its reason.
"""

import asyncio
from pathlib import Path

import pytest

from quarantine.contract import Verdict
from tests.http.conftest import valkey_url  # noqa: F401
from tests.quarantine import benign_documents, corpus_documents
from tests.quarantine.benign_containers import BENIGN as CONTAINERS
from tests.quarantine.corpus_containers import CASES as HOSTILE_CONTAINERS
from tests.quarantine.planes import plane, until
from tests.runtime.scanner import running

pytestmark = pytest.mark.anyio
SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "samples"
STATES = {"clean": "released", "suspicious": "suspicious", "rejected": "rejected", "": "held"}
ORDER = ["released", "suspicious", "held", "rejected"]
# Only the packs of that test's own know it; and what a sample is called says what it is not.
LEFT_OUT = {"denied by hash"}
RIGHTLY_HELD = {"tafia__vba.xlsm", "vsoch__pricing-transparency-faq.csv"}


def hostile(folder):
    """(group, case, file name, bytes, allowed endings, expected state)"""
    for case in HOSTILE_CONTAINERS:
        yield "container", case.id, case.name, case.make(), case.extensions, case.verdict
    for case in corpus_documents.CASES:
        if case.name not in LEFT_OUT:
            yield "document", case.name, case.file, written(folder, case), (), case.verdict.value


def benign(folder):
    for name, make in CONTAINERS.items():
        yield "container", name, name.rpartition("/")[2], make(), (), "clean"
    for case in benign_documents.BENIGN:
        yield "document", case.name, case.file, written(folder, case), (), "clean"
    for path in sorted(SAMPLES.rglob("*")) if SAMPLES.is_dir() else ():
        if path.is_file() and path.name not in RIGHTLY_HELD:
            yield "sample", path.name, path.name, path.read_bytes(), (), "clean"


def written(folder, case):
    path = folder / case.file
    path.parent.mkdir(parents=True, exist_ok=True)
    case.make(path)
    body = path.read_bytes()
    path.unlink()
    return body


async def judged(bench, cases):
    """The cases with the state that each came to."""
    blobs = []
    for group, case, name, body, endings, expected in cases:
        more = {"extensions": endings, "seconds_max": 60.0}
        blobs.append((await bench.bring(body, name, **more), group, case, STATES[expected]))

    async def rest():
        return not bench.ledger("SELECT 1 FROM blob WHERE verdict IS NULL AND attempts = 0")

    await until(rest, 240)
    rows = {r[0]: (r[1] or "", r[2]) for r in bench.ledger("SELECT id, verdict, why FROM blob")}
    return [(g, c, e, STATES[rows[b.hex][0]], rows[b.hex][1]) for b, g, c, e in blobs]


def show(capsys, title, rows):
    with capsys.disabled():
        print(f"\n{title}: {len(rows)} files")
        for group, case, expected, actual, why in rows:
            mark = " " if expected == actual else "*"
            print(f"{mark} {group:9} {case[:56]:56} {expected:10} {actual:10} {why[:60]}")


async def test_hostile_is_never_released_and_everyday_is_never_held(
    data,
    tmp_path,
    valkey_url,  # noqa: F811
    capsys,
):
    async with running(data) as clamd, plane(valkey_url, clamd.socket) as bench:
        await bench.state("baseline")
        bad = await judged(bench, await asyncio.to_thread(lambda: [*hostile(tmp_path)]))
        good = await judged(bench, await asyncio.to_thread(lambda: [*benign(tmp_path)]))
    show(capsys, "Hostile, expected and actual state", bad)
    show(capsys, "Everyday files that are not released", [r for r in good if r[3] != "released"])
    with capsys.disabled():
        print(f"Everyday files released: {sum(r[3] == 'released' for r in good)} of {len(good)}")
    milder = [r for r in bad if ORDER.index(r[3]) < ORDER.index(r[2])]
    assert not milder, milder
    assert not [r for r in bad if r[3] == "released"]
    assert len(bad) >= 80 and len(good) >= 200
    assert not [r for r in good if r[3] != "released"]


def test_every_verdict_has_a_state():
    assert set(STATES) == {v.value for v in Verdict if v is not Verdict.ERROR} | {""}
