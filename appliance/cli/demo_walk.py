"""The walk of `nexus demo show`: two branches work alone, and everything comes together.

It speaks the public HTTP contract only, as three people at three desks, and says what it sees. The
answer of each question is checked; the walk ends with exit code 1 when one is not as it should be.
"""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Callable
from typing import Any

import httpx
import msgspec

from appliance.base.errors import Unavailable
from appliance.base.ids import uuid7

API = "/api/v1"
EVERYWHERE_S = 120.0
PEOPLE = {"north": ("Nina", "North branch"), "south": ("Sam", "South branch")}
STOCK = 100
NAMES = ("Kovalenko and sons", "Kovalenko & Sons Ltd", "Kovalenko Brothers")


class Desk(msgspec.Struct):
    """A person at a node."""

    node: str
    url: str
    tenant: str
    email: str
    password: str
    token: str = ""

    def can_sign_in(self) -> bool:
        """Whether the node knows this person by now."""
        body = {"tenant": self.tenant, "email": self.email, "password": self.password}
        try:
            answer = httpx.post(f"{self.url}{API}/session", json=body, timeout=10)
        except httpx.HTTPError:
            return False
        if answer.status_code != 201:
            return False
        self.token = answer.json()["token"]
        return True

    def call(self, method: str, path: str, **more: Any) -> Any:
        """One request as this person. Raises Unavailable with what was answered."""
        if not self.token and not self.can_sign_in():
            raise Unavailable(f"{self.email} cannot sign in at {self.node}.", dependency=self.node)
        headers = {"Authorization": f"Bearer {self.token}", **more.pop("headers", {})}
        answer = httpx.request(
            method, f"{self.url}{API}{path}", headers=headers, timeout=30, **more
        )
        if answer.status_code >= 300:
            told = answer.json().get("detail", answer.text) if answer.content else ""
            raise Unavailable(
                f"{self.node}: {method} {path}: {answer.status_code} {told} {answer.text[:300]}",
                dependency=self.node,
            )
        return answer.json() if answer.content else None

    def rows(self, text: str) -> list[dict[str, Any]]:
        """The rows of a query."""
        return list(self.call("GET", "/query", params={"q": text})["rows"])

    def edit(self, ident: str, **fields: object) -> None:
        """Change a customer as it is seen at this node."""
        seen = self.call("GET", f"/records/customer/{ident}")
        self.call("PATCH", f"/records/customer/{ident}", json={"fields": fields},
                  headers={"If-Match": f'"{seen["version"]}"'})  # fmt: skip


class Crew(msgspec.Struct, frozen=True):
    """Everybody's desks and what the walk needs to know; kept in the demo's folder, mode 600."""

    tenant: str
    urls: dict[str, str]
    emails: dict[str, str]
    passwords: dict[str, str]
    units: dict[str, str]
    product: str
    warehouse: str

    def desk(self, node: str) -> Desk:
        """Whoever works at a node."""
        return Desk(node, self.urls[node], self.tenant, self.emails[node], self.passwords[node])

    def desks(self) -> list[Desk]:
        """All of them, the hub's first."""
        return [self.desk(node) for node in self.urls]

    def owner_everywhere(self) -> list[Desk]:
        """The owner, who sees all, travelling: at each node."""
        owner = self.desk("hub")
        return [
            Desk(n, url, self.tenant, owner.email, owner.password) for n, url in self.urls.items()
        ]


