"""The inbox: what is open is read by the rights on its record, and decided by an edit."""

import msgspec
import pytest

from appliance.base.errors import Clash, Forbidden, Invalid, Refused
from appliance.kernel.profile import KindGrant, Mode, Profile, Scope, ScopeKind
from appliance.meta import load_schema
from appliance.sync.conflicts import Filter, count, find, read_page
from appliance.sync.nodes import run_control
from appliance.sync.resolving import Choice, Keep, Rule, resolve, resolve_many
from appliance.sync.showing import show_many, show_one
from appliance.write import Conflict, Rejected, undo
from tests.sync.open import noted, opened_field, side, stranger
from tests.sync.sites import hub_row
from tests.tenants import create, delete, only, update

pytestmark = pytest.mark.anyio
DEAL = [
    {"name": "title", "type": "text"},
    {"name": "amount", "type": "number", "options": {"scale": 2}},
    {"name": "secret", "type": "text"},
    {"name": "city", "type": "text", "group": "address"},
    {"name": "street", "type": "text", "group": "address"},
]


@pytest.fixture
async def firm(tenant):
    await tenant.add_kind("deal", DEAL, display="title")
    return tenant


async def deal(tenant, **options):
    ctx = await tenant.ctx(unit=options.pop("unit", "north"))
    values = {"title": "T", "amount": "10.00", "secret": "s", "city": "Lviv", **options}
    (outcome,) = (await tenant.apply(create("deal", **values), ctx=ctx)).outcomes
    return outcome.id


async def listed(tenant, ctx=None, **asked):
    ctx = ctx or await tenant.ctx()
    helds, _ = await read_page(tenant.db, ctx, Filter(**asked))
    return await show_many(tenant.db, ctx, helds)


async def data(tenant, ident):
    rows = await tenant.sql(
        "SELECT data, stamps FROM record WHERE tenant_id = $1 AND id = $2", tenant.id, ident
    )
    return msgspec.json.decode(rows[0][0]), rows[0][1]


async def restricted(tenant, modes, scope="all", actions=("read", "update")):
    schema = await load_schema(tenant.db, tenant.id)
    return only(schema, "deal", dict.fromkeys(actions, scope), modes)


