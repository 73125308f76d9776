"""From records to rights: allow-lists only, and adding a grant never takes anything away."""

from datetime import UTC, datetime
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.access.compile import Reach, compile_profile, expand_star
from appliance.access.rights import is_within
from appliance.access.rules import is_understood
from appliance.fields.matching import matches
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Field, Kind, Schema
from appliance.kernel.predicate import RecordView, parse_row_rule
from appliance.kernel.profile import ACTIONS, Mode, Profile, ScopeKind

ME, OTHER = UUID(int=1), UUID(int=2)
UNITS = [UUID(int=n) for n in (10, 11, 12)]
REACH = Reach(ME, frozenset(UNITS[:1]), frozenset(UNITS[:2]))
CARD = Kind(key="card", fields=(
    Field(fid="stage", name="stage", type="text", slot="t1", filterable=True),
    Field(fid="note", name="note", type="long_text"),
))  # fmt: skip
SCHEMA = Schema(rev=1, kinds={"card": CARD})
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
CTX = Ctx(tenant=UUID(int=5), origin=1, actor=ME, profile=Profile(id="", key=""), schema=SCHEMA,
          units=REACH.units, subtree=REACH.subtree, request_id=UUID(int=6), at=NOON)  # fmt: skip

rules = st.recursive(
    st.one_of(
        st.builds(lambda op, v: {"field": "stage", "op": op, "value": v},
                  st.sampled_from(["eq", "ne"]), st.sampled_from(["new", "won"])),
        # A field that is gone, an operator that means nothing, no rule at all.
        st.sampled_from([{"field": "gone", "op": "eq", "value": "x"}, {"field": "note", "op": "eq", "value": "x"},
                         {"field": "stage", "op": "eq", "value": 5}, {"nonsense": 1}, None]),
    ),
    lambda inner: st.one_of(
        st.builds(lambda items: {"or": items}, st.lists(inner, max_size=3)),
        st.builds(lambda items: {"and": items}, st.lists(inner, max_size=3)),
        st.builds(lambda item: {"not": item}, inner),
    ),
    max_leaves=4,
)  # fmt: skip
scopes = st.one_of(
    st.sampled_from(["none", "own", "unit", "subtree", "all", "where", "anything", 7]),
    st.builds(lambda rule: {"where": rule}, rules),
)
modes = st.sampled_from(["hidden", "masked", "read", "write", "*", "all", 3, None])
grants = st.builds(
    lambda kind, actions, fields: {"kind": kind, "actions": actions, "fields": fields},
    st.sampled_from(["card", "other", 5]),
    st.dictionaries(st.sampled_from(["read", "update", "fly"]), scopes, max_size=2),
    st.one_of(
        st.none(), st.dictionaries(st.sampled_from(["stage", "note", "*"]), modes, max_size=3)
    ),
)
rows = st.builds(
    lambda owner, unit, stage: RecordView(
        kind="card", id=UUID(int=9), data={"stage": stage} if stage else {}, unit=unit, owner=owner,
        number=None, created_at=NOON, created_by=ME, updated_at=NOON, updated_by=ME,
    ),
    st.sampled_from([ME, OTHER, None]), st.sampled_from([*UNITS, None]), st.sampled_from(["new", "won", None]),
)  # fmt: skip


def compiled(found, **more):
    return compile_profile("p", {"key": "p"}, found, 1, reach=REACH, kinds=SCHEMA.kinds, **more)


def reaches(profile, action, row):
    scope = profile.scope("card", action)
    match scope.kind:
        case ScopeKind.ALL:
            return True
        case ScopeKind.SUBTREE:
            return row.unit in CTX.subtree
        case ScopeKind.UNIT:
            return row.unit in CTX.units
        case ScopeKind.OWN:
            return row.owner == ME
        case ScopeKind.WHERE:
            cond = parse_row_rule(scope.where)
            return cond is not None and matches(cond, row, CTX, CARD)
    return False


