"""Types: what a file is called and what it is must agree, and it must be one thing only (check 4)."""

from __future__ import annotations

from collections.abc import Iterable

from quarantine.contract import Finding, Policy, Verdict
from quarantine.detection.detect import EMPTY, UNKNOWN, version
from quarantine.detection.families import (
    EXECUTABLE_EXTENSIONS,
    SCRIPT_EXTENSIONS,
    is_fine_unnamed,
    is_litter,
    never_content,
    types_of,
)
from quarantine.detection.packages import is_document
from quarantine.detection.tails import hides_pdf, second_file
from quarantine.detection.texts import TEXTS
from quarantine.engines.base import Leaf
from quarantine.engines.containers import UNSUPPORTED
from quarantine.names import extension_of

_HEAD_BYTES = 1024


class Types:
    """Extension against bytes, programs and scripts, the list of the place, two files in one."""

    name = "types"

    @property
    def version(self) -> str:
        """Our rules and libmagic's."""
        return f"1 ({version()})"

    def wants(self, leaf: Leaf) -> bool:
        """Every leaf has a type."""
        return True

    def examine(self, leaf: Leaf, policy: Policy) -> Iterable[Finding]:
        """At most one finding on what it is, and one on what else it is."""
        extension = extension_of(leaf.name)
        allowed = {e.lower().lstrip(".") for e in policy.extensions}
        in_document = is_document(leaf.inside)
        said = self._agree(leaf, extension, allowed, in_document=in_document)
        if said:
            code, verdict, sentence = said
            yield Finding(self.name, code, verdict, sentence, leaf.place)
        if hidden := second_file(leaf.path, leaf.type):
            yield Finding(
                self.name,
                "type.polyglot",
                Verdict.SUSPICIOUS,
                f"The file is {leaf.type}, but {hidden}.",
                leaf.place,
            )
        elif leaf.type in (UNKNOWN, *TEXTS) and hides_pdf(_head(leaf), leaf.type):
            yield Finding(
                self.name,
                "type.polyglot",
                Verdict.SUSPICIOUS,
                "The file has something before a PDF begins.",
                leaf.place,
            )

    def _agree(
        self, leaf: Leaf, extension: str, allowed: set[str], *, in_document: bool
    ) -> tuple[str, Verdict, str] | None:
        if is_litter(leaf.name, leaf.type) and leaf.depth:
            return None
        if allowed and extension not in allowed and not in_document:
            return (
                "type.not_allowed",
                Verdict.REJECTED,
                f"Files of this kind are not taken here. Taken are: {', '.join(sorted(allowed))}.",
            )
        if extension in allowed and extension in EXECUTABLE_EXTENSIONS | SCRIPT_EXTENSIONS:
            return None
        sort = never_content(leaf.type)
        sort = sort or ("executable" if extension in EXECUTABLE_EXTENSIONS else "")
        sort = sort or ("script" if extension in SCRIPT_EXTENSIONS else "")
        if sort and not (in_document and extension == "bin" and not never_content(leaf.type)):
            what = "a program" if sort == "executable" else "a script"
            return f"type.{sort}", Verdict.SUSPICIOUS, f"The file is {what}."
        if in_document:
            return self._agree_in_document(leaf, extension)
        return self._agree_alone(leaf, extension, listed=extension in allowed)

    def _agree_alone(
        self, leaf: Leaf, extension: str, *, listed: bool
    ) -> tuple[str, Verdict, str] | None:
        fitting = types_of(extension)
        if leaf.type in fitting or leaf.type in UNSUPPORTED:
            # What is an archive of another kind than it says is held as one by the walk.
            return None
        if leaf.type == EMPTY and (fitting & TEXTS or not fitting):
            return None
        if fitting:
            return (
                "type.mismatch",
                Verdict.SUSPICIOUS,
                f"The file is called .{extension}, but it is {leaf.type}. Give it its own name.",
            )
        if is_fine_unnamed(leaf.type) or (listed):
            return None
        if leaf.type == UNKNOWN:
            return (
                "type.unknown",
                Verdict.SUSPICIOUS,
                "Neither its name nor its content says what kind of file it is.",
            )
        return (
            "type.mismatch",
            Verdict.SUSPICIOUS,
            f"The file is {leaf.type}, which its name does not say. Give it the usual extension.",
        )

    def _agree_in_document(self, leaf: Leaf, extension: str) -> tuple[str, Verdict, str] | None:
        """A part of a document may be called what its writer likes, but not be another's kind."""
        fitting = types_of(extension)
        if not fitting or leaf.type in fitting or leaf.type in (EMPTY, UNKNOWN):
            return None
        if fitting & TEXTS and leaf.type in ("text/html", "image/svg+xml"):
            return None
        return (
            "type.mismatch",
            Verdict.SUSPICIOUS,
            f"A part of the document is called .{extension}, but it is {leaf.type}.",
        )


def _head(leaf: Leaf) -> bytes:
    with leaf.path.open("rb") as file:
        return file.read(_HEAD_BYTES)


ENGINE = Types()
