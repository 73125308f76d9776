"""What a query means, said as simply as possible: lists of rows, loops, no SQL.

It shares with the product only the folding of texts and the calendar of relative dates, which
have tests of their own. `Illegal` says that the reader must be refused.
"""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cmp_to_key
from zoneinfo import ZoneInfo

from appliance.kernel.period import period_days
from appliance.kernel.text import fold
from tests.read.world import FIELDS, SYSTEM

ORDERED = {"eq", "ne", "gt", "gte", "lt", "lte", "between", "in", "not_in"}
OPERATORS = {
    "text": ORDERED | {"contains", "starts_with"}, "number": ORDERED, "money": ORDERED, "integer": ORDERED,
    "yes_no": {"eq", "ne"}, "choice": {"eq", "ne", "in", "not_in"},
    "date": ORDERED | {"within"}, "moment": ORDERED | {"within"}, "reference": {"eq", "ne", "in", "not_in"},
    "multi_choice": {"has_any", "has_all"}, "references": {"has_any", "has_all"},
}  # fmt: skip
FUNCTIONS = {
    "number": {"count", "count_distinct", "sum", "avg", "min", "max"}, "text": {"count", "count_distinct"},
    "date": {"count", "count_distinct", "min", "max"}, "yes_no": {"count"},
    "choice": {"count", "count_distinct"}, "reference": {"count", "count_distinct"},
}  # fmt: skip
FUNCTIONS.update(money=FUNCTIONS["number"], integer=FUNCTIONS["number"], moment=FUNCTIONS["date"])
SCALE = {"money": 2, "number": 2, "integer": 0}


class Illegal(Exception):
    """The reader must be refused."""


