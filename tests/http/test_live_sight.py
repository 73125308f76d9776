"""What an open stream makes of a change: told, left, or nothing of it, as the reader's rights are."""

import asyncio
import contextlib
import json
from uuid import UUID

import msgspec
import pytest

from appliance.base.ids import uuid7
from appliance.http import feed
from appliance.kernel.context import Door
from tests.http.test_live import edit, relay, stream, token_of
from tests.http.test_live import web as web  # noqa: PLC0414 - the fixture
from tests.tenants import update

pytestmark = pytest.mark.anyio


async def write(firm, kind, ident, **change):
    """An edit by whoever may do all."""
    ctx = await firm.tenant.ctx(door=Door.INSTALL)
    done = await firm.tenant.apply(update(kind, UUID(str(ident)), **change), ctx=ctx)
    assert done.committed, done


async def deal_grant(firm):
    """The salesperson's grant of deals: its id and what it says."""
    ((ident, text),) = await firm.tenant.sql(
        "SELECT id::text, data::text FROM record WHERE kind = 'sys.grant' "
        "AND data->>'profile' = $1 AND data->>'kind' = 'deal'",
        str(firm.profiles["salesperson"]),
    )
    return ident, json.loads(text)


@contextlib.asynccontextmanager
async def regranted(firm, **change):
    """Other rights for the time of the block."""
    ident, data = await deal_grant(firm)
    await write(firm, "sys.grant", ident, **{k: {**data[k], **v} for k, v in change.items()})
    try:
        yield
    finally:
        await write(firm, "sys.grant", ident, **{k: data[k] for k in change})


async def test_a_hidden_field_changed_alone_makes_no_frame(web, firm, redis_sync):
    owner, seller = await token_of(web, firm, "owner"), await token_of(web, firm, "seller")
    deal = firm.records["north"]["deal"][1]
    async with (
        stream(web, seller, "deal") as frames,
        stream(web, seller, 'deal where stage = "lost"') as narrow,
        stream(web, owner, "deal") as all_seen,
    ):
        await edit(web, owner, redis_sync, firm, deal, fields={"margin": "3.33"})
        assert (await all_seen.next())["record"]["fields"]["margin"] == "3.33"
        await asyncio.sleep(0.3)
        await edit(web, owner, redis_sync, firm, deal, fields={"margin": "4", "title": "seen"})
        assert (await frames.next())["record"]["fields"]["title"] == "seen"
        # Nor did it "leave" a list that it never was on; of the second edit that may be said.
        assert (await narrow.next())["event"] == "leave"
        await narrow.silent()


async def test_a_rule_on_a_hidden_field_brings_and_takes_the_record(web, firm, redis_sync):
    """The value stays hidden; that the record comes and goes is what the rule is for."""
    owner = await token_of(web, firm, "owner")
    deal = firm.records["north"]["deal"][1]
    rule = {"where": {"field": "margin", "op": "lt", "value": "100"}}
    await edit(web, owner, redis_sync, firm, deal, fields={"margin": "5"})
    async with regranted(firm, actions={"read": rule}):
        seller = await token_of(web, firm, "seller")
        async with stream(web, seller, "deal") as frames:
            await edit(web, owner, redis_sync, firm, deal, fields={"margin": "500"})
            frame = await frames.next()
            assert (frame["event"], frame["id"]) == ("leave", str(deal))
            await edit(web, owner, redis_sync, firm, deal, fields={"margin": "5"})
            frame = await frames.next()
            assert (frame["event"], frame["id"]) == ("change", str(deal))
            assert "margin" not in json.dumps(frame)
            await edit(web, owner, redis_sync, firm, deal, fields={"margin": "6"})
            await frames.silent()


