"""The one who asks: person, tenant, rights, and the menu that follows from them."""

from __future__ import annotations

from uuid import UUID

import msgspec
from litestar.response.base import ASGIResponse

from appliance.db.wire import Statement
from appliance.http.answers import reply
from appliance.http.ask import Ask
from appliance.http.route import API, SIGNED_IN, Book
from appliance.kernel.kind import Json, label_of
from appliance.kernel.query import Item, Query, Sort
from appliance.read import run

book = Book("me")
_PERSON = Statement(
    "SELECT p.data, c.must_change, c.totp_secret IS NOT NULL FROM record p LEFT JOIN credential c "
    "ON c.tenant_id = p.tenant_id AND c.person_id = p.id "
    "WHERE p.tenant_id = $1 AND p.id = $2 AND p.kind = 'sys.person'"
)
_SETTINGS = (
    ("people", "people.read"), ("profiles", "profiles.manage"), ("units", "units.manage"),
    ("kinds", "schema.manage"), ("keys", "keys.manage"), ("audit", "audit.read"),
    ("jobs", "jobs.read"), ("tenant", "tenant.manage"), ("staff", "staff.grant"),
)  # fmt: skip


class Named(msgspec.Struct, frozen=True):
    """A thing by id and name."""

    id: UUID
    name: str


class Me(msgspec.Struct, frozen=True):
    """Who asks, where, and what they may do beside records."""

    person: dict[str, Json]
    tenant: dict[str, str]
    unit: UUID | None
    units: list[Named]
    profile: dict[str, str]
    capabilities: list[str]
    tz: str
    locale: str
    session: UUID | None
    must_change_password: bool
    has_totp: bool
    schema_rev: int
    rights_rev: int
    staff_grant: UUID | None


class MenuItem(msgspec.Struct, frozen=True):
    """One entry: a kind to list, a view over one, or a settings page."""

    sort: str
    key: str
    label: str
    kind: str | None = None


class Menu(msgspec.Struct, frozen=True):
    """What this reader has to choose from."""

    items: list[MenuItem]


@book.route("GET", f"{API}/me", capability=SIGNED_IN, gated=True, with_first_password=True,
            answers={200: Me})  # fmt: skip
async def read_me(ask: Ask) -> ASGIResponse:
    """You: person, tenant, units, profile, capabilities."""
    ctx = ask.ctx
    answers = await ask.node.db.read(
        ctx.tenant, *ask.gate.calls, (_PERSON, (ctx.tenant, ctx.actor))
    )
    ask.gate.check(answers[:-1])
    row = answers[-1].first() or (b"{}", None, None)
    data = msgspec.json.decode(row[0] or b"{}")
    known = ask.node.db.routes.of(ctx.tenant, read=True)
    me = Me(
        person={"id": str(ctx.actor), **{k: data.get(k) for k in ("name", "email", "phone", "state")}},
        tenant={"id": str(ctx.tenant), "slug": known.slug, "name": known.name},
        unit=ctx.unit,
        units=[Named(u, ctx.unit_tree[u].name) for u in sorted(ctx.units) if u in ctx.unit_tree],
        profile={"id": ctx.profile.id, "key": ctx.profile.key},
        capabilities=sorted(ctx.profile.capabilities),
        tz=ctx.tz, locale=ctx.locale, session=ctx.session,
        must_change_password=row[1] == b"t", has_totp=row[2] == b"t",
        schema_rev=ctx.schema.rev, rights_rev=ctx.profile.rev, staff_grant=ctx.staff_grant,
    )  # fmt: skip
    return reply(me)


@book.route("GET", f"{API}/menu", capability=SIGNED_IN, answers={200: Menu})
async def read_menu(ask: Ask) -> ASGIResponse:
    """What there is for you, built from your rights."""
    ctx = ask.ctx
    own = [k for k in ctx.schema.kinds.values() if ctx.profile.sees(k) and not k.system]
    items = [
        MenuItem("kind", k.key, label_of(k.labels, ctx.locale, k.key), k.key)
        for k in sorted(own, key=lambda k: label_of(k.labels, ctx.locale, k.key))
    ]
    items += await _views(ask, {k.key for k in own})
    items += [
        MenuItem("settings", key, key.capitalize())
        for key, needs in _SETTINGS
        if ctx.profile.may(needs)
    ]
    return reply(Menu(items))


async def _views(ask: Ask, kinds: set[str]) -> list[MenuItem]:
    """The saved views this reader may read, over kinds they see."""
    view = ask.ctx.schema.kinds["sys.view"]
    needed = {"key", "kind", "labels"}
    modes = {f.name for f in view.fields if ask.ctx.profile.mode(view.key, f) >= 2}
    if not ask.ctx.profile.sees(view) or not needed <= modes:
        return []
    select = tuple(Item(n, None, n, "") for n in sorted(needed))
    query = Query(source=view.key, select=select, sort=(Sort("key", False, False, ""),), limit=200)
    page = await run(ask.node.db, ask.ctx, query, ask.node.cursors)
    rows = [msgspec.json.decode(r) for r in page.rows]
    return [
        MenuItem("view", r["key"], label_of(r["labels"] or {}, ask.ctx.locale, r["key"]), r["kind"])
        for r in rows
        if r["kind"] in kinds
    ]