@settings(max_examples=500)
@given(st.lists(grants, max_size=3), grants, rows)
def test_adding_a_grant_never_removes_a_row_or_a_field(before, added, row):
    less, more = compiled(before), compiled([*before, added])
    for action in ACTIONS:
        assert reaches(more, action, row) >= reaches(less, action, row)
    for field in CARD.fields:
        assert more.mode("card", field) >= less.mode("card", field)


@settings(max_examples=500)
@given(st.lists(grants, max_size=3), rows)
def test_a_union_reaches_what_its_parts_reach_and_no_more(found, row):
    whole, parts = compiled(found), [compiled([g]) for g in found]
    for action in ACTIONS:
        assert reaches(whole, action, row) == any(reaches(p, action, row) for p in parts)


@given(grants, rows)
def test_a_rule_that_is_left_out_would_have_granted_nothing(grant, row):
    scope = grant["actions"].get("read")
    if isinstance(scope, dict) and not is_understood(scope["where"], CARD):
        cond = parse_row_rule(scope["where"])
        assert cond is None or not matches(cond, row, CTX, CARD)


def test_what_is_unknown_is_closed():
    profile = compiled([{"kind": "card", "actions": {"read": "everything", "fly": "all"}, "fields": {"stage": "w"}},
                        {"kind": "card", "actions": "all", "fields": "write"}, {"actions": {"read": "all"}}])  # fmt: skip
    assert not profile.sees(CARD)
    assert all(profile.mode("card", f) is Mode.HIDDEN for f in CARD.fields)
    assert not compile_profile("p", {"capabilities": "all"}, [], 1).capabilities


def test_a_star_grants_nothing_by_itself_and_is_spelled_out_when_saved():
    star = {
        "profile": "x",
        "kind": "*",
        "actions": {"*": "all", "delete": "none"},
        "fields": {"*": "read", "note": "hidden"},
    }
    assert not compiled([star]).sees(CARD)
    later = Kind(key="later", fields=CARD.fields)
    (saved,) = expand_star(star, [CARD])
    assert saved["profile"] == "x" and saved["kind"] == "card"
    profile = compiled([saved])
    assert profile.scope("card", "read").kind is ScopeKind.ALL
    assert profile.scope("card", "delete").kind is ScopeKind.NONE
    assert [profile.mode("card", f) for f in CARD.fields] == [Mode.READ, Mode.HIDDEN]
    assert not profile.sees(later)
    new_field = Field(fid="new", name="new", type="text")
    assert profile.mode("card", new_field) is Mode.HIDDEN
    assert expand_star({"kind": "gone", "actions": {"*": "all"}}, [CARD]) == []


@settings(max_examples=300)
@given(st.lists(grants, max_size=2), st.lists(grants, max_size=2), rows)
def test_what_is_within_ones_rights_reaches_no_further(mine, theirs, row):
    one, two = compiled(mine), compiled(theirs)
    if is_within(two, one):
        for action in ACTIONS:
            assert reaches(one, action, row) >= reaches(two, action, row)
        for field in CARD.fields:
            assert one.mode("card", field) >= two.mode("card", field)


# Few shapes, so that profiles of which one is within another are found often.
plain = st.builds(
    lambda caps, read, mode: compile_profile(
        "p", {"capabilities": caps},
        [{"kind": "card", "actions": {"read": read}, "fields": {"stage": mode}}], 1,
    ),
    st.lists(st.sampled_from(["query.run", "audit.read"]), max_size=2),
    st.sampled_from(
        ["none", "own", "unit", "subtree", "all", {"where": {"field": "stage", "op": "eq", "value": "new"}}]
    ),
    st.sampled_from(["hidden", "masked", "read", "write"]),
)  # fmt: skip


def rights_of(profile):
    scope = profile.scope("card", "read")
    return profile.capabilities, scope, profile.mode("card", CARD.fields[0])


@settings(max_examples=500)
@given(plain, plain, plain)
def test_being_within_is_a_partial_order(one, two, three):
    assert is_within(one, one)
    if is_within(one, two) and is_within(two, three):
        assert is_within(one, three)
    if is_within(one, two) and is_within(two, one):
        assert rights_of(one) == rights_of(two)
