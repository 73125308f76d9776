"""Modules and templates: what a tenant is made of, looked at, switched, installed, taken back."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from litestar.response.base import ASGIResponse

from appliance import install
from appliance.base import limits
from appliance.base.errors import Clash, FieldFault, Invalid, Refused
from appliance.base.roles import HUB
from appliance.http.answers import raw, reply
from appliance.http.ask import Ask
from appliance.http.bodies import check_storable
from appliance.http.route import API, SIGNED_IN, Book
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Labels

book = Book("modules")
MODULES = f"{API}/modules"
TEMPLATES = f"{API}/templates"
SWITCH: dict[str, Any] = {"capability": "schema.manage", "placed": HUB, "writes": True}
MANAGE: dict[str, Any] = {"capability": "tenant.manage", "placed": HUB, "writes": True}
_CHOICES_MAX = 5_000


class Modules(msgspec.Struct, frozen=True):
    """All modules, in the order of the menu."""

    modules: list[install.ModuleView]


class PreviewBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`file` is the text of a template file; without it a shipped template is meant."""

    file: str | None = None


class InstallBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`choices` says keep or take by place of a conflict, `rest` for all others (keep)."""

    dry_run: bool = False
    samples: bool = True
    choices: dict[str, install.Choice] = {}
    rest: install.Choice = "keep"
    file: str | None = None


class Undone(msgspec.Struct, frozen=True):
    """The change set of the undoing; it can itself be undone."""

    change_set: UUID
    template: str
    version: str


class SampleBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """With `dry_run` nothing is deleted."""

    dry_run: bool = False


class KeptSample(msgspec.Struct, frozen=True):
    """A sample that stays, and why."""

    key: str
    kind: str
    id: UUID
    why: str


class Samples(msgspec.Struct, frozen=True):
    """What went, by key, and what stays."""

    removed: list[str]
    kept: list[KeptSample]


class Published(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the new template is called."""

    name: str
    version: str
    labels: Labels = {}


@book.route("GET", MODULES, capability="schema.read", answers={200: Modules})
async def list_modules(ask: Ask) -> ASGIResponse:
    """The tenant's modules, and those it could have."""
    return reply(Modules(await install.list_modules(ask.node.db, ask.ctx)))


@book.route("GET", f"{MODULES}/{{key}}/impact", capability="schema.manage",
            answers={200: install.Impact})  # fmt: skip
async def read_impact(ask: Ask) -> ASGIResponse:
    """What switching a module would do: kinds with their records, views, rights, references."""
    return reply(await install.find_impact(ask.node.db, ask.ctx, ask.names["key"]))


@book.route("POST", f"{MODULES}/{{key}}:enable", **SWITCH, answers={200: install.Impact})
async def enable_module(ask: Ask) -> ASGIResponse:
    """Switch a module on with all it requires; a shipped one is installed."""
    db, ctx = ask.node.db, ask.ctx
    done = await install.enable(
        db, ctx, ask.names["key"], install=await _context(ask), guard=ask.gate
    )
    return reply(done)


@book.route("POST", f"{MODULES}/{{key}}:disable", **SWITCH, answers={200: install.Impact})
async def disable_module(ask: Ask) -> ASGIResponse:
    """Switch a module off: its kinds vanish, the data stays."""
    return reply(await install.disable(ask.node.db, ask.ctx, ask.names["key"], guard=ask.gate))


@book.route("GET", TEMPLATES, capability=SIGNED_IN, answers={200: install.Offer})
async def list_templates(ask: Ask) -> ASGIResponse:
    """Templates to pick from, what is installed, and who can pick."""
    profile = ask.ctx.profile
    may_pick = profile.may("tenant.manage")
    names = may_pick or profile.may("people.read")
    return reply(
        await install.make_offer(ask.node.db, ask.ctx.tenant, may_pick=may_pick, names=names)
    )


@book.route("GET", f"{TEMPLATES}/{{name}}/preview", capability=SIGNED_IN,
            answers={200: install.Preview})  # fmt: skip
async def preview_template(ask: Ask) -> ASGIResponse:
    """What a shipped template brings; for those who can pick, what it would do here."""
    return reply(await _previewed(ask, _template(ask, None)))


@book.route("POST", f"{TEMPLATES}/{{name}}:preview", capability="tenant.manage", placed=HUB,
            body=PreviewBody, body_most=limits.BODY_BYTES_MAX,
            answers={200: install.Preview})  # fmt: skip
