"""Lines go with their document: in one change, by the rights on the document, and back by undo."""

import asyncio

import pytest

from appliance.base.ids import uuid7
from appliance.kernel.profile import ACTIONS, KindGrant, Mode, Profile, Scope, ScopeKind
from appliance.write import Applied, Conflict, rebuild, undo, verify_log
from tests.tenants import create, delete, update

pytestmark = pytest.mark.anyio


def belongs(target, **more):
    return {"name": target, "type": "reference", "required": True, **more,
            "options": {"target": target, "belongs": True}}  # fmt: skip


@pytest.fixture
async def office(tenant):
    await tenant.add_kind("deal", [("title", "text")])
    await tenant.add_kind("line", [belongs("deal"), ("text", "text")])
    # Without a slot of its own, and a line's own part.
    await tenant.add_kind("part", [belongs("line", filterable=False), ("text", "text")])
    ledger = {"sort": "balance", "at": "at", "key": ["deal"], "values": ["amount"]}
    amount = {"name": "amount", "type": "number", "options": {"scale": 2}, "required": True}
    moment = {"name": "at", "type": "moment", "filterable": False}
    await tenant.add_kind("payment", [belongs("deal"), moment, amount], ledger=ledger)
    return tenant


async def document(office, *, unit="north", lines=2):
    """A deal with lines, each with a part: their ids."""
    deal, ids = uuid7(), [uuid7() for _ in range(lines)]
    result = await office.apply(
        *(create("line", i, deal=str(deal), text=f"line {n}") for n, i in enumerate(ids)),
        create("deal", deal, unit=office.units[unit], title="Roof"),
        *(create("part", line=str(i), text="part") for i in ids),
        create("payment", deal=str(deal), amount="5.00"),
    )
    assert result.committed, result
    return deal, ids


async def places(office, table="record"):
    """Unit by kind: where everything is; the stream a record lives in is its unit's."""
    names = {str(i): n for n, i in office.units.items()}
    found = {}
    for kind, unit, stream in await office.sql(
        f"SELECT kind, unit_id::text, stream::text FROM {table} WHERE tenant_id = $1 "
        "AND kind IN ('deal', 'line', 'part', 'payment') AND deleted_at IS NULL", office.id,
    ):  # fmt: skip
        assert unit == stream
        found.setdefault(kind, []).append(names[unit])
    return {k: "".join(sorted(n[0] for n in v)) for k, v in found.items()}


async def balances(office, deal):
    """What a unit sees as the balance of a deal."""
    names = {str(i): n for n, i in office.units.items()}
    rows = await office.sql(
        "SELECT unit_id::text, sum((data->>'amount')::numeric) FROM entry WHERE tenant_id = $1 "
        "AND kind = 'payment' AND data->>'deal' = $2 GROUP BY 1", office.id, str(deal),
    )  # fmt: skip
    turnover = await office.sql(
        "SELECT unit_id::text, sum(n1) / 100.0 FROM turnover WHERE tenant_id = $1 "
        "AND kind = 'payment' AND r1 = $2 GROUP BY 1", office.id, deal,
    )  # fmt: skip
    assert {u: float(n) for u, n in rows} == {u: float(n) for u, n in turnover}
    return {names[unit]: amount for unit, amount in rows}


async def test_lines_follow_in_one_change_and_one_undo_takes_it_back(office):
    deal, (first, _) = await document(office)
    await document(office)
    before = await places(office)
    assert before == {"deal": "nn", "line": "nnnn", "part": "nnnn"}
    moved = await office.apply(update("deal", deal, unit=office.units["south"], title="Roof 2"))
    (outcome,) = moved.outcomes
    assert isinstance(outcome, Applied), outcome
    assert await places(office) == {"deal": "ns", "line": "nnss", "part": "nnss"}
    # The other deal's; this one's, what took it back, and the same in its new place.
    assert await places(office, "entry") == {"payment": "nnns"}
    assert await balances(office, deal) == {"north": "0.00", "south": "5.00"}
    sets = await office.sql(
        "SELECT DISTINCT kind FROM change WHERE tenant_id = $1 AND change_set = $2 ORDER BY 1",
        office.id, moved.change_set,
    )  # fmt: skip
    assert sets == [["deal"], ["line"], ["part"], ["payment"]]
    added = await office.apply(create("line", deal=str(deal), text="later"))
    assert added.committed and (await places(office))["line"] == "nnsss"
    await office.apply(update("line", first, text="changed since"))
    back = await undo(office.db, await office.ctx(), moved.change_set)
    assert back.committed, back
    assert await places(office) == {"deal": "nn", "line": "nnnnn", "part": "nnnn"}
    assert await balances(office, deal) == {"north": "5.00", "south": "0.00"}
    again = await undo(office.db, await office.ctx(), back.change_set)
    assert again.committed and (await places(office))["line"] == "nnsss"
    assert await balances(office, deal) == {"north": "0.00", "south": "5.00"}
    whole = await office.sql(
        "SELECT sum((data->>'amount')::numeric), count(DISTINCT at) FROM entry WHERE tenant_id = $1 "
        "AND data->>'deal' = $2 AND kind = 'payment'", office.id, str(deal),
    )  # fmt: skip
    assert whole == [["5.00", "1"]], "at its own moment, so every balance is what it was"
    assert not (await verify_log(office.db, office.id)).faults
    assert not [d async for d in rebuild(office.db, await office.ctx())]


