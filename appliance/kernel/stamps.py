"""Dots and stamps: which log entries a record's present values came from.

A **dot** names one log entry: `origin.oseq`, dense per (origin, stream). A dot of another stream
than the record's present home is qualified: `origin.oseq@stream-hex` (a record that moved keeps
its causal past). **Stamps** say for each register of a record which dots are live:

    1.42;amount=1.60;stage=1.57+7.3

The first part is the creation dot. A creation is the first value of *every* register (absent
fields are null), so a register that is not listed stands at it. More than one live dot is a
conflict that waits for a person. The text doubles as the version token of the HTTP contract:
it is the `base` of an edit (research/sync 2.2, 2.3, 2.11).

Registers: a field id or merge group; `fid/member` for one member of a set; `!` exists;
`@unit`, `@owner`, `@number` for what every record has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from uuid import UUID

EXISTS = "!"
# What every record has beside its fields.
UNIT, OWNER, NUMBER = "@unit", "@owner", "@number"
_DOT = re.compile(r"[1-9][0-9]{0,9}\.[1-9][0-9]{0,18}(@[0-9a-f]{32})?\Z")
_REGISTER = re.compile(r"[!@a-z][a-z0-9_~.\-/]{0,120}\Z")

Dots = tuple[str, ...]


def make_dot(origin: int, oseq: int) -> str:
    """The dot of an entry, unqualified: its stream is the record's home."""
    return f"{origin}.{oseq}"


def is_register(name: str) -> bool:
    """Whether a text can stand as a register in stamps."""
    return _REGISTER.match(name) is not None


class Stamps:
    """Live dots by register; immutable in use, `with_` returns the next state."""

    __slots__ = ("born", "live")

    def __init__(self, born: Dots, live: Mapping[str, Dots] | None = None) -> None:
        self.born = born
        self.live = dict(live or {})

    @classmethod
    def parse(cls, text: str) -> Stamps | None:
        """Read a token; None when it is not one (the caller says where it came from)."""
        head, *rest = text.split(";")
        born = tuple(head.split("+"))
        if not all(_DOT.match(dot) for dot in born):
            return None
        live: dict[str, Dots] = {}
        for part in rest:
            register, eq, dots = part.partition("=")
            found = tuple(dots.split("+"))
            if not eq or not _REGISTER.match(register) or not all(map(_DOT.match, found)):
                return None
            live[register] = found
        return cls(born, live)

    @classmethod
    def read(cls, text: str) -> Stamps:
        """A token that this program has written itself, in a table of its own."""
        head, *rest = text.split(";")
        named = (part.partition("=") for part in rest)
        return cls(tuple(head.split("+")), {name: tuple(d.split("+")) for name, _, d in named})

    def __str__(self) -> str:
        parts = ["+".join(self.born)]
        parts += [f"{name}={'+'.join(dots)}" for name, dots in sorted(self.live.items())]
        return ";".join(parts)

    def of(self, register: str) -> Dots:
        """The live dots of a register."""
        return self.live.get(register, self.born)

    def with_(self, dot: str, registers: Iterable[str]) -> Stamps:
        """After an entry with this dot has covered everything live in these registers."""
        return Stamps(self.born, {**self.live, **dict.fromkeys(registers, (dot,))})

    def all_dots(self) -> list[str]:
        """Every live dot of the record, sorted: the `seen` of a delete or a move."""
        return sorted({*self.born, *(dot for dots in self.live.values() for dot in dots)})

    def qualified(self, leaving: UUID, entering: UUID) -> Stamps:
        """The same dots read from another home stream (a move)."""

        def read(dot: str) -> str:
            plain, at, stream = dot.partition("@")
            if not at:
                return f"{plain}@{leaving.hex}"
            return plain if stream == entering.hex else dot

        return Stamps(
            tuple(map(read, self.born)),
            {name: tuple(map(read, dots)) for name, dots in self.live.items()},
        )

    def without(self, registers: Iterable[str]) -> Stamps:
        """The token for a reader to whom these registers do not exist."""
        drop = set(registers)
        kept = {n: d for n, d in self.live.items() if n.partition("/")[0] not in drop}
        return Stamps(self.born, kept)
