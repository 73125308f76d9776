"""The only import a module may use: what a first-party module is written against."""

from __future__ import annotations

from appliance.base.errors import ApplianceError, FieldFault, Invalid, Refused
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json
from appliance.read import Page, fetch, run
from appliance.write import Command, Op, Result, apply

__all__ = [
    "ApplianceError",
    "Command",
    "Ctx",
    "FieldFault",
    "Invalid",
    "Json",
    "Op",
    "Page",
    "Refused",
    "Result",
    "apply",
    "fetch",
    "run",
]
