"""Whose rights a webhook has: lent by who may, as they are when an event is told, and no others."""

import pytest

from appliance.base.ids import uuid7
from appliance.kernel.context import Door
from tests.tenants import create, delete, update
from tests.webhooks.receiver import receiving

pytestmark = pytest.mark.anyio


async def profile_of(desk, fields, read="all"):
    """A profile that sees fields of deals; its key, and how to change its grant."""
    tenant, profile, grant = desk.firm.tenant, uuid7(), uuid7()
    ctx = await tenant.ctx(door=Door.INSTALL)
    key = f"p{profile.hex[-8:]}"
    made = await tenant.apply(
        create("sys.profile", profile, key=key, labels={"en": key}, capabilities=[]),
        create(
            "sys.grant", grant, profile=str(profile), kind="deal", actions={"read": read},
            fields=dict.fromkeys(fields, "read"),
        ),
        ctx=ctx,
    )  # fmt: skip
    assert made.committed, made

    async def change(*commands, **values):
        steps = commands or (update("sys.grant", grant, **values),)
        done = await tenant.apply(*steps, ctx=await tenant.ctx(door=Door.INSTALL))
        assert done.committed, done

    return key, profile, change


async def settled(desk, ident):
    return await desk.until(ident, lambda s: s["lag"] == s["waiting"] == 0)


async def test_what_is_withdrawn_is_withheld_from_the_next_event_on(desk, courier, sign_in):
    key, profile, change = await profile_of(desk, ["title", "amount"])
    async with receiving() as receiver:
        url = f"http://127.0.0.1:{receiver.port}/"
        ident = await desk.make(0, url=url, profile=key, unit="head")
        deal = await desk.deal(title="open", amount="1.00")
        await receiver.until(lambda: receiver.got)
        assert receiver.got[0].record["fields"] == {"title": "open", "amount": "1.00"}
        # Written while it could be read, told when it cannot be any more.
        await desk.call("POST", f"/{ident}/pause")
        await desk.record("PATCH", f"deal/{deal}", fields={"title": "hidden now"})
        await desk.record("PATCH", f"deal/{deal}", fields={"amount": "2.00"})
        await change(fields={"amount": "read"})
        await desk.call("POST", f"/{ident}/resume")
        await settled(desk, ident)
        (told,) = receiver.got[1:]
        assert told.record["fields"] == {"amount": "2.00"}
        assert told.event["data"]["changed"] == ["amount"] and b"hidden now" not in told.body
        # A kind that is closed altogether: of what was known its id alone, of the rest nothing.
        await change(actions={"read": "none"})
        await desk.record("PATCH", f"deal/{deal}", fields={"amount": "3.00"})
        await desk.deal(title="new", amount="4.00")
        await settled(desk, ident)
        assert receiver.types()[2:] == ["deal.left"]
        assert receiver.got[2].record is None and b"3.00" not in receiver.got[2].body
        await change(delete("sys.profile", profile))
        await desk.deal(amount="5.00")
        gone = await desk.until(ident, lambda s: s["state"] == "failing")
        assert gone["reason"].startswith("job.rights_gone")
        await desk.call("POST", f"/{ident}/resume", 404)
        # Under another profile it goes on where it was.
        await desk.call("PATCH", f"/{ident}", profile="salesperson")
        await desk.call("POST", f"/{ident}/resume")
        await settled(desk, ident)
        assert len(receiver.got) == 3, "what happened at the head office is no branch's"


async def test_a_maker_who_is_gone_takes_the_webhook_along_until_it_is_adopted(
    desk, courier, sign_in, as_owner
):
    admin = await sign_in(desk.firm, "admin")
    owner, desk.web = desk.web, admin
    async with receiving() as receiver:
        ident = await desk.make(0, url=f"http://127.0.0.1:{receiver.port}/", unit="head")
        set_state = "UPDATE credential SET state = %s WHERE email = %s AND tenant_id = %s"
        tenant = desk.firm.tenant.id
        await as_owner(tenant, set_state, "suspended", "admin@example.org", tenant)
        try:
            desk.web = owner
            await desk.deal("head", title="unheard of")
            seen = await desk.until(ident, lambda s: s["state"] == "failing")
            assert seen["reason"].startswith("job.rights_gone") and not receiver.got
            await desk.call("POST", f"/{ident}/resume")
            await receiver.until(lambda: receiver.got)
            maker = (await desk.state(ident))["maker"]
            assert maker == str(desk.firm.tenant.people["owner"])
        finally:
            await as_owner(tenant, set_state, "active", "admin@example.org", tenant)