class Reference:
    """One reader in one world."""

    def __init__(self, world, profile, ctx, tz="Europe/Kyiv"):
        self.rows, self.profile, self.ctx = world.rows, profile, ctx
        self.zone = ZoneInfo(tz)
        self.by_id = {r.id: r for r in world.rows}

    # names
    def sees(self, kind):
        return self.profile.get(kind, {}).get("scope", "none") != "none"

    def mode(self, kind, name):
        given = "read" if name in SYSTEM else self.profile[kind]["fields"].get(name, "hidden")
        return "read" if given == "write" else given

    def field(self, kind, path, use):
        """The type of a path's end, if the reader may use it so."""
        *steps, last = path.split(".")
        for step in steps:
            if step in SYSTEM or step not in FIELDS[kind] or self.mode(kind, step) != "read":
                raise Illegal(path)
            type_, _, _, options = FIELDS[kind][step]
            if type_ != "reference" or not self.sees(options["target"]):
                raise Illegal(path)
            kind = options["target"]
        if last in SYSTEM:
            return SYSTEM[last]
        if last not in FIELDS[kind] or self.mode(kind, last) == "hidden":
            raise Illegal(path)
        type_, filterable, _, _ = FIELDS[kind][last]
        if use != "select" and self.mode(kind, last) == "masked":
            raise Illegal(path)
        if use == "null" and type_ == "rollup":
            raise Illegal(path)
        if use == "use" and not filterable:
            raise Illegal(path)
        return type_

    # rows
    def visible(self, kind, deleted=False):
        if not self.sees(kind):
            raise Illegal(kind)
        if deleted and self.profile[kind].get("restore", "none") == "none":
            raise Illegal("deleted")
        scopes = ["scope", "restore"] if deleted else ["scope"]
        return [
            r
            for r in self.rows
            if r.kind == kind and r.deleted == deleted and all(self.reaches(r, s) for s in scopes)
        ]

    def reaches(self, row, action="scope"):
        scope = self.profile[row.kind].get(action, "none")
        if isinstance(scope, dict):
            return self.holds(scope["where"], row, ruled=True)
        return {
            "all": True, "none": False, "own": row.owner == str(self.ctx.actor),
            "unit": row.unit in map(str, self.ctx.units), "subtree": row.unit in map(str, self.ctx.subtree),
        }[scope]  # fmt: skip

    def follow(self, row, name):
        target = self.by_id.get(row.data.get(name))
        return target if target and not target.deleted and self.reaches(target) else None

    def value(self, row, path):
        *steps, last = path.split(".")
        for step in steps:
            row = self.follow(row, step)
            if row is None:
                return None
        if last in SYSTEM:
            return row.system[last]
        if last == "deals":
            return len(self._children(row)) if self._rollup("deals") else None
        if last == "spent":
            if not self._rollup("spent"):
                return None
            return f"{sum((Decimal(d.data.get('amount', '0')) for d in self._children(row)), Decimal(0)):.2f}"
        return row.data.get(last)

    def _rollup(self, name):
        return (
            self.sees("deal")
            and self.mode("deal", "customer") == "read"
            and (name == "deals" or self.mode("deal", "amount") == "read")
        )

    def _children(self, row):
        return [d for d in self.visible("deal") if d.data.get("customer") == row.id]

    # conditions
    def check(self, kind, cond, depth=0):
        """Refuse what the reader may not ask, before looking at rows."""
        if "and" in cond or "or" in cond:
            for inner in cond.get("and", cond.get("or")):
                self.check(kind, inner)
        elif "not" in cond:
            self.check(kind, cond["not"])
        elif "any" in cond or "none" in cond:
            related, _ = self.relation(kind, cond.get("any") or cond.get("none"))
            if cond.get("where"):
                self.check(related, cond["where"])
        elif cond["op"] == "matches":
            pass
        elif cond["op"] == "is_null":
            self.field(kind, cond["field"], "null")
        else:
            type_ = self.field(kind, cond["field"], "use")
            allowed = OPERATORS[type_] | (
                {"under"} if cond["field"].split(".")[-1] == "unit" else set()
            )
            if cond["op"] not in allowed:
                raise Illegal(cond)

    def relation(self, kind, name):
        """The related kind, and a function from a row to its related rows."""
        if "." in name:
            child, via = name.split(".")
            if not self.sees(child) or via not in FIELDS[child] or self.mode(child, via) != "read":
                raise Illegal(name)
            if FIELDS[child][via][3].get("target") != kind:
                raise Illegal(name)
            return child, lambda row: [
                r for r in self.visible(child) if row.id in _listed(r.data.get(via))
            ]
        if name not in FIELDS[kind] or self.mode(kind, name) != "read":
            raise Illegal(name)
        target = FIELDS[kind][name][3].get("target")
        if target is None or not self.sees(target):
            raise Illegal(name)
        return target, lambda row: [
            r for r in self.visible(target) if r.id in _listed(row.data.get(name))
        ]

    def holds(self, cond, row, ruled=False):
        if "and" in cond:
            return all([self.holds(c, row, ruled) for c in cond["and"]])
        if "or" in cond:
            return any([self.holds(c, row, ruled) for c in cond["or"]])
        if "not" in cond:
            return not self.holds(cond["not"], row, ruled)
        if "any" in cond or "none" in cond:
            _, related = self.relation(row.kind, cond.get("any") or cond.get("none"))
            found = any(
                cond.get("where") is None or self.holds(cond["where"], r) for r in related(row)
            )
            return found if "any" in cond else not found
        if cond["op"] == "matches":
            return self.found(row, cond["value"])
        value = (
            row.system.get(cond["field"], row.data.get(cond["field"]))
            if ruled
            else self.value(row, cond["field"])
        )
        # Rules are of this moment, a question may be of another one.
        at = self.ctx.at if ruled else self.asof
        return self.compare(
            self.type_of(row.kind, cond["field"]), cond["op"], value, cond.get("value"), at
        )

    def type_of(self, kind, path):
        *steps, last = path.split(".")
        for step in steps:
            kind = FIELDS[kind][step][3]["target"]
        return SYSTEM.get(last) or FIELDS[kind][last][0]

    def compare(self, type_, op, value, wanted, at):
        if op == "is_null":
            return (value is None) == wanted
        if op in ("ne", "not_in"):
            return not self.compare(type_, "eq" if op == "ne" else "in", value, wanted, at)
        if value is None:
            return False
        if op == "has_any":
            return bool(set(value) & set(wanted))
        if op == "has_all":
            return set(value) >= set(wanted)
        if op == "within":
            return self.within(type_, value, wanted, at)
        if op == "under":
            return value in self.below(wanted)
        held = key(type_, value)
        others = [key(type_, w) for w in (wanted if isinstance(wanted, list) else [wanted])]
        other = others[0]
        return {
            "eq": lambda: held == other, "gt": lambda: held > other, "gte": lambda: held >= other,
            "lt": lambda: held < other, "lte": lambda: held <= other, "in": lambda: held in others,
            "between": lambda: others[0] <= held <= others[-1],
            "contains": lambda: other in held, "starts_with": lambda: held.startswith(other),
        }[op]()  # fmt: skip

    def within(self, type_, value, wanted, at):
        first, end = period_days(wanted, at, self.zone.key)
        moment = key(type_, value)
        day = moment.date() if type_ == "date" else moment.astimezone(self.zone).date()
        return first <= day < end

    def below(self, unit):
        found = {unit}
        while True:
            more = {
                str(n.id) for n in self.ctx.unit_tree.values() if str(n.parent) in found
            } - found
            if not more:
                return found
            found |= more

    def found(self, row, typed):
        words = [w.lower() for w in re.findall(r"[A-Za-z0-9]+", typed)]
        texts = [
            str(row.data.get(n, "")) for n, (_, _, s, _) in FIELDS[row.kind].items()
            if s and self.mode(row.kind, n) == "read"
        ]  # fmt: skip
        held = [w.lower() for t in texts for w in re.findall(r"[A-Za-z0-9]+", t)]
        return all(any(h.startswith(w) for h in held) for w in words)

    # answers
    def select(self, query):
        """The rows that pass, in order."""
        self.asof = key("moment", query["asof"])
        kind = query["from"]
        rows = self.visible(kind, query.get("deleted", False))
        if query.get("where"):
            self.check(kind, query["where"])
            rows = [r for r in rows if self.holds(query["where"], r)]
        if query.get("search"):
            rows = [r for r in rows if self.found(r, query["search"])]
        return rows

    def listed(self, query):
        """Rows as the answer shows them."""
        kind = query["from"]
        rows = self.select(query)
        sorts = [
            (s.lstrip("-"), s.startswith("-"), False)
            if isinstance(s, str)
            else (s["field"], s["dir"] == "desc", s["nulls"] == "first")
            for s in query.get("sort", [])
        ]
        for path, _, _ in sorts:
            if self.field(kind, path, "use") in ("multi_choice", "references"):
                raise Illegal(path)
        last = sorts[-1][1] if sorts else False
        if not any(p == "id" for p, _, _ in sorts):
            sorts.append(("id", last, False))
        rows = sorted(rows, key=cmp_to_key(lambda a, b: self.order(kind, sorts, a, b)))
        for path in query["select"]:
            self.field(kind, path, "select")
        return [
            {p: self.shown(kind, r, p) for p in dict.fromkeys(["id", *query["select"]])}
            for r in rows
        ]

    def order(self, kind, sorts, a, b):
        for path, descending, nulls_first in sorts:
            x, y = self.value(a, path), self.value(b, path)
            if x is None or y is None:
                if (x is None) != (y is None):
                    return (-1 if x is None else 1) * (1 if nulls_first else -1)
                continue
            type_ = self.type_of(kind, path)
            x, y = key(type_, x), key(type_, y)
            if x != y:
                return (-1 if x < y else 1) * (-1 if descending else 1)
        return 0

    def shown(self, kind, row, path):
        value = self.value(row, path)
        *steps, last = path.split(".")
        for step in steps:
            kind = FIELDS[kind][step][3]["target"]
        return "•••" if value is not None and self.mode(kind, last) == "masked" else value

    def grouped(self, query):
        """Groups as a dict from keys to figures."""
        kind = query["from"]
        rows = self.select(query)
        groups = {}
        for g in query.get("group", []):
            type_ = self.field(kind, g["field"], "use")
            if type_ in ("multi_choice", "references") or (
                g.get("bucket") and type_ not in ("date", "moment")
            ):
                raise Illegal(g)
        for item in query["select"]:
            ((function, path),) = [(f, p) for f, p in item.items() if f != "as"]
            if path != "*" and function not in FUNCTIONS.get(self.field(kind, path, "use"), ()):
                raise Illegal(item)
        for row in rows:
            groups.setdefault(
                tuple(self.bucket(kind, row, g) for g in query.get("group", [])), []
            ).append(row)
        if not query.get("group"):
            groups.setdefault((), [])
        return {k: [self.figure(kind, rs, i) for i in query["select"]] for k, rs in groups.items()}

    def bucket(self, kind, row, group):
        value = self.value(row, group["field"])
        if value is None:
            return None
        type_ = self.type_of(kind, group["field"])
        if group.get("bucket"):
            day = key(type_, value)
            day = day.date() if type_ == "date" else day.astimezone(self.zone).date()
            return str(_floor(day, group["bucket"]))
        return fold(value) if type_ == "text" else value

    def figure(self, kind, rows, item):
        ((function, path),) = [(f, p) for f, p in item.items() if f != "as"]
        if path == "*":
            return len(rows)
        type_ = self.type_of(kind, path)
        held = [key(type_, v) for r in rows if (v := self.value(r, path)) is not None]
        match function:
            case "count":
                return len(held)
            case "count_distinct":
                return len(set(held))
            case _ if not held:
                return None
            case "sum":
                return sum(held, Decimal(0))
            case "avg":
                return sum(held, Decimal(0)) / len(held)
            case "min":
                return min(held)
            case _:
                return max(held)


def key(type_, value):
    """A value as it compares."""
    match type_:
        case "text":
            return fold(value)
        case "number" | "money" | "integer":
            return Decimal(str(value))
        case "date":
            return datetime.strptime(value, "%Y-%m-%d").replace(tzinfo=UTC)
        case "moment":
            return datetime.fromisoformat(value.replace("Z", "+00:00"))
        case _:
            return value


def _listed(value):
    return value if isinstance(value, list) else [value]


def _floor(day, bucket):
    match bucket:
        case "day":
            return day
        case "week":
            return day - timedelta(days=day.weekday())
        case "month":
            return day.replace(day=1)
        case "quarter":
            return day.replace(day=1, month=(day.month - 1) // 3 * 3 + 1)
        case _:
            return day.replace(day=1, month=1)
