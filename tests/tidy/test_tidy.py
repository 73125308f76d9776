"""The style guide that compiles: sizes, names, banned calls, import rules, lint, types."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = sorted(
    p for room in ("appliance", "connectors", "quarantine") for p in (ROOT / room).rglob("*.py")
)
TESTS = sorted(p for p in (ROOT / "tests").rglob("*.py"))

FILE_LINES_MAX, TEST_LINES_MAX, FUNCTION_LINES_MAX, POSITIONAL_MAX = 400, 500, 60, 5
BANNED_NAMES = {"utils", "helpers", "common", "manager", "service", "misc"}
BANNED_CALLS = {
    r"\bfloat\(": ("appliance/kernel", "appliance/fields", "Use Decimal."),
    r"\buuid4\(": ("appliance", "", "Use appliance.base.ids.uuid7."),
    r"\brole == ": ("appliance", "", "Only base/roles.py and assemble.py may look at the role."),
    r"\bTODO\b|\bFIXME\b|\bXXX\b": ("appliance", "tests", "Nothing to do is left."),
    r"datetime\.utcnow|datetime\.now\(\)": ("appliance", "", "Use appliance.base.clock.now."),
}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(path: Path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def test_files_and_functions_stay_small():
    too_long = []
    for path in CODE + TESTS:
        lines = len(path.read_text("utf-8").splitlines())
        bound = TEST_LINES_MAX if path in TESTS else FILE_LINES_MAX
        if lines > bound:
            too_long.append(f"{name_of(path)}: {lines} lines, at most {bound}")
    for path in CODE:
        for node in functions(path):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES_MAX:
                too_long.append(f"{name_of(path)}:{node.lineno} {node.name}: {length} lines")
            positional = [a for a in node.args.args if a.arg not in ("self", "cls")]
            if len(positional) > POSITIONAL_MAX + 1:
                too_long.append(
                    f"{name_of(path)}:{node.lineno} {node.name}: {len(positional)} parameters"
                )
    assert not too_long, "\n".join(too_long)


def test_modules_say_why_they_exist_and_have_good_names():
    bad = [name_of(p) for p in CODE if not ast.get_docstring(ast.parse(p.read_text("utf-8")))]
    bad += [name_of(p) for p in CODE if p.stem in BANNED_NAMES or p.parent.name in BANNED_NAMES]
    assert not bad, "no docstring, or a name that says nothing: " + ", ".join(bad)


def test_public_functions_have_a_docstring():
    bad = []
    for path in CODE:
        tree = ast.parse(path.read_text("utf-8"))
        for node in tree.body:
            if (
                isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
                and not node.name.startswith("_")
                and not ast.get_docstring(node)
            ):
                bad.append(f"{name_of(path)}:{node.lineno} {node.name}")
    assert not bad, "\n".join(bad)


def test_banned_calls_are_absent():
    found = []
    for path in CODE + TESTS:
        name = name_of(path)
        if name in ("appliance/base/roles.py", "appliance/assemble.py", "tests/tidy/test_tidy.py"):
            continue
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            for pattern, (one, two, why) in BANNED_CALLS.items():
                inside = name.startswith(one) or (two and name.startswith(two))
                if inside and re.search(pattern, line):
                    found.append(f"{name}:{number} {line.strip()}  ({why})")
    assert not found, "\n".join(found)


def test_only_db_opens_connections():
    allowed = ("appliance/db/", "appliance/runtime/", "appliance/tenancy/", "appliance/cli/")
    found = [
        name_of(p)
        for p in CODE
        if not name_of(p).startswith(allowed)
        and re.search(r"psycopg\.(Async)?[cC]onnect|ConnectionPool\(", p.read_text("utf-8"))
    ]
    assert not found, f"only appliance/db opens connections: {found}"


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "appliance", "connectors", "quarantine", "tests"],
        ["ruff", "format", "--check", "appliance", "connectors", "quarantine", "tests"],
        ["mypy"],
        ["lint-imports"],
    ],
    ids=lambda c: c[0] + "-" + c[1] if len(c) > 1 else c[0],
)
def test_tool_is_content(command):
    program = Path(sys.executable).parent / command[0]
    done = subprocess.run(
        [str(program), *command[1:]], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_documents_stand_for_what_they_name():
    """Every path that a document of the project names exists."""
    missing = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for path in re.findall(
            r"`((?:appliance|tests|docs|deploy)/[\w./-]+)`", page.read_text("utf-8")
        ):
            if not (ROOT / path.rstrip("/")).exists():
                missing.append(f"{name_of(page)}: {path}")
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text("utf-8")):
            if not (page.parent / link).exists():
                missing.append(f"{name_of(page)}: {link}")
    assert not missing, "\n".join(missing)
