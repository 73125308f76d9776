"""One program with sub-commands; each says what it did, or what was expected and what to do."""

from __future__ import annotations

import sys

from cyclopts import App

from appliance import __version__
from appliance.base.errors import ApplianceError

app = App(
    name="nexus",
    help="A CRM and business platform that runs as an appliance.",
    version=__version__,
    result_action="return_value",
)
app.command("appliance.cli.up:up")
app.command("appliance.cli.up:serve")
app.command("appliance.cli.up:work")
app.command("appliance.cli.init:init")
app.command("appliance.cli.doctor:doctor")
app.command("appliance.cli.query:query")
app.command("appliance.cli.imports:import_", name="import")
file = App(name="file", help="Files: bring, fetch, look, list, review.")
app.command(file)
for _name in ("put", "get", "show"):
    file.command(f"appliance.cli.files:{_name}")
for _name in ("list", "review"):
    file.command(f"appliance.cli.files:{_name}_", name=_name)
tenant = App(
    name="tenant", help="One tenant whole: list, export, import, move, backup, restore, erase."
)
app.command(tenant)
for _name in (
    "list",
    "export",
    "import",
    "move",
    "backup",
    "restore",
    "suspend",
    "resume",
    "drill",
    "close",
    "erase",
):
    tenant.command(f"appliance.cli.tenant:{_name}_", name=_name)
template = App(name="template", help="Templates: look, install, upgrade, take back, publish.")
app.command(template)
template.command("appliance.cli.template:list_", name="list")
for _name in ("preview", "install", "upgrade", "rollback", "publish", "remove_samples"):
    template.command(f"appliance.cli.template:{_name}", name=_name.replace("_", "-"))
module = App(name="module", help="Modules of a tenant: look, switch on, switch off.")
app.command(module)
module.command("appliance.cli.template:list_modules", name="list")
for _name in ("impact", "enable", "disable"):
    module.command(f"appliance.cli.template:{_name}")
sync = App(
    name="sync", help="Replication: how it stands, now, not for a while, by stick; compare, let go."
)
app.command(sync)
for _name in ("status", "now", "pause", "resume"):
    sync.command(f"appliance.cli.sync:{_name}")
sync.command("appliance.cli.carry:carry_out", name="export")
sync.command("appliance.cli.carry:carry_in", name="import")
sync.command("appliance.cli.carry:digest")
sync.command("appliance.cli.carry:compact_log", name="compact")
sync.command("appliance.cli.carry:regain", name="regain")
conflict = App(name="conflict", help="Conflicts that wait for a decision: list, show, resolve.")
app.command(conflict)
for _name in ("list", "show", "resolve"):
    conflict.command(f"appliance.cli.conflicts:{_name}_", name=_name)
parked = App(name="parked", help="Entries of other nodes that were not applied.")
app.command(parked)
for _name in ("list", "show", "release", "skip"):
    parked.command(f"appliance.cli.parked:{_name}_", name=_name)
source = App(name="source", help="Sources of connector workers, and what failed for good.")
app.command(source)
for _name in ("list", "show"):
    source.command(f"appliance.cli.sources:{_name}_", name=_name)
for _name in ("look", "pause", "resume", "forget", "dead", "replay", "dismiss"):
    source.command(f"appliance.cli.sources:{_name}")
bank = App(name="bank", help="Bank lines and invoices: match, list, confirm, take back.")
app.command(bank)
bank.command("appliance.cli.bank:match")
for _name in ("list", "confirm", "unmatch"):
    bank.command(f"appliance.cli.bank:{_name}_", name=_name)
webhook = App(name="webhook", help="Webhooks: who is told of changes by HTTP, and how that goes.")
app.command(webhook)
webhook.command("appliance.cli.webhooks:list_", name="list")
for _name in (
    "show", "make", "change", "pause", "resume", "rotate", "remove", "ping", "deliveries", "replay",
):  # fmt: skip
    webhook.command(f"appliance.cli.webhooks:{_name}")
channel = App(name="channel", help="Sales channels: list, offers, feed, release, report.")
app.command(channel)
channel.command("appliance.cli.channel:list_", name="list")
for _name in ("offers", "feed", "release", "report"):
    channel.command(f"appliance.cli.channel:{_name}")
audit = App(name="audit", help="The audit and the log: prove that nothing was changed.")
app.command(audit)
audit.command("appliance.cli.audit:verify")
audit.command("appliance.cli.audit:rebuild")


staff = App(name="staff", help="Accounts of the platform's own staff.")
app.command(staff)
node = App(name="node", help="The nodes of an installation: invite, join, list, revoke.")
app.command(node)
for _name in ("invite", "join", "revoke", "status", "rotate"):
    node.command(f"appliance.cli.nodes:{_name}")
node.command("appliance.cli.nodes:list_", name="list")
node.command("appliance.cli.nodescope:scope")
for _name in ("add", "suspend"):
    staff.command(f"appliance.cli.staff:{_name}")
person = App(name="person", help="The way back in for somebody of a tenant.")
app.command(person)
person.command("appliance.cli.person:reset")
demo = App(name="demo", help="A hub and two branches on one machine, to look at.")
app.command(demo)
for _name in ("branch", "link", "show"):
    demo.command(f"appliance.cli.demo:{_name}")


def main() -> None:
    """Run a command; a refusal is one sentence on stderr and exit code 1, never a traceback."""
    try:
        sys.exit(app() or 0)
    except ApplianceError as refused:
        print(f"nexus: {refused.detail}", file=sys.stderr)
        for fault in refused.faults:
            print(f"  {fault.pointer}: {fault.detail}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
