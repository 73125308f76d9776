"""The feed of a channel as a marketplace polls it: HTTPS, Basic with an API key as the password.

What is answered is a file that was published whole. While there is none, or the channel is not
served, the answer is a refusal: whoever polls then keeps what they took last.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC
from email.utils import format_datetime, parsedate_to_datetime
from typing import BinaryIO

import msgspec
from litestar.response.base import ASGIResponse

from appliance.base.errors import ApplianceError, Unauthenticated, Unavailable
from appliance.channels import feed_rows
from appliance.channels.channel import read_channel
from appliance.channels.feed_rows import Feed
from appliance.channels.feeds import check_form, check_served, folder_of
from appliance.http.answers import Headers, Stream, empty, raw
from appliance.http.ask import Ask
from appliance.http.credentials import check_transport, find_token, read_basic
from appliance.http.problems import refuse as problem_of
from appliance.http.route import API, Book
from appliance.kernel.kind import Json

book = Book("channels")
PATH = f"{API}/channels/{{id}}/feed"
MEDIA = "application/xml"
_PIECE = 1 << 18
_UNREADY_S = 30


class FeedParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`format`: yml, rozetka, prom, hotline, kaspi."""

    format: str = "yml"


def find_key(ask: Ask) -> str:
    """The API key: Basic, or a bearer token. Raises Unauthenticated."""
    check_transport(ask.scope)
    given = ask.header("authorization") or ""
    return read_basic(given) if given[:6].lower() == "basic " else find_token(ask.scope)


def refuse(ask: Ask, error: ApplianceError) -> ASGIResponse:
    """A problem; who has not signed in is asked to by Basic."""
    found = problem_of(error, ask.visit.request_id)
    ask.visit.code = error.code
    headers: Headers = {k.decode(): v.decode("latin-1") for k, v in found.headers}
    media = headers.pop("content-type", "application/problem+json")
    headers.pop("content-length", None)
    if isinstance(error, Unauthenticated):
        headers["www-authenticate"] = 'Basic realm="Nexus", charset="UTF-8"'
    return raw(found.body, found.status, headers, media=media)


class Sized(Stream):
    """A stream whose length is known, so that a part of it is never taken for the whole."""

    def __init__(self, chunks: AsyncIterator[bytes], size: int, headers: Headers) -> None:
        super().__init__(chunks, f"{MEDIA}; charset=utf-8", headers)
        self._headers = [*self._headers, (b"content-length", str(size).encode())]


@book.route("GET", PATH, capability="channels.feed", params=FeedParams, token=find_key, refuse=refuse,
            answers={200: bytes, 304: None}, media=(MEDIA,), refuses=(409,),
            headers=("If-None-Match", "If-Modified-Since"))  # fmt: skip
async def serve_feed(ask: Ask) -> ASGIResponse:
    """The last feed that was published, made anew in the background when it is old."""
    given, db, ctx = ask.params(FeedParams), ask.node.db, ask.ctx
    check_form(given.format)
    channel = await read_channel(db, ctx, ask.ident())
    check_served(channel)
    feed, is_due = await feed_rows.poll(db, ctx, channel.id, given.format)
    if is_due:
        payload: dict[str, Json] = {
            "channel": str(channel.id), "form": feed.form, "sight": feed.sight,
            "by": str(ctx.actor), "profile": ctx.profile.id,
            "units": [str(u) for u in sorted(ctx.units)],
        }  # fmt: skip
        await ask.node.jobs.enqueue(ctx.tenant, "channels.feed", payload, ctx.actor)
    path = folder_of(ask.node.settings.data_dir, ctx.tenant) / feed.file
    if not feed.file or not path.is_file() or feed.published_at is None:
        raise Unavailable(
            feed.detail or "The feed is being made; ask again in a moment.", dependency="feed",
            code="channel.feed_unready", retry_after_s=_UNREADY_S,
        )  # fmt: skip
    headers = {
        "ETag": f'"{feed.file.split(".")[2]}"',
        "Last-Modified": format_datetime(feed.published_at.astimezone(UTC), usegmt=True),
        "X-Feed-State": feed.state,
    }
    if _is_known(ask, feed, headers["ETag"]):
        return empty(304, headers)
    # Opened at once: a file that is replaced from now on is read to its end.
    return Sized(_read(path.open("rb")), feed.bytes, headers)


def _is_known(ask: Ask, feed: Feed, tag: str) -> bool:
    """Whether who polls has it: by its tag, or else by its moment (RFC 9110 13.2.2)."""
    tags = ask.header("if-none-match")
    if tags is not None:
        return tags.strip() == "*" or tag in (t.strip().removeprefix("W/") for t in tags.split(","))
    since = ask.header("if-modified-since")
    if since is None or feed.published_at is None:
        return False
    try:
        return parsedate_to_datetime(since) >= feed.published_at
    except (ValueError, TypeError):
        return False


async def _read(file: BinaryIO) -> AsyncIterator[bytes]:
    with file:
        while piece := await asyncio.to_thread(file.read, _PIECE):
            yield piece
