"""Each of these faults, put into the read path by hand, is found by the differential property."""

from datetime import timedelta
from importlib import import_module
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from appliance.base.errors import ApplianceError
from appliance.fields.texts import clean
from appliance.kernel.profile import Mode
from appliance.kernel.query import Query
from appliance.read import conditions, groups, guard, names, order, plan, rows, sql, words
from tests.read import cases
from tests.read.test_differential import draw_case, same_groups, same_list

run = import_module("appliance.read.run")  # the package has a function of this name
ROW_SCOPE, GUARDED, COLUMN = guard.row_scope, guard.guarded, names.Names.column
COMPILE, COMPARE, KEYS_OF = (
    conditions.Conditions.compile,
    conditions.Conditions._compare,
    order.keys_of,
)
CONDITIONS_OF, PERIOD, FIND = plan.conditions_of, conditions.period_bounds, names.Names.find
GROUP = groups._group


def _scope_where(wanted):
    """row_scope that forgets the scope of some aliases."""
    return lambda ctx, s, kind, alias, action: (
        "" if wanted(alias) else ROW_SCOPE(ctx, s, kind, alias, action)
    )


def _without(piece):
    """A guard without one of its conditions; the check of finished statements is off as well."""

    def mutant(ctx, s, kind, **options):
        table = GUARDED(ctx, s, kind, **options)
        parts = [p for p in table.guard.split(" AND ") if piece not in p]
        changed = msgspec.structs.replace(table, guard=" AND ".join(parts) or "true")
        s.guards[-1] = (table.alias, changed.guard)
        return changed

    return mutant


def _column_of_anyone(self, path, at, *, use):
    return COLUMN(self, path, at, use="select")


def _masked_usable(self, kind, name, at):
    field, mode = FIND(self, kind, name, at)
    return field, max(mode, Mode.READ)


def _three_valued(self, cond, *, negated=False):
    text = COMPILE(self, cond, negated=negated)
    return (
        f"NOT {text.removesuffix(' IS NOT TRUE')}"
        if text.endswith(" IS NOT TRUE") and negated
        else text
    )


def _plain_ne(self, test, column):
    return COMPARE(self, test, column).replace("IS DISTINCT FROM", "<>")


def _own_logic(which):
    def mutant(self, test, column):
        return COMPARE(self, msgspec.structs.replace(test, op=which.get(test.op, test.op)), column)

    return mutant


def _grouped_without_scope(n, query):
    found = CONDITIONS_OF(n, query)
    if query.group or any(i.function for i in query.select):
        found[0] = " AND ".join(found[0].split(" AND ")[:3])
    return found


def _nulls_anyhow(keys):
    return ", ".join(f"{k.column} DESC" if k.descending else k.column for k in keys)


def _late_end(*given):
    low, high = PERIOD(*given) or (None, None)
    return low and (low, high + timedelta(days=1))


def _utc_buckets(n, group):
    return GROUP(SimpleNamespace(ctx=SimpleNamespace(tz="UTC"), sql=n.sql, column=n.column), group)


MUTANTS = {
    "main scope dropped": [(guard, "row_scope", _scope_where(lambda a: a == "a"))],
    "join scope dropped": [(guard, "row_scope", _scope_where(lambda a: a != "a"))],
    "join without guard": [(names, "guarded", _without("r"))],
    "relation without scope": [(conditions, "guarded", _without("owner_id"))],
    "roll-up without scope": [(rows, "guarded", _without("unit_id"))],
    "kind dropped": [(plan, "guarded", _without("kind ="))],
    "deleted rows shown": [(plan, "guarded", _without("deleted_at"))],
    "no check in filter, sort and group": [(names.Names, "column", _column_of_anyone)],
    "masked in filter": [(names.Names, "find", _masked_usable)],
    "mask missing": [(run, "_masked", lambda row, masks: row)],
    "three-valued not": [(conditions.Conditions, "compile", _three_valued)],
    "ne of null is false": [(conditions.Conditions, "_compare", _plain_ne)],
    "no LIKE escape": [(conditions, "_escape", str)],
    "no folding": [(conditions, "operand_of", lambda f, v: clean(v) if f.type == "text" else conditions_operand(f, v))],
    "prefix without end": [(conditions, "_LAST", "")],
    "gt is gte": [(conditions.Conditions, "_compare", _own_logic({"gt": "gte"}))],
    "no tie-break": [(plan, "keys_of", lambda n, s, c: KEYS_OF(n, s, c)[: max(1, len(s))])],
    "nulls anywhere": [(order, "order_by", _nulls_anyhow), (plan, "order_by", _nulls_anyhow)],
    "hidden text found": [(words, "Mode", SimpleNamespace(READ=Mode.HIDDEN))],
    "aggregate ignores scope": [(plan, "conditions_of", _grouped_without_scope)],
    "period is closed": [(conditions, "period_bounds", _late_end)],
    "buckets in UTC": [(groups, "_group", _utc_buckets)],
}  # fmt: skip
conditions_operand = conditions.operand_of


@pytest.fixture
def unchecked(monkeypatch):
    """The check of finished statements is off: the property alone must find the fault."""
    monkeypatch.setattr(plan, "statement", lambda text, guards: sql.Statement(text))
    plan._cache.clear()
    yield
    plan._cache.clear()


def cases_until_killed(readers, most):
    """Runs the property; how many cases it took to fail, or None when it did not."""
    taken = 0

    @settings(max_examples=most, phases=[Phase.generate], report_multiple_bugs=False, database=None)
    @given(st.data())
    def search(data):
        nonlocal taken
        taken += 1
        grouped = data.draw(st.integers(0, 3)) == 0
        reader, query = draw_case(data, readers, cases.groupings if grouped else cases.lists)
        readers.go((same_groups if grouped else same_list)(reader, query))

    try:
        search()
    except (AssertionError, ApplianceError, pytest.fail.Exception):
        return taken
    return None


def test_the_true_program_lives(readers, unchecked):
    assert cases_until_killed(readers, 200) is None


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_killed(readers, monkeypatch, unchecked, name):
    for target, attribute, mutant in MUTANTS[name]:
        monkeypatch.setattr(target, attribute, mutant)
    taken = cases_until_killed(readers, 4_000)
    print(f"{name}: killed after {taken} cases")
    assert taken is not None


def test_a_statement_without_its_guard_cannot_be_finished(readers):
    whole = plan.plan_query(readers.everything().ctx, Query(source="deal"))
    for piece in whole.guards[0][1].split(" AND "):
        torn = {f: getattr(whole, f) for f in whole.__struct_fields__}
        torn["text"] = whole.text.replace(piece, "true")
        with pytest.raises(ApplianceError, match="guard"):
            plan.Plan(**torn)
    for more in ("SELECT 1 FROM record zz", "SELECT 1 FROM record_link l"):
        torn["text"] = f"{whole.text} UNION ALL {more}"
        with pytest.raises(ApplianceError, match="guard"):
            plan.Plan(**torn)