async def preview_file(ask: Ask) -> ASGIResponse:
    """The same for a template file."""
    return reply(await _previewed(ask, _template(ask, ask.read(PreviewBody).file)))


@book.route("POST", f"{TEMPLATES}/{{name}}:install", **MANAGE, body=InstallBody,
            body_most=limits.BODY_BYTES_MAX, answers={200: install.Installation})  # fmt: skip
async def install_template(ask: Ask) -> ASGIResponse:
    """Install a template on a tenant without data, or say what that would do."""
    return await _install(ask, ask.read(InstallBody))


@book.route("POST", f"{TEMPLATES}/{{name}}:upgrade", **MANAGE, body=InstallBody,
            body_most=limits.BODY_BYTES_MAX, answers={200: install.Installation})  # fmt: skip
async def upgrade_template(ask: Ask) -> ASGIResponse:
    """Bring the installed template to another version; what you changed stays unless you choose."""
    await _check_installed(ask)
    return await _install(ask, ask.read(InstallBody))


@book.route("POST", f"{TEMPLATES}/{{name}}:rollback", **MANAGE, answers={200: Undone})
async def roll_template_back(ask: Ask) -> ASGIResponse:
    """Undo the last upgrade."""
    await _check_installed(ask)
    db = ask.node.db
    change_set = await install.roll_back(db, await _context(ask))
    base = (await install.take_snapshot(db, ask.ctx.tenant)).base
    return reply(Undone(change_set, base.name, base.version))


@book.route("POST", f"{TEMPLATES}/{{name}}:remove-samples", **MANAGE, body=SampleBody,
            answers={200: Samples})  # fmt: skip
async def remove_samples(ask: Ask) -> ASGIResponse:
    """Delete the samples nobody has touched; those that stay are listed."""
    given = ask.read(SampleBody)
    await _check_installed(ask)
    found = await install.remove_samples(ask.node.db, await _context(ask), dry_run=given.dry_run)
    kept = [KeptSample(k.key, k.kind, k.record, k.why) for k in found.kept]
    return reply(Samples(found.removed, kept))


@book.route("POST", f"{API}/templates/publish", **MANAGE, body=Published,
            answers={200: str}, media=("application/toml",))  # fmt: skip
async def publish_template(ask: Ask) -> ASGIResponse:
    """The tenant's configuration as a template file."""
    given = ask.read(Published)
    for name in ("name", "version"):
        check_storable(getattr(given, name), f"/{name}")
        if not 0 < len(getattr(given, name)) <= 60:
            fault = FieldFault(f"/{name}", "out_of_range", "Expected 1 to 60 characters.")
            raise Invalid("The template needs a name and a version.", faults=(fault,))
    made = await install.publish(
        ask.node.db, await _context(ask), given.name, given.version, given.labels
    )
    return raw(install.write_toml(made).encode(), media="application/toml")


async def _context(ask: Ask) -> Ctx:
    """The person, through the door of installation: what they make is granted with it."""
    ctx = ask.ctx
    return await install.install_context(ask.node.db, ctx.tenant, ctx.actor, ctx.origin)


def _template(ask: Ask, file: str | None) -> install.Template:
    name = ask.names["name"]
    if file is None:
        if name not in install.template_names():
            raise Refused("There is no such template.", code="template.unknown")
        return install.read(name)
    check_storable(file, "/file")
    found = install.parse(file)
    if found.name != name:
        fault = FieldFault("/file", "other_name", f"The file holds another template than {name}.")
        raise Invalid(fault.detail, faults=(fault,))
    return found


async def _previewed(ask: Ask, template: install.Template) -> install.Preview:
    if not ask.ctx.profile.may("tenant.manage"):
        return await install.preview(template)
    return await install.preview(template, ask.node.db, await _context(ask))


async def _install(ask: Ask, given: InstallBody) -> ASGIResponse:
    if len(given.choices) > _CHOICES_MAX:
        raise Invalid(f"At most {_CHOICES_MAX} choices in one call.")
    template = _template(ask, given.file)
    asked = install.Options(
        dry_run=given.dry_run, samples=given.samples, choices=given.choices, rest=given.rest
    )
    return reply(await install.install(ask.node.db, await _context(ask), template, asked))


async def _check_installed(ask: Ask) -> None:
    base = (await install.take_snapshot(ask.node.db, ask.ctx.tenant)).base
    name = ask.names["name"]
    if base.name != name:
        if name not in install.template_names():
            raise Refused("There is no such template.", code="template.unknown")
        raise Clash(
            "This tenant does not stand on that template; see GET /api/v1/templates.",
            code="template.other",
        )
