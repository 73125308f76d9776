"""One hub and two branches for all tests of this folder that need whole nodes: they take long to start.

The tests go on with what others left there; `test_stolen` has the last name, because
after it a branch is gone.
"""

import importlib.util

import pytest

from tests.branch.fleet import Fleet
from tests.branch.journal import Journal
from tests.branch.load import make_world
from tests.branch.proof import wait_quiet
from tests.faults.node import why_not

SEED, NEWS_S = 5, 180.0


@pytest.fixture(scope="package")
def fleet():
    reason = why_not()
    if not reason and importlib.util.find_spec("appliance.sync.agent") is None:
        reason = "this program has no site's agent"
    if reason:
        pytest.skip(reason)
    with Fleet(seed=SEED) as found:
        print(f"joined by {found.link.kind} {found.why_no_spaces}")
        found.found()
        found.join_all()
        yield found


@pytest.fixture(scope="package")
def world(fleet):
    found = make_world(fleet, fleet.units_of)
    wait_quiet(fleet, NEWS_S)
    return found


@pytest.fixture(scope="package")
def journal():
    return Journal()
