"""Values no JSON decoder would let in reach `apply` from programs: each is a fault by its place."""

from decimal import Decimal

import msgspec
import pytest

from appliance.base.ids import uuid7
from appliance.write import Applied, Command, Op, Rejected, check
from tests.fields.samples import SAMPLES
from tests.tenants import create, update

pytestmark = pytest.mark.anyio

LOOP: list = []
LOOP.append(LOOP)
DEEP: list = []
for _ in range(5_000):
    DEEP = [DEEP]
HOSTILE = [
    2**64, -(2**63) - 1, 10**5_000, Decimal("NaN"), Decimal("Infinity"), Decimal("sNaN"),
    Decimal("1.5"), float("nan"), float("inf"), "\ud800", "a\udfffb", "a\0b", b"bytes", object(),
    (1, 2), {1, 2}, {"\ud800": 1}, {"a\0": 1}, {1: 2}, {"n": 2**70}, [2**70], ["\ud800"],
    {"d": Decimal("NaN")}, LOOP, DEEP,
]  # fmt: skip
WRITABLE = [t for t in SAMPLES if t != "rollup"]


@pytest.fixture
async def things(tenant):
    await tenant.add_kind("customer", [("name", "text")])
    await tenant.add_kind(
        "thing",
        [
            {"name": f"a_{t}", "type": t, "options": SAMPLES[t].field.options, "filterable": False}
            for t in WRITABLE
        ],
    )
    return tenant


def told(outcome):
    """What a door would answer; it must be possible to send."""
    return msgspec.json.decode(msgspec.json.encode(outcome))


async def test_a_hostile_value_is_a_fault_at_its_field(things):
    made = (await things.apply(create("thing", a_text="whole"))).outcomes[0]
    for number, value in enumerate(HOSTILE):
        for type_ in WRITABLE:
            name, where = f"a_{type_}", (number, type_)
            for command in (
                create("thing", **{name: value}),
                update("thing", made.id, **{name: value}),
            ):
                result = await things.apply(command, command_id=uuid7(), atomic=False)
                outcome = result.outcomes[0]
                assert isinstance(outcome, Rejected), (where, outcome)
                assert [f["pointer"] for f in told(outcome)["faults"]] == [f"/fields/{name}"], where
    kept = await things.sql("SELECT data->>'a_text' FROM record WHERE kind = 'thing'")
    assert kept == [["whole"]]


async def test_the_same_hostile_call_again_answers_as_the_first_time(things):
    for value in HOSTILE:
        commands, again = [create("thing", a_text="good"), create("thing", a_json=value)], uuid7()
        first = await things.apply(*commands, command_id=again, atomic=False)
        second = await things.apply(*commands, command_id=again, atomic=False)
        assert isinstance(first.outcomes[0], Applied)
        assert told(first) == told(second)


@pytest.mark.parametrize("text", ["\ud800", "a\0b", "x" * 100_000, "", "a/b~c\udfff"])
async def test_hostile_names_kinds_and_versions(things, text):
    made = (await things.apply(create("thing", a_text="whole"))).outcomes[0]
    for command in (
        create("thing", **{text: 1}), create(text, a_text="x"),
        update("thing", made.id, text, a_text="new"), Command(op=Op.DELETE, kind=text, id=made.id),
        create("sys.kind", key=text), create("sys.field", kind="thing", name=text, type="text"),
        create("sys.field", kind="thing", name="ok", type="text", labels={text: text}),
        create("sys.field", kind="thing", name="ok", type=text),
        create("sys.field", kind="thing", name="ok", type="choice", options={"choices": [{"key": text}]}),
        create("sys.field", kind="thing", name="ok", type="number", options={text: 2**80}),
        create("sys.grant", kind="thing", actions={text: text}, fields={text: text}),
    ):  # fmt: skip
        result = await things.apply(command, command_id=uuid7(), atomic=False)
        assert isinstance(result.outcomes[0], Rejected), command
        told(result)
        told((await check(things.db, await things.ctx(), [command]))[0])
