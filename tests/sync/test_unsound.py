"""A site that leaves out its own checks: what no field could hold is parked, and the rest goes on."""

from uuid import UUID

import pytest

from appliance.base.ids import uuid7
from appliance.kernel.change import EntryOp
from appliance.meta import load_schema
from appliance.sync.deciding import What, decide
from appliance.sync.taking import Taker
from appliance.write.receive import receive
from tests.sync.thief import Thief, thief_of

pytestmark = pytest.mark.anyio
KIND = "card"
FIELDS = [
    ("title", "text"), ("note", "long_text"), ("amount", "number"), ("count", "integer"),
    ("day", "date"), ("seen", "moment"), ("ok", "yes_no"), ("owner_of", "file"), ("mail", "email"),
    ("extra", "json"),
]  # fmt: skip
EMOJI = "\U0001f600"


@pytest.fixture
async def thief(tenant, there, valkey_url, tmp_path):
    async with thief_of(tenant, there, valkey_url, tmp_path, KIND, FIELDS) as found:
        yield found


def says(thief: Thief, op=EntryOp.NEW, ident=None, kind=KIND, **body):
    body.setdefault("fields", {})
    if op is EntryOp.NEW and kind == KIND:
        body["fields"] = {"@unit": str(thief.north), **body["fields"]}
    return thief.says(op, kind, ident or uuid7(), **body)


@pytest.mark.parametrize(
    "fields",
    [
        {"title": ["a", "list"]}, {"title": "x" * 500}, {"title": " edges "}, {"title": 7},
        {"title": "a\x01b"}, {"note": "n" * 10_000_000}, {"amount": "1e999999999"},
        {"amount": "12,5"}, {"amount": 5}, {"amount": "0" * 40}, {"count": True}, {"count": "5"},
        {"count": 2**60}, {"day": "2026-02-30"}, {"seen": "2026-11-20"}, {"ok": 1}, {"ok": "true"},
        {"owner_of": "nobody"}, {"mail": "no address"}, {"extra": "x" * 100_000},
        {"extra": {"half": 0.5}}, {"@number": ["n"]}, {"@owner": "me"}, {"title": {"a": 1}},
        {"unknown_here": "y" * 10_000_000}, {"unknown_here": 0.5}, {"bad;name=1.1": "x"},
        {"Upper Case": "x"},
    ],
    ids=lambda fields: next(iter(fields))[:12],
)  # fmt: skip
async def test_a_value_of_another_form_is_parked_and_the_next_taken(thief, fields):
    bad, good = says(thief, fields=fields), says(thief, fields={"title": "Fine"})
    assert await thief.pushes(bad, good) == ["malformed"]
    assert await thief.row(bad.entry.record_id) is None
    assert (await thief.row(good.entry.record_id))[3] == "Fine"


async def test_what_a_field_of_any_definition_may_hold_is_taken(thief):
    """Bounds may have been others where it was written; a field may not be known here yet."""
    fields = {
        "title": "Ärger " + EMOJI, "note": "a\n\tb", "amount": "-12.345", "count": -5,
        "day": "2026-02-28", "seen": "2026-11-20T10:00:00.000Z", "ok": False,
        "owner_of": str(uuid7()), "mail": "a@example.org", "extra": {"a": [1, None, "b"]},
        "not_yet": ["x", {"y": 1}], "@number": "N-1", "@owner": None,
    }  # fmt: skip
    entry = says(thief, fields=fields)
    assert await thief.pushes(entry) == []
    assert await thief.row(entry.entry.record_id)


async def test_sets_steps_and_registers_are_of_fields_that_have_them(thief):
    ident = uuid7()
    assert await thief.pushes(says(thief, ident=ident)) == []
    for body in (
        {"sets": {"amount": (["x"], [])}},
        {"sets": {"title": ([], ["x"])}},
        {"sets": {"not_yet": (["a;b=1.1"], [])}},
        {"deltas": {"title": "1"}},
        {"deltas": {"amount": "1e9"}},
        {"fields": {"title": "x"}, "base": {"a;b": []}},
        {"fields": {"title": "x"}, "groups": {"A=1": ["title"]}},
        {"fields": {"note": "x"}, "ext": {"was": {"note": ["x"]}}},
        {"fields": {f"f{n}": "x" for n in range(2_000)}},
    ):
        assert await thief.pushes(says(thief, EntryOp.PUT, ident, **body)) == ["malformed"], body


