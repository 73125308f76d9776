"""People at three nodes who go on working: the same customers, the same goods, no coordination.

Everything goes through the public HTTP contract. Each write has one idempotency key and is
repeated until it is answered, whatever is killed meanwhile; what was answered is in the journal.
"""

import asyncio
import random
import time
from dataclasses import dataclass, field

import httpx

from appliance.base.ids import uuid7
from tests.branch.fleet import OVER_TLS, OWNER, PASSWORD, SLUG
from tests.faults.load import FINAL

API = "/api/v1"
REQUEST_S, PATIENCE_S = 10.0, 150.0
WAIT_S = 0.25
SEGMENTS = ("retail", "wholesale", "key")
CITIES = ("Kyiv", "Odesa", "Lviv", "Dnipro", "Kharkiv")


@dataclass
class World:
    """What the people know in common: ids of what was there before the first cut."""

    customers: list[str]
    product: str
    warehouse: str
    units: dict[str, list[str]]
    fields: list[str] = field(default_factory=list)


class Worker:
    """One person at one node, until `stop`."""

    def __init__(self, node, name, world, journal, *, seed, pause_s=0.15):
        self.node, self.name, self.world, self.journal = node, name, world, journal
        self.random = random.Random(f"{seed} {name}")
        self.pause_s, self.token, self.count = pause_s, "", 0
        self.own, self.gone, self.deals = [], [], []
        self.steps = {
            self.edit: 34, self.make: 10, self.sell: 16, self.move_stock: 14, self.tag: 10,
            self.delete: 3, self.restore: 3, self.send_on: 8, self.attach: 2, self.new_field: 1,
        }  # fmt: skip

    async def run(self, stop):
        async with httpx.AsyncClient(
            base_url=self.node.url + API, timeout=REQUEST_S, headers=OVER_TLS
        ) as self.http:
            steps, weights = list(self.steps), list(self.steps.values())
            while not stop.is_set():
                (step,) = self.random.choices(steps, weights)
                self.count += 1
                await step()
                await asyncio.sleep(self.pause_s * (0.5 + self.random.random()))

    # What they do.

    async def edit(self):
        """One or two fields of one of everybody's customers."""
        seen = await self.look("customer", self.random.choice(self.world.customers))
        if seen is None:
            return
        values = {
            "city": f"{self.random.choice(CITIES)} {self.count}", "note": f"{self.name} said {self.count}",
            "payment_days": self.random.randrange(90), "legal_name": f"{self.name} {self.count}",
            "credit_limit": f"{self.random.randrange(1, 900)}00.00", "name": f"Firm {self.name} {self.count}",
        } | {f: f"{self.name} {self.count}" for f in self.world.fields}  # fmt: skip
        chosen = self.random.sample(list(values), self.random.choice((1, 1, 2)))
        await self.write("edit", "PATCH", f"/records/customer/{seen['id']}",
                         {"fields": {n: values[n] for n in chosen}}, seen, fields=chosen)  # fmt: skip

    async def tag(self):
        seen = await self.look("customer", self.random.choice(self.world.customers))
        if seen is None:
            return
        now = set(seen["fields"].get("segment") or ())
        now ^= {self.random.choice(SEGMENTS)}
        body = {"fields": {"segment": sorted(now) or None}}
        await self.write("tag", "PATCH", f"/records/customer/{seen['id']}", body, seen)

    async def make(self):
        body = {"fields": {"name": f"New {self.name} {self.count}", "city": CITIES[0]}}
        told = await self.write("make", "POST", "/records/customer", body)
        if told:
            self.own.append(told["id"])

    async def sell(self):
        """A sale in one change: the deal, its lines and what leaves the shelf, all of it or nothing."""
        deal, pieces = str(uuid7()), self.random.randrange(1, 4)
        unit = self.random.choice(self.world.units[self.node.name])
        lines = [
            {"kind": "deal_line", "fields": {"deal": deal, "product": self.world.product, "quantity": str(pieces), "unit_price": "10"}}
            for _ in range(3)
        ]  # fmt: skip
        body = [
            {"kind": "deal", "id": deal, "unit": unit, "fields":
             {"title": f"{self.name} {self.count}", "customer": self.random.choice(self.world.customers)}},
            *lines, self.movement(-3 * pieces, unit),
        ]  # fmt: skip
        if await self.write(
            "sell", "POST", "/changes", body, delta=-3 * pieces, deal=deal, parts=5
        ):
            self.deals.append(deal)

    async def move_stock(self):
        amount = self.random.choice((-2, -1, 5))
        unit = self.random.choice(self.world.units[self.node.name])
        await self.write("stock", "POST", "/changes", [self.movement(amount, unit)], delta=amount)

    def movement(self, amount, unit):
        reason = "receipt" if amount > 0 else "shipment"
        return {"kind": "stock_move", "unit": unit, "fields": {
            "product": self.world.product, "warehouse": self.world.warehouse, "quantity": str(amount),
            "reason": reason}}  # fmt: skip

    async def delete(self):
        """Mostly somebody's own record; now and then one that others edit at this moment."""
        shared = self.random.random() < 0.3
        ident = self.random.choice(self.world.customers if shared else self.own or [None])
        seen = await self.look("customer", ident) if ident else None
        if seen and await self.write(
            "delete", "DELETE", f"/records/customer/{ident}", None, seen, ident=ident
        ):
            self.gone.append(ident)

    async def restore(self):
        if self.gone:
            ident = self.gone.pop(0)
            await self.write("restore", "POST", f"/records/customer/{ident}/restore", {}, ident=ident)  # fmt: skip

    async def send_on(self):
        """A deal goes into another branch, with its lines."""
        units = self.world.units[self.node.name]
        if len(units) < 2 or not self.deals:
            return
        deal = self.random.choice(self.deals)
        seen = await self.look("deal", deal)
        others = [u for u in units if seen and u != seen.get("unit")]
        if seen and others:
            body = {"unit": self.random.choice(others)}
            await self.write("move", "PATCH", f"/records/deal/{deal}", body, seen, ident=deal)

    async def attach(self):
        text = f"What {self.name} wrote down, {self.count}.\n" * 40
        path = f"/files?kind=customer&record={self.random.choice(self.world.customers)}&name=note-{self.count}.txt"
        await self.write("attach", "POST", path, text.encode(), expected=(202,))

    async def new_field(self):
        name = f"extra_{self.name.replace('-', '_')}_{self.count}"
        body = {"name": name, "type": "text"}
        if await self.write(
            "field", "POST", "/kinds/customer/fields", body, field=name, refusable=True
        ):
            self.world.fields.append(name)

    # How they do it.

    async def look(self, kind, ident):
        answer = await self.insist("GET", f"/records/{kind}/{ident}")
        return answer.json() if answer is not None and answer.status_code == 200 else None

    async def write(self, op, method, path, body, seen=None, *, expected=(200, 201, 204), refusable=False, **more):  # fmt: skip
        """One write until it is answered; what was told, or None when it was refused or in doubt."""
        headers = {"Idempotency-Key": str(uuid7())}
        if seen:
            headers["If-Match"] = f'"{seen["version"]}"'
            more.setdefault("ident", seen["id"])
        answer = await self.insist(method, path, body, headers)
        if answer is None:
            self.journal.doubted(self.node.name, op, path=path, **more)
            return None
        if answer.status_code in expected:
            return self.journal.note(self.node.name, op, answer, **more) or {"id": None}
        code = answer.json().get("code", "")
        self.journal.refused[f"{op} {answer.status_code} {code}"] += 1
        # A conflict with what was seen, something that somebody else deleted, and a field that is
        # made at another node and not heard of here, are answers.
        is_known = "reference_unknown" in answer.text or is_unheard(answer, self.world.fields)
        if answer.status_code not in (404, 409, 412) and not refusable and not is_known:
            self.journal.strange.append(
                f"{self.name} {op}: {answer.status_code} {answer.text[:300]}"
            )
        return None

    async def insist(self, method, path, body=None, headers=None):
        """The same request with the same key until a node answers it; None after a long time."""
        end = time.monotonic() + PATIENCE_S
        content = body if isinstance(body, bytes) else None
        more = {"content-type": "application/octet-stream"} if content else {}
        while time.monotonic() < end:
            try:
                if not self.token:
                    await self.sign_in()
                answer = await self.http.request(
                    method, path, content=content, json=None if content else body,
                    headers={**(headers or {}), **more, "Authorization": f"Bearer {self.token}"},
                )  # fmt: skip
            except (httpx.HTTPError, NotNow):
                self.journal.retries += 1
                await asyncio.sleep(WAIT_S)
                continue
            if answer.status_code == 401:
                self.token = ""
                continue
            is_busy = answer.status_code == 409 and answer.json().get("code") == "record.busy"
            if answer.status_code < 300 or (answer.status_code in FINAL | {412} and not is_busy):
                return answer
            self.journal.retries += 1
            await asyncio.sleep(WAIT_S)
        return None

    async def sign_in(self):
        body = {"tenant": SLUG, "email": OWNER, "password": PASSWORD}
        answer = await self.http.post("/session", json=body)
        if answer.status_code != 201:
            raise NotNow
        self.token = answer.json()["token"]


