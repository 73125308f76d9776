"""What a picker of templates shows: what there is, what is installed, whether it can be switched."""

from __future__ import annotations

from uuid import UUID

import msgspec

from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.install import seeds
from appliance.install import template as files
from appliance.install.bundle import SORTS, build, label_of
from appliance.install.installing import Installation, Options, install
from appliance.install.snapshot import take_snapshot
from appliance.install.template import Template
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Labels

_MANAGERS = Statement(
    "SELECT DISTINCT person.data->>'name' FROM record m "
    "JOIN record p ON p.tenant_id = $1 AND p.id = m.r2 AND p.kind = 'sys.profile' "
    "AND p.deleted_at IS NULL AND p.data->'capabilities' ? 'tenant.manage' "
    "JOIN record person ON person.tenant_id = $1 AND person.id = m.r1 "
    "AND person.kind = 'sys.person' AND person.deleted_at IS NULL "
    "WHERE m.tenant_id = $1 AND m.kind = 'sys.membership' AND m.deleted_at IS NULL ORDER BY 1"
)


class Offered(msgspec.Struct, frozen=True):
    """A shipped template."""

    name: str
    version: str
    labels: Labels
    help: Labels
    modules: list[str]


class Standing(msgspec.Struct, frozen=True):
    """The installed template. `blocking`: records by kind that keep it from being switched; what
    counts records is empty for who cannot pick.
    """

    name: str
    version: str
    labels: Labels
    upgrade: str | None
    locked: bool | None
    blocking: dict[str, int]
    samples: int | None


class Offer(msgspec.Struct, frozen=True):
    """All of it; `managers` are those who can pick, for one who cannot."""

    templates: list[Offered]
    installed: Standing | None
    may_pick: bool
    managers: list[str]


class Named(msgspec.Struct, frozen=True):
    """An item of a preview."""

    key: str
    labels: Labels


class Preview(msgspec.Struct, frozen=True):
    """What a template brings, by sort; `would` is what it would do to this tenant."""

    name: str
    version: str
    labels: Labels
    counts: dict[str, int]
    items: dict[str, list[Named]]
    records: int
    samples: int
    would: Installation | None


def offered() -> list[Offered]:
    """The shipped templates."""
    found = []
    for name in files.names():
        one = files.read(name)
        modules = [m.key for m in files.modules_of(one)]
        found.append(Offered(one.name, one.version, one.labels, one.help, modules))
    return found


async def make_offer(db: Database, tenant: UUID, *, may_pick: bool, names: bool) -> Offer:
    """What can be picked, by whom. `names`: whether the reader may know who manages."""
    listed = offered()
    snapshot = await take_snapshot(db, tenant)
    standing: Standing | None = None
    if snapshot.installed is not None:
        base = snapshot.base
        # How much there is of what is for those who can do something about it.
        blocking = await seeds.count_data(db, tenant, snapshot) if may_pick else {}
        newest = next((o.version for o in listed if o.name == base.name), base.version)
        standing = Standing(
            base.name, base.version, base.labels, newest if newest != base.version else None,
            bool(blocking) if may_pick else None, blocking,
            sum(1 for s in snapshot.seeds if s.removable and s.live) if may_pick else None,
        )  # fmt: skip
    managers: list[str] = []
    if names:
        (rows,) = await db.read(tenant, (_MANAGERS, (tenant,)))
        managers = [(name or b"").decode() for name in rows.column()]
    return Offer(listed, standing, may_pick, managers)


async def preview(
    template: Template, db: Database | None = None, ctx: Ctx | None = None
) -> Preview:
    """Counts and names by sort; with a tenant also what would happen to it, conflicts included."""
    bundle = build(template)
    items: dict[str, list[Named]] = {}
    counts: dict[str, int] = {}
    for sort in SORTS:
        of_sort = [i for i in bundle.items if i.sort == sort]
        counts[sort] = len(of_sort)
        # Rights and fields are too many to be read as names; their kinds and profiles stand here.
        if sort not in ("grant", "field"):
            items[sort] = [Named(i.key, label_of(i)) for i in of_sort]
    would = None
    if db is not None and ctx is not None:
        would = await install(db, ctx, template, Options(dry_run=True))
    return Preview(
        bundle.name, bundle.version, bundle.labels, counts, items, len(template.records),
        len(template.samples), would,
    )  # fmt: skip
