"""One sample per field type: what the generic suite feeds it. A new type adds its entry here."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import msgspec
from hypothesis import strategies as st

from appliance.base import limits
from appliance.kernel.kind import Field, Json

CHOICES: list[Json] = [
    {"key": "new", "labels": {"en": "New", "ru": "Новая", "uk": "Нова"}},
    {"key": "won", "labels": {"en": "Won"}},
    {"key": "lost", "archived": True},
]
ID = "01890a5d-ac96-774b-bcce-b302099a8057"
OTHER_ID = "01890a5d-ac96-774b-bcce-b302099a8058"


class Sample(msgspec.Struct, frozen=True):
    """A field of the type, `(sent, canonical)` pairs, values to draw, values it must refuse."""

    field: Field
    pairs: Sequence[tuple[Json, Json]]
    values: st.SearchStrategy[Any]
    refused: Sequence[Any]


def field(type_: str, **rest: Any) -> Field:
    """A field named `a`."""
    return Field(fid="a", name="a", type=type_, **rest)


def decimals(scale: int, most: int = 10**limits.NUMBER_DIGITS_MAX - 1) -> st.SearchStrategy[str]:
    """Decimal texts with at most `scale` fraction digits, in their canonical form."""
    return st.integers(-most, most).map(lambda n: f"{Decimal(n).scaleb(-scale):f}")


texts = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cn", "Cs", "Zl", "Zp")),
    min_size=1,
    max_size=60,
).filter(lambda t: not t.isspace())
zones = st.integers(-14 * 60, 14 * 60).map(lambda m: timezone(timedelta(minutes=m)))
days = st.dates(datetime(1900, 1, 1).date(), datetime(2200, 12, 31).date()).map(
    lambda d: d.isoformat()
)
moments = st.datetimes(datetime(1900, 1, 2), datetime(2200, 12, 30), timezones=zones).map(
    lambda m: m.isoformat()
)
keys = st.sampled_from(["new", "won"])
ids = st.uuids().map(str)
leaves = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
).filter(lambda value: value is not None)
emails = st.from_regex(r"\A[A-Za-z0-9_+-]{1,20}@[a-zA-Z0-9]{1,10}\.[a-zA-Z]{2,8}\Z", fullmatch=True)
phones = st.from_regex(r"\A\+?[0-9][0-9 ()-]{3,15}[0-9]{3}\Z", fullmatch=True)
urls = st.from_regex(
    r"\Ahttps?://[a-z0-9]{1,10}\.[a-z]{2,5}/[a-zA-Z0-9/?=&._-]{0,40}\Z", fullmatch=True
)

NOT_DECIMAL: list[Any] = [
    "",
    " 1",
    "1 ",
    "1,5",
    ".5",
    "5.",
    "+1",
    "1e3",
    "NaN",
    "inf",
    "٣",
    "1_0",
    1.5,
    "--1",
    "1.5.0",
]

SAMPLES: dict[str, Sample] = {
    "text": Sample(
        field("text"),
        [("Acme", "Acme"), ("  Acme ", "Acme"), ("и\u0306", "й")],
        texts,
        ["", "  ", "a\tb", "a\nb", "x" * 256],
    ),
    "long_text": Sample(
        field("long_text"),
        [("a\r\nb\tc\r", "a\nb\tc\n"), (" a ", " a ")],
        st.lists(texts, min_size=1, max_size=4).map("\n".join),
        ["", " \n ", "x" * (limits.LONG_TEXT_CHARS_MAX + 1)],
    ),
    "email": Sample(
        field("email"),
        [("Ivan.Petrov@Example.ORG", "Ivan.Petrov@example.org"), (" a@b.ua ", "a@b.ua")],
        emails,
        ["a", "@b.ua", "a@", "a@b", "a@@b.ua", "a b@c.ua", "a@b..ua", "a@-b.ua", "a@b-.ua", ".a@b.ua",
         "a.@b.ua", "a..b@c.ua", f"{'a' * 65}@b.ua", f"a@{'b.' * 130}ua", "a@b.u", '"a b"@c.ua', "<a@b.ua>"],
    ),
    "phone": Sample(
        field("phone"),
        [("+380 (44) 123-45-67", "+380 (44) 123-45-67"), (" 044 123 ", "044 123")],
        phones,
        ["", "12", "call me", "+", "1" * 41, "+38044ABC", "()-() "],
    ),
    "url": Sample(
        field("url"),
        [("https://example.org/a?b=1", "https://example.org/a?b=1")],
        urls,
        ["example.org", "ftp://a.ua", "javascript:alert(1)", "https://", "https://u:p@a.ua", "https://u@a.ua",
         "https://a.ua\\@b.ua", "https://a b.ua", "https://a.ua/\u00a0b", "http://[::1", "https://a.ua:99999",
         "data:text/html,x", "//a.ua", "https://a.ua/" + "x" * 400],
    ),
    "number": Sample(
        field("number"),
        [("1000", "1000.00"), (1000, "1000.00"), ("-3.5", "-3.50"), ("-0", "0.00"), ("007.10", "7.10"),
         ("-0.01", "-0.01"), ("1.5000", "1.50"), ("9999999999999999.99", "9999999999999999.99")],
        decimals(2),
        [*NOT_DECIMAL, "1.005", "10000000000000000", 10**16, 10**5_000, "9" * 31, "-10000000000000000"],
    ),
    "integer": Sample(
        field("integer"),
        [(0, 0), (-5, -5), (2**53, 2**53)],
        st.integers(-(2**53), 2**53),
        ["1", 1.0, 2**53 + 1, -(2**53) - 1, 10**5_000],
    ),
    "money": Sample(
        field("money", options={"currency": "UAH"}),
        [("1000", "1000.00"), (5, "5.00"), ("-0.1", "-0.10"), ("99999999999999.99", "99999999999999.99")],
        decimals(2, 10**16 - 1),
        [*NOT_DECIMAL, "0.001", "100000000000000", 10**14],
    ),
    "quantity": Sample(
        field("quantity", options={"unit": "kg"}),
        [("1.5", "1.500"), (2, "2.000")],
        decimals(3),
        [*NOT_DECIMAL, "0.0001", 10**15],
    ),
    "yes_no": Sample(field("yes_no"), [(True, True), (False, False)], st.booleans(), [0, 1, "true", "yes"]),
    "date": Sample(
        field("date"),
        [("2026-11-20", "2026-11-20"), ("2024-02-29", "2024-02-29")],
        days,
        ["2026-11-31", "2025-02-29", "2026-1-1", "20261120", "2026-11-20T00:00:00Z", "1899-12-31", "2201-01-01",
         "0000-01-01", "2026-11-20\n", " 2026-11-20", "20.11.2026", "２０２６-11-20", "2026-W47-5"],
    ),
    "moment": Sample(
        field("moment"),
        [("2026-11-20T10:00:00+02:00", "2026-11-20T08:00:00.000Z"), ("2026-11-20t10:00z", "2026-11-20T10:00:00.000Z"),
         ("2026-11-20 10:00:00.1239999Z", "2026-11-20T10:00:00.123Z")],
        moments,
        ["2026-11-20T10:00:00", "2026-11-20", "2026-11-20T25:00:00Z", "2026-11-20T10:00:60Z", "2026-11-20T10:00Z\n",
         "2026-11-20T10:00:00+99:99", "0001-01-01T00:00:00+14:00", "2200-12-31T23:59:59-01:00", "now"],
    ),
    "choice": Sample(
        field("choice", options={"choices": CHOICES}),
        [("new", "new")],
        keys,
        ["", "NEW", "New", "lost", "other", ["new"]],
    ),
    "multi_choice": Sample(
        field("multi_choice", options={"choices": CHOICES}),
        [(["won", "new", "won"], ["new", "won"])],
        st.lists(keys, min_size=1, max_size=4),
        ["new", [], ["other"], ["lost"], [["new"]], [None], ["new"] * (limits.SET_MEMBERS_MAX + 1)],
    ),
    "reference": Sample(
        field("reference", options={"target": "customer"}),
        [(ID, ID), (ID.upper(), ID)],
        ids,
        ["", ID[:-1], ID + "0", ID.replace("-", ""), "{" + ID[2:] + "}", f"urn:uuid:{ID}"[:36], "x" * 36, [ID],
         "٣" * 36],
    ),
    "references": Sample(
        field("references", options={"target": "customer"}),
        [([OTHER_ID, ID, ID.upper()], [ID, OTHER_ID])],
        st.lists(ids, min_size=1, max_size=4),
        [ID, [], [1], [None], [[ID]], ["x" * 36], [ID] * (limits.SET_MEMBERS_MAX + 1)],
    ),
    # Whether there is such a file, released and for this record, is the write path's to say.
    "file": Sample(
        field("file", options={"extensions": ["pdf"], "bytes_max": 5_000}),
        [(ID, ID), (ID.upper(), ID)], ids, ["", "x", ID[:-1], [ID], 5],
    ),
    "json": Sample(
        field("json"),
        [({"a": [1, "b", None, True]}, {"a": [1, "b", None, True]}), ("text", "text"), (0, 0)],
        trees,
        [1.5, {"a": {"b": [1.5]}}, {"a": 10**30}, ["x" * 70_000], {"\x00": 1}],
    ),
    "rollup": Sample(
        field("rollup", options={"kind": "invoice", "via": "customer", "op": "sum", "field": "total"}),
        [],
        st.nothing(),
        ["1.00", 1],
    ),
}  # fmt: skip


def nest(depth: int) -> Json:
    """Lists inside lists."""
    value: Json = "x"
    for _ in range(depth):
        value = [value]
    return value


# What no type may take, and none may fail on. JSON takes those of them that are JSON.
HOSTILE: list[Any] = [
    "a\x00b", "\x00", "\ud800", "a\udfffb", "\ufffe", "a\uffff", "\ufdd0", "\U0001ffff", "\x07", "\x85", "\x1b[0m",
    1.5, -0.0, 1e308, float("nan"), float("inf"), -float("inf"), 2**63, -(2**63) - 1, 10**400, 10**5_000,
    [], {}, [[]], nest(17), nest(200), {"a": {"b": 1}}, [None], {"": None}, [float("nan")], ["\x00"],
    ["\ud800"], "x" * 200_000, "9" * 5_000, "-" * 300, "1" * 400, "\n", "\u2028" * 5, "'; DROP TABLE record; --",
    "%", "e" * 36, "+" * 40, "@" * 300, "https://", "0" * 36,
]  # fmt: skip
TAKEN_AS_TEXT = {"'; DROP TABLE record; --", "%"}
