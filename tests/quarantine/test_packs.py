"""Rule packs that are delivered to a running plane: they count, they recall, and broken ones hold."""

import hashlib
import os
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from quarantine import ledger
from quarantine.contract import POLICY_REVISION, EngineRun, Judged, Policy, Report, Verdict
from quarantine.ledger import Ledger
from quarantine.pipeline import MODULES
from quarantine.rules import pack as packs
from quarantine.rules.delivered import Delivered
from quarantine.sandbox.parent import Sandbox
from quarantine.sandbox.walls import _probe
from tests.http.conftest import valkey_url  # noqa: F401
from tests.quarantine.planes import TEXT, open_folder, plane, until
from tests.quarantine.test_ledger import add, take
from tests.runtime.scanner import running

pytestmark = pytest.mark.anyio
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
TRUSTED = KEY.public_key().public_bytes_raw().hex()
RULE = """rule word {
  meta: verdict = "rejected" code = "rules.word" detail = "It holds the word of the test."
  strings: $a = "a word of this test 91d0"
  condition: $a }"""
DENIED = ("quarantine.engines.rules", "quarantine.engines.denied")
WALLS = [
    pytest.param(True, id="bwrap", marks=pytest.mark.skipif(not _probe(), reason="no bubblewrap")),
    pytest.param(False, id="limits"),
]


def deliver(folder, *denied, version=1, rules=RULE):
    """A pack written beside the folder and moved in, as whoever brings one does."""
    issued = datetime.now(UTC)
    hashes = [hashlib.sha256(body).hexdigest() for body in denied]
    made = packs.compose({"a.yar": rules}, hashes, version=version, issued_at=issued)
    draft = folder.parent / "draft"
    draft.write_bytes(packs.sign(made, KEY))
    draft.replace(folder / "hub.pack")


@pytest.fixture
def folder():
    with open_folder() as home:
        found = home / "packs"
        found.mkdir()
        yield found


@pytest.mark.parametrize("walls", WALLS)
async def test_the_sandbox_scans_with_what_was_delivered(walls, folder, tmp_path):
    deliver(folder, b"denied")
    given = Delivered(str(folder), TRUSTED)
    ids = await given.ids()
    async with Sandbox(
        DENIED, tmp_path, lanes=1, bubblewrap=walls, readable=[folder], variables=given.variables
    ) as sandbox:

        async def codes(body):
            path = tmp_path / "body"
            path.write_bytes(body)
            answer = await sandbox.inspect(path, "a.txt", Policy())
            return {f.code for f in answer.findings}, {r.signatures for r in answer.engines}

        assert await codes(b"denied") == ({"denied.hash"}, {ids})
        assert await codes(b"So: a word of this test 91d0.") == ({"rules.word"}, {ids})
        deliver(folder, b"another", version=2)
        assert await codes(b"another") == (set(), {ids}), "until it begins anew"
        assert not (await sandbox.renew()).missing
        newer = await given.ids()
        assert newer != ids
        assert await codes(b"another") == ({"denied.hash"}, {newer})


async def test_a_denied_file_is_recalled_and_a_broken_pack_holds_all(folder, valkey_url):  # noqa: F811
    async with (
        running(folder.parent / "node") as clamd,
        plane(valkey_url, clamd.socket, packs=folder, pack_keys=TRUSTED) as bench,
    ):
        known, other = await bench.bring(TEXT + b"known"), await bench.bring(TEXT)
        assert [(await bench.verdict(b))[0] for b in (known, other)] == [Verdict.CLEAN] * 2

        async def is_recalled():
            return (await bench.client.look(bench.tenant, known)).verdict is Verdict.REJECTED

        deliver(folder, TEXT + b"known")
        _, took = await until(is_recalled, 30)
        assert (await bench.verdict(other))[0] is Verdict.CLEAN
        print(f"a file on a new deny list is recalled {took:.1f} s later")

        (folder / "hub.pack").write_bytes((folder / "hub.pack").read_bytes()[:-1] + b"x")
        sentence, _ = await bench.state("down", 30)
        assert "hub.pack" in sentence and "signature" in sentence
        held = await bench.bring(TEXT + b"held")
        assert (await bench.client.look(bench.tenant, held)).verdict is None
        deliver(folder, version=3)
        assert (await bench.verdict(held))[0] is Verdict.CLEAN
        reports = [n.report for n in await bench.hear() if n.blob == known]
        assert [r.verdict for r in reports][:2] == [Verdict.CLEAN, Verdict.REJECTED]
        assert reports[1].findings[0].code == "denied.hash"


async def test_a_pack_whose_rules_do_not_load_holds_all(folder, valkey_url):  # noqa: F811
    deliver(folder, rules="rule broken { condition: }")
    async with (
        running(folder.parent / "node") as clamd,
        plane(valkey_url, clamd.socket, packs=folder, pack_keys=TRUSTED) as bench,
    ):
        sentence, _ = await bench.state("down", 30)

        async def names_it():
            return "rules" in await bench.why(held)

        held = await bench.bring()
        await until(names_it, 30)
        assert (await bench.client.look(bench.tenant, held)).attempts == 0
        deliver(folder, version=2)
        assert (await bench.verdict(held, 30))[0] is Verdict.CLEAN, sentence


async def test_other_packs_or_another_policy_ask_for_a_verdict_anew(tmp_path):
    books = Ledger(tmp_path / "ledger.sqlite3")
    now = ledger.scans_with("s", "p1")
    for signatures, packed, revision, again in (
        ("s", ("p1", "p1"), POLICY_REVISION, False),
        ("t", ("p1", "p1"), POLICY_REVISION, True),
        ("s", ("p2", "p2"), POLICY_REVISION, True),
        ("s", ("p1", "p2"), POLICY_REVISION, True),
        ("s", ("p1", "p1"), POLICY_REVISION - 1, True),
    ):
        await add(books)
        blob = await take(books)
        names = ("clamd", "rules", "denied")
        runs = [EngineRun(n, "1", s) for n, s in zip(names, (signatures, *packed), strict=True)]
        report = Report(Verdict.CLEAN, "0" * 64, 5, "text/plain", (), tuple(runs), revision)
        word = Judged(blob.id, blob.tenant, report, datetime.now(UTC))
        assert await books.run(lambda db, b=blob, w=word: ledger.judge(db, b, "one", w, now))
        found = await books.run(
            lambda db, b=blob: db.execute("SELECT todo FROM blob WHERE id = ?", (b.id.hex,))
        )
        assert bool(found.fetchone()[0]) is again, (signatures, packed, revision)
    books.close()


async def test_a_folder_is_read_again_only_when_it_changed(folder):
    given = Delivered(str(folder), TRUSTED)
    own = await given.ids()
    deliver(folder)
    first = await given.ids()
    assert own in first and first != own
    with pytest.raises(packs.PackError, match="not trusted"):
        await Delivered(str(folder), "").ids()
    os.utime(folder / "hub.pack", (time.time(), time.time() - 5))
    assert await given.ids() == first
    Path(folder / "hub.pack").unlink()
    assert await given.ids() == own
    folder.rmdir()
    with pytest.raises(packs.PackError, match="not a folder"):
        await given.ids()
