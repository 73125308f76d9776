"""How the tests of the engines look at a file: made by its maker, examined as a leaf."""

import importlib
import random
import subprocess
import sys
from pathlib import Path

from quarantine.contract import SEVERITY, Policy, Verdict
from quarantine.engines.base import Leaf, Unscannable

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT.parent / "shared" / "samples"


def engine(name):
    return importlib.import_module(f"quarantine.engines.{name}").ENGINE


def leaf_of(path, name="", type="application/octet-stream"):
    return Leaf(path=path, name=name or path.name, place="", depth=0, type=type)


def examine(name, leaf, policy=None, by=None):
    """Findings, none when the engine does not want the leaf."""
    one = by or engine(name)
    return list(one.examine(leaf, policy or Policy())) if one.wants(leaf) else []


def examine_made(case, tmp_path, name, by=None):
    path = tmp_path / case.file
    case.make(path)
    return examine(name, leaf_of(path, case.file, case.type), by=by)


def assert_held(case, tmp_path, by=None):
    findings = examine_made(case, tmp_path, case.engine, by)
    assert case.code in {f.code for f in findings}, f"{case.name}: {findings}"
    assert max((f.verdict for f in findings), key=SEVERITY.__getitem__) == case.verdict
    for finding in findings:
        assert finding.engine == case.engine
        assert finding.detail.endswith(".") and finding.verdict is not Verdict.CLEAN


def assert_clean(benign, tmp_path, name):
    findings = examine_made(benign, tmp_path, name)
    assert findings == [], f"{benign.name}: {findings}"


def samples(*endings):
    """Sample files beside the project, when they are there."""
    if not SAMPLES.is_dir():
        return []
    return sorted(p for p in SAMPLES.rglob("*") if p.is_file() and p.suffix.lower() in endings)


def damaged_files(cases, tmp_path, *, count, seed):
    """Leaves with a few bytes changed, cut out or put in."""
    dice = random.Random(seed)
    originals = []
    for number, case in enumerate(cases):
        path = tmp_path / str(number) / case.file
        path.parent.mkdir()
        case.make(path)
        originals.append((case, path, path.read_bytes()))
    for _ in range(count):
        case, path, data = dice.choice(originals)
        changed = bytearray(data)
        for _ in range(dice.choice((1, 1, 3, 20))):
            at = dice.randrange(len(changed) or 1)
            length = dice.randrange(1, 30)
            match dice.randrange(3):
                case 0:
                    changed[at : at + 1] = dice.randbytes(1)
                case 1:
                    del changed[at : at + length]
                case 2:
                    changed[at:at] = dice.randbytes(length)
        path.write_bytes(changed)
        yield leaf_of(path, case.file, case.type)


def assert_survives(name, cases, tmp_path, *, count=300, seed=1):
    """Whatever the bytes: findings, or `Unscannable`, and no other exception."""
    for leaf in damaged_files(cases, tmp_path, count=count, seed=seed):
        try:
            examine(name, leaf)
        except Unscannable as said:
            assert str(said).endswith(".")


PEAK = """
import resource, sys
from pathlib import Path
from tests.quarantine.examining import examine, leaf_of
name, path, type = sys.argv[1:]
examine(name, leaf_of(Path(path).with_name("small" + Path(path).suffix), type=type))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = examine(name, leaf_of(Path(path), type=type))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, [f.code for f in found])
"""


def peak_growth(name, path, type):
    """How many MB more a child needs for this file than for the small one beside it; its codes."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK, name, str(path), type],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    grown, codes = done.stdout.split(" ", 1)
    return int(grown) / 1024, codes.strip()
