"""A package that 1C brought leaves as CommerceML and comes back: nothing is changed by that."""

from uuid import UUID

import pytest

from appliance.base.clock import now
from appliance.price_lists import Asked, export_list
from connectors.sdk.contract import Mapping, Rows
from connectors.sdk.manifest import read_manifest
from connectors.systems.commerceml import CONNECTOR
from tests.intake.staged import sorts
from tests.intake.test_goods import desk, package, shop  # noqa: F401 - the fixtures
from tests.tenants import update

pytestmark = pytest.mark.anyio
# Read before a test puts another folder in its place.
SETTINGS = read_manifest("commerceml").settings


async def test_what_leaves_for_1c_comes_back_unchanged(shop, desk, tmp_path):  # noqa: F811
    await desk.approve(await shop(package()))
    # 1C knows one warehouse; the others would be new to it.
    others = await desk.firm.sql(
        "SELECT id::text, stamps FROM record WHERE kind = 'warehouse' AND data->>'name' <> 'Склад 1С'"
    )
    for ident, stamps in others:
        await desk.firm.apply(update("warehouse", UUID(ident), stamps, active=False))
    asked = Asked(at=now(), types=("1C:t1",))
    ctx = await desk.firm.ctx()
    path = tmp_path / "offers.xml"
    chunks = await export_list(desk.db, ctx, asked, "xml", system="1C")
    path.write_bytes(b"".join([c async for c in chunks]))
    source = CONNECTOR.open(path)
    frames = source.read(Mapping(constants=SETTINGS))
    rows = [r for f in frames if isinstance(f, Rows) for r in f.rows]
    assert not [r.faults for r in rows if r.faults]
    told = {r.entity: r for r in rows}
    assert (told["price"].values["price_type_id"], told["price"].values["amount"]) == (
        "t1",
        "10.00",
    )
    assert (told["stock"].values["warehouse_id"], told["stock"].values["quantity"]) == ("w1", "5")
    assert {r.key for r in rows if r.entity == "product"} == {"p0", "p1", "p2"}
    back = await shop(rows, {}, {})
    assert set(sorts(back)) == {"unchanged"}, [
        (r.entity, r.key, r.changes) for sort in ("new", "changed", "faulty")
        for r in await desk.rows(back, sort)
    ]  # fmt: skip
