"""Every price list of the samples on a real tenant: read as proposed, known again, edited, undone.

A list in which a person sees prices has to be read; what was read is printed as a table.
"""

import re
import time
from collections import Counter
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from appliance.intake import rows, runs
from connectors.formats.grid import text_of
from connectors.formats.open import open_book
from connectors.sdk.contract import Refused
from tests.intake.copies import edited_copy
from tests.intake.test_intake import desk  # noqa: F401 - the fixture

SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "samples" / "pricelists"
LISTS = sorted(SAMPLES.iterdir()) if SAMPLES.exists() else []
CLASSES = ("new", "changed", "unchanged", "gone", "suspicious", "faulty")
PRICE_WORD = re.compile(r"(?i)\b(?:price|charges?|cost|цен[аы]|ціна|ціни|стоимость|вартість)")
NUMBER = re.compile(r"\W{0,2}[0-9][0-9., ]*\Z")
EDITED = 3
# A workbook of this size has thousands of rows.
LONG_BYTES = 200_000
# A shop's own numbers of its currencies: nobody but a person can say which they are.
TOLD = {"1": "USD", "2": "RUB", "4": "UAH"}

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not LISTS, reason="the samples are not part of the repository"),
]


@pytest.fixture(scope="module")
def printed(request):
    """Lines that are shown when the last list is done."""
    lines = []
    yield lines
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print("", *lines, sep="\n")


def priced_rows(path):
    """How many rows have a number below a word for prices: what a person sees at a glance."""
    try:
        book = open_book(path)
    except Refused:
        return 0
    found = 0
    for sheet in book.sheets:
        below = Counter()
        headed = set()
        for row in sheet.rows():
            for n, cell in enumerate(row.cells):
                text = text_of(cell) if cell is not None else ""
                if n in headed and NUMBER.match(text):
                    below[n] += 1
                elif row.number <= 60 and len(text) <= 80 and PRICE_WORD.search(text):
                    headed.add(n)
        found += max(below.values(), default=0) if not sheet.is_hidden else 0
    return found


async def all_rows(desk, made):  # noqa: F811
    found, last = [], -1
    while page := await rows.page(
        desk.db, desk.firm.id, made.id, sort=None, after=last, limit=rows.PAGE_MAX
    ):
        found += page
        last = page[-1].no
    return found


def counts_of(made):
    assert made.state == "planned", made.detail
    return {s: made.counts[s] for s in CLASSES if made.counts.get(s)}


async def prices_of(desk, edited):  # noqa: F811
    """What products cost, by product and price type."""
    targets = [r.target for r in edited]
    found = await desk.firm.sql(
        "SELECT DISTINCT ON (key) data->>'product', data->>'price_type', data->>'price' FROM entry e "
        "WHERE kind = 'price' AND data->>'product' = ANY($1::text[]) AND reverses IS NULL AND NOT "
        "EXISTS (SELECT 1 FROM entry v WHERE v.reverses = e.id) ORDER BY key, at DESC, id DESC",
        [str(t) for t in targets],
    )
    return {(p, t): Decimal(v) for p, t, v in found if v is not None}


def case(path):
    is_long = path.suffix == ".xlsx" and path.stat().st_size > LONG_BYTES
    return pytest.param(path, id=path.name, marks=[pytest.mark.slow] if is_long else [])


def told(mapping):
    """The mapping with what a person says of the currency column."""
    tables = tuple(
        msgspec.structs.replace(t, columns=tuple(
            msgspec.structs.replace(c, options=TOLD) if c.target == "currency" else c
            for c in t.columns
        ))
        for t in mapping.tables
    )  # fmt: skip
    return msgspec.structs.replace(mapping, tables=tables)


async def is_untold(desk, made):  # noqa: F811
    """Whether the plan asks for nothing but what the currencies are."""
    faults = {f["code"] for r in await desk.rows(made, "faulty") for f in r.faults}
    return "currency-unknown" in faults and not made.counts.get("new")


@pytest.mark.parametrize("path", [case(path) for path in LISTS])
async def test_a_list_is_read_known_again_edited_and_taken_back(desk, printed, path):  # noqa: F811
    began = time.perf_counter()
    seen = priced_rows(path)
    first = await desk.bring(path.read_bytes(), source="Supplier")
    if first.state == "failed":
        printed.append(f"{path.name[:44]:44} {first.detail[:90]}")
        assert seen < 2, f"{path.name} shows {seen} prices and is not read: {first.detail}"
        return
    if asked := await is_untold(desk, first):
        first = await desk.bring(path.read_bytes(), source="Supplier", mapping=told(first.mapping))
    planned = counts_of(first)
    read = sum(planned.values())
    assert planned.keys() <= {"new", "unchanged", "faulty"} and planned.get("new"), planned
    assert read >= seen * 0.95, f"{seen} rows show a price, {read} were read"
    done = await desk.approve(first)
    assert done.counts["applied"] == planned["new"] and not done.counts["refused"], done.counts
    took = time.perf_counter() - began
    line = await described(desk, path, first, planned, took)
    printed.append(line + " (told what its currencies are)" * asked)

    same = read - planned.get("faulty", 0)
    expected = {"unchanged": same} | ({"faulty": planned["faulty"]} if "faulty" in planned else {})
    again = await desk.bring(path.read_bytes(), source="Supplier")
    assert counts_of(again) == expected

    copy = edited_copy(path, first.mapping, await all_rows(desk, again), EDITED)
    was = await prices_of(desk, copy.changed)
    assert was, "the rows that are edited have a price"
    second = await desk.bring(copy.content, source="Supplier", options=runs.Options())
    assert counts_of(second) == {
        "new": 1, "changed": EDITED, "unchanged": same - EDITED - 1, "gone": 1,
    } | ({"faulty": copy.faulty} if copy.faulty else {}), second.held_by  # fmt: skip
    assert {
        (r.key, c["field"], Decimal(c["to"]))
        for r in await desk.rows(second, "changed")
        for c in r.changes
    } == copy.prices
    assert [r.target for r in await desk.rows(second, "gone")] == [copy.dropped.target]
    applied = await desk.approve(second)
    now = await prices_of(desk, copy.changed)
    assert now.keys() == was.keys() and sum(now[k] != was[k] for k in was) == EDITED
    back = await desk.revert(applied)
    assert (back.state, back.detail) == ("reverted", "")
    assert await prices_of(desk, copy.changed) == was
    last = await desk.bring(path.read_bytes(), source="Supplier")
    assert counts_of(last) == expected


async def described(desk, path, made, planned, took):  # noqa: F811
    """One line of the table."""
    faults = Counter(f["code"] for r in await all_rows(desk, made) for f in r.faults)
    columns = " | ".join(
        (f"{t.sheet}: " if len(made.mapping.tables) > 1 else "")
        + " ".join(f"{c.letters}={c.options.get('price_type') or c.target}" for c in t.columns)
        for t in made.mapping.tables
    )
    said = ", ".join(f"{code} {n}" for code, n in faults.most_common()) or "no faults"
    return (
        f"{path.name[:44]:44} {len(made.mapping.tables)} sheet {sum(planned.values()):5} rows "
        f"{took:5.1f} s  {said}  [{columns}]"
    )
