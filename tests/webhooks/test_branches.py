"""What a branch did is told once, by the head office, when it has arrived there."""

import pytest

from tests import pair
from tests.tenants import create, update
from tests.webhooks.receiver import receiving

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.fixture(scope="module")
def site_dsns(dsns):
    return pair.make_databases(dsns, 7)


async def test_entries_of_a_branch_are_told_by_the_hub_alone(desk, courier, site_dsns):
    tenant = desk.firm.tenant
    hub = pair.Replica(desk.node.db, 1, tenant, is_hub=True)
    async with receiving() as receiver, pair.opened(site_dsns, 2, tenant, ["north"]) as north:
        ident = await desk.make(0, url=f"http://127.0.0.1:{receiver.port}/")
        await pair.exchange(north, hub)
        (made,) = (await north.write(create("deal", title="at the branch"))).outcomes
        await north.write(update("deal", made.id, title="there, too"))
        await pair.exchange(north, hub)
        await receiver.until(lambda: len(receiver.got) == 2)
        await pair.exchange(north, hub)
        await desk.until(ident, lambda s: s["lag"] == s["waiting"] == 0)
        assert receiver.types() == ["deal.created", "deal.updated"]
        assert {g.event["data"]["id"] for g in receiver.got} == {str(made.id)}
        assert receiver.got[-1].record["fields"]["title"] == "there, too"
        # The branch has the record of the webhook, and neither secret nor anything to deliver.
        known = "SELECT id::text FROM record WHERE tenant_id = $1 AND kind = 'sys.webhook'"
        assert [ident] in await north.tenant_rows(known)
        for table in ("webhook", "webhook_event", "webhook_seen"):
            assert not await north.tenant_rows(f"SELECT 1 FROM {table} WHERE tenant_id = $1")
