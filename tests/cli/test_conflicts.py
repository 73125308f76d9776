"""The inbox on the command line: how a conflict is named, and many decided by a rule."""

from types import SimpleNamespace

import pytest

from appliance.base.errors import Invalid
from appliance.cli import conflicts
from appliance.cli.acting import At, actor_of
from appliance.sync.conflicts import Filter, find
from appliance.sync.resolving import Rule
from tests.sync.open import opened_field, stranger

pytestmark = pytest.mark.anyio


async def test_many_are_decided_and_what_is_left_is_the_exit_code(db, firm, as_owner, capsys):
    deal, other = firm.records["north"]["deal"][:2]
    for ident in (deal, other):
        theirs = ({"stage": "won"}, stranger())
        await opened_field(firm.tenant, as_owner, "deal", ident, "stage", theirs, mine=stranger())
    ctx = await actor_of(db, firm.slug, "owner@example.org", 1, capability="conflicts.resolve")
    here = At(SimpleNamespace(db=db), ctx, None)
    assert await conflicts._resolve_all(here, Filter(record=deal), Rule.NEWEST) == 0
    assert f"{deal}/field/stage  resolved" in capsys.readouterr().out
    await as_owner(firm.tenant.id, "DELETE FROM conflict WHERE record_id = %s", deal)
    assert await conflicts._resolve_all(here, Filter(), Rule.MINE) == 1
    assert "skipped" in capsys.readouterr().out
    assert await find(db, ctx, other, "field", "stage")


ONE = "01a1fe43-062f-7000-b9dd-0746882e8d3f"


@pytest.mark.parametrize("text", ["", "x/field/stage", f"{ONE}/field", f"{ONE}//a"])
def test_a_conflict_is_named_as_it_is_listed(text):
    with pytest.raises(Invalid):
        conflicts._key(text)


@pytest.mark.parametrize("text", ["{", "[]", "1"])
def test_values_are_an_object(text):
    with pytest.raises(Invalid):
        conflicts._values(text)
