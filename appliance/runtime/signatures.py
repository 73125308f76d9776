"""The signatures that our clamd loads: sets that are complete, checked, and never changed.

clamd is silent about rules that it cannot use, and ends when a reload fails. So files are not put
where it reads: they are copied into a set, each of the operator's is tried alone first, and `db`
points to one set. The set's own signature holds the set's name, so clamd itself tells what it has
loaded. A set that clamd did not take is left for the last one that it did.

The sets belong to the user who starts the node: a scanner that was taken over cannot blind itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.util
import os
import re
import shutil
import stat
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from appliance.base.errors import Misconfigured

PROBE = b"nexus: which signatures are loaded?\n"
"""A scanner asked about this answers with the name of its set; as in `quarantine.signatures`."""
OPERATORS = frozenset({".ndb", ".hdb", ".hsb", ".mdb", ".msb", ".ldb", ".cdb", ".yar", ".yara"})
"""What an operator may add. Lists of what to ignore are refused: they would blind the scanner."""
_OFFICIAL_SUFFIXES = frozenset({".cvd", ".cld", ".cud"})
_OFFICIAL_START = b"ClamAV-VDB:"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_COPY_BYTES = 1024 * 1024

Check = Callable[[Path], Awaitable[str]]
"""Tries one file alone: empty when clamd can use all of it, else why not."""


class SignatureSet(msgspec.Struct, frozen=True):
    """One set: `level` is `official`, `local` or `baseline`; `refused` are sentences for people.

    `made_of` is the fingerprint of its sources.
    """

    id: str
    level: str
    made_of: str
    refused: tuple[str, ...] = ()


def official_files(folders: Sequence[Path]) -> list[Path]:
    """ClamAV's own data in the first folder that has some; what clamd would run is left out."""
    for folder in folders:
        found = [
            path
            for path in sorted(folder.glob("*.c[vlu]d"))
            if path.suffix in _OFFICIAL_SUFFIXES and not path.name.startswith("bytecode")
        ]
        if found:
            return found
    return []


def baseline_folder() -> Path:
    """Our own signatures; found, not imported, because the planes do not know each other."""
    spec = importlib.util.find_spec("quarantine")
    places = list(spec.submodule_search_locations or ()) if spec else []
    if not places:
        raise Misconfigured("The package quarantine is not installed. Run `make setup`.")
    return Path(places[0]) / "signatures"


