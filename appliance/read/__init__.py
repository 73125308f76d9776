"""The one read path: `run`, `stream`, `export`, `fetch`."""

from appliance.read.cursor import Cursors
from appliance.read.duplicates import Duplicate, find_duplicates
from appliance.read.names import visible_fields
from appliance.read.plan import Plan, plan_query
from appliance.read.run import Guard, Mark, One, Page, fetch, fetch_one, run, stream
from appliance.read.shape import MEDIA, export

__all__ = [
    "MEDIA",
    "Cursors",
    "Duplicate",
    "Guard",
    "Mark",
    "One",
    "Page",
    "Plan",
    "export",
    "fetch",
    "fetch_one",
    "find_duplicates",
    "plan_query",
    "run",
    "stream",
    "visible_fields",
]
