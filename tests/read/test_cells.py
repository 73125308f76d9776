"""The short way to CSV writes the very bytes of the long one, whatever is in the records."""

import csv
import io
import random
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.base.errors import ApplianceError
from appliance.kernel.query import decode_query
from appliance.read import export, stream
from appliance.read.shape.comma_separated import _TYPED, _lines, defuse, write_csv
from tests.tenants import create, everything, only

pytestmark = pytest.mark.anyio
STAGES = {"choices": [
    {"key": "new", "labels": {"en": 'New, "hot"', "uk": "Новий"}}, {"key": "won", "labels": {"en": "=Won"}},
    {"key": "lost"},
]}  # fmt: skip
TEXTS = (
    "plain", "=1+1", "+380", "-dash", "@home", "'quoted", 'say "hi"', "a, b", "Кабель 3х2,5", '"', ",", ";",
    "x=1", "1-2", "  inner  ", "\u2028line", "ß", "null", '{"a": 1}', "\\n", "%",
)  # fmt: skip
LONG = (*TEXTS, "two\nlines", "tab\there", "-\n=", 'q"\n,')
KINDS = {
    "client": [("name", "text"), {"name": "boss", "type": "reference", "options": {"target": "client"}},
               {"name": "debt", "type": "rollup", "options": {"kind": "line", "via": "client", "op": "sum", "field": "price"}},
               {"name": "lines", "type": "rollup", "options": {"kind": "line", "via": "client", "op": "count"}}],
    "line": [
        ("what", "text"), ("note", "long_text"), ("mail", "email"), ("site", "url"), ("phone", "phone"),
        {"name": "price", "type": "number", "options": {"scale": 6}}, ("count", "integer"), ("sum", "money"),
        ("size", "quantity"), ("ok", "yes_no"), ("day", "date"), ("at", "moment"),
        {"name": "stage", "type": "choice", "options": STAGES},
        {"name": "client", "type": "reference", "options": {"target": "client"}},
    ],
    "other": [("name", "text"), {"name": "tags", "type": "multi_choice", "options": STAGES}, ("extra", "json")],
}  # fmt: skip


def one_of(rnd, *values):
    return rnd.choice((None, *values))


@pytest.fixture
async def world(tenant):
    for kind, fields in KINDS.items():
        await tenant.add_kind(kind, fields, display=fields[0][0], series=f"{kind[0]}-{{n}}")
    rnd = random.Random(11)
    made = await tenant.apply(*(create("client", name=t) for t in TEXTS))
    clients = [str(o.id) for o in made.outcomes]
    lines = [
        create("line", **{k: v for k, v in {
            "what": one_of(rnd, *TEXTS), "note": one_of(rnd, *LONG), "mail": one_of(rnd, "a-b@example.org"),
            "site": one_of(rnd, "https://example.org/?q=1,2"), "phone": one_of(rnd, "+380 44 123 45 67"),
            "price": one_of(rnd, "-0.000001", "0", "12.5", "123456.654321"), "count": one_of(rnd, -7, 0, 10**9),
            "sum": one_of(rnd, "-10.00", "1000000.10"), "size": one_of(rnd, "0.125", "-3"),
            "ok": one_of(rnd, True, False), "day": one_of(rnd, "1970-01-01", "2026-11-20"),
            "at": one_of(rnd, "2026-11-19T22:30:00.123Z", "1999-12-31T23:59:59+02:00"),
            "stage": one_of(rnd, "new", "won", "lost"), "client": one_of(rnd, *clients),
        }.items() if v is not None})
        for _ in range(250)
    ]  # fmt: skip
    done = await tenant.apply(*lines)
    assert done.committed, done
    done = await tenant.apply(
        create("other", name="-x", tags=["new", "won"], extra={"a": [1, ","]})
    )
    assert done.committed, done
    return tenant


