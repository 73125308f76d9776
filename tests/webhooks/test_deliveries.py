"""What changed reaches its receiver: signed, in order, through the profile, and nothing else does."""

import pytest

from tests.webhooks.receiver import receiving, signed_by

pytestmark = pytest.mark.anyio
MARGIN = "4815162342.77"


async def test_a_receiver_is_told_what_its_profile_sees_in_order(desk, courier, certificate):
    async with receiving(certificate[0]) as receiver:
        ident = await desk.make(receiver.port)
        deal = await desk.deal(title="one", margin=MARGIN)
        await receiver.until(lambda: receiver.got)
        # Of a hidden field alone nothing is told; of both, the one that is seen.
        await desk.record("PATCH", f"deal/{deal}", fields={"margin": "1.00"})
        await desk.record("PATCH", f"deal/{deal}", fields={"margin": MARGIN, "title": "two"})
        await desk.deal("south", title="elsewhere")
        for n in range(3):
            await desk.record("PATCH", f"deal/{deal}", fields={"amount": f"{n}.00"})
        south, north = (str(desk.firm.tenant.units[u]) for u in ("south", "north"))
        await desk.until(ident, lambda s: s["lag"] == s["waiting"] == 0)
        await desk.record("PATCH", f"deal/{deal}", unit=south)
        await receiver.until(lambda: "deal.left" in receiver.types())
        await desk.record("PATCH", f"deal/{deal}", fields={"title": "three"})
        await desk.until(ident, lambda s: s["lag"] == s["waiting"] == 0)
        await desk.record("PATCH", f"deal/{deal}", unit=north)
        await receiver.until(lambda: receiver.types()[-1] == "deal.updated")
        await desk.record("DELETE", f"deal/{deal}")
        await receiver.until(lambda: receiver.types()[-1] == "deal.deleted")
        await desk.record("POST", f"deal/{deal}/restore")
        await receiver.until(lambda: receiver.types()[-1] == "deal.restored")
        seen = await desk.until(ident, lambda s: s["lag"] == s["waiting"] == 0)
    assert receiver.types() == [
        "deal.created", "deal.updated", *["deal.updated"] * 3, "deal.left", "deal.updated",
        "deal.deleted", "deal.restored",
    ]  # fmt: skip
    told = [g.event["data"] for g in receiver.got]
    assert [d["changed"] for d in told[:5]] == [
        ["number", "owner", "title", "unit"], ["title"], *[["amount"]] * 3
    ]  # fmt: skip
    assert [d["first"] for d in told] == [True, *[False] * 5, True, False, True]
    assert told[0]["record"]["fields"]["title"] == "one" and told[5]["record"] is None
    assert {d["id"] for d in told} == {deal} and {d["kind"] for d in told} == {"deal"}
    versions = [d["version"] for d in told if d["record"]]
    # The record is as it is when it is sent: of quick changes the later one shows in both.
    assert versions[0] != versions[1] and len(set(versions)) >= 3, versions
    every = (
        b"".join(g.body for g in receiver.got) + repr([g.headers for g in receiver.got]).encode()
    )
    for hidden in (b"margin", MARGIN.encode(), b"elsewhere"):
        assert hidden not in every
    assert all(signed_by(g, desk.secrets[ident]) == 1 for g in receiver.got)
    assert len(set(receiver.ids())) == len(receiver.got) == seen["delivered"]
    head = receiver.got[0].headers
    assert head[":line"].startswith("POST /hook ") and head["host"] == f"localhost:{receiver.port}"
    assert head["content-type"] == "application/json" and "accept-encoding" in head
    listed = await desk.deliveries(ident)
    assert [d["type"] for d in listed][::-1][:2] == ["deal.created", "deal.updated"]
    assert {d["status"] for d in listed} == {204} and {d["attempts"] for d in listed} == {1}
