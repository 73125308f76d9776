"""Rules and deny lists: each rule fires on its case and on nothing everyday; packs fail closed."""

from datetime import UTC, datetime

import pytest
import yara_x
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from quarantine.contract import Policy, Verdict
from quarantine.engines.base import Unscannable
from quarantine.engines.denied import DeniedEngine
from quarantine.engines.rules import RulesEngine
from quarantine.rules import pack as packs
from quarantine.rules.__main__ import check, main
from quarantine.rules.compiled import compile_packs, compile_sources
from tests.quarantine import benign_documents, corpus_documents
from tests.quarantine.examining import SAMPLES, assert_clean, assert_held, examine, leaf_of

HOSTILE = [c for c in corpus_documents.CASES if c.engine in ("rules", "denied")]
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
PUBLIC = KEY.public_key().public_bytes_raw()
META = 'meta: verdict = "rejected" code = "rules.x" detail = "It holds the word."'
RULE = f'rule word {{ {META} strings: $a = "secretword" condition: $a }}'


def make_pack(rules=RULE, denied=(), version=1, key=KEY):
    issued = datetime(2026, 11, 20, tzinfo=UTC)
    return packs.sign(
        packs.compose({"a.yar": rules}, denied, version=version, issued_at=issued), key
    )


def load(data):
    return packs.verify(data, [PUBLIC])


@pytest.mark.parametrize("case", HOSTILE, ids=lambda c: c.name)
def test_hostile_is_held(case, tmp_path):
    by = None
    if case.engine == "denied":
        by = DeniedEngine(
            [load(make_pack(denied=[corpus_documents.DENIED_HASH, "00" * 32, "ff" * 32]))]
        )
    assert_held(case, tmp_path, by)


@pytest.mark.parametrize("benign", benign_documents.BENIGN, ids=lambda b: b.name)
def test_everyday_is_clean(benign, tmp_path):
    assert_clean(benign, tmp_path, "rules")
    assert_clean(benign, tmp_path, "denied")


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="no samples beside the project")
def test_samples_are_clean():
    paths = [p for p in SAMPLES.rglob("*") if p.is_file()]
    assert {p.name: f for p in paths if (f := examine("rules", leaf_of(p)))} == {}


def test_every_rule_has_a_case_and_says_what_it_means(tmp_path):
    rules = compile_packs(packs.load_packs())
    fired = set()
    for number, case in enumerate(HOSTILE):
        path = tmp_path / f"{number}-{case.file}"
        case.make(path)
        fired |= {r.identifier for r in yara_x.Scanner(rules).scan_file(str(path)).matching_rules}
    assert {rule.identifier for rule in rules} == fired


def test_the_shipped_pack_holds_the_rules_at_hand():
    assert check().split(".")[1].isdecimal()


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("rule word { condition: nonsense }", "nonsense"),
        ("rule word {", "syntax"),
        ("rule word { condition: true }", "required metadata"),
        (RULE.replace("rejected", "clean"), "verdict"),
        (RULE.replace("rules.x", "Rules!"), "code"),
        (RULE.replace('"secretword"', "/.*a/"), "slow"),
        ('include "/etc/passwd"', "include"),
        ("", "no rules"),
        ("// nothing here", "no rules"),
    ],
)
def test_a_bad_rule_is_an_error_at_build_and_at_load(rule, why, tmp_path, capsys):
    with pytest.raises(packs.PackError, match=why):
        compile_sources({"a": {"a.yar": rule}})
    (tmp_path / "a.yar").write_text(rule, "utf-8")
    out = tmp_path / "made.pack"
    assert main(["build", "--sources", str(tmp_path), "--out", str(out)]) == 1
    assert not out.exists()
    assert why in capsys.readouterr().err
    engine = RulesEngine([load(make_pack(rule))]) if rule else None
    if engine:
        with pytest.raises(Unscannable):
            examine("rules", leaf_of(tmp_path / "a.yar"), by=engine)


def test_one_bad_rule_beside_good_ones_stops_all():
    good = packs.read_sources()
    with pytest.raises(packs.PackError):
        compile_sources({"a": {**good, "z.yar": "rule word { condition: nonsense }"}})


def test_a_changed_pack_is_refused_wherever_it_is_changed():
    data = make_pack(denied=["ab" * 32])
    for at in range(0, len(data), 7):
        changed = bytearray(data)
        changed[at] ^= 1
        with pytest.raises(packs.PackError):
            load(bytes(changed))
    for end in (0, 8, 40, 104, len(data) - 1):
        with pytest.raises(packs.PackError):
            load(data[:end])
    assert load(data).pack.version == 1