async def test_what_somebody_put_elsewhere_stays_there(office):
    deal, (first, second) = await document(office)
    await office.apply(update("line", first, unit=office.units["head"]))
    assert (await places(office))["part"] == "hn", "a part goes with its line"
    south = office.units["south"]
    await office.apply(update("deal", deal, unit=south), update("line", second, text="with it"))
    assert await places(office) == {"deal": "s", "line": "hs", "part": "hs"}
    await office.apply(
        update("line", second, unit=office.units["north"]), update("deal", deal, unit=office.units["head"])
    )  # fmt: skip
    assert await places(office) == {"deal": "h", "line": "hn", "part": "hn"}


async def test_lines_of_the_same_batch_go_along_in_any_order(office):
    deal, (first, second) = await document(office)
    south = office.units["south"]
    result = await office.apply(
        create("line", deal=str(deal), text="new"), update("line", first, text="changed"),
        delete("line", second), update("deal", deal, unit=south),
    )  # fmt: skip
    assert result.committed, result
    assert await places(office) == {"deal": "s", "line": "ss", "part": "ns"}
    plain = await office.apply(
        create("line", deal=str(deal), text="x"), update("deal", deal, title="y"),
        ctx=await office.ctx(unit="north"),
    )  # fmt: skip
    assert plain.committed and (await places(office))["line"] == "sss"


async def test_a_line_that_goes_to_another_document_goes_to_its_unit(office):
    _, (first, _) = await document(office)
    other, _ = await document(office, unit="south")
    await office.apply(update("line", first, deal=str(other)))
    assert await places(office) == {"deal": "ns", "line": "nsss", "part": "nsss"}


def profile(schema, scopes):
    """Everything readable; what may be written is `scopes` by kind."""
    grants = {}
    for key, kind in schema.kinds.items():
        allowed = {"read": Scope(ScopeKind.ALL)}
        if key in scopes:
            allowed = {a: Scope(scopes[key]) for a in ACTIONS}
        grants[key] = KindGrant(allowed, {f.fid: Mode.WRITE for f in kind.fields})
    return Profile(id="some", key="some", grants=grants)


async def test_the_rights_on_the_document_decide(office):
    deal, _ = await document(office)
    schema = (await office.ctx()).schema
    mover = profile(schema, {"deal": ScopeKind.ALL})
    south = office.units["south"]
    moved = await office.apply(update("deal", deal, unit=south), ctx=await office.ctx(mover))
    assert moved.committed and (await places(office))["line"] == "ss"
    back = await undo(office.db, await office.ctx(mover), moved.change_set)
    assert back.committed and await places(office) == {"deal": "n", "line": "nn", "part": "nn"}
    keeper = profile(schema, {"deal": ScopeKind.UNIT, "line": ScopeKind.ALL})
    refused = await office.apply(update("deal", deal, unit=south), ctx=await office.ctx(keeper))
    assert not refused.committed and await places(office) == {
        "deal": "n",
        "line": "nn",
        "part": "nn",
    }


async def test_a_document_that_is_refused_leaves_its_lines(office):
    deal, (first, second) = await document(office)
    schema = (await office.ctx()).schema
    keeper = profile(schema, {"deal": ScopeKind.UNIT, "line": ScopeKind.UNIT})
    south = office.units["south"]
    result = await office.apply(
        update("line", first, text="kept"), create("line", deal=str(deal), text="kept"),
        update("deal", deal, unit=south), ctx=await office.ctx(keeper), atomic=False,
    )  # fmt: skip
    kinds = [type(o).__name__ for o in result.outcomes]
    assert kinds == ["Applied", "Applied", "Rejected"], result
    assert await places(office) == {"deal": "n", "line": "nnn", "part": "nn"}
    version = (await office.apply(update("deal", deal, title="A"))).outcomes[0].version
    await office.apply(update("deal", deal, version, title="B"))
    stale = await office.apply(
        update("deal", deal, version, title="C", unit=south), update("line", second, text="D"),
        atomic=False,
    )  # fmt: skip
    assert isinstance(stale.outcomes[0], Conflict)
    assert await places(office) == {"deal": "n", "line": "nnn", "part": "nn"}


async def test_a_line_made_while_its_document_moves_is_where_the_document_is(office):
    deal, _ = await document(office, lines=0)
    for unit in ("south", "north") * 4:
        move = office.apply(update("deal", deal, unit=office.units[unit]))
        made = [office.apply(create("line", deal=str(deal), text=str(n))) for n in range(4)]
        for result in await asyncio.gather(*made[:2], move, *made[2:]):
            assert result.committed, result
        found = await places(office)
        assert found["deal"] == unit[0] and set(found["line"]) == {unit[0]}, found