def is_unheard(answer, fields):
    """Whether all that is wrong with an edit is a field that people have made meanwhile."""
    faults = answer.json().get("errors") or []
    return bool(faults) and all(
        f.get("code") == "unknown_field" and f.get("pointer", "").removeprefix("/fields/") in fields
        for f in faults
    )


class NotNow(Exception):
    """The node cannot sign anybody in at the moment."""


async def work(fleet, world, journal, stop, *, people=2, pause_s=0.15):
    """Everybody at work at every node until `stop` is set."""
    workers = [
        Worker(node, f"{name}-{n}", world, journal, seed=fleet.seed, pause_s=pause_s)
        for name, node in fleet.nodes.items() for n in range(people)
    ]  # fmt: skip
    await asyncio.gather(*(w.run(stop) for w in workers))


def make_world(fleet, units):
    """What is there before anything goes wrong, made at the hub; `units` are those of each node."""
    owner = fleet.person("hub")
    tax = owner.rows('tax where rate = "20.00"')[0]
    product = owner.make("product", name="Lamp", sku="L-1", tax=tax["id"])
    warehouse = owner.make("warehouse", name="Everybody's", allow_negative=True)
    customers = [owner.make("customer", name=f"Firm {n}", city=CITIES[0])["id"] for n in range(10)]
    return World(customers, product["id"], warehouse["id"], units)