class TestReading:
    async def test_both_values_stand_side_by_side(self, firm, as_owner):
        ident, other = await deal(firm), stranger()
        dots = await opened_field(
            firm, as_owner, "deal", ident, "amount", ({"amount": "12.00"}, other)
        )
        (shown,) = await listed(firm)
        assert (shown.record, shown.sort, shown.fields, shown.text) == (
            ident, "field", ["amount"], "T",
        )  # fmt: skip
        assert [(s.dot, s.values, s.is_shown) for s in shown.sides] == [
            (dots[0], {"amount": "10.00"}, True), (dots[1], {"amount": "12.00"}, False),
        ]  # fmt: skip
        mine, theirs = shown.sides
        assert mine.is_mine and mine.who_text == "Owner" and theirs.who == other
        assert "amount=" in shown.version and shown.actions == ["choose", "values"]

    async def test_one_says_mine_theirs_and_base(self, firm, as_owner):
        ident = await deal(firm)
        await firm.apply(update("deal", ident, amount="11.00"))
        await opened_field(
            firm, as_owner, "deal", ident, "amount", ({"amount": "12.00"}, stranger())
        )
        held = await find(firm.db, await firm.ctx(), ident, "field", "amount")
        shown = await show_one(firm.db, await firm.ctx(), held)
        (field,) = shown.conflicts
        assert (field.field, field.mine, field.theirs) == ("amount", "11.00", "12.00")

    async def test_a_person_of_one_branch_sees_none_of_the_other(self, firm, as_owner):
        north, south = await deal(firm), await deal(firm, unit="south")
        for ident in (north, south):
            await opened_field(firm, as_owner, "deal", ident, "title", ({"title": "U"}, stranger()))
        profile = await restricted(firm, {"title": "write"}, "unit")
        for unit, own, other in (("north", north, south), ("south", south, north)):
            ctx = await firm.ctx(profile, unit=unit)
            assert [s.record for s in await listed(firm, ctx)] == [own]
            assert await count(firm.db, ctx, Filter()) == {"field": 1}
            with pytest.raises(Refused):
                await find(firm.db, ctx, other, "field", "title")

    async def test_a_hidden_field_has_no_conflict_and_a_masked_one_stays_masked(
        self, firm, as_owner
    ):
        ident = await deal(firm, secret="+380501234567")
        await opened_field(
            firm, as_owner, "deal", ident, "secret", ({"secret": "0999"}, stranger())
        )
        hidden = await firm.ctx(await restricted(firm, {"title": "read"}))
        assert await listed(firm, hidden) == []
        masked = await firm.ctx(await restricted(firm, {"title": "read", "secret": "masked"}))
        (shown,) = await listed(firm, masked)
        assert "0501234567" not in repr(shown) and "0999" not in repr(shown)
        one = await show_one(firm.db, masked, await find(firm.db, masked, ident, "field", "secret"))
        assert "0501234567" not in repr(one) and "0999" not in repr(one)

    async def test_part_of_a_group_is_shown_as_far_as_it_may_be(self, firm, as_owner):
        ident = await deal(firm)
        theirs = ({"city": "Kyiv", "street": "K 1"}, stranger())
        await opened_field(firm, as_owner, "deal", ident, "address", theirs)
        ctx = await firm.ctx(await restricted(firm, {"city": "read"}))
        (shown,) = await listed(firm, ctx)
        assert shown.fields == ["city"] and "K 1" not in repr(shown)
        assert shown.text and "T" not in shown.text.split("-")

    async def test_a_kind_that_nobody_granted_has_no_inbox(self, firm, as_owner):
        ident = await deal(firm)
        await opened_field(firm, as_owner, "deal", ident, "title", ({"title": "U"}, stranger()))
        ctx = await firm.ctx(Profile(id="", key=""))
        assert await listed(firm, ctx) == []

    async def test_pages_go_on_without_gaps_or_repeats(self, firm, as_owner):
        for n in range(7):
            ident = await deal(firm, title=f"T{n}")
            await opened_field(firm, as_owner, "deal", ident, "title", ({"title": "U"}, stranger()))
        ctx, after, seen = await firm.ctx(), None, []
        while True:
            page, after = await read_page(firm.db, ctx, Filter(), limit=3, after=after)
            seen += page
            if after is None:
                break
        assert len({h.record for h in seen}) == len(seen) == 7
        assert [h.since for h in seen] == sorted((h.since for h in seen), reverse=True)

    async def test_clashes_that_are_over_are_left_out_and_pages_stay_full(self, firm, as_owner):
        kept = await deal(firm)
        await opened_field(firm, as_owner, "deal", kept, "title", ({"title": "U"}, stranger()))
        for _ in range(5):
            ident = await deal(firm)
            sides = [{"record": str(ident)}, {"record": str(kept)}]
            await noted(firm, ident, "unique", "title", "deal", sides)
        page, after = await read_page(firm.db, await firm.ctx(), Filter(), limit=2)
        assert [h.record for h in page] == [kept] and after is None

    async def test_filters(self, firm, as_owner):
        me = firm.people["owner"]
        a, b = await deal(firm), await deal(firm, unit="south")
        await opened_field(firm, as_owner, "deal", a, "title", ({"title": "U"}, stranger()))
        await as_owner(firm.id, "UPDATE record SET owner_id = %s WHERE id = %s", stranger(), b)
        await opened_field(
            firm, as_owner, "deal", b, "title", ({"title": "U"}, stranger()), mine=stranger()
        )
        assert me
        for asked, expected in (
            ({"unit": firm.units["south"]}, [b]), ({"record": a}, [a]), ({"mine": True}, [a]),
            ({"sort": "unique"}, []), ({"kind": "deal"}, [b, a]), ({"kind": "none"}, []),
        ):  # fmt: skip
            assert [s.record for s in await listed(firm, **asked)] == expected, asked


