"""What a query may cost: static bounds before the database is asked, time bounds while it works.

The figure in an answer is an estimate for the client's eye: rows, tests and tables weighed by
what they cost next to one row of a page. It bounds nothing; the bounds are these limits and the
statement timeouts.
"""

from __future__ import annotations

from appliance.base import limits
from appliance.base.errors import Invalid
from appliance.kernel.query import And, Cond, Not, Or, Query, Related
from appliance.read.sql import Sql

_TEST, _RELATED, _TABLE = 10, 50, 50


def count_join(sql: Sql) -> None:
    """Note one more relation that a path follows. Raises Invalid beyond the bound."""
    sql.joins += 1
    if sql.joins > limits.JOINS_MAX:
        raise Invalid(
            f"A query follows at most {limits.JOINS_MAX} relations.", code="query.too_many_joins"
        )


def estimate(query: Query, sql: Sql) -> int:
    """The cost figure of a query that has been compiled."""
    tables = _TABLE * max(0, len(sql.guards) - 1)
    return query.limit + _weigh(query.where) + _weigh(query.having) + tables


def _weigh(cond: Cond | None) -> int:
    match cond:
        case None:
            return 0
        case And(items=items) | Or(items=items):
            return sum(map(_weigh, items))
        case Not(item=item):
            return _weigh(item)
        case Related(where=where):
            return _RELATED + _weigh(where)
        case _:
            return _TEST