def test_a_pack_of_a_stranger_is_refused(tmp_path):
    (tmp_path / "a.pack").write_bytes(make_pack(key=Ed25519PrivateKey.generate()))
    with pytest.raises(packs.PackError, match="not trusted"):
        packs.load_packs(tmp_path, [PUBLIC])


def test_the_newest_pack_of_each_publisher_counts(tmp_path):
    (tmp_path / "old.pack").write_bytes(make_pack(version=1, denied=["ab" * 32]))
    (tmp_path / "new.pack").write_bytes(make_pack(version=2))
    loaded = packs.load_packs(tmp_path, [PUBLIC])
    assert sorted(s.pack.version for s in loaded if s.publisher == PUBLIC) == [2]
    assert len(loaded) == 2
    assert not any(s.pack.denies(b"\xab" * 32) for s in loaded)
    path = tmp_path / "a.txt"
    path.write_text("the secretword, and " + corpus_documents.MARKER, "utf-8")
    found = {f.code for f in examine("rules", leaf_of(path), by=RulesEngine(loaded))}
    assert found == {"rules.x", "rules.test_marker"}


def test_a_broken_pack_in_the_folder_holds_every_file(tmp_path, monkeypatch):
    (tmp_path / "a.pack").write_bytes(make_pack()[:-3])
    monkeypatch.setenv(packs.FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setenv(packs.KEYS_VARIABLE, PUBLIC.hex())
    path = tmp_path / "a.txt"
    path.write_text("harmless", "utf-8")
    for engine in (RulesEngine(), DeniedEngine()):
        with pytest.raises(Unscannable, match="signature"):
            examine("", leaf_of(path), by=engine)
    monkeypatch.setenv(packs.FOLDER_VARIABLE, str(tmp_path / "gone"))
    with pytest.raises(Unscannable, match="not a folder"):
        examine("", leaf_of(path), by=RulesEngine())


def test_a_hub_builds_packs_with_its_own_key(tmp_path, capsys):
    key, out = tmp_path / "hub.pem", tmp_path / "hub.pack"
    key.write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "a.yar").write_text(RULE, "utf-8")
    (tmp_path / "denied.txt").write_text("ab" * 32 + "  # recalled on Friday\n", "ascii")
    command = ["build", "--sources", str(tmp_path), "--denied", str(tmp_path / "denied.txt")]
    for version in (1, 2):
        assert main([*command, "--key", str(key), "--out", str(out)]) == 0
        assert packs.verify(out.read_bytes(), [PUBLIC]).pack.version == version
    assert packs.verify(out.read_bytes(), [PUBLIC]).pack.denies(b"\xab" * 32)
    (tmp_path / "denied.txt").write_text("not a hash\n", "ascii")
    assert main([*command, "--key", str(key), "--out", str(out)]) == 1
    assert "Not a SHA-256" in capsys.readouterr().err


def test_a_rule_that_takes_too_long_is_not_a_clean_file(tmp_path):
    slow = RULE.replace('$a = "secretword"', "$a = /aaaa(a|b|aa|bb){100,2000}c/").replace(
        "slow", ""
    )
    path = tmp_path / "a.txt"
    path.write_text("a" * 4_000_000, "ascii")
    engine = RulesEngine([load(make_pack(slow))])
    with pytest.raises(Unscannable, match="longer than the policy"):
        examine("", leaf_of(path), Policy(seconds_max=1), by=engine)


def test_the_version_says_library_and_packs():
    engine = RulesEngine()
    assert "yara-x 1." in engine.version and engine.signatures in engine.version
    assert engine.signatures in DeniedEngine().version


def test_large_deny_lists_are_searched_not_unpacked():
    hashes = [f"{number:064x}" for number in range(0, 200_000, 2)]
    pack = load(make_pack(denied=hashes)).pack
    assert pack.denies((4).to_bytes(32, "big")) and not pack.denies((5).to_bytes(32, "big"))
    assert not pack.denies(b"\xff" * 32)


def test_verdicts_come_from_the_rule(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("secretword", "utf-8")
    engine = RulesEngine([load(make_pack(RULE.replace("rejected", "suspicious")))])
    assert [f.verdict for f in examine("", leaf_of(path), by=engine)] == [Verdict.SUSPICIOUS]
