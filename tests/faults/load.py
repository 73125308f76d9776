"""Writers that never give up and never repeat themselves: each write has one idempotency key."""

import asyncio
import time
from dataclasses import dataclass, field

import httpx

from appliance.base.ids import uuid7

CITIES = ("Kyiv", "Odesa", "Lviv", "Dnipro")
REQUEST_S = 10.0
FINAL = frozenset({400, 401, 403, 404, 409, 413, 422})


@dataclass
class Record:
    """What a writer knows: the values of its last acknowledged write, and how many there were."""

    id: str
    marker: str
    city: str
    version: str
    updates: int = 0


@dataclass
class Load:
    """A write load; `records` is what the node has acknowledged."""

    url: str
    token: str
    writers: int = 8
    pause_s: float = 0.02
    prefix: str = "k"
    records: dict[str, Record] = field(default_factory=dict)
    tried: set[str] = field(default_factory=set)
    in_doubt: set[str] = field(default_factory=set)
    acks: list[float] = field(default_factory=list)
    retries: int = 0
    refusals: list[str] = field(default_factory=list)

    async def run(self, stop):
        """Write until `stop` is set; each writer ends with an answer to its last write."""
        async with httpx.AsyncClient(
            base_url=self.url, timeout=REQUEST_S, headers={"Authorization": f"Bearer {self.token}"}
        ) as client:
            await asyncio.gather(*(self._write_on(client, n, stop) for n in range(self.writers)))

    async def _write_on(self, client, writer, stop):
        own, n = [], 0
        while not stop.is_set():
            n += 1
            if own and n % 3 == 0:
                await self._update(client, own[n % len(own)], CITIES[n % len(CITIES)] + f" {n}")
            else:
                made = await self._create(client, f"{self.prefix}{writer:02d}-{n:06d}")
                if made:
                    own.append(made)
            await asyncio.sleep(self.pause_s)

    async def _create(self, client, marker):
        self.tried.add(marker)
        body = {"fields": {"name": marker, "city": CITIES[0]}}
        answer = await self._insist(client, "POST", "/api/v1/records/customer", body, {})
        if answer is None:
            self.in_doubt.add(marker)
            return None
        given = answer.json()
        made = Record(given["id"], marker, CITIES[0], given["version"])
        self.records[marker] = made
        return made

    async def _update(self, client, record, city):
        path = f"/api/v1/records/customer/{record.id}"
        headers = {"If-Match": record.version}
        answer = await self._insist(client, "PATCH", path, {"fields": {"city": city}}, headers)
        if answer is None:
            self.in_doubt.add(record.marker)
            return
        record.city, record.version = city, answer.json()["version"]
        record.updates += 1

    async def _insist(self, client, method, path, body, headers):
        """The same request with the same key until it is answered; None when it was refused."""
        headers = {**headers, "Idempotency-Key": str(uuid7())}
        end = time.monotonic() + 120.0
        while time.monotonic() < end:
            try:
                answer = await client.request(method, path, json=body, headers=headers)
            except httpx.HTTPError:
                self.retries += 1
                await asyncio.sleep(0.1)
                continue
            if answer.status_code in (200, 201):
                self.acks.append(time.monotonic())
                return answer
            if answer.status_code in FINAL and answer.json().get("code") != "record.busy":
                self.refusals.append(f"{answer.status_code} {answer.text[:200]}")
                return None
            self.retries += 1
            await asyncio.sleep(0.1)
        self.refusals.append(f"no answer in 120 s: {method} {path}")
        return None
