"""A tenant from a template: everything it holds comes through the write path."""

from appliance.install.create import CreatedTenant, NewTenant, create_tenant
from appliance.install.template import names as template_names

__all__ = ["CreatedTenant", "NewTenant", "create_tenant", "template_names"]
