"""A profile: how one bank lays out its table, and by which header it is recognised.

Profiles are TOML files in `profiles/`; a tenant may bring one as text. Names of columns are compared
without letter case; `*` stands for any text and `{currency}` for three letters that are kept.
Among the profiles that fit, the one that names the most columns of the header is taken.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import msgspec

from connectors.sdk.contract import Fault, Refused
from connectors.sdk.manifest import read_vocabulary
from connectors.systems.bank_csv.values import compile_date

FOLDER = Path(__file__).parent / "profiles"
# What a column may be besides a field of bank_line.
SPECIAL = frozenset({"debit", "credit", "direction", "status", "balance"})
_SLOTS = {"currency": "[A-Z]{3}", "account": ".+?", "closing": ".+?", "from": ".+?", "to": ".+?"}
_HEADER_MAX = 500
_SLOT = re.compile(r"\\\{(currency|account|closing|from|to)\\\}")


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One layout.

    `header`: names that its header row holds; `row`: for tables without header, a pattern for each
    column of the first row. `columns`: field to column by its name or its number from 1, or to
    several: the first that is filled counts, purposes are joined. `date`: forms such as
    dd.mm.yyyy. `preamble`: lines above the header to read, such as "Account: {account}".
    `signed`: debit and credit columns carry their own signs. `inverse`: a positive amount went out.
    `debit_words`: what the direction column says of money that went out (else it came in).
    `pending`, `skip`: words of the status column for lines not booked yet, and for no lines at all.
    `footer`: how rows begin that are no lines.
    """

    bank: str
    columns: dict[str, str | int | tuple[str | int, ...]]
    date: tuple[str, ...]
    header: tuple[str, ...] = ()
    row: tuple[str, ...] = ()
    decimal: str = "."
    delimiter: str = ""
    encoding: str = ""
    currency: str = ""
    account: str = ""
    preamble: tuple[str, ...] = ()
    signed: bool = False
    inverse: bool = False
    debit_words: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    footer: tuple[str, ...] = ()
    key: str = ""


class Layout(msgspec.Struct, frozen=True):
    """A profile found in a table: where its columns are, and the currency its header names."""

    profile: Profile
    columns: dict[str, tuple[int, ...]]
    header: tuple[str, ...]
    currency: str = ""


@cache
def read_profiles() -> tuple[Profile, ...]:
    """Every profile that is here. Raises ValueError naming the file."""
    found = []
    for path in sorted(FOLDER.glob("*.toml")):
        try:
            found.append(decode_profile(path.read_bytes(), path.stem))
        except Refused as refused:
            raise ValueError(f"{path.name}: {refused.fault.found}") from None
    return tuple(found)


def decode_profile(text: bytes, key: str = "own") -> Profile:
    """A profile of its TOML. Raises Refused naming what is wrong in it."""
    try:
        found = msgspec.toml.decode(text, type=Profile)
        problem = _check(found)
    except (ValueError, re.error, msgspec.DecodeError) as error:
        problem = str(error)
    if problem:
        raise Refused(Fault("bad-profile", "a profile of a bank table", problem[:200]))
    return msgspec.structs.replace(found, key=key)


def encode_profile(profile: Profile) -> str:
    """The TOML of a profile, as people read and change it; its key is the name of its file."""
    given = msgspec.to_builtins(profile)
    plain = msgspec.to_builtins(Profile(bank="", columns={}, date=()))
    columns = given.pop("columns")
    lines = [
        f"{k} = {_literal(v)}"
        for k, v in given.items()
        if k not in ("bank", "key") and v != plain[k]
    ]
    lines += ["", "[columns]", *(f"{k} = {_literal(v)}" for k, v in columns.items())]
    return "\n".join([f"bank = {_literal(profile.bank)}", *lines]) + "\n"


def _literal(value: object) -> str:
    """A text, number, truth or list in TOML, whose forms of them are those of JSON."""
    return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")


def _check(profile: Profile) -> str:
    """What is wrong in a profile. Raises ValueError for a form or pattern that is none."""
    columns = profile.columns.keys()
    known = SPECIAL | set(read_vocabulary("bank")["bank_line"].fields)
    if unknown := columns - known:
        return f"columns: no field {', '.join(sorted(unknown))}"
    if not columns & {"amount", "debit", "credit"} or "booked" not in columns:
        return "columns: booked, and amount or debit or credit, are wanted"
    if bool(profile.header) == bool(profile.row):
        return "either header or row is wanted"
    if profile.decimal not in (".", ","):
        return "decimal is . or ,"
    for form in profile.date:
        compile_date(form)
    for pattern in profile.row:
        re.compile(pattern)
    for name in (*profile.header, *profile.preamble):
        compile_name(name)
    return ""


@cache
def compile_name(pattern: str) -> re.Pattern[str]:
    """A name with `*` and slots as an expression."""
    text = re.escape(" ".join(pattern.split())).replace(r"\*", ".*")
    text = _SLOT.sub(lambda m: f"(?P<{m[1]}>{_SLOTS[m[1]]})", text)
    return re.compile(text, re.IGNORECASE | re.DOTALL)


def find_layout(cells: list[str], profiles: tuple[Profile, ...]) -> Layout | None:
    """The profile whose header this row is, with its columns."""
    best: Layout | None = None
    if len(cells) > _HEADER_MAX:
        return None
    names = [" ".join(c.split()) for c in cells]
    folded = frozenset(n.casefold() for n in names)
    for profile in profiles:
        if not _plain_names(profile.header) <= folded:
            continue
        found = _match_row(names, profile) if profile.row else _match_header(names, profile)
        if found is not None and (best is None or _weigh(found) > _weigh(best)):
            best = found
    return best


@cache
def _plain_names(header: tuple[str, ...]) -> frozenset[str]:
    """The names of a header that stand in it as they are."""
    return frozenset(n.casefold() for n in header if not set(n) & set("*{"))


def _weigh(layout: Layout) -> tuple[int, int]:
    return len(layout.profile.header), sum(map(len, layout.columns.values()))


def _match_header(names: list[str], profile: Profile) -> Layout | None:
    currency = ""
    for pattern in profile.header:
        for name in names:
            if found := compile_name(pattern).fullmatch(name):
                currency = currency or (found.groupdict().get("currency") or "").upper()
                break
        else:
            return None
    columns = {}
    for field, wanted in profile.columns.items():
        places = []
        for one in wanted if isinstance(wanted, tuple) else (wanted,):
            if isinstance(one, int):
                places.append(one - 1)
                continue
            expression = compile_name(one)
            places += [n for n, name in enumerate(names) if expression.fullmatch(name)][:1]
        columns[field] = tuple(places)
    return Layout(profile, columns, tuple(names), currency)


def _match_row(names: list[str], profile: Profile) -> Layout | None:
    if len(names) < len(profile.row) or not all(
        re.fullmatch(pattern, name) for pattern, name in zip(profile.row, names, strict=False)
    ):
        return None
    columns = {
        field: tuple(int(n) - 1 for n in (wanted if isinstance(wanted, tuple) else (wanted,)))
        for field, wanted in profile.columns.items()
    }
    return Layout(profile, columns, ())
