"""The connector: the profile that a table's header names, the one a person chose or wrote, or the
one that is read off the table.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgspec

from connectors.sdk.contract import (
    Fault,
    Found,
    Inspection,
    Mapping,
    Place,
    Progress,
    Refused,
    Rows,
    Summary,
)
from connectors.systems.bank_csv.guess import GUESSED, ROWS_MAX, Guess, guess_profile
from connectors.systems.bank_csv.headless import guess_headless
from connectors.systems.bank_csv.profile import (
    Layout,
    Profile,
    compile_name,
    decode_profile,
    encode_profile,
    find_layout,
    read_profiles,
)
from connectors.systems.bank_csv.reader import Reader
from connectors.systems.bank_csv.table import Table, is_known
from connectors.systems.bank_csv.values import parse_date

_HEAD_ROWS = 100


class Start(msgspec.Struct, frozen=True):
    """Where the lines begin: the layout, the delimiter, the row of the header, what is above."""

    layout: Layout
    delimiter: str
    row: int
    said: dict[str, str]


class BankCsv:
    """Bank tables. `own`: the profiles of a connector for one bank; without them all of `profiles`."""

    def __init__(self, own: tuple[Profile, ...] = ()) -> None:
        self._own = own

    def open(self, path: Path) -> BankTable:
        """See sdk.contract.Connector."""
        return BankTable(path, self._own)

    def recognises(self, head: bytes, name: str) -> float:
        """See sdk.contract.Recogniser. Of a workbook the head shows nothing."""
        if not is_known(head, self._own or read_profiles()):
            return 0.0
        return 0.95 if self._own else 0.9


class BankTable:
    """One file. Its layout is looked for when it is asked, so that a person may bring a profile."""

    def __init__(self, path: Path, own: tuple[Profile, ...] = ()) -> None:
        self._path, self._own = path, own
        self._table = Table(path)

    def inspect(self, learned: dict[str, str]) -> Found:
        """See sdk.contract.Source. Raises Refused unknown-layout naming the header it looks like."""
        table = self._table
        start = self._start(table)
        profile = start.layout.profile
        facts = {"bank": profile.bank, "profile": profile.key} | start.said
        warnings = (*table.warnings, *table.holds)
        constants = {"profile": profile.key}
        if profile.key == GUESSED:
            expected = "columns that a person has looked at"
            text = encode_profile(profile)
            warnings += (Fault("layout-guessed", expected, text, Place(row=start.row)),)
            constants = {"profile_toml": text}
        found = Inspection(table.format, table.encoding, (), warnings, "", facts)
        return Found(found, Mapping(constants=constants))

    def read(self, mapping: Mapping) -> Iterator[Rows | Progress | Summary]:
        """See sdk.contract.Source. Constants: `profile`, the key of one; `profile_toml`, the text of
        an own one; `account` and `currency` where the table names none; `encoding`.
        """
        constants = mapping.constants
        encoding = mapping.encoding or constants.get("encoding", "")
        profiles = _choose(constants, self._own)
        encoding = encoding or (profiles[0].encoding if len(profiles) == 1 else "")
        table = Table(self._path, encoding) if encoding else self._table
        is_chosen = bool(constants.get("profile_toml") or constants.get("profile"))
        start = _find_start(table, profiles) if is_chosen else self._start(table)
        reader = Reader(
            table,
            start.layout,
            start.said,
            constants.get("account", ""),
            constants.get("currency", ""),
        )
        rows = islice(table.rows(start.delimiter), None)
        yield from reader.read(rows, start.row, self._path.stat().st_size // 100)

    def _start(self, table: Table) -> Start:
        """By the first profile that knows the header and fits what stands below, else by a guess."""
        try:
            start = _find_start(table, self._own or read_profiles())
        except Refused:
            if not self._own and (guessed := _guess_start(table)):
                return guessed
            raise
        if self._own or _fits(table, start):
            return start
        return _guess_start(table) or start


def _choose(constants: dict[str, str], own: tuple[Profile, ...]) -> tuple[Profile, ...]:
    if text := constants.get("profile_toml", ""):
        return (decode_profile(text.encode()),)
    profiles = own or read_profiles()
    if key := constants.get("profile", ""):
        profiles = tuple(p for p in profiles if p.key == key)
        if not profiles:
            known = ", ".join(p.key for p in own or read_profiles())
            raise Refused(Fault("unknown-layout", f"one of the profiles {known}"[:300], key))
    return profiles


def _find_start(table: Table, profiles: tuple[Profile, ...]) -> Start:
    """The header row by any delimiter. Raises Refused."""
    looks = ""
    for delimiter in table.delimiters:
        said: dict[str, str] = {}
        above: list[list[str]] = []
        for number, cells in islice(table.rows(delimiter), _HEAD_ROWS):
            if not any(cells):
                continue
            if layout := find_layout(cells, profiles):
                for row in above:
                    said |= _read_preamble(row, layout.profile)
                # A table without header: its first row is a line already.
                first = number - 1 if layout.profile.row else number
                return Start(layout, delimiter, first, said)
            above.append(cells)
            if sum(map(bool, cells)) >= 3 and len(cells) > looks.count(" | ") + 1:
                looks = " | ".join(cells)
    expected = "a table whose header a profile knows"
    found = looks[:300] or "no row of three cells"
    raise Refused(Fault("unknown-layout", expected, found, Place(row=1)))


def _guess_start(table: Table) -> Start | None:
    best: Guess | None = None
    for delimiter in table.delimiters:
        with contextlib.suppress(Refused):
            rows = list(islice(table.rows(delimiter), ROWS_MAX))
            found = guess_profile(rows) or guess_headless(rows)
            if found and (best is None or len(found.profile.columns) > len(best.profile.columns)):
                best = found
    return _find_start(table, (best.profile,)) if best else None


def _fits(table: Table, start: Start) -> bool:
    """Whether half of the first rows with a day and a sum are of the forms that the profile says."""
    layout, profile = start.layout, start.layout.profile
    fit = seen = 0
    for number, cells in islice(table.rows(start.delimiter), ROWS_MAX):
        days = [cells[n] for n in layout.columns["booked"] if n < len(cells) and cells[n]]
        if number <= start.row or not days or not any(c.isdigit() for c in days[0]):
            continue
        seen += 1
        fit += bool(parse_date(days[0], profile.date))
    return fit * 2 >= seen


def _read_preamble(cells: list[str], profile: Profile) -> dict[str, str]:
    text = " ".join(" ".join(c.split()) for c in cells if c)
    for pattern in profile.preamble:
        if found := compile_name(pattern).fullmatch(text):
            return {name: value.strip() for name, value in found.groupdict().items()}
    return {}
