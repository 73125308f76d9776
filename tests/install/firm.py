"""A tenant from a template, and small templates in two versions to be merged."""

import msgspec

from appliance.install import NewTenant, create_tenant, install_context
from appliance.install.template import parse
from appliance.kernel.query import decode_query
from appliance.read import Cursors, run
from appliance.tenancy import Servers
from tests.tenants import Tenant

CURSORS = Cursors(b"c" * 32)
PASSWORD = "seven green umbrellas at dusk"
_count = iter(range(1, 10**9))

ONE = """
name = "club"
version = "1.0"
labels = { en = "Club", ru = "Клуб", uk = "Клуб" }
units = [
  { key = "head", name = "Club", sort = "company" },
  { key = "hall", name = "Hall", parent = "head", sample = true },
]
[[own]]
key = "club"
labels = { en = "Club", ru = "Клуб", uk = "Клуб" }
access = { viewer = "none" }
[[own.kinds]]
key = "member"
home = "shared"
labels = { en = "Members" }
fields = [
  { name = "name", type = "text", required = true, filterable = true, labels = { en = "Name", ru = "Имя" } },
  { name = "level", type = "choice", filterable = true, options = { choices = [ { key = "new", labels = { en = "New" } }, { key = "old", labels = { en = "Old" } } ] }, labels = { en = "Level" } },
  { name = "city", type = "text", labels = { en = "City" } },
]
[[own.views]]
key = "members"
kind = "member"
labels = { en = "Members" }
query = { from = "member", select = ["name", "level"] }
[[own.views]]
key = "cities"
kind = "member"
labels = { en = "Cities" }
query = { from = "member", select = ["city"] }
[[records]]
key = "founder"
kind = "member"
fields = { name = "Founder", level = "old" }
[[samples]]
key = "guest"
kind = "member"
fields = { name = "Guest" }
[[samples]]
key = "visitor"
kind = "member"
fields = { name = "Visitor" }
"""

# What the second version says differently: every sort of change that a merge meets.
CHANGES = (
    ('version = "1.0"', 'version = "1.1"'),
    ('labels = { en = "City" }', 'labels = { en = "Town" }'),
    ('labels = { en = "Name", ru = "Имя" }', 'searchable = true, labels = { en = "Full name", ru = "Имя" }'),
    ('{ en = "Old" } } ]', '{ en = "Old" } }, { key = "honorary", labels = { en = "Honorary" } } ]'),
    ('home = "shared"', 'home = "shared"\nseries = "M-{n:4}"'),
    ('[[own.views]]\nkey = "members"', """[[own.kinds]]
key = "visit"
labels = { en = "Visits" }
fields = [ { name = "member", type = "reference", options = { target = "member" }, labels = { en = "Member" } } ]
[[own.views]]
key = "members\""""),
    ("""[[own.views]]
key = "cities"
kind = "member"
labels = { en = "Cities" }
query = { from = "member", select = ["city"] }
""", ""),
)  # fmt: skip
KEEPER = """[[records]]
key = "keeper"
kind = "member"
fields = { name = "Keeper", level = "honorary" }
"""
TWO = ONE + KEEPER
for _old, _new in CHANGES:
    assert TWO.count(_old) == 1, _old
    TWO = TWO.replace(_old, _new)


async def make_firm(db, dsns, name):
    """A tenant on a shipped template."""
    servers = Servers(control_dsn=dsns.control_owner, placement_dsn=dsns.pool_owner)
    slug = f"firm{next(_count)}"
    new = NewTenant(
        slug=slug, must_change=False, name="Firm", email="owner@example.org",
        password=PASSWORD, template=name,
    )  # fmt: skip
    made = await create_tenant(db, servers, new, origin=1)
    firm = Tenant(db, made.tenant, made.units, {"owner": made.owner})
    firm.slug = slug
    return firm


async def installing(tenant):
    """The context that templates are installed in."""
    return await install_context(tenant.db, tenant.id, tenant.people["owner"], 1)


async def ask(tenant, raw):
    """Rows of a query, as objects."""
    page = await run(tenant.db, await tenant.ctx(unit="head"), decode_query(raw), CURSORS)
    return [msgspec.json.decode(r) for r in page.rows]


async def records(tenant):
    """Everything there is, by kind and id: what must be equal before and after."""
    rows = await tenant.sql(
        "SELECT id::text, kind, data::text, unit_id::text FROM record WHERE tenant_id = $1 "
        "AND deleted_at IS NULL ORDER BY id",
        tenant.id,
    )
    return {row[0]: (row[1], msgspec.json.decode(row[2]), row[3]) for row in rows}


def one():
    return parse(ONE)


def two():
    return parse(TWO)