async def both(world, raw, ctx):
    """The export, and the same rows by way of JSON; whether the short way was taken."""
    query = decode_query(raw)
    short = b"".join([c async for c in await export(world.db, ctx, query, "csv")])
    shown = query if query.group else msgspec.structs.replace(query, display=True)
    long = b"".join(
        [c async for c in write_csv(ctx, stream(world.db, ctx, shown, action="export"))]
    )
    taken = [p.projection.cells async for p, _ in
             stream(world.db, ctx, shown, action="export", cells=True)]  # fmt: skip
    return short, long, taken[0]


@pytest.mark.parametrize("locale", ["en", "uk"])
@pytest.mark.parametrize(
    ("raw", "is_short"),
    [
        ({"from": "line"}, True), ({"from": "client"}, True), ({"from": "other"}, False),
        ({"from": "line", "sort": [{"field": "price"}], "select": ["what", "price", "client", "client.name"]}, True),
        ({"from": "line", "select": ["id", "number", "owner", "unit", "created_at", "created_by", "stage"]}, True),
        ({"from": "line", "select": ["client.boss", "client", "client.debt", "what"]}, True),
        ({"from": "line", "select": ["count", "sum", "size", "ok", "day", "at"]}, True),
        ({"from": "line", "select": ["what"]}, False), ({"from": "line", "select": ["what", "version"]}, False),
        ({"from": "other", "select": ["name", "number"]}, True),
        ({"from": "line", "where": {"or": []}}, True),
        ({"from": "line", "group": ["stage"], "select": [{"sum": "price", "as": "s"}]}, False),
    ],
)  # fmt: skip
async def test_both_ways_write_the_same_bytes(world, raw, is_short, locale):
    ctx = msgspec.structs.replace(await world.ctx(), locale=locale)
    short, long, taken = await both(world, raw, ctx)
    assert taken is is_short
    assert short == long


async def test_under_narrow_rights_too(world):
    schema = (await world.ctx()).schema
    whole = everything(schema)
    narrow = only(
        schema, "line", {"read": "all", "export": "all"},
        {"what": "read", "client": "read", "phone": "masked"},
        client=msgspec.structs.replace(whole.grants["client"], fields={}),
    )  # fmt: skip
    blind = only(
        schema, "line", {"read": "all", "export": "all"}, {"what": "read", "client": "read"}
    )
    for profile, names, is_short in (
        (narrow, ["what", "client"], True), (narrow, ["what", "phone"], False),
        (blind, ["what", "client"], True), (blind, [], True),
    ):  # fmt: skip
        ctx = await world.ctx(profile)
        short, long, taken = await both(world, {"from": "line", "select": names}, ctx)
        assert taken is is_short
        assert short == long


CELL = st.text(
    st.characters(exclude_characters="\x00\x1e\x1f", exclude_categories=["Cs"]), max_size=8
)
TABLE = st.integers(2, 4).flatmap(lambda n: st.tuples(
    st.lists(st.sampled_from(["text", "number"]), min_size=n, max_size=n),
    st.lists(st.lists(CELL, min_size=n, max_size=n), max_size=6),
))  # fmt: skip


@given(TABLE)
def test_lines_are_those_of_the_csv_writer(table):
    types, rows = table
    columns = [SimpleNamespace(field=SimpleNamespace(type=t)) for t in types]
    # A number has no text of its own to be guarded.
    rows = [
        ["-5" if t in _TYPED and c else "" if t in _TYPED else c for c, t in zip(row, types, strict=True)]
        for row in rows
    ]  # fmt: skip
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows(
        [c if t in _TYPED else defuse(c) for c, t in zip(row, types, strict=True)] for row in rows
    )
    assert (
        _lines(columns, ["\x1f".join(row).encode() for row in rows]) == buffer.getvalue().encode()
    )


def test_a_text_with_a_mark_in_it_is_no_row():
    columns = [SimpleNamespace(field=SimpleNamespace(type="text"))] * 2
    with pytest.raises(ApplianceError):
        _lines(columns, [b"a\x1fb\x1fc"])
