"""The one write path: `apply` and what reads the log it writes."""

from appliance.write.command import Command, Op
from appliance.write.convert import Wish, plan_conversion
from appliance.write.history import HistoryEntry, HistoryPage, history
from appliance.write.merge import Merging, Taken, look_at_merge, merge
from appliance.write.outcome import (
    Applied,
    Conflict,
    Effect,
    FieldConflict,
    Outcome,
    Rejected,
    Result,
    Unchanged,
)
from appliance.write.pipeline import Echo, Guard, apply, check
from appliance.write.reassign import owned, reassign
from appliance.write.reproject import Difference, rebuild, reproject_kind
from appliance.write.undo import undo
from appliance.write.verify import LogReport, verify_log

__all__ = [
    "Applied",
    "Command",
    "Conflict",
    "Difference",
    "Echo",
    "Effect",
    "FieldConflict",
    "Guard",
    "HistoryEntry",
    "HistoryPage",
    "LogReport",
    "Merging",
    "Op",
    "Outcome",
    "Rejected",
    "Result",
    "Taken",
    "Unchanged",
    "Wish",
    "apply",
    "check",
    "history",
    "look_at_merge",
    "merge",
    "owned",
    "plan_conversion",
    "reassign",
    "rebuild",
    "reproject_kind",
    "undo",
    "verify_log",
]
