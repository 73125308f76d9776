"""The short form of the fault run: a hub and two branches over a link with 300 ms and lost packets.

First what a branch is for, step by step; then half a minute in which anything is killed and cut.
The long form is `make branch-long`.
"""

import asyncio
import time

import pytest

from tests.branch.conftest import NEWS_S, SEED
from tests.branch.fleet import HUB, SLUG
from tests.branch.nodes import wait_until
from tests.branch.poison import plant
from tests.branch.proof import prove, wait_quiet
from tests.branch.run import Findings, work_and_break
from tests.branch.schedule import Schedule, Told
from tests.branch.watch import Watch

FAULTS_S = 22.0


def customer_at(person, ident):
    return person.get(f"/records/customer/{ident}")


@pytest.mark.slow
def test_two_branches_that_are_cut_off_keep_all_that_both_typed(fleet, world, journal):
    people = {name: fleet.person(name) for name in fleet.nodes}
    north, south = people["north"], people["south"]
    ident = world.customers[0]
    for site in fleet.sites:
        fleet.cut(site)
    north.edit(customer_at(north, ident), phone="+380441110022", credit_limit="1000.00")
    south.edit(customer_at(south, ident), email="s@example.org", credit_limit="2000.00")
    made = {name: people[name].make("customer", name=f"Alone at {name}") for name in fleet.nodes}
    numbers = {name: one["number"] for name, one in made.items()}
    assert len(set(numbers.values())) == 3, numbers
    fleet.heal_all()
    began = time.monotonic()
    for name, person in people.items():
        wait_until(
            lambda p=person: {"phone", "email"} <= customer_at(p, ident)["fields"].keys(), NEWS_S,
            f"what both branches typed is at {name}",
        )  # fmt: skip
        for one in made.values():
            wait_until(
                lambda p=person, i=one["id"]: p.http.get(f"/records/customer/{i}").status_code == 200,
                NEWS_S, f"each branch's new customer is at {name}",
            )  # fmt: skip
    print(f"everything is everywhere {time.monotonic() - began:.1f} s after healing")
    shown = set()
    for name, person in people.items():
        wait_until(lambda p=person: conflicts(p, ident), NEWS_S, f"the conflict is at {name}")
        (one,) = conflicts(person, ident)
        values = {v for side in one["sides"] for v in side["values"].values()}
        assert (one["sort"], values) == ("field", {"1000.00", "2000.00"}), one
        shown.add(customer_at(person, ident)["fields"]["credit_limit"])
    assert len(shown) == 1, f"every node shows the same one for now: {shown}"
    path = f"/conflicts/{ident}/field/{one['register']}/resolve"
    dot = next(s["dot"] for s in one["sides"] if "1000.00" in s["values"].values())
    north_sees = conflicts(north, ident)[0]["version"]
    answer = north.http.post(path, json={"choose": dot}, headers={"If-Match": f'"{north_sees}"'})
    assert answer.status_code < 300, answer.text
    for name, person in people.items():
        wait_until(
            lambda p=person: not conflicts(p, ident),
            NEWS_S,
            f"decided for everybody, at {name} too",
        )
        assert customer_at(person, ident)["fields"]["credit_limit"] == "1000.00"


def conflicts(person, ident):
    return person.get("/conflicts", record=ident)["conflicts"]


@pytest.mark.slow
def test_nothing_is_lost_doubled_or_different_whatever_is_killed(fleet, world, journal):
    told = Told()
    findings = Findings(told, journal, rounds=1, watch=Watch(fleet))
    schedule = Schedule(fleet, SEED, told)
    # Somebody's clock is hours ahead from the beginning, and a power cut there takes it along.
    fleet.nodes["south"].set_clock("+5h")
    del schedule.events[schedule.clock]
    asyncio.run(work_and_break(fleet, world, findings, schedule, FAULTS_S, people=2))
    findings.quiet_s.append(wait_quiet(fleet))
    findings.add(prove(fleet, journal))
    findings.add({"broken": findings.watch.torn()})
    print(findings.summary(fleet, SEED))
    assert not journal.strange, journal.strange[:5]
    bad = [f"{what}: {line}" for what, lines in findings.found.items() for line in lines[:12]]
    assert not bad, "faults:\n" + "\n".join(bad + told.lines)
    assert told.counts["kills"] and told.counts["outages"], told.lines
    assert len(journal.acked) > 100, f"too little was done: {journal.counts()}"


@pytest.mark.slow
def test_a_flipped_byte_of_the_log_is_found(fleet):
    node = fleet.nodes["south"]
    (stream, seq, body) = node.sql(
        "SELECT stream, seq, body FROM change WHERE op = 'put' ORDER BY seq DESC LIMIT 1"
    )[0]
    turned = bytes(body[:-1]) + bytes([body[-1] ^ 1])
    text = "UPDATE change SET body = %s WHERE stream = %s AND seq = %s"
    node.sql(text, turned, stream, seq)
    said = node.nexus("audit", "verify", "--tenant", SLUG, code=None)
    node.sql(text, bytes(body), stream, seq)
    assert "Nothing was changed." not in said
    assert "Nothing was changed." in node.nexus("audit", "verify", "--tenant", SLUG)


@pytest.mark.slow
def test_a_poisoned_transaction_waits_for_a_person_and_holds_up_nobody(fleet, world):
    north, hub = fleet.nodes["north"], fleet.hub
    dot = plant(north)
    person = fleet.person("north")
    after = person.make("customer", name="After the poison")["id"]
    owner = fleet.person(HUB)
    took = wait_until(
        lambda: owner.http.get(f"/records/customer/{after}").status_code == 200, NEWS_S,
        "what came after the poison is at the hub",
    )  # fmt: skip
    waiting = hub.sql("SELECT origin, oseq, reason FROM parked WHERE state = 'waiting'")
    assert [(o, q) for o, q, _ in waiting] == [dot], waiting
    print(f"parked as {waiting[0][2]!r}; the rest went by in {took:.1f} s")
    other = fleet.person("south")
    wait_until(
        lambda: other.http.get(f"/records/customer/{after}").status_code == 200, NEWS_S,
        "and at the other branch",
    )  # fmt: skip
    said = hub.nexus("audit", "verify", "--tenant", SLUG)
    assert "Nothing was changed." in said, "what is parked keeps its place in the chain"
