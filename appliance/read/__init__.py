"""The one read path: `run`, `stream`, `fetch`."""

from appliance.read.cursor import Cursors
from appliance.read.plan import Plan, plan_query
from appliance.read.run import Guard, Mark, Page, fetch, fetch_one, run, stream

__all__ = [
    "Cursors",
    "Guard",
    "Mark",
    "Page",
    "Plan",
    "fetch",
    "fetch_one",
    "plan_query",
    "run",
    "stream",
]