async def test_a_deleted_record_leaves_and_a_restored_one_comes(web, firm, redis_sync):
    owner, seller = await token_of(web, firm, "owner"), await token_of(web, firm, "seller")
    deal = firm.records["north"]["deal"][3]
    path, headers = f"/api/v1/records/deal/{deal}", {"Authorization": f"Bearer {owner}"}
    async with stream(web, seller, "deal") as frames:
        done = await web.delete(path, headers=headers)
        assert done.is_success, done.text
        relay(redis_sync, firm, done.headers["x-request-id"], "deal", [deal], "delete")
        assert (await frames.next())["event"] == "leave"
        done = await web.post(f"{path}/restore", headers=headers)
        assert done.is_success, done.text
        relay(redis_sync, firm, done.headers["x-request-id"], "deal", [deal], "restore")
        assert (await frames.next())["event"] == "change"


async def test_a_field_hidden_meanwhile_is_gone_with_the_next_frame(web, firm, redis_sync):
    owner, seller = await token_of(web, firm, "owner"), await token_of(web, firm, "seller")
    deal = firm.records["north"]["deal"][2]
    async with stream(web, seller, "deal") as frames:
        await edit(web, owner, redis_sync, firm, deal, fields={"title": "open", "closes": None})
        assert "title" in (await frames.next())["record"]["fields"]
        async with regranted(firm, fields={"title": "hidden"}):
            await edit(web, owner, redis_sync, firm, deal, fields={"title": "shut"})
            await asyncio.sleep(0.3)
            await edit(web, owner, redis_sync, firm, deal, fields={"stage": "won"})
            shown = (await frames.next())["record"]["fields"]
            assert shown["stage"] == "won"
            assert "title" not in shown
        await edit(web, owner, redis_sync, firm, deal, fields={"stage": "new"})
        assert (await frames.next())["record"]["fields"]["title"] == "shut"


async def test_a_revoked_session_ends_a_stream_on_which_nothing_happens(web, firm, monkeypatch):
    monkeypatch.setattr(feed, "HEARTBEAT_S", 0.5)
    seller = await token_of(web, firm, "seller")
    async with stream(web, seller, "deal") as frames:
        await web.delete("/api/v1/session", headers={"Authorization": f"Bearer {seller}"})
        assert (await frames.next())["event"] == "end"
        assert await frames.next() is None


async def test_a_peers_frame_of_several_change_sets_is_judged_as_one(web, firm, redis_sync):
    """What came in one transaction is told in one entry, though its authors made more of it."""
    owner, seller = await token_of(web, firm, "owner"), await token_of(web, firm, "seller")
    deal, south = firm.records["north"]["deal"][4], str(firm.tenant.units["south"])
    path, headers = f"/api/v1/records/deal/{deal}", {"Authorization": f"Bearer {owner}"}
    async with stream(web, seller, "deal") as frames:
        sets = []
        for body in ({"fields": {"title": "on the way"}}, {"unit": south}):
            answer = await web.patch(path, json=body, headers=headers)
            sets.append(answer.headers["x-change-set"])
        told = {"change_set": str(uuid7()), "change_sets": sets, "kinds": ["deal"], "more": 0,
                "changes": [{"kind": "deal", "id": str(deal), "op": "update"}]}  # fmt: skip
        redis_sync.xadd(f"events:{firm.tenant.id}", {"o": 1, "data": msgspec.json.encode(told)})
        frame = await frames.next()
        assert (frame["event"], frame["id"]) == ("leave", str(deal))
    await edit(web, owner, redis_sync, firm, deal, unit=str(firm.tenant.units["north"]))


async def test_a_change_told_under_another_name_than_in_the_log_still_leaves(web, firm, redis_sync):
    owner, seller = await token_of(web, firm, "owner"), await token_of(web, firm, "seller")
    deal, south = firm.records["north"]["deal"][4], firm.records["south"]["deal"][1]
    path, headers = f"/api/v1/records/deal/{deal}", {"Authorization": f"Bearer {owner}"}
    away = {"unit": str(firm.tenant.units["south"])}
    async with stream(web, seller, "deal") as frames:
        assert (await web.patch(path, json=away, headers=headers)).is_success
        relay(redis_sync, firm, str(uuid7()), "deal", [south, deal])
        frame = await frames.next()
        assert (frame["event"], frame["id"]) == ("leave", str(deal))
    await edit(web, owner, redis_sync, firm, deal, unit=str(firm.tenant.units["north"]))