def furnish(owner: Desk, tenant: str, urls: dict[str, str]) -> Crew:
    """What the company has before the branches join: a product on stock, somebody in each branch."""
    units = {row["fields"]["name"]: row["id"] for row in owner.rows("sys.unit")}
    (profile,) = owner.rows('sys.profile where key = "branch_manager"')
    emails, passwords = {"hub": owner.email}, {"hub": owner.password}
    for node, (name, unit) in PEOPLE.items():
        emails[node] = f"{name.lower()}@demo.example"
        passwords[node] = f"{owner.password}-{node}"
        member = {"profile": profile["id"], "units": [units[unit]]}
        body = {"name": name, "email": emails[node], "memberships": [member]}
        code = owner.call("POST", "/invitations", json=body)["code"]
        accepted = {"code": code, "password": passwords[node]}
        httpx.post(f"{owner.url}{API}/invitations/accept", json=accepted, timeout=30)
    tax = owner.rows('tax where rate = "20.00"')[0]
    product = _make(owner, "product", name="Lamp", sku="LAMP-1", tax=tax["id"])
    warehouse = _make(owner, "warehouse", name="Central store", allow_negative=True)
    step = {"kind": "stock_move", "unit": units["Head office"], "fields": {
        "product": product, "warehouse": warehouse, "quantity": str(STOCK), "reason": "receipt"}}  # fmt: skip
    owner.call("POST", "/changes", json=[step])
    return Crew(
        tenant=tenant, urls=urls, emails=emails, passwords=passwords, product=product,
        units={node: units[unit] for node, (_, unit) in PEOPLE.items()}, warehouse=warehouse,
    )  # fmt: skip


def walk(crew: Crew, cut: Callable[[bool], None]) -> int:
    """Cut, work at both branches, heal, look; 0 when everything is as it should be."""
    owner, nina, sam = crew.desks()
    owners, asked = crew.owner_everywhere(), _Asked()
    cut(False)
    asked.wait(
        "people can sign in at all three", lambda: all(d.can_sign_in() for d in crew.desks())
    )
    customer = _make(owner, "customer", name=NAMES[0])
    print(f"The hub has a new customer, {NAMES[0]}.")
    asked.wait("both branches have it", lambda: all(_has(d, customer) for d in (nina, sam)))
    before = _stock(owner, crew)

    cut(True)
    print("\nThe links are cut. Both branches go on:")
    nina.edit(customer, phone="+380441110022", name=NAMES[1])
    sam.edit(customer, email="office@kovalenko.example", name=NAMES[2])
    print(f"  Nina in the north sets a phone and calls them {NAMES[1]}.")
    print(f"  Sam in the south sets an e-mail and calls them {NAMES[2]}.")
    sold = [_sell(crew, nina, customer, 2), _sell(crew, sam, customer, 3)]
    print(f"  Nina sells 2 lamps, {sold[0][1]}. Sam sells 3, {sold[1][1]}.")
    picture = _photo()
    photo = nina.call("POST", f"/files?kind=deal&record={sold[0][0]}&name=photo.png",
                      content=picture, headers={"content-type": "application/octet-stream"})["id"]  # fmt: skip
    print("  Nina attaches a photo to her deal.")
    asked.note("the hub knows nothing of it yet", not _filled(owner, customer))

    cut(False)
    began = time.monotonic()
    print("\nThe links are whole again:")
    asked.wait("both sales are at all three", lambda: all(_sales(d, sold) for d in owners))
    asked.wait("the phone and the e-mail too",
               lambda: all(_filled(d, customer) == {"phone", "email"} for d in owners))  # fmt: skip
    left = before - 5
    asked.wait(
        f"the stock was {before} and is {left} at all three",
        lambda: all(_stock(d, crew) == left for d in owners),
    )
    print(f"       after {time.monotonic() - began:.1f} s")
    asked.note("the deals' numbers differ", sold[0][1] != sold[1][1])
    asked.wait("the photo was scanned and comes down at the other branch",
               lambda: _fetched(owners[2], photo) == picture)  # fmt: skip
    _look_at_conflict(asked, owners, customer)
    return asked.end()


def _look_at_conflict(asked: _Asked, owners: list[Desk], customer: str) -> None:
    asked.wait(
        "one conflict waits in the inbox, with both names",
        lambda: all(_sides(d, customer) == [set(NAMES[1:])] for d in owners),
    )
    for found in _conflicts(owners[0], customer):
        for side in found["sides"]:
            shown = ", shown for now" if side["is_shown"] else ""
            said = ", ".join(f"{field} {value}" for field, value in side["values"].items())
            print(f"         {said} ({side['who_text']} at {side['at'][:16]}{shown})")
    print(f"       decide it: POST {owners[0].url}{API}/conflicts/{customer}/field/name/resolve")


