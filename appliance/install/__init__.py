"""Modules and templates: a tenant from data, through the write path, merged and taken back."""

from appliance.install.create import CreatedTenant, NewTenant, create_tenant, install_context
from appliance.install.installing import (
    Installation,
    Options,
    install,
    remove_samples,
    roll_back,
)
from appliance.install.offering import Offer, Preview, make_offer, preview
from appliance.install.plan import Choice, Conflict
from appliance.install.publish import publish, write_toml
from appliance.install.snapshot import take_snapshot
from appliance.install.switching import (
    Impact,
    ModuleView,
    disable,
    enable,
    find_impact,
    list_modules,
)
from appliance.install.template import Template, parse, read
from appliance.install.template import names as template_names

__all__ = [
    "Choice",
    "Conflict",
    "CreatedTenant",
    "Impact",
    "Installation",
    "ModuleView",
    "NewTenant",
    "Offer",
    "Options",
    "Preview",
    "Template",
    "create_tenant",
    "disable",
    "enable",
    "find_impact",
    "install",
    "install_context",
    "list_modules",
    "make_offer",
    "parse",
    "preview",
    "publish",
    "read",
    "remove_samples",
    "roll_back",
    "take_snapshot",
    "template_names",
    "write_toml",
]