async def test_conditions_and_chosen_fields_narrow_what_is_told(desk, courier):
    won = {"field": "stage", "op": "eq", "value": "won"}
    async with receiving() as receiver:
        url = f"http://127.0.0.1:{receiver.port}/"
        watch = {"where": won, "fields": ["title", "stage"]}
        ident = await desk.make(0, url=url, watch=watch)
        deal = await desk.deal(title="a", stage="new", amount="1.00")
        await settled(desk, ident)
        await desk.record("PATCH", f"deal/{deal}", fields={"stage": "won"})
        await receiver.until(lambda: receiver.got)
        assert receiver.types() == ["deal.updated"] and receiver.got[0].event["data"]["first"]
        assert receiver.got[0].record["fields"] == {"title": "a", "stage": "won"}
        await desk.record("PATCH", f"deal/{deal}", fields={"amount": "2.00"})
        await desk.record("PATCH", f"deal/{deal}", fields={"stage": "lost"})
        await receiver.until(lambda: len(receiver.got) == 2)
        await settled(desk, ident)
        assert receiver.types() == ["deal.updated", "deal.left"]
        # The condition is the subscriber's: a field that they may not see is none to ask by.
        hidden = {"kind": "deal", "where": {"field": "margin", "op": "gt", "value": "1.00"}}
        refused = await desk.call("PATCH", f"/{ident}", 422, watches=[hidden])
        assert refused["errors"][0]["pointer"].startswith("/watches/0/where")
        for watch in ({"kind": "deal", "fields": ["margin"]}, {"kind": "sys.grant"},
                      {"kind": "deal", "actions": ["sold"]}):  # fmt: skip
            await desk.call("PATCH", f"/{ident}", 422, watches=[watch])


async def test_nobody_lends_or_redirects_more_than_they_hold(desk, sign_in):
    url = "https://hooks.example.org/in"
    ident = await desk.make(0, url=url, profile="owner", unit="head")
    desk.web, owner = await sign_in(desk.firm, "admin"), desk.web
    new = {"name": "n", "url": url, "watches": [{"kind": "deal"}], "profile": "owner"}
    await desk.call("POST", "", 403, **new)
    for method, path, body in (
        ("PATCH", "", {"url": "https://evil.example.org/"}), ("POST", "/rotate", {}),
        ("POST", "/replay", {"dead": True}), ("POST", "/resume", {}), ("POST", "/ping", {}),
    ):  # fmt: skip
        refused = await desk.call(method, f"/{ident}{path}", 403, **body)
        assert refused["type"].endswith("webhook.wider_than_you"), refused
    await desk.call("POST", f"/{ident}/pause")
    desk.web = await sign_in(desk.firm, "seller")
    for method, path in (("GET", ""), ("POST", ""), ("GET", f"/{ident}"), ("DELETE", f"/{ident}")):
        await desk.call(method, path, 403, **(new if method == "POST" else {}))
    # The record is read like any other, and written by nobody past the API of webhooks.
    desk.web = owner
    record = await desk.record("GET", f"sys.webhook/{ident}")
    assert record["fields"]["url"] == url and "secret" not in str(record).replace("secrets", "")
    for method, path, body in (
        ("PATCH", f"sys.webhook/{ident}", {"fields": {"url": "https://evil.example.org/"}}),
        ("DELETE", f"sys.webhook/{ident}", {}), ("POST", "sys.webhook", {"fields": record["fields"]}),
    ):  # fmt: skip
        await desk.record(method, path, 403, **body)


async def test_entries_of_ledgers_are_told_as_created(desk, courier):
    tenant = desk.firm.tenant
    await tenant.add_kind(
        "move",
        [{"name": "at", "type": "moment"}, {"name": "place", "type": "text"},
         {"name": "quantity", "type": "number", "options": {"scale": 3}}],
        ledger={"sort": "balance", "at": "at", "key": ["place"], "values": ["quantity"]},
    )  # fmt: skip
    key, profile, change = await profile_of(desk, ["title"])
    await change(
        create("sys.grant", profile=str(profile), kind="move", actions={"read": "all"},
               fields={"place": "read"})
    )  # fmt: skip
    async with receiving() as receiver:
        url, watches = f"http://127.0.0.1:{receiver.port}/", [{"kind": "move"}]
        await desk.make(0, url=url, profile=key, unit="head", watches=watches)
        made = await tenant.apply(
            create("move", at="2026-11-20T10:00:00Z", place="shelf", quantity="2.000")
        )
        assert made.committed, made
        await receiver.until(lambda: receiver.got)
        (told,) = receiver.got
        assert told.type == "move.created" and told.record["fields"] == {"place": "shelf"}


async def test_a_condition_that_may_not_be_asked_any_more_stops_the_webhook(desk, courier):
    key, _, change = await profile_of(desk, ["title", "amount"])
    where = {"field": "amount", "op": "gte", "value": "10.00"}
    async with receiving() as receiver:
        url = f"http://127.0.0.1:{receiver.port}/"
        ident = await desk.make(0, url=url, profile=key, unit="head", watch={"where": where})
        await change(fields={"title": "read"})
        await desk.deal(title="x", amount="20.00")
        seen = await desk.until(ident, lambda s: s["state"] == "failing")
        assert "condition" in seen["reason"] and not receiver.got and seen["waiting"] == 1
        await desk.call("PATCH", f"/{ident}", watches=[{"kind": "deal"}])
        await desk.call("POST", f"/{ident}/resume")
        await receiver.until(lambda: receiver.got)
        assert receiver.got[0].record["fields"] == {"title": "x"}