class SignatureSets:
    """The sets in `<folder>/sets`, made of ClamAV's data, the operator's files and our own."""

    def __init__(self, folder: Path, official: Sequence[Path], limits: str, check: Check) -> None:
        self.folder = folder
        self.sets = folder / "sets"
        self.operators = folder / "signatures.d"
        self.active = folder / "db"
        self._good = folder / "good"
        self._official = tuple(official)
        self._limits = limits
        self._check = check

    def fingerprint(self, *, official: bool = True) -> str:
        """Changes when a source does; costs a look at each file."""
        digest = hashlib.sha256(f"{official}\n{self._limits}".encode())
        for path in self._sources(official=official):
            with contextlib.suppress(OSError):
                found = path.stat(follow_symlinks=False)
                line = f"{path}|{found.st_size}|{found.st_mtime_ns}|{found.st_ino}\n"
                digest.update(line.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def _sources(self, *, official: bool) -> list[Path]:
        own = sorted(baseline_folder().glob("baseline.*"))
        local = [p for p in sorted(self.operators.glob("*")) if not p.name.startswith(".")]
        return own + local + (official_files(self._official) if official else [])

    async def build(self, *, official: bool = True) -> SignatureSet:
        """The set of what is there now, made when it is not there yet. Raises OSError."""
        made_of = self.fingerprint(official=official)
        for known in self._known():
            if known.made_of == made_of:
                return known
        draft = self.sets / ".draft"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o755)
        draft.chmod(0o755)
        refused = []
        for path in self._sources(official=official):
            if path.parent == self.operators:
                refused += await self._take_operators(path, draft)
            else:
                refused += await asyncio.to_thread(_take, path, draft / path.name)
        return await asyncio.to_thread(self._finish, draft, made_of, tuple(refused))

    async def _take_operators(self, path: Path, draft: Path) -> list[str]:
        """A file of the operator's, or its last good version when it is broken now."""
        if path.suffix not in OPERATORS or not _NAME.fullmatch(path.name):
            kinds = " ".join(sorted(OPERATORS))
            return [
                f"{path.name!r} is not used: signatures.d takes files named like a.ndb: {kinds}"
            ]
        target = draft / f"local-{path.name}"
        reason = await asyncio.to_thread(_take, path, target)
        if not reason and (wrong := await self._check(target)):
            reason = [f"{path.name} is not used: {wrong}"]
        if not reason:
            return []
        target.unlink(missing_ok=True)
        former = self._good / target.name
        if former.is_file():
            _take(former, target)
            reason.append(f"The former {path.name} stays in use.")
        return reason

    def _finish(self, draft: Path, made_of: str, refused: tuple[str, ...]) -> SignatureSet:
        names = sorted(p.name for p in draft.iterdir())
        level = "baseline"
        if any(n.startswith("local-") for n in names):
            level = "local"
        if any(Path(n).suffix in _OFFICIAL_SUFFIXES for n in names):
            level = "official"
        digest = hashlib.sha256(self._limits.encode())
        for name in names:
            with (draft / name).open("rb") as file:
                digest.update(
                    f"{name}:{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode()
                )
        made = SignatureSet(digest.hexdigest()[:16], level, made_of, refused)
        line = f"Nexus.Set.{made.level}.{made.id}:0:0:{PROBE.hex()}\n"
        _write(draft / "set.ndb", line.encode())
        place = self.sets / made.id
        # Other sources may make the same set; what somebody has emptied is put back.
        shutil.rmtree(place, ignore_errors=True)
        draft.rename(place)
        _write(self.sets / f"{made.id}.json", msgspec.json.encode(made))
        return made

    def _known(self) -> list[SignatureSet]:
        found = []
        for path in sorted(self.sets.glob("*.json")):
            with contextlib.suppress(OSError, msgspec.MsgspecError):
                one = msgspec.json.decode(path.read_bytes(), type=SignatureSet)
                if (self.sets / one.id / "set.ndb").is_file():
                    found.append(one)
        return found

    def activate(self, chosen: SignatureSet) -> None:
        """Let clamd find this set when it next reads its signatures."""
        self._point(self.active, chosen)

    def keep(self, chosen: SignatureSet) -> None:
        """A set was loaded and works: remember it as the last good one, remove older ones."""
        self._point(self._good, chosen)
        for path in self.sets.iterdir():
            if path.name.removesuffix(".json") != chosen.id:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def last_good(self) -> SignatureSet | None:
        """The last set that clamd was seen to work with."""
        with contextlib.suppress(OSError):
            wanted = self._good.readlink().name
            return next((one for one in self._known() if one.id == wanted), None)
        return None

    def _point(self, link: Path, chosen: SignatureSet) -> None:
        draft = link.with_name(f".{link.name}")
        draft.unlink(missing_ok=True)
        draft.symlink_to(Path("sets") / chosen.id)
        draft.replace(link)


def _take(path: Path, target: Path) -> list[str]:
    """Copy one file into a set, or say why not."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as source:
            if wrong := _not_takeable(source, path):
                return [f"{path.name} is not used: {wrong}"]
            with target.open("wb") as sink:
                shutil.copyfileobj(source, sink, _COPY_BYTES)
            target.chmod(0o644)
    except OSError as failed:
        target.unlink(missing_ok=True)
        return [f"{path.name} is not used: {failed.strerror}."]
    return []


def _not_takeable(source: BinaryIO, path: Path) -> str:
    """Why a file is not copied: as root we would open to all what only its owner may read."""
    found = os.fstat(source.fileno())
    if not stat.S_ISREG(found.st_mode):
        return "it is no plain file."
    if not found.st_size:
        return "it is empty."
    ours = path.parent == baseline_folder()
    if os.geteuid() == 0 and not ours and not found.st_mode & 0o004:
        return "others may not read it. Run: chmod 644"
    if path.suffix in _OFFICIAL_SUFFIXES:
        head = source.read(len(_OFFICIAL_START))
        source.seek(0)
        if head != _OFFICIAL_START:
            return "it is no signature file of ClamAV's."
    return ""


def _write(path: Path, data: bytes) -> None:
    draft = path.with_name(f".{path.name}.new")
    draft.write_bytes(data)
    draft.chmod(0o644)
    draft.replace(path)
