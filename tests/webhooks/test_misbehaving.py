"""Receivers that hang, fail, redirect, cut, flood, refuse and end: each as its sort deserves."""

import asyncio
import contextlib

import pytest

from tests.webhooks.receiver import answer, receiving

pytestmark = pytest.mark.anyio


def in_turn(*rules):
    """Each rule once, then a plain success."""
    left = list(rules)
    return lambda got: left.pop(0) if left else None


async def _hang(writer):
    await asyncio.sleep(30)


async def _cut(writer):
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Le")
    await writer.drain()


async def _drip(writer):
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    for _ in range(100):
        writer.write(b".")
        await writer.drain()
        await asyncio.sleep(0.1)


class Flood:
    written = 0

    async def __call__(self, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n")
        for _ in range(10_000):
            writer.write(b"x" * 65_536)
            self.written += 65_536
            await writer.drain()


async def test_each_failure_has_its_own_answer(desk, courier):
    flood = Flood()
    rules = {
        "hang": lambda got: _hang,
        "flaky": in_turn(answer(500), answer(503)),
        "busy": in_turn(answer(429, Retry_After="1")),
        "cut": in_turn(_cut),
        "drip": in_turn(_drip),
        "flood": in_turn(flood),
        "moved": lambda got: answer(302, Location=f"http://127.0.0.1:{inside}/inside"),
        "meta": lambda got: answer(307, Location="http://169.254.169.254/latest/meta-data"),
        "picky": in_turn(answer(422, b"no")),
        "gone": lambda got: answer(410),
        "good": None,
    }
    async with contextlib.AsyncExitStack() as stack:
        at = {n: await stack.enter_async_context(receiving(rule=r)) for n, r in rules.items()}
        inside = at["good"].port
        ids = {
            n: await desk.make(0, url=f"http://127.0.0.1:{r.port}/{n}", name=n)
            for n, r in at.items()
        }
        for n in range(4):
            await desk.make(0, url=f"http://127.0.0.1:{at['hang'].port}/more", name=f"hang {n}")
        await asyncio.sleep(1.1)  # By now the courier knows that the firm has webhooks.
        deal = await desk.deal(title="a")
        await desk.record("PATCH", f"deal/{deal}", fields={"title": "b"})
        begun = asyncio.get_running_loop().time()
        await at["good"].until(lambda: len(at["good"].got) == 2)
        took = asyncio.get_running_loop().time() - begun
        assert took < 5.0, "as many as a worker has threads hang, and hold up nobody"
        for name in ("flaky", "busy", "cut", "drip", "flood"):
            await at[name].until(lambda r=at[name]: r.types()[-1:] == ["deal.updated"])
            await desk.until(ids[name], lambda s: s["delivered"] == 2 and s["failures"] == 0)
        # The same event keeps its id, and the record's next one waits for it.
        assert at["flaky"].types() == [*["deal.created"] * 3, "deal.updated"]
        assert len(set(at["flaky"].ids()[:3])) == 1
        assert at["busy"].got[1].at - at["busy"].got[0].at >= 1.0
        assert at["cut"].ids()[0] == at["cut"].ids()[1] and len(at["drip"].got) == 2
        assert flood.written < 20 << 20
        for name, status in (("moved", "302"), ("meta", "307")):
            seen = await desk.until(ids[name], lambda s: s["state"] == "failing")
            assert seen["reason"].startswith(f"http-{status}") and seen["waiting"] == 2, seen
        assert not [g for g in at["good"].got if "/inside" in g.headers[":line"]]
        gone = await desk.until(ids["gone"], lambda s: s["state"] == "disabled")
        assert "410" in gone["reason"] and len(at["gone"].got) == 1
        picky = await desk.until(ids["picky"], lambda s: s["delivered"] == 1)
        assert (picky["dead"], at["picky"].types()) == (1, ["deal.created", "deal.updated"])
        (dead,) = await desk.deliveries(ids["picky"], "dead")
        assert (dead["type"], dead["status"], dead["code"]) == ("deal.created", 422, "http-422")
        assert await desk.call("POST", f"/{ids['picky']}/replay", 202, dead=True) == {"events": 1}
        await desk.until(ids["picky"], lambda s: s["delivered"] == 2 and not s["dead"])
        assert at["picky"].ids()[2] == at["picky"].ids()[0] == dead["id"]
        hung = await desk.until(ids["hang"], lambda s: s["failures"] >= 3 and s["next_try_at"])
        assert hung["state"] == "active" and hung["delivered"] == 0
        (first, _) = (await desk.deliveries(ids["hang"], "waiting"))[::-1]
        assert first["code"] == "timeout" and 900 < first["duration_ms"] < 10_000
        # What stopped goes on where it was, once somebody has put it right.
        at["moved"].rule = None
        await desk.call("POST", f"/{ids['moved']}/resume")
        await desk.until(ids["moved"], lambda s: s["delivered"] == 2 and s["state"] == "active")
        assert at["moved"].types()[-2:] == ["deal.created", "deal.updated"]


async def test_one_event_that_is_never_taken_does_not_hold_up_the_rest(desk, courier):
    """It is told again while others go through, and put aside in the end; the failing one rests."""
    poison = {}

    def rule(got):
        return answer(500) if got.event["data"]["id"] == poison.get("id") else None

    async with receiving(rule=rule) as receiver:
        ident = await desk.make(0, url=f"http://127.0.0.1:{receiver.port}/")
        poison["id"] = await desk.deal(title="poison")
        await receiver.until(lambda: receiver.got)
        for n in range(8):
            await desk.deal(title=f"good {n}")
            await asyncio.sleep(0.1)
        seen = await desk.until(ident, lambda s: s["dead"] == 1 and s["delivered"] == 8)
        assert (seen["state"], seen["failures"], seen["waiting"]) == ("active", 0, 0)
