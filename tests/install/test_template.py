"""Each template installs on an empty tenant; a sales company can sell with what the default gives."""

import msgspec
import pytest

from appliance.install import NewTenant, create_tenant
from appliance.install import template as templates
from appliance.kernel.query import decode_query
from appliance.meta import load_schema
from appliance.read import Cursors, run
from appliance.tenancy import Servers
from tests.tenants import Tenant, create

pytestmark = pytest.mark.anyio
CURSORS = Cursors(b"c" * 32)
_count = iter(range(1, 10**9))


async def install(db, dsns, name):
    servers = Servers(control_dsn=dsns.control_owner, placement_dsn=dsns.pool_owner)
    new = NewTenant(
        slug=f"tpl{next(_count)}", name="Firm", email="owner@example.org",
        password="seven green umbrellas at dusk", template=name,
    )  # fmt: skip
    made = await create_tenant(db, servers, new, origin=1)
    return Tenant(db, made.tenant, made.units, {"owner": made.owner})


async def answer(tenant, raw):
    page = await run(tenant.db, await tenant.ctx(), decode_query(raw), CURSORS)
    return [msgspec.json.decode(r) for r in page.rows]


@pytest.mark.parametrize("name", templates.names())
async def test_installs_on_an_empty_tenant(db, dsns, name):
    template = templates.read(name)
    tenant = await install(db, dsns, name)
    schema = await load_schema(db, tenant.id)
    wanted = {k.key: k for m in templates.modules_of(template) for k in m.kinds}
    wanted |= {k.key: k for k in template.kinds}
    own = {k.key: k for k in schema.kinds.values() if not k.system}
    assert own.keys() == wanted.keys()
    for key, kind in own.items():
        assert {f.name for f in kind.fields} - {"reverses"} == {
            f["name"] for f in wanted[key].fields
        }
    for view in template.views:
        if tenant.units:
            await answer(tenant, view["query"])


def test_every_label_stands_in_three_languages():
    for key in (
        "parties",
        "catalogue",
        "pricing",
        "stock",
        "sales",
        "invoicing",
        "tasks",
        "interactions",
    ):
        module = templates.read_module(key)
        labelled = [(key, module.labels)]
        for kind in module.kinds:
            labelled.append((kind.key, kind.labels))
            for field in kind.fields:
                labelled.append((f"{kind.key}.{field['name']}", field["labels"]))
                for choice in field.get("options", {}).get("choices", ()):
                    labelled.append(
                        (f"{kind.key}.{field['name']}.{choice['key']}", choice["labels"])
                    )
        missing = [what for what, labels in labelled if set(labels) != {"en", "ru", "uk"}]
        assert not missing


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