async def test_a_definition_that_cannot_be_read_stops_nobody(thief):
    schema = thief.schema
    kinds = (
        {"labels": {}}, {"key": "No Key"}, {"key": "new_one", "ledger": {"sort": 1}},
        {"key": "new_one", "authority": "mine"}, {"key": "new_one", "series": "{n}{n}"},
    )  # fmt: skip
    field = {"kind": KIND, "name": "more", "type": "number"}
    fields = (
        {"kind": KIND, "name": "more"}, {**field, "options": {"scale": 10**9}},
        {**field, "sensitivity": "none"}, {**field, "policy": "mine"}, {**field, "fid": "a;b"},
        {**field, "max": "many"},
    )  # fmt: skip
    for kind, all_ in (("sys.kind", kinds), ("sys.field", fields)):
        for one in all_:
            entry = says(thief, kind=kind, stream=schema, fields=one)
            assert await thief.pushes(entry) == ["malformed"], one
    ident = uuid7()
    good = says(thief, kind="sys.field", ident=ident, stream=schema, fields=field)
    assert await thief.pushes(good) == []
    for change in (
        {"type": "text"}, {"kind": None}, {"options": {"scale": 99}}, {"min": "low"},
    ):  # fmt: skip
        entry = says(thief, EntryOp.PUT, ident, "sys.field", stream=schema, fields=change)
        assert await thief.pushes(entry) == ["malformed"], change
    found = await load_schema(thief.pair.hub.db, thief.pair.hub.id)
    assert found.kinds[KIND].by_name["more"].type == "number"
    assert await thief.pushes(says(thief, fields={"more": "1.50"})) == []


async def test_what_came_before_its_field_was_known_breaks_no_index(thief):
    ident = uuid7()
    assert await thief.pushes(says(thief, ident=ident, fields={"later": ["no", "number"]})) == []
    field = {"kind": KIND, "name": "later", "type": "number", "filterable": True}
    await thief.pushes(says(thief, kind="sys.field", stream=thief.schema, fields=field))
    entry = says(thief, EntryOp.PUT, ident, fields={"title": "goes on"})
    assert await thief.pushes(entry) == []
    assert (await thief.row(ident))[3] == "goes on"


async def test_what_came_before_its_kind_is_looked_at_when_the_kind_comes(thief):
    good, bad = uuid7(), uuid7()
    unit = {"@unit": str(thief.north)}
    entries = [
        thief.says(EntryOp.NEW, "thing", good, fields={"title": "Fine", **unit}),
        thief.says(EntryOp.NEW, "thing", bad, fields={"title": ["x"], **unit}),
    ]
    assert await thief.pushes(*entries) == []
    made = [
        says(thief, kind="sys.kind", stream=thief.schema, fields={"key": "thing"}),
        says(thief, kind="sys.field", stream=thief.schema,
             fields={"kind": "thing", "name": "title", "type": "text", "filterable": True}),
    ]  # fmt: skip
    assert await thief.pushes(*made) == []
    assert (await thief.row(good))[3] == "Fine"
    assert await thief.row(bad) is None
    rows = await thief.pair.hub.sql(
        "SELECT reason, entries FROM parked WHERE tenant_id = $1", thief.pair.hub.id
    )
    assert rows == [["malformed", "1"]]


async def test_what_is_malformed_is_not_released_as_it_is(thief):
    hub = thief.pair.hub
    assert await thief.pushes(says(thief, fields={"amount": ["x"]})) == ["malformed"]
    ((ident,),) = await hub.sql("SELECT id::text FROM parked WHERE tenant_id = $1", hub.id)
    told = await decide(hub.db, await hub.ctx(), UUID(ident), What.RELEASE)
    assert (told.parked.state, told.parked.reason) == ("waiting", "malformed")
    told = await decide(hub.db, await hub.ctx(), UUID(ident), What.SKIP, reason="nonsense")
    assert told.parked.state == "skipped"


async def test_a_site_looks_at_what_its_hub_gives_too(thief):
    """A hub of an older program may have let it pass."""
    site, ident, good = thief.pair.site, uuid7(), uuid7()
    taker = Taker(site.db, site.id, origin=site.origin, peer=uuid7())
    thief.origin = 900
    entries = [says(thief, ident=ident, fields={"amount": "x"}), says(thief, ident=good)]
    taken = await receive(site.db, await taker.ctx(), thief.north, entries, peer=1, from_hub=True)
    assert [p.reason.partition(":")[0] for p in taken.parked] == ["malformed"]
    assert taken.got[900] == 2 and taken.applied == 1
