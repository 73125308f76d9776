"""What a program's shipped profiles may do since a tenant was made comes to it with an upgrade."""

import msgspec
import pytest

from appliance.access.shipped import shipped
from appliance.install import install, rights, take_snapshot
from tests.install.firm import installing, make_firm, one, two
from tests.tenants import update

pytestmark = pytest.mark.anyio
NEW = {"conflicts.resolve", "sync.manage", "nodes.manage"}


def older():
    """The shipped profiles of a program that knew nothing of branches."""
    return {
        key: msgspec.structs.replace(p, capabilities=[c for c in p.capabilities if c not in NEW])
        for key, p in shipped().items()
    }


async def capabilities(firm, key):
    held = (await take_snapshot(firm.db, firm.id)).held[("profile", key)]
    return held, set(held.item.values["capabilities"])


@pytest.mark.parametrize("version", [one, two])
async def test_an_upgrade_brings_them_also_at_the_same_version(db, dsns, monkeypatch, version):
    with monkeypatch.context() as past:
        past.setattr(rights, "shipped", older)
        firm = await make_firm(db, dsns, "blank")
        await install(db, await installing(firm), one())
        assert not NEW & (await capabilities(firm, "owner"))[1]
    held, had = await capabilities(firm, "salesperson")
    own = await firm.apply(
        update("sys.profile", held.id, held.version, capabilities=sorted(had - {"query.run"})),
        ctx=await installing(firm),
    )  # fmt: skip
    assert own.committed, own
    done = await install(db, await installing(firm), version())
    assert (await capabilities(firm, "owner"))[1] >= NEW
    assert (await capabilities(firm, "admin"))[1] >= NEW - {"nodes.manage"}
    # What somebody has changed themselves stays, and is listed.
    assert (await capabilities(firm, "salesperson"))[1] == had - {"query.run"}
    assert "profile/salesperson#capabilities" in [c.at for c in done.conflicts]
