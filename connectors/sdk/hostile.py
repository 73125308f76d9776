"""Hostile inputs of every system, made of its golden ones, and what is the right answer to each.

A damaged input is refused, or held, or told of by a fault or a warning; never a crash, and for
formats that prove themselves whole never quietly a smaller sound one.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from connectors.sdk.golden import golden_inputs
from connectors.sdk.manifest import Manifest, read_manifest

PARTS = 16
MEMORY_MAX = 512 << 20
_ONE_LINE = 24 << 20
_DEADLINE_S = 120
_ROOT = Path(__file__).resolve().parents[2]
_ENCODINGS = ("utf-8", "utf-8-sig", "cp1251", "cp866", "koi8-r", "utf-16")
_LOGIN = (
    b"<!DOCTYPE html><html><head><title>Sign in</title></head><body><form method='post'>"
    b"<input name='login'><input type='password' name='password'></form></body></html>"
)
_START = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); sys.argv[0] = 'trial'; "
    "from connectors.sdk.trial import main; sys.exit(main())"
)


class Outcome(msgspec.Struct, frozen=True):
    """How one input was answered. `refused`: code; `crash`: what was raised that must not be.

    `figures`: digest of the rows' entities and decimals.
    """

    name: str
    refused: str = ""
    crash: str = ""
    rows: int = 0
    flags: int = 0
    figures: str = ""
    peak_bytes: int = 0

    @property
    def is_flagged(self) -> bool:
        """Whether somebody is told that the input is not right."""
        return bool(self.refused or self.flags)


def hostile_inputs(content: bytes, name: str) -> Iterator[tuple[str, bytes]]:
    """Damaged forms of one sound input, by a name that says what was done to it."""
    size = len(content)
    for n in range(1, PARTS):
        yield f"cut-{n}-{name}", content[: size * n // PARTS]
    for n in range(PARTS):
        kept = content[: size * n // PARTS] + content[size * (n + 1) // PARTS :]
        yield f"dropped-{n}-{name}", kept
    noise = _noise(min(size, 2_000) + 64)
    yield f"noise-at-end-{name}", content[: size // 2] + noise
    yield f"nul-inside-{name}", content[: size // 2] + b"\0" + content[size // 2 :]
    yield f"one-line-{name}", content[: size // 2] + b"9" * _ONE_LINE
    for encoding in _ENCODINGS:
        turned = _turn(content, encoding)
        if turned is not None and turned != content:
            yield f"encoded-{encoding}-{name}", turned


def general_inputs() -> Iterator[tuple[str, bytes]]:
    """What is of no format at all."""
    yield "empty", b""
    yield "blank", b" \r\n" * 50
    yield "zeros", bytes(4_096)
    yield "random", _noise(8_192)
    yield "login-page", _LOGIN
    yield "pdf", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<<>>\nendobj\n"
    yield "broken-zip", b"PK\x03\x04" + b"\x14\0\0\0\x08\0" + bytes(60)
    yield "deep", b"<a>" * 20_000
    bomb = b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "' + b"x" * 1_000 + b'">'
    yield (
        "entities",
        bomb + b"<!ENTITY c '" + b"&b;" * 1_000 + b"'>]><a>" + b"&c;" * 1_000 + b"</a>",
    )
    yield (
        "outside",
        b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
    )


def _noise(size: int) -> bytes:
    """Bytes of no meaning, the same every time."""
    return hashlib.shake_256(b"noise").digest(size)


def try_system(system: str) -> list[str]:
    """What was answered wrongly by a system: empty when nothing was."""
    manifest = read_manifest(system)
    with tempfile.TemporaryDirectory() as folder:
        made = _write(Path(folder), system)
        outcomes = asyncio.run(_answers(system, made))
    found = [f"{name}: no answer; the reader died" for name in made if name not in outcomes]
    sound = {p.name: outcomes.get(p.name) for p in golden_inputs(system)}
    for outcome in outcomes.values():
        origin = next((s for n, s in sound.items() if outcome.name.endswith("-" + n)), None)
        found += [f"{outcome.name}: {text}" for text in _judge(outcome, origin, manifest)]
    return found


def _judge(outcome: Outcome, origin: Outcome | None, manifest: Manifest) -> list[str]:
    found = []
    if outcome.crash:
        found.append(f"raised {outcome.crash}")
    if outcome.peak_bytes > MEMORY_MAX:
        found.append(f"{outcome.peak_bytes >> 20} MB of memory, at most {MEMORY_MAX >> 20}")
    if origin is None:
        if outcome.rows and not outcome.is_flagged and outcome.name in dict(general_inputs()):
            found.append(f"{outcome.rows} rows were read of it")
        return found
    if outcome.crash or outcome.refused or origin.refused or outcome.figures == origin.figures:
        return found
    is_cut = outcome.name.startswith(("cut", "dropped"))
    if manifest.proves_whole and is_cut and not outcome.is_flagged:
        found.append("read as sound with other figures, though not whole")
    if outcome.name.startswith("encoded") and outcome.flags <= origin.flags:
        found.append("other figures in another encoding, and nobody is told")
    return found


def _write(folder: Path, system: str) -> dict[str, Path]:
    """Every input of a system as a file, by name; the golden ones among them."""
    made: dict[str, Path] = {}
    contents = list(general_inputs())
    for given in golden_inputs(system):
        content = given.read_bytes()
        contents += [(given.name, content), *hostile_inputs(content, given.name)]
    for name, content in contents:
        # Readers look at content; a name is kept whole for those that want its end.
        made[name] = folder / name
        made[name].write_bytes(content)
    return made


async def _answers(system: str, made: dict[str, Path]) -> dict[str, Outcome]:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-c", _START, str(_ROOT), system, *map(str, made.values()),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL, env={"LC_ALL": "C.UTF-8"}, cwd="/",
    )  # fmt: skip
    try:
        said, _ = await asyncio.wait_for(child.communicate(), _DEADLINE_S)
    except TimeoutError:
        child.kill()
        await child.wait()
        said = b""
    found = [msgspec.convert(json.loads(line), Outcome) for line in said.splitlines()]
    return {o.name: o for o in found}


def _turn(content: bytes, encoding: str) -> bytes | None:
    """A text in another encoding, whatever it declares; None where it is no text or does not fit."""
    for own in ("utf-8-sig", "cp1251"):
        try:
            text = content.decode(own)
        except UnicodeDecodeError:
            continue
        if "\0" in text or text.startswith("PK"):
            return None
        try:
            return text.encode(encoding)
        except UnicodeEncodeError:
            return None
    return None
