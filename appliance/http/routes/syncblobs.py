"""Bytes of files between a hub and its sites: which the hub lacks, and stretches both ways.

Every question is signed by the node, and a file exists for it only where the stream of its record
was granted to it. What a site sends goes into this node's own content plane and is scanned here;
what a site is given was proved clean here. Each acknowledged byte is on the disk.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any
from uuid import UUID

import msgspec
from litestar.response.base import ASGIResponse

from appliance.base.errors import Clash, Locked, Malformed, Refused, Spoiled, TooLarge, Unavailable
from appliance.base.roles import HUB
from appliance.http.answers import raw
from appliance.http.ask import Ask
from appliance.http.door import Gone
from appliance.http.route import API, NODE, Book
from appliance.sync.bloblink import IDS_MAX, MEDIA, START, UNKNOWN, UNWANTED, WHOLE, Have, Stands
from appliance.sync.nodes import PeerNode
from appliance.sync.pieces import CHUNK, HEADER, Proving, describe, read_stretch
from appliance.sync.scope import streams_for
from appliance.sync.shelf import CARRIED, Filed, Shelf, find_filed
from appliance.sync.signing import sign_answer, verify

book = Book("sync")
PATH = f"{API}/sync/blobs"
ONE = f"{PATH}/{{file}}/{{chunk}}"
BETWEEN: dict[str, Any] = {
    "capability": NODE, "placed": HUB, "answers": {200: bytes}, "media": (MEDIA,),
    "refuses": (409, 422, 423, 460),
}  # fmt: skip
# What is proved is written when so much is, or when it has waited so long for more.
_WRITTEN_AT, _WAITS_S = 64 * 1024, 0.2
_SILENT_S = 60.0
_RANGE = re.compile(r"(\d{1,6})\.(\d{1,6})")


@book.route("POST", f"{PATH}/have", **BETWEEN)
async def tell_lacking(ask: Ask) -> ASGIResponse:
    """For each file how many of its bytes are here, all, or why none are wanted."""
    peer = await _prove(ask, ask.visit.body)
    try:
        asked = msgspec.msgpack.decode(ask.visit.body, type=Have).files
        idents = [UUID(bytes=ident) for ident, _ in asked]
    except (msgspec.MsgspecError, ValueError):
        raise Malformed("Send ids with their SHA-256.", code="blob.malformed") from None
    if len(asked) > IDS_MAX:
        raise TooLarge(f"Ask for at most {IDS_MAX} files at once.")
    shelf = _shelf(ask, peer)
    known = await _granted(ask, peer, idents)
    stands = [
        await _stand(shelf, known.get(ident), digest)
        for ident, (_, digest) in zip(idents, asked, strict=True)
    ]
    return _signed(ask, stands)


@book.route("PUT", ONE, **BETWEEN)
async def take_stretch(ask: Ask) -> ASGIResponse:
    """Bytes of one chunk; what of them is proved is kept, also when the link breaks in the middle."""
    text = ask.header(HEADER) or ""
    peer = await _prove(ask, text.encode())
    stretch = read_stretch(text)
    file, shelf = await _file(ask, peer), _shelf(ask, peer)
    if file.state not in CARRIED:
        raise Clash(f"This file is {file.state}; its bytes are not wanted.", code="file.state")
    start = _chunk(ask) * CHUNK + stretch.start
    at = await shelf.holds(file)
    if start <= at < start + stretch.length:
        at = await _take(ask, shelf, file, start, at, Proving(stretch))
    return _signed(ask, [WHOLE if at == file.size else at])


@book.route("GET", ONE, **BETWEEN)
async def give_stretch(ask: Ask) -> ASGIResponse:
    """Bytes of one chunk, where and as many as `nexus-start` says; of files proved clean here."""
    peer = await _prove(ask, b"")
    file, shelf = await _file(ask, peer), _shelf(ask, peer)
    await shelf.check_proved(file)
    said = _RANGE.fullmatch(ask.header(START) or f"0.{CHUNK}")
    start, length = (int(said[1]), int(said[2])) if said else (0, 0)
    offset = _chunk(ask) * CHUNK + start
    if not length or start + length > CHUNK or offset >= file.size:
        raise Malformed("There are no such bytes in this file.", code="blob.range")
    data = await shelf.give(file, offset, min(length, file.size - offset))
    text = describe(start, data)
    headers = {HEADER: text, **_signature(ask, text.encode())}
    return raw(data, 200, headers, MEDIA)


async def _stand(shelf: Shelf, file: Filed | None, digest: bytes) -> int:
    if file is None or not file.sha256:
        return UNKNOWN
    try:
        shelf.check_size(file)
        if file.state not in CARRIED or file.sha256 != digest.hex():
            return WHOLE if await shelf.is_here(file) else UNWANTED
        at = await shelf.holds(file)
    except (TooLarge, Clash):
        return UNWANTED
    except Locked:
        # A part is coming in just now; the next question finds it.
        return UNKNOWN
    return WHOLE if at == file.size else at


async def _take(ask: Ask, shelf: Shelf, file: Filed, start: int, at: int, proving: Proving) -> int:
    """Write what is proved of a body as it comes; how many bytes of the file are here then."""
    begin, ready, passed, since = at, bytearray(), start, _now()
    async with aclosing(_pieces(ask)) as pieces:
        try:
            async for piece in pieces:
                fresh = proving.feed(piece)
                # What was here before is not written again.
                skip = min(len(fresh), max(0, begin - passed))
                passed += len(fresh)
                ready += fresh[skip:]
                is_late = bool(ready) and _now() - since >= _WAITS_S
                if is_late or len(ready) >= _WRITTEN_AT:
                    proved, ready = bytes(ready), bytearray()
                    at = await shelf.take(file, at, proved)
                    since = _now()
            if not proving.is_whole:
                raise Spoiled("Bytes of this file are not those of their digests.",
                              code="blob.spoiled")  # fmt: skip
        finally:
            if ready:
                at = await shelf.take(file, at, bytes(ready))
    return at


async def _pieces(ask: Ask) -> AsyncGenerator[bytes, None]:
    """The body as it comes; nothing (b"") where it pauses. Raises Gone, Malformed."""
    receive = ask.visit.receive
    assert receive is not None, "the door streams this"
    more, quiet = True, 0.0
    asked: asyncio.Future[dict[str, Any]] | None = None
    try:
        while more:
            asked = asked or asyncio.ensure_future(receive())
            done, _ = await asyncio.wait({asked}, timeout=_WAITS_S)
            if not done:
                quiet += _WAITS_S
                if quiet >= _SILENT_S:
                    raise Malformed("The body did not arrive in time.", code="request.slow")
                yield b""
                continue
            message, asked, quiet = asked.result(), None, 0.0
            if message["type"] == "http.disconnect":
                raise Gone
            more = message.get("more_body", False)
            if piece := message.get("body", b""):
                yield piece
    finally:
        if asked is not None:
            asked.cancel()


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _prove(ask: Ask, body: bytes) -> PeerNode:
    """Which node asks; `body` is what its signature is over. Raises Unauthenticated."""
    peer = await verify(ask.node.db, ask.scope, body)
    ask.visit.tenant, ask.visit.actor = peer.tenant, peer.id
    return peer


async def _granted(ask: Ask, peer: PeerNode, idents: list[UUID]) -> dict[UUID, Filed]:
    """The files of these that live in a stream of the node."""
    tenant = _tenant(peer)
    grants = await streams_for(ask.node.db, peer.id, tenant)
    found = await find_filed(ask.node.db, tenant, idents)
    return {ident: file for ident, file in found.items() if file.stream in grants}


async def _file(ask: Ask, peer: PeerNode) -> Filed:
    ident = ask.ident("file")
    file = (await _granted(ask, peer, [ident])).get(ident)
    if file is None or not file.sha256:
        raise Refused("There is no such file for this node.", code="file.unknown")
    return file


def _chunk(ask: Ask) -> int:
    text = ask.names["chunk"]
    if not (text.isascii() and text.isdigit() and len(text) <= 6):
        raise Malformed("A chunk is named by its number.", code="blob.range")
    return int(text)


def _shelf(ask: Ask, peer: PeerNode) -> Shelf:
    node = ask.node
    if node.content is None:
        raise Unavailable("This hub has no content plane.", dependency="content plane")
    most = node.settings.files.bytes_max
    return Shelf(node.db, node.content, _tenant(peer), from_hub=False, bytes_max=most)


def _tenant(peer: PeerNode) -> UUID:
    assert peer.tenant is not None, "a proved node names its tenant"
    return peer.tenant


def _signed(ask: Ask, stands: list[int]) -> ASGIResponse:
    body = msgspec.msgpack.encode(Stands(stands))
    return raw(body, 200, _signature(ask, body), MEDIA)


def _signature(ask: Ask, body: bytes) -> dict[str, str]:
    question = ask.header("signature") or ""
    return sign_answer(ask.node.key.current(), 200, body, question)