class TestDeciding:
    async def held(self, firm, as_owner, register="amount", theirs=None, **options):
        ident = await deal(firm, **options)
        values = theirs or {"amount": "12.00"}
        dots = await opened_field(firm, as_owner, "deal", ident, register, (values, stranger()))
        ctx = await firm.ctx()
        return ident, dots, ctx, await find(firm.db, ctx, ident, "field", register)

    @pytest.mark.parametrize("choice", [0, 1])
    async def test_either_side_can_be_chosen_also_the_one_that_is_shown(
        self, firm, as_owner, choice
    ):
        ident, dots, ctx, held = await self.held(firm, as_owner)
        result = await resolve(firm.db, ctx, held, Choice(choose=dots[choice]))
        assert result.committed, result
        values, stamps = await data(firm, ident)
        assert values["amount"] == ("10.00", "12.00")[choice]
        assert "+" not in stamps, "one dot covers all that was live"

    async def test_a_group_is_decided_whole(self, firm, as_owner):
        theirs = {"city": "Kyiv", "street": "K 1"}
        ident, _, ctx, held = await self.held(firm, as_owner, "address", theirs, street="L 1")
        result = await resolve(firm.db, ctx, held, Choice(values={"city": "Odesa"}))
        assert result.committed, result
        values, stamps = await data(firm, ident)
        assert (values["city"], values["street"]) == ("Odesa", "L 1") and "+" not in stamps

    async def test_a_value_of_ones_own_and_undo(self, firm, as_owner):
        ident, _, ctx, held = await self.held(firm, as_owner)
        result = await resolve(firm.db, ctx, held, Choice(values={"amount": "11.00"}))
        assert (await data(firm, ident))[0]["amount"] == "11.00"
        back = await undo(firm.db, await firm.ctx(), result.change_set)
        assert back.committed and (await data(firm, ident))[0]["amount"] == "10.00"

    async def test_the_second_one_to_decide_is_refused(self, firm, as_owner):
        ident, dots, ctx, held = await self.held(firm, as_owner)
        assert (await resolve(firm.db, ctx, held, Choice(choose=dots[1]))).committed
        late = await resolve(firm.db, await firm.ctx(), held, Choice(values={"amount": "9.00"}))
        assert not late.committed and isinstance(late.outcomes[0], Conflict)
        assert (await data(firm, ident))[0]["amount"] == "12.00"

    async def test_a_version_that_saw_another_conflict_is_refused(self, firm, as_owner):
        _, dots, ctx, held = await self.held(firm, as_owner)
        with pytest.raises(Clash):
            await resolve(firm.db, ctx, held, Choice(choose=dots[1]), expect="1.1;amount=1.1")
        shown = (await listed(firm))[0]
        result = await resolve(firm.db, ctx, held, Choice(choose=dots[1]), expect=shown.version)
        assert result.committed

    async def test_who_may_not_write_may_not_decide(self, firm, as_owner):
        ident, dots, _, _ = await self.held(firm, as_owner)
        ctx = await firm.ctx(await restricted(firm, {"amount": "read"}))
        held = await find(firm.db, ctx, ident, "field", "amount")
        for dot in dots:
            with pytest.raises(Forbidden):
                await resolve(firm.db, ctx, held, Choice(choose=dot))
        result = await resolve(firm.db, ctx, held, Choice(values={"amount": "1.00"}))
        assert not result.committed and isinstance(result.outcomes[0], Rejected)

    async def test_a_hidden_part_of_a_group_is_never_named(self, firm, as_owner):
        theirs = {"city": "Kyiv", "street": "K 1"}
        ident, dots, _, _ = await self.held(firm, as_owner, "address", theirs, street="L 1")
        ctx = await firm.ctx(await restricted(firm, {"city": "write"}))
        held = await find(firm.db, ctx, ident, "field", "address")
        with pytest.raises(Forbidden) as refused:
            await resolve(firm.db, ctx, held, Choice(choose=dots[1]))
        assert "street" not in repr(refused.value)
        for name in ("street", "nothing"):
            with pytest.raises(Invalid) as refused:
                await resolve(firm.db, ctx, held, Choice(values={name: "x"}))
            assert refused.value.faults[0].pointer == f"/values/{name}"
        result = await resolve(firm.db, ctx, held, Choice(values={"city": "Odesa"}))
        assert result.committed
        assert (await data(firm, ident))[0]["street"] == "L 1"

    async def test_choices_that_say_nothing(self, firm, as_owner):
        _, dots, ctx, held = await self.held(firm, as_owner)
        for choice in (
            Choice(), Choice(choose=dots[0], values={"amount": "1"}), Choice(keep=Keep.DELETED),
            Choice(values={}), Choice(values={"title": "x"}),
        ):  # fmt: skip
            with pytest.raises(Invalid):
                await resolve(firm.db, ctx, held, choice)
        with pytest.raises(Clash):
            await resolve(firm.db, ctx, held, Choice(choose="9.9"))

    @pytest.mark.parametrize("keep", list(Keep))
    async def test_deleted_here_and_changed_there(self, firm, keep):
        ident = await deal(firm)
        await firm.apply(delete("deal", ident))
        sides = [side("1.2", firm.people["owner"], **{"!": False}), side("2.9", stranger())]
        await noted(firm, ident, "edit_vs_delete", "!", "deal", sides)
        ctx = await firm.ctx()
        held = await find(firm.db, ctx, ident, "edit_vs_delete", "!")
        shown = await show_one(firm.db, ctx, held)
        assert shown.is_deleted and shown.sides[0].values == {"deleted": True}
        assert shown.sides[0].is_shown and not shown.sides[1].is_shown
        result = await resolve(firm.db, ctx, held, Choice(keep=keep))
        assert result.committed, result
        gone = await firm.sql("SELECT deleted_at FROM record WHERE id = $1", ident)
        assert (gone[0][0] is not None) == (keep is Keep.DELETED)
        late = await resolve(firm.db, ctx, held, Choice(keep=Keep.RECORD))
        assert not late.committed, "somebody has decided"


