"""The proof itself: whatever is wrong with three nodes, it says so, and says nothing when all is well."""

import json
from types import SimpleNamespace
from uuid import UUID

import pytest

from appliance.base.ids import uuid7
from appliance.kernel.change import Body, encode_body
from tests.branch import proof
from tests.branch.journal import Journal
from tests.branch.stand import Row, Stand

SHARED, NORTH = UUID(int=1), UUID(int=2)
KINDS = {"customer": UUID(int=100), "deal": UUID(int=200)}


def row(seq, origin, oseq, record, op, *, tx=None, stream=SHARED, change_set=None, **body):
    return Row(
        stream, seq, origin, oseq, tx or oseq, 1000 + oseq, 1000 + oseq, UUID(int=9), "customer", record, op,
        change_set or UUID(int=origin * 1000 + oseq), encode_body(Body(**body)), b"%d.%d" % (origin, oseq),
    )  # fmt: skip


def stand(name, rows, records, conflicts=()):
    found = Stand(name)
    found.streams = {SHARED: ("shared", len(rows), 0)}
    found.rows = rows
    for one in rows:
        found.log[one.stream][one.origin, one.oseq] = one
    for ident, (number, data, stamps) in records.items():
        found.records[SHARED][ident] = ("customer", None, None, number, json.dumps(data), stamps, None, False)  # fmt: skip
    found.conflicts[SHARED] = set(conflicts)
    return found


RECORD = KINDS["customer"]


def whole(*, conflicts=None, value="2000.00"):
    """Three nodes after two branches wrote a credit limit at once, and all is well."""
    told = conflicts if conflicts is not None else [(
        RECORD, "field", "credit_limit", "customer",
        json.dumps([{"dot": "2.1"}, {"dot": "3.1"}]),
    )]  # fmt: skip
    new = (1, 1, RECORD, "new")
    one = {"fields": {"credit_limit": "1000.00"}, "base": {"credit_limit": ["1.1"]}}
    other = {"fields": {"credit_limit": "2000.00"}, "base": {"credit_limit": ["1.1"]}}
    records = {RECORD: ("C-1", {"credit_limit": value}, "1.1;credit_limit=2.1+3.1")}

    def of(name, first, second):
        rows = [row(1, *new, fields={"name": "Firm"}), first, second]
        return stand(name, rows, records, told)

    north = row(2, 2, 1, RECORD, "put", **one), row(3, 3, 1, RECORD, "put", **other)
    south = row(2, 3, 1, RECORD, "put", **other), row(3, 2, 1, RECORD, "put", **one)
    return {"hub": of("hub", *north), "north": of("north", *north), "south": of("south", *south)}


@pytest.fixture
def fleet():
    return SimpleNamespace(sites=("north", "south"), streams={"north": [SHARED], "south": [SHARED]})


@pytest.fixture
def journal():
    found = Journal()
    for node, origin in (("north", 2), ("south", 3)):
        found.acked.append({"node": node, "op": "edit", "at": 0.0, "id": str(RECORD),
                            "change_set": str(UUID(int=origin * 1000 + 1))})  # fmt: skip
    return found


def test_nothing_is_said_when_all_is_well(fleet, journal):
    stands = whole()
    assert proof.find_lost(fleet, stands, journal) == []
    assert proof.find_diverged(fleet, stands) == []
    assert proof.find_gaps(stands) == []
    assert proof.find_outside_scope(fleet, stands) == []
    assert proof.find_false(stands["hub"]) == []


def test_a_lost_entry_is_missed_where_it_should_be(fleet, journal):
    stands = whole()
    del stands["south"].log[SHARED][2, 1]
    assert any("not at south" in line for line in proof.find_lost(fleet, stands, journal))
    assert any("only at hub" in line for line in proof.find_diverged(fleet, stands))
    stands = whole()
    stands["north"].rows = stands["north"].rows[:1]
    assert any("not in its own log" in line for line in proof.find_lost(fleet, stands, journal))


def test_another_entry_under_the_same_dot_is_seen(fleet, journal):
    stands = whole()
    forged = stands["south"].log[SHARED][2, 1]._replace(hash=b"forged")
    stands["south"].log[SHARED][2, 1] = forged
    assert any("another entry" in line for line in proof.find_lost(fleet, stands, journal))
    assert any("another hash" in line for line in proof.find_diverged(fleet, stands))


def test_a_record_that_differs_is_seen(fleet):
    stands = whole()
    kind, *rest = stands["south"].records[SHARED][RECORD]
    stands["south"].records[SHARED][RECORD] = (kind, None, None, "C-1", '{"credit_limit": "1"}', *rest[4:])  # fmt: skip
    assert any("differs in data" in line for line in proof.find_diverged(fleet, stands))
    stands["south"].records[SHARED].clear()
    assert any("there at hub only" in line for line in proof.find_diverged(fleet, stands))


def test_a_silent_loser_and_a_false_conflict_are_seen():
    assert any("silent loser" in line for line in proof.find_false(whole(conflicts=[])["hub"]))
    hub = whole()["hub"]
    seen = {"fields": {"credit_limit": "2000.00"}, "base": {"credit_limit": ["2.1"]}}
    hub.rows[2] = row(3, 3, 1, RECORD, "put", **seen)
    said = proof.find_false(hub)
    assert any("false conflict" in line for line in said), "the second had seen the first"
    assert any("must be ['3.1']" in line for line in said)


def test_a_conflict_that_only_one_node_tells_of_is_seen(fleet):
    stands = whole()
    stands["north"].conflicts[SHARED] = set()
    assert any("conflict" in line for line in proof.find_diverged(fleet, stands))


def test_a_base_that_never_came_and_a_value_from_nowhere_are_seen():
    hub = whole()["hub"]
    hub.rows[2] = row(3, 3, 1, RECORD, "put", fields={"credit_limit": "5"}, base={"credit_limit": ["7.7"]})  # fmt: skip
    assert any("had seen 7.7" in line for line in proof.find_false(hub))
    hub = whole(value="42.00")["hub"]
    hub.rows = hub.rows[:2]
    assert any("shows '42.00'" in line for line in proof.find_false(hub))


def test_gaps_and_streams_that_were_not_given_are_seen(fleet):
    stands = whole()
    hole = row(3, 2, 3, RECORD, "put")
    stands["north"].log[SHARED][2, 3] = hole
    assert any("up to 3" in line for line in proof.find_gaps(stands))
    stands["south"].log[NORTH][2, 1] = row(1, 2, 1, uuid7(), "new", stream=NORTH)
    assert any("was not given" in line for line in proof.find_outside_scope(fleet, stands))


def test_half_a_sale_is_seen(journal):
    stands = whole()
    change_set = str(UUID(int=2001))
    journal.acked.append({"node": "north", "op": "sell", "change_set": change_set, "parts": 5})
    assert len(proof.find_torn_sales(stands, journal)) == 3
    assert proof.sums_of([-3, 5]) == {0, -3, 5, 2}
