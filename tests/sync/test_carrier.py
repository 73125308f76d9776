"""A branch without a line: everything both ways by files on a stick."""

import dataclasses

import pytest

from appliance.base.errors import ApplianceError
from appliance.base.ids import uuid7
from appliance.base.settings import SyncSettings
from appliance.sync.carrier import export_hub, export_site, import_at_hub, import_at_site
from appliance.sync.health import HealthBook
from appliance.sync.hub import Hub
from appliance.sync.nodes import find_peer, run_control
from appliance.sync.sealed import Sealed
from tests.sync.pair import records
from tests.sync.test_snapshot import KIND, add_deals, fill, tables
from tests.tenants import create, update

pytestmark = pytest.mark.anyio


class Stick:
    """Files between the two nodes of a pair; no line."""

    def __init__(self, pair, folder):
        self.pair, self.folder, self.count = pair, folder, 0
        pair.line.is_down = True
        # Where files are, at the hub and at the site.
        self.cargo = (None, None)
        self.hub = Hub(
            pair.hub.db, SyncSettings(), HealthBook(pair.node.redis), pair.node.key.current
        )

    def path(self):
        self.count += 1
        return self.folder / f"{self.count}.nexus"

    async def from_site(self):
        path = self.path()
        await export_site(
            self.pair.site.db, self.pair.parts.key, self.pair.hub.id, path, self.cargo[1]
        )
        return path

    async def to_hub(self, path):
        with path.open("rb") as file:
            return await import_at_hub(self.pair.hub.db, self.hub, 1, Sealed(file), self.cargo[0])

    async def from_hub(self):
        path, pair = self.path(), self.pair
        site = await find_peer(pair.hub.db, pair.parts.me.id, pair.hub.id)
        await export_hub(pair.hub.db, self.hub, pair.node.key.current(), site, path, self.cargo[0])
        return path

    async def to_site(self, path):
        with path.open("rb") as file:
            return await import_at_site(self.pair.parts, Sealed(file), self.cargo[1])

    async def round(self):
        there = await self.from_site()
        assert (await self.to_hub(there)).problems == ()
        back = await self.from_hub()
        assert (await self.to_site(back)).problems == ()
        return there, back


@pytest.fixture
def stick(pair, tmp_path):
    return Stick(pair, tmp_path)


async def test_a_branch_exchanges_by_stick(pair, stick):
    await add_deals(pair.hub)
    ids = await fill(pair.hub)
    await stick.round()
    assert await tables(pair.site) == await tables(pair.hub)
    assert (await pair.site.apply(create(KIND, title="made at the branch"))).committed
    await pair.site.apply(update(KIND, ids[1], note="of the branch"))
    await pair.hub.apply(update(KIND, ids[1], title="of the hub"))
    there, back = await stick.round()
    assert await tables(pair.site) == await tables(pair.hub)
    ours = str(await records(pair.site, KIND))
    assert "made at the branch" in ours and "of the hub" in ours and "of the branch" in ours
    # Twice, and old ones after new ones, change nothing.
    before = await tables(pair.hub)
    for path in (there, there, stick.folder / "1.nexus"):
        await stick.to_hub(path)
    for path in (back, back, stick.folder / "2.nexus"):
        await stick.to_site(path)
    assert await tables(pair.hub) == before == await tables(pair.site)
    # With a line again nothing is left to say.
    pair.line.is_down = False
    await pair.sync()
    assert await tables(pair.hub) == before == await tables(pair.site)


async def test_a_stick_that_was_lost_costs_another_one(pair, stick):
    await add_deals(pair.hub)
    await stick.round()
    await pair.site.apply(create(KIND, title="first"))
    await stick.from_site()
    await pair.site.apply(create(KIND, title="second"))
    await pair.hub.apply(create(KIND, title="third"))
    await stick.to_hub(await stick.from_site())
    await stick.from_hub()
    await stick.to_site(await stick.from_hub())
    assert await tables(pair.site) == await tables(pair.hub)
    assert len(await records(pair.site, KIND)) == 3


async def test_what_is_not_for_us_is_refused_by_name(pair, stick):
    await add_deals(pair.hub)
    path = await stick.from_site()
    with pytest.raises(ApplianceError) as refused:
        await stick.to_site(path)
    assert refused.value.code == "carrier.not_ours"
    await stick.to_hub(path)
    back = await stick.from_hub()
    with pytest.raises(ApplianceError) as refused:
        await stick.to_hub(back)
    assert refused.value.code == "carrier.not_ours"
    body = bytearray(path.read_bytes())
    for at in (5, 40, len(body) // 2, len(body) - 70, len(body) - 3):
        flipped = bytearray(body)
        flipped[at] ^= 1
        spoiled = stick.path()
        spoiled.write_bytes(flipped)
        with pytest.raises(ApplianceError):
            await stick.to_hub(spoiled)
    for size in (0, 10, 100, len(body) - 1):
        cut = stick.path()
        cut.write_bytes(body[:size])
        with pytest.raises(ApplianceError):
            await stick.to_hub(cut)
    stranger = dataclasses.replace(pair.parts, hub=_as(pair.parts.hub, id=uuid7()))
    with back.open("rb") as file, pytest.raises(ApplianceError) as refused:
        await import_at_site(stranger, Sealed(file))
    assert refused.value.code == "carrier.unknown"
    await run_control(
        pair.hub.db, "UPDATE node SET state = 'revoked', revoked_at = now() WHERE id = %s",
        pair.parts.me.id,
    )  # fmt: skip
    with pytest.raises(ApplianceError) as refused:
        await stick.to_hub(path)
    assert refused.value.code == "node.revoked" and "branch" in refused.value.detail


def _as(node, **changed):
    import msgspec

    return msgspec.structs.replace(node, **changed)
