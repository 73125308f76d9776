"""Containers: every archive and every document that is one, walked strictly (checks 5 and 6)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from quarantine.containers import closed, streams, tars, unzip
from quarantine.containers.budget import Budget, Note, Part, Refused
from quarantine.contract import Finding, Policy, Verdict
from quarantine.detection.detect import detect
from quarantine.detection.packages import JAR, ZIP, is_document
from quarantine.engines.base import Leaf

TAR = "application/x-tar"
UNSUPPORTED = frozenset(
    {
        "application/x-7z-compressed",
        "application/vnd.rar",
        "application/x-rar",
        "application/vnd.ms-cab-compressed",
        "application/x-iso9660-image",
        "application/x-xar",
        "application/x-archive",
        "application/x-cpio",
        "application/x-lzh-compressed",
        "application/x-lha",
        "application/x-arj",
        "application/x-ace-compressed",
        "application/x-compress",
        "application/x-lzip",
        "application/x-lz4",
        "application/zlib",
        "application/x-lrzip",
        "application/x-virtualbox-vhd",
        "application/x-qemu-disk",
        "application/x-stuffit",
        "application/x-zoo",
    }
)


class Containers:
    """`parts` is the walk; the driver of the child asks for it and shows each part to all engines."""

    name = "containers"
    version = "1"

    def wants(self, leaf: Leaf) -> bool:
        """Whether there is something inside."""
        return (
            leaf.type in (ZIP, JAR, TAR)
            or leaf.type in streams.TYPES
            or leaf.type in UNSUPPORTED
            or is_document(leaf.type)
        )

    def examine(self, leaf: Leaf, policy: Policy) -> Iterable[Finding]:
        """Nothing: all that is found is found on the walk."""
        return ()

    def parts(self, leaf: Leaf, budget: Budget) -> Iterator[Leaf | Finding]:
        """The parts one by one, each gone when the next is asked for, and what is wrong."""
        if leaf.type in UNSUPPORTED:
            yield self._say(leaf, closed.judge(leaf.path))
            return
        if leaf.depth >= budget.depth_max:
            deep = f"It is packed more than {budget.depth_max} containers deep."
            yield self._say(leaf, Note("", "container.depth", deep, Verdict.REJECTED))
            return
        try:
            for part in _walk(leaf, budget):
                if isinstance(part, Note):
                    yield self._say(leaf, part)
                else:
                    yield _leaf(leaf, part)
        except Refused as refused:
            note = Note(refused.name, refused.code, refused.sentence, refused.verdict)
            yield self._say(leaf, note)

    def _say(self, leaf: Leaf, note: Note) -> Finding:
        place = _join(leaf, note.name) if note.name else leaf.place
        return Finding(self.name, note.code, note.verdict, note.sentence, place)


def _walk(leaf: Leaf, budget: Budget) -> Iterator[Part | Note]:
    if leaf.type == TAR:
        return tars.walk(leaf.path, budget)
    if leaf.type in streams.TYPES:
        return streams.walk(leaf.path, leaf.name, leaf.type, budget)
    return unzip.walk(leaf.path, budget)


def _join(leaf: Leaf, name: str) -> str:
    return f"{leaf.place or leaf.name}/{name}"


def _leaf(above: Leaf, part: Part) -> Leaf:
    name = part.name.rpartition("/")[2]
    return Leaf(
        part.path,
        name,
        _join(above, part.name),
        above.depth + 1,
        detect(part.path, name),
        above.type,
    )


ENGINE = Containers()
