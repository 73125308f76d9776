"""Downloads: a ticket opens one transfer, the transfer gives the bytes, with ranges, for a while.

A ticket works once, for 30 seconds, for the session that it was made for. A transfer is looked up
in Redis before every piece of a megabyte: what takes its key away (a lock, a recall, a logout)
stops it in the middle, and so does a Redis that is gone. Nothing but the transfer's number is in
the address, and that is worth nothing without the session (OWASP ASVS 5.0, 14.2.1).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from hashlib import sha256
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import quote

import msgspec
from litestar import Request, Response, get, route
from litestar.exceptions import HTTPException
from litestar.response import Redirect, Stream
from redis.exceptions import RedisError

from quarantine import ledger
from quarantine.contract import LIVE_KEY, TICKET_KEY, TRANSFER_KEY, Fetched, Ticket, Verdict
from quarantine.http.node_side import plane_of
from quarantine.http.plane import Plane
from quarantine.http.ranges import read_range
from quarantine.ledger import Blob
from quarantine.signing import Forged
from quarantine.store.faults import StoreFault
from quarantine.store.sealed import Data

IDLE_S, TOTAL_S = 60, 600.0
GENEROSITY = 1.5
_SLACK = 1024 * 1024
_COOKIES = ("__Host-sid", "nexus-sid")
# Shown in the page only where a browser cannot be made to run anything by it.
INLINE = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp", "text/plain"})
_GONE = "This download is over or was never yours; ask for a new ticket."


class Transfer(msgspec.Struct, frozen=True):
    """A running download; `left` is how many bytes may still be sent under it."""

    ticket: Ticket
    left: int
    until: float


@get("/d/{ticket:str}")
async def redeem(request: Request[Any, Any, Any], ticket: str) -> Redirect:
    """Use a ticket up; the bytes are at the address it leads to."""
    plane = plane_of(request)
    held = await _redis(plane.redis.getdel(TICKET_KEY.format(ticket)))
    found = _read_ticket(plane, held)
    if found.expires_at < datetime.now(UTC) or found.id != ticket:
        raise HTTPException(status_code=404, detail=_GONE)
    _check_session(request, found)
    blob = await _servable(plane, found)
    ident = secrets.token_urlsafe(18)
    await _open_transfer(plane, ident, found, blob.size)
    return Redirect(
        f"/t/{ident}", status_code=303,
        headers={"Cache-Control": "private, no-store", "Referrer-Policy": "no-referrer"},
    )  # fmt: skip


@route("/t/{ident:str}", http_method=["GET", "HEAD"])
async def send(request: Request[Any, Any, Any], ident: str) -> Response[bytes] | Stream:
    """The bytes of a transfer, all of them or a range (RFC 9110, 14)."""
    plane = plane_of(request)
    transfer = await _transfer(plane, ident)
    ticket = transfer.ticket
    _check_session(request, ticket)
    blob = await _servable(plane, ticket)
    etag = f'"{blob.sha256[:32]}"'
    # A range is asked for with GET alone (RFC 9110, 14.2), and of the bytes that are meant.
    ranged = request.method == "GET" and request.headers.get("if-range", etag) == etag
    span = read_range(request.headers.get("range") if ranged else None, blob.size)
    headers = _headers(ticket, etag)
    if span is None:
        headers["Content-Range"] = f"bytes */{blob.size}"
        return Response(b"", status_code=416, headers=headers)
    headers["Content-Length"] = str(span.stop - span.start)
    if span.is_part:
        headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{blob.size}"
    status = 206 if span.is_part else 200
    if request.method == "HEAD":
        return Response(b"", status_code=status, headers=headers)
    if transfer.left < span.stop - span.start:
        raise HTTPException(
            status_code=429, detail="This ticket's bytes are used up; ask for a new one."
        )
    try:
        source = (await plane.vault.open(blob)).pieces(span.start, span.stop)
        # Read before the answer begins, so that what is damaged is said and not torn off.
        first = await anext(source, b"")
    except StoreFault as fault:
        raise HTTPException(status_code=503, detail=str(fault)) from None
    pieces = _pieces(plane, ident, transfer, blob, _chain(first, source))
    return Stream(pieces, status_code=status, headers=headers)


async def _pieces(
    plane: Plane, ident: str, transfer: Transfer, blob: Blob, source: AsyncIterator[Data]
) -> AsyncIterator[bytes]:
    """The bytes as long as the transfer lives; a torn end says that it does not."""
    sent, key = 0, TRANSFER_KEY.format(ident)
    try:
        async for piece in source:
            if time.time() > transfer.until:
                return
            if not await _take(plane, key, len(piece)):
                return
            yield bytes(piece)
            sent += len(piece)
    finally:
        ticket = transfer.ticket
        whole = sent == blob.size
        fetched = Fetched(
            ticket.file, ticket.tenant, ticket.person, ticket.id, sent, whole, datetime.now(UTC)
        )
        await plane.vault.ledger.run(lambda db: ledger.tell(db, fetched))


async def _chain(first: Data, rest: AsyncIterator[Data]) -> AsyncIterator[Data]:
    if first:
        yield first
    async for piece in rest:
        yield piece


def _read_ticket(plane: Plane, held: bytes | None) -> Ticket:
    if held is None:
        raise HTTPException(status_code=404, detail=_GONE)
    try:
        return plane.signer.open(held.decode(), Ticket)
    except (Forged, UnicodeDecodeError):
        raise HTTPException(status_code=404, detail=_GONE) from None


async def _open_transfer(plane: Plane, ident: str, ticket: Ticket, size: int) -> None:
    """Note the download under its own number, and where the node finds it, in one step."""
    key, sealed = TRANSFER_KEY.format(ident), plane.signer.seal(ticket)
    left = int(size * GENEROSITY) + _SLACK
    async with plane.redis.pipeline(transaction=True) as pipe:
        noted = {"ticket": sealed, "left": left, "until": time.time() + TOTAL_S}
        pipe.hset(key, mapping=noted)  # type: ignore[arg-type]  # numbers are taken as they are
        pipe.expire(key, IDLE_S)
        pipe.hset(LIVE_KEY, ident, sealed)
        pipe.hdel(LIVE_KEY, ticket.id)
        await _redis(pipe.execute())


async def _take(plane: Plane, key: str, length: int) -> bool:
    """Take bytes off what is left, in one step, because parallel ranges share one budget. A key
    that was taken away begins anew below nothing, without its ticket, and soon ends.
    """
    async with plane.redis.pipeline(transaction=True) as pipe:
        pipe.hincrby(key, "left", -length)
        pipe.expire(key, IDLE_S)
        left, _ = await _redis(pipe.execute())
    return int(left) >= 0


async def _transfer(plane: Plane, ident: str) -> Transfer:
    held = await _redis(plane.redis.hmget(TRANSFER_KEY.format(ident), "ticket", "left", "until"))
    if None in held:
        raise HTTPException(status_code=404, detail=_GONE)
    found = Transfer(_read_ticket(plane, held[0]), int(held[1]), float(held[2]))
    if found.until < time.time():
        raise HTTPException(status_code=404, detail=_GONE)
    return found


async def _servable(plane: Plane, ticket: Ticket) -> Blob:
    """The blob, if its verdict lets it out. Raises 404, 409."""
    blob = await plane.vault.ledger.run(lambda db: ledger.find_blob(db, ticket.blob))
    if blob is None or blob.tenant != ticket.tenant:
        raise HTTPException(status_code=404, detail=_GONE)
    lets = blob.verdict is Verdict.CLEAN or (blob.verdict is Verdict.SUSPICIOUS and ticket.reviewed)
    if not lets:
        raise HTTPException(status_code=409, detail="This file is not released.")
    return blob


def _check_session(request: Request[Any, Any, Any], ticket: Ticket) -> None:
    """The session that the ticket was made for, by bearer token or cookie. Raises 404."""
    for token in _tokens(request):
        if secrets.compare_digest(sha256(token.encode()).hexdigest(), ticket.session):
            return
    raise HTTPException(status_code=404, detail=_GONE)


def _tokens(request: Request[Any, Any, Any]) -> list[str]:
    given = request.headers.get("authorization", "")
    if given.lower().startswith("bearer "):
        return [given[7:].strip()]
    try:
        jar = SimpleCookie(request.headers.get("cookie", "")[:4096])
    except CookieError:
        return []
    return [jar[name].value for name in _COOKIES if name in jar]


def _headers(ticket: Ticket, etag: str) -> dict[str, str]:
    inline = ticket.inline and not ticket.reviewed and ticket.type in INLINE
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._- ") else "_" for c in ticket.name)
    sort = "inline" if inline else "attachment"
    return {
        "Content-Type": ticket.type if inline else "application/octet-stream",
        "Content-Disposition": f"{sort}; filename=\"{plain}\"; filename*=UTF-8''{quote(ticket.name, safe='')}",
        "Accept-Ranges": "bytes",
        "ETag": etag,
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Cross-Origin-Resource-Policy": "same-site",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "private, no-store",
        "Referrer-Policy": "no-referrer",
    }


async def _redis(answer: Any) -> Any:
    """An answer of Redis. Without it nobody knows who may still read, so nobody does."""
    try:
        return await answer
    except (RedisError, OSError, TimeoutError):
        raise HTTPException(
            status_code=503, detail="Downloads wait for Redis, which does not answer."
        ) from None


HANDLERS = (redeem, send)
