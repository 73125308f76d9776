"""The node as a worker knows it: a handful of addresses, a key, and answers that may not come.

Every question has a timeout and is tried again with back-off within a deadline, so that neither a
hanging node nor a broken line holds a worker for ever.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeVar
from uuid import UUID

import httpx
import msgspec

from connectors.sdk.channels import (
    OFFERS,
    Channel,
    Offers,
    Report,
    read_channels,
    read_offers,
    write_report,
)
from connectors.sdk.contract import Frame
from connectors.sdk.retry import TRANSIENT_STATUSES, Policy, Trouble, read_retry_after, retry
from connectors.sdk.wire import Kept, SourcesTold, Taken, Wish, Wishes
from connectors.work.settings import Source, Worker

API = "/api/v1"
FRAMES = "application/msgpack"
LOST = "intake.lease_lost"
WAIT_S = 30.0
POLICY = Policy(tries=12, first_s=0.5, most_s=30.0, deadline_s=300.0)
# A look for work is repeated anyway.
LOOK = Policy(tries=1, deadline_s=WAIT_S)
_CHUNK = 1 << 18
_encode = msgspec.msgpack.encode
T = TypeVar("T")


class _Made(msgspec.Struct, frozen=True):
    id: UUID


class _Problem(msgspec.Struct, frozen=True):
    code: str = ""
    detail: str = ""


class Node:
    """The client of one worker. All raise sdk.retry.Trouble."""

    def __init__(self, worker: Worker, reader: str) -> None:
        self.name, self._reader = worker.name, reader
        self._http = httpx.AsyncClient(
            base_url=worker.node + API, timeout=WAIT_S, trust_env=False,
            headers={"Authorization": f"Bearer {worker.key}"},
            verify=ssl.create_default_context(cafile=worker.ca_file or None),
        )  # fmt: skip

    async def close(self) -> None:
        """End it."""
        await self._http.aclose()

    async def take(self, connectors: list[str]) -> Taken | None:
        """A run that waits for this worker."""
        wish = Wish(self.name, self._reader, connectors)
        body = await self._ask("POST", "/intake/work", LOOK, **_json(wish))
        return _read(body, Taken) if body else None

    async def fetch(self, taken: Taken, folder: Path) -> Path:
        """Its file, proved to be the one that is meant."""
        path = folder / f"{taken.run.hex}.{taken.epoch}"

        async def once() -> Path:
            digest = hashlib.sha256()
            url = f"/intake/work/{taken.run}/file"
            request = self._http.build_request("GET", url, params={"epoch": taken.epoch})
            answer = await self._send(request, stream=True)
            try:
                with path.open("wb") as file:
                    async for piece in answer.aiter_bytes(_CHUNK):
                        digest.update(piece)
                        file.write(piece)
            except httpx.HTTPError as error:
                raise _cut(error) from None
            finally:
                await answer.aclose()
            if digest.hexdigest() != taken.sha256:
                raise Trouble("truncated", "the node gave other bytes than those of the run")
            return path

        return await retry(once, POLICY)

    async def post(self, taken: Taken, no: int, frame: Frame, policy: Policy = POLICY) -> Kept:
        """One frame; the same again changes nothing."""
        params = {"epoch": taken.epoch, "no": no}
        body = await self._ask(
            "POST", f"/intake/work/{taken.run}/frames", policy, params=params,
            content=_encode(frame), headers={"Content-Type": FRAMES},
        )  # fmt: skip
        return _read(body, Kept)

    async def bring(self, path: Path, name: str) -> UUID:
        """Give a file to the node, which holds it until it is proved clean."""

        async def pieces() -> AsyncIterator[bytes]:
            with path.open("rb") as file:
                while piece := file.read(_CHUNK):
                    yield piece

        async def once() -> bytes:
            request = self._http.build_request(
                "POST", "/files", params={"name": name}, content=pieces(),
                headers={"Content-Type": "application/octet-stream"},
            )  # fmt: skip
            return (await self._send(request)).content

        return _read(await retry(once, POLICY), _Made).id

    async def tell_sources(self, told: SourcesTold) -> Wishes:
        """How the sources stand; what is wanted of them."""
        return _read(await self._ask("PUT", "/intake/work/sources", LOOK, **_json(told)), Wishes)

    async def start(self, source: Source, file: UUID, name: str, *, is_again: bool) -> UUID:
        """A run of it, to be read by this worker; `is_again`: although the source gave it before."""
        given = {
            "connector": source.connector, "file": str(file), "name": name, "source": source.name,
            "options": {**source.options, "worker": self.name}, "from_source": source.key,
            "again": is_again,
        }  # fmt: skip
        if source.mapping:
            given["mapping"] = source.mapping
        return _read(await self._ask("POST", "/intake/runs", POLICY, json=given), _Made).id

    async def due_orders(self, source: str, after: str) -> bytes:
        """Orders that the base of this key has not confirmed, behind an id; see onec/orders."""
        params = {"source": source} | ({"after": after} if after else {})
        return await self._ask("GET", "/exchange/orders", POLICY, params=params)

    async def confirm_orders(self, told: dict[str, str]) -> None:
        """The base has these, by id, in these versions."""
        orders = [{"id": i, "version": v} for i, v in told.items()]
        await self._ask("POST", "/exchange/orders/confirm", POLICY, json={"orders": orders})

    async def list_channels(self) -> tuple[Channel, ...]:
        """The sales channels that the key may see."""
        return read_channels(await self._ask("GET", "/channels", POLICY))

    async def list_offers(self, channel: str, after: str | None) -> Offers:
        """One page of a channel's offers."""
        params = {"limit": str(OFFERS), **({"after": after} if after else {})}
        return read_offers(
            await self._ask("GET", f"/channels/{channel}/offers", POLICY, params=params)
        )

    async def report(self, channel: str, report: Report) -> None:
        """How a look at a channel went."""
        body = write_report(report)
        await self._ask("POST", f"/channels/{channel}/reports", POLICY, json=body)

    async def _ask(self, method: str, url: str, policy: Policy, **more: object) -> bytes:
        async def once() -> bytes:
            request = self._http.build_request(method, url, **more)  # type: ignore[arg-type]
            return (await self._send(request)).content

        return await retry(once, policy)

    async def _send(self, request: httpx.Request, *, stream: bool = False) -> httpx.Response:
        try:
            answer = await self._http.send(request, stream=stream)
            if answer.is_success:
                return answer
            body = await answer.aread()
            await answer.aclose()
        except httpx.HTTPError as error:
            raise _cut(error) from None
        try:
            problem = msgspec.json.decode(body, type=_Problem)
        except msgspec.DecodeError:
            problem = _Problem()
        status = answer.status_code
        raise Trouble(
            problem.code or f"http-{status}", problem.detail[:300] or f"the node answered {status}",
            is_permanent=status < 500 and status not in TRANSIENT_STATUSES,
            after_s=read_retry_after(answer.headers.get("Retry-After", "")),
        )  # fmt: skip


def _json(body: msgspec.Struct) -> dict[str, object]:
    headers = {"Content-Type": "application/json"}
    return {"content": msgspec.json.encode(body), "headers": headers}


def _cut(error: httpx.HTTPError) -> Trouble:
    is_slow = isinstance(error, httpx.TimeoutException)
    code = "timeout" if is_slow else "connection-failed"
    return Trouble(code, f"the node is not reached ({type(error).__name__})")


def _read(body: bytes, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.DecodeError as error:
        text = f"this is no answer of a node: {error}"
        raise Trouble("answer-unreadable", text[:300]) from None