class _Asked:
    """What was looked at, and whether all was so."""

    def __init__(self) -> None:
        self.wrong: list[str] = []

    def note(self, what: str, is_so: bool) -> None:  # noqa: FBT001 - the answer
        print(f"  {'yes' if is_so else 'NO '}  {what}", flush=True)
        if not is_so:
            self.wrong.append(what)

    def wait(self, what: str, check: Callable[[], bool]) -> None:
        end = time.monotonic() + EVERYWHERE_S
        is_so = check()
        while not is_so and time.monotonic() < end:
            time.sleep(0.3)
            is_so = check()
        self.note(what, is_so)

    def end(self) -> int:
        if self.wrong:
            print(f"\nNot so: {'; '.join(self.wrong)}.")
        else:
            print("\nEverything is everywhere.")
        return 1 if self.wrong else 0


def _make(desk: Desk, kind: str, **fields: object) -> str:
    return str(desk.call("POST", f"/records/{kind}", json={"fields": fields})["id"])


def _look(desk: Desk, customer: str) -> dict[str, Any]:
    return dict(desk.call("GET", f"/records/customer/{customer}"))


def _has(desk: Desk, customer: str) -> bool:
    return bool(desk.rows(f'customer where id = "{customer}"'))


def _filled(desk: Desk, customer: str) -> set[str]:
    """Which of what the branches filled in is there."""
    return {"phone", "email"} & {k for k, v in _look(desk, customer)["fields"].items() if v}


def _sell(crew: Crew, desk: Desk, customer: str, pieces: int) -> tuple[str, str]:
    """A deal with a line and what leaves the shelf, in one change; its id and number."""
    deal, unit = str(uuid7()), crew.units[desk.node]
    title = {"title": f"Lamps from {desk.node}", "customer": customer}
    line = {"deal": deal, "product": crew.product, "quantity": str(pieces), "unit_price": "450"}
    move = {"product": crew.product, "warehouse": crew.warehouse, "quantity": str(-pieces),
            "reason": "shipment"}  # fmt: skip
    steps = [
        {"kind": "deal", "id": deal, "unit": unit, "fields": title},
        {"kind": "deal_line", "fields": line},
        {"kind": "stock_move", "unit": unit, "fields": move},
    ]
    desk.call("POST", "/changes", json=steps)
    return deal, str(desk.call("GET", f"/records/deal/{deal}")["number"])


def _sales(desk: Desk, sold: list[tuple[str, str]]) -> bool:
    """Whether both deals are there, each with its line."""
    return all(desk.rows(f'deal_line where deal = "{deal}"') for deal, _ in sold)


def _stock(desk: Desk, crew: Crew) -> int:
    rows = desk.call("GET", "/stock", params={"product": crew.product})["rows"]
    return round(sum(float(row["balance"]) for row in rows))


def _fetched(desk: Desk, photo: str) -> bytes | None:
    """The photo as this node gives it; None while it waits for its bytes or its scanner."""
    try:
        url = desk.call("POST", f"/files/{photo}/ticket")["url"]
    except Unavailable:
        return None
    answer = httpx.get(url, headers={"Authorization": f"Bearer {desk.token}"}, timeout=30,
                       follow_redirects=True)  # fmt: skip
    return answer.content if answer.status_code == 200 else None


def _sides(desk: Desk, customer: str) -> list[set[str]]:
    """The values of each conflict about this customer."""
    return [
        {v for s in c["sides"] for v in s["values"].values()} for c in _conflicts(desk, customer)
    ]


def _conflicts(desk: Desk, customer: str) -> list[dict[str, Any]]:
    return list(desk.call("GET", "/conflicts", params={"record": customer})["conflicts"])


def _photo() -> bytes:
    """A small picture: a blue square as PNG."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    side = 64
    rows = (b"\0" + bytes((40, 90, 160)) * side) * side
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts
