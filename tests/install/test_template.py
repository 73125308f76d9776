"""Each template installs on an empty tenant; a sales company can sell with what the default gives."""

import os
import time
from pathlib import Path

import msgspec
import pytest

from appliance.fields import TYPES

from appliance.install import NewTenant, create_tenant
from appliance.install import bundle
from appliance.install import template as templates
from appliance.kernel.query import decode_query
from appliance.meta import load_schema
from appliance.read import Cursors, run
from appliance.tenancy import Servers
from tests.install.firm import ask, make_firm
from tests.tenants import create

pytestmark = pytest.mark.anyio
GOLDEN = Path(__file__).parent / "golden"


install = make_firm
answer = ask


@pytest.mark.parametrize("name", templates.names())
async def test_installs_on_an_empty_tenant(db, dsns, name):
    """What is there afterwards is what the golden file says; every view and widget answers."""
    began = time.perf_counter()
    tenant = await install(db, dsns, name)
    assert time.perf_counter() - began < 10
    schema = await load_schema(db, tenant.id)
    found = [
        f"{k.key}.{f.name}: {f.type}"
        for k in schema.kinds.values()
        if not k.system
        for f in k.fields
    ]
    shown = []
    for kind in ("sys.view", "sys.dashboard", "sys.workflow", "sys.profile", "sys.module"):
        for row in await answer(tenant, {"from": kind, "limit": 500}):
            fields = row["fields"]
            shown.append(f"{kind} {fields['key']}")
            for query in (
                fields.get("query"),
                *(w["query"] for w in fields.get("widgets") or ()),
            ):
                if query:
                    await answer(tenant, query)
            if fields.get("condition"):
                asked = {"from": fields["kind"], "where": fields["condition"], "limit": 1}
                await answer(tenant, asked)
    golden = GOLDEN / f"{name}.txt"
    text = "\n".join([*sorted(shown), *sorted(found), ""])
    if os.environ.get("NEXUS_WRITE_GOLDEN"):
        golden.write_text(text, "utf-8")
    assert text == golden.read_text("utf-8")


def labelled(source):
    """Everything of a module or template that people read, with its labels."""
    yield source.labels, getattr(source, "key", None) or source.name
    for kind in source.kinds:
        yield kind.labels, kind.key
        if kind.help:
            yield kind.help, f"{kind.key} help"
    fields = [(k.key, f) for k in source.kinds for f in k.fields]
    fields += [(f["kind"], f) for f in getattr(source, "fields", ())]
    for kind, field in fields:
        name = f"{kind}.{field['name']}"
        yield field["labels"], name
        if "help" in field:
            yield field["help"], f"{name} help"
        for choice in field.get("options", {}).get("choices", ()):
            yield choice["labels"], f"{name}.{choice['key']}"
    for sort in ("views", "dashboards", "workflows"):
        for one in getattr(source, sort):
            yield one["labels"], one["key"]
            for widget in one.get("widgets", ()):
                yield widget["labels"], f"{one['key']}.{widget['key']}"
    for profile in getattr(source, "profiles", ()):
        yield profile.labels, profile.key
        yield profile.help, f"{profile.key} help"


def test_every_label_stands_in_three_languages():
    sources = [templates.read_module(k) for k in templates.module_names()]
    for name in templates.names():
        sources += [templates.read(name), *templates.read(name).own]
    missing = [
        what
        for source in sources
        for labels, what in labelled(source)
        if set(labels) != {"en", "ru", "uk"} or not all(labels.values())
    ]
    assert not missing


@pytest.mark.parametrize("name", templates.names())
def test_indexes_of_a_kind_suffice(name):
    """Something of each sort of index stays free for what a tenant adds."""
    items = bundle.build(templates.read(name)).items
    for kind in items:
        if kind.sort != "kind":
            continue
        used = {"t": 0, "n": 0, "d": 0, "r": 0}
        for field in items:
            if field.sort == "field" and field.values["kind"] == kind.key:
                slot = TYPES[field.values["type"]].slot
                wanted = field.values["filterable"] or field.values["unique"] or slot == "r"
                if slot in used and wanted:
                    used[slot] += 1
        assert used["t"] <= 9 and used["n"] <= 7 and used["d"] <= 5 and used["r"] <= 8, kind.key


async def test_from_a_customer_to_an_invoice(db, dsns):
    firm = await install(db, dsns, "multi_branch_sales")

    async def make(kind, **fields):
        result = await firm.apply(create(kind, **fields))
        assert result.committed, result
        return str(result.outcomes[0].id)

    async def by(kind, field, value):
        where = {"field": field, "op": "eq", "value": value}
        return (await answer(firm, {"from": kind, "where": where}))[0]["id"]

    retail, store = (
        await by("price_type", "key", "retail"),
        await by("warehouse", "branch", str(firm.units["north"])),
    )
    bolt = await make("product", sku="B-6", name="Bolt M6")
    await make("price", product=bolt, price_type=retail, price="12.5", currency="UAH")
    await make("stock_move", product=bolt, warehouse=store, quantity="100", reason="receipt")
    customer = await make("customer", name="Buyer")
    deal = await make(
        "deal", title="First", customer=customer, stage=await by("stage", "class", "won")
    )
    (price,) = await answer(
        firm,
        {
            "from": "price",
            "in_force": True,
            "where": {"field": "product", "op": "eq", "value": bolt},
        },
    )
    await make(
        "deal_line",
        deal=deal,
        product=bolt,
        quantity="8",
        unit_price=price["fields"]["price"],
        discount="10",
        tax_rate="20",
    )
    (held,) = await answer(
        firm, {"from": "deal", "where": {"field": "id", "op": "eq", "value": deal}}
    )
    assert (held["fields"]["net_total"], held["fields"]["gross_total"]) == ("90.00", "108.00")
    order = await make("order", deal=deal, customer=customer, warehouse=store)
    await make(
        "stock_move", product=bolt, warehouse=store, quantity="-8", reason="shipment", order=order
    )
    (left,) = await answer(
        firm, {"from": "stock_move", "balance": True, "select": [{"sum": "quantity", "as": "left"}]}
    )
    assert left == {"left": "92.000"}
    invoice = await make("invoice", customer=customer, order=order, state="sent", due="2026-12-01")
    await make(
        "invoice_line",
        invoice=invoice,
        product=bolt,
        quantity="8",
        unit_price="12.5",
        discount="10",
        tax_rate="20",
    )
    payment = await make("payment", customer=customer, amount="108.00")
    await make("allocation", invoice=invoice, payment=payment, amount="108.00")
    (paid,) = await answer(
        firm, {"from": "invoice", "where": {"field": "id", "op": "eq", "value": invoice}}
    )
    assert (paid["fields"]["gross_total"], paid["fields"]["paid"]) == ("108.00", "108.00")