class TestMany:
    async def test_all_of_a_filter_by_a_rule_one_by_one(self, firm, as_owner):
        idents = [await deal(firm, title=f"T{n}") for n in range(3)]
        for ident in idents:
            theirs = ({"title": "U"}, stranger())
            await opened_field(firm, as_owner, "deal", ident, "title", theirs)
        sides = [{"record": str(idents[0])}]
        await noted(firm, idents[0], "unique", "title", "deal", sides)
        batch = await resolve_many(firm.db, await firm.ctx(), Filter(), Rule.NEWEST)
        assert [d.status for d in batch.decided] == ["resolved"] * 3 and batch.next is None
        assert {(await data(firm, i))[0]["title"] for i in idents} == {"U"}

    @pytest.mark.parametrize(
        ("rule", "title"), [("hub", "T"), ("mine", "T"), ("shown", "T"), ("newest", "U")]
    )
    async def test_rules(self, firm, as_owner, rule, title):
        ident = await deal(firm)
        await opened_field(firm, as_owner, "deal", ident, "title", ({"title": "U"}, stranger()))
        await resolve_many(firm.db, await firm.ctx(), Filter(), Rule(rule))
        values, stamps = await data(firm, ident)
        assert values["title"] == title and "+" not in stamps

    async def test_what_the_rule_says_nothing_of_stays_open(self, firm, as_owner):
        ident = await deal(firm)
        theirs = ({"title": "U"}, stranger())
        await opened_field(firm, as_owner, "deal", ident, "title", theirs, mine=stranger())
        batch = await resolve_many(firm.db, await firm.ctx(), Filter(), Rule.MINE)
        assert [d.status for d in batch.decided] == ["skipped"] and not batch.change_sets
        assert "+" in (await data(firm, ident))[1]

    async def test_all_or_nothing(self, firm, as_owner):
        a, b = await deal(firm), await deal(firm, unit="south")
        for ident in (a, b):
            await opened_field(firm, as_owner, "deal", ident, "title", ({"title": "U"}, stranger()))
        grant = KindGrant(
            {"read": Scope(ScopeKind.ALL), "update": Scope(ScopeKind.UNIT)}, {"title": Mode.WRITE}
        )
        ctx = await firm.ctx(Profile(id="p", key="p", grants={"deal": grant}))
        batch = await resolve_many(firm.db, ctx, Filter(), Rule.NEWEST, atomic=True)
        assert {d.status for d in batch.decided} == {"rejected", "skipped"}
        assert (await data(firm, a))[0]["title"] == "T"
        batch = await resolve_many(firm.db, ctx, Filter(), Rule.NEWEST)
        assert {d.record: d.status for d in batch.decided} == {a: "resolved", b: "rejected"}

    async def test_the_hub_is_the_hub_also_after_it_was_put_back(self, firm, as_owner, dsns):
        ident = await deal(firm)
        await opened_field(firm, as_owner, "deal", ident, "title", ({"title": "U"}, stranger()))
        async with hub_row(firm.db, dsns):
            await run_control(
                firm.db, "UPDATE node SET origin = 4000000000 WHERE origin = 2 AND NOT is_self"
            )
            put = "UPDATE node SET origin = origin + %s, former_origins = %s WHERE is_self"
            await run_control(firm.db, put, 1, [1001])
            await resolve_many(firm.db, await firm.ctx(), Filter(), Rule.HUB)
            await run_control(firm.db, put, -1, [])
        assert (await data(firm, ident))[0]["title"] == "U", "what it wrote under its new origin"
