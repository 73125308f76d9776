"""A branch whose machine was stolen: shut out at once, its late work held, its disk emptied.

What was written at the branch after the hub had shut it out waits for a person and is never
dropped: released, it counts. Whoever was signed in there is signed out; and once the branch has
purged, its raw data folder (tables, write-ahead log, queues, files, logs) holds no byte of what was
planted in it.
"""

import re

import pytest

from tests.branch.conftest import NEWS_S
from tests.branch.fleet import HUB, SLUG
from tests.branch.nodes import wait_until
from tests.branch.proof import wait_quiet

PURGE_S = 120.0
MARKS = {"before": "zqMarkBeforeTheft", "file": "zqMarkInAFile", "late": "zqMarkAfterTheft"}
HELD = re.compile(r"^(\S+) .* held ", re.MULTILINE)


def holds(node, mark):
    """The files of a node's data folder that hold a text, as it is or in UTF-16."""
    wanted = (mark.encode(), mark.encode("utf-16-le"))
    found = []
    for path in node.data.rglob("*"):
        if path.is_file() and not path.is_symlink():
            body = path.read_bytes()
            if any(one in body for one in wanted):
                found.append(str(path.relative_to(node.data)))
    return found


@pytest.mark.slow
def test_a_stolen_branch_is_shut_out_and_emptied(fleet):
    north, hub = fleet.nodes["north"], fleet.hub
    person = fleet.person("north")
    unit = fleet.units["North branch"]
    known = person.make("customer", name=MARKS["before"])["id"]
    person.post("/records/deal", {"unit": unit, "fields": {"title": MARKS["before"], "customer": known}}, 201)  # fmt: skip
    person.call("POST", "/files?kind=customer&record=" + known + "&name=note.txt", 202,
                content=(MARKS["file"] + "\n").encode() * 200,
                headers={"content-type": "application/octet-stream"})  # fmt: skip
    wait_quiet(fleet, NEWS_S)
    north.sql("CHECKPOINT")
    assert holds(north, MARKS["before"]), "it is on the branch's disk, or the search finds nothing"

    fleet.cut("north")
    hub.nexus("node", "revoke", "north", "--reason", "stolen")
    late = person.make("customer", name=MARKS["late"])["id"]
    fleet.heal_all()
    owner = fleet.person(HUB)
    wait_until(
        lambda: hub.sql("SELECT count(*) FROM parked WHERE state = 'waiting' AND NOT is_logged")[0][0],
        NEWS_S, "what the stolen branch sent is held for review",
    )  # fmt: skip
    assert owner.http.get(f"/records/customer/{late}").status_code == 404, "held, not applied"
    wait_until(
        lambda: person.http.get("/me").status_code == 401, NEWS_S, "its users' sessions are dead"
    )
    wait_until(lambda: not fleet.can_sign_in("north"), NEWS_S, "nobody signs in there any more")
    took = wait_until(
        lambda: hub.nexus("node", "list", "--tenant", SLUG).count("purged"), PURGE_S,
        "the branch has proved that it purged", every=2.0,
    )  # fmt: skip
    print(f"its disk was empty {took:.0f} s after its people were shut out")
    for what, mark in MARKS.items():
        assert holds(north, mark) == [], f"what was planted {what} is still on its disk"
    assert owner.get(f"/records/customer/{known}")["fields"]["name"] == MARKS["before"]

    for ident in HELD.findall(hub.nexus("parked", "list", "--tenant", SLUG)):
        hub.nexus("parked", "release", ident, "--reason", "asked the branch", "--tenant", SLUG)
    assert owner.get(f"/records/customer/{late}")["fields"]["name"] == MARKS["late"]
