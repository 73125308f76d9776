"""The site's side of the wire: one tenant's conversation with the hub, signed both ways.

Promises: nothing is believed that the hub did not sign as its answer to this very question; a
question is safe to ask again; what fails says whether to come back (Unavailable, with the time
the hub named) or to open a new session (Unauthenticated). Time-outs let a satellite's round trips
of seconds pass; a link that is dead is noticed all the same.
"""

from __future__ import annotations

import time
from typing import TypeVar
from uuid import UUID

import httpx
import msgspec

from appliance import __version__
from appliance.base.errors import ApplianceError, Clash, TooLarge, Unauthenticated, Unavailable
from appliance.sync import messages as say
from appliance.sync.bloblink import BlobLink
from appliance.sync.keys import NodeKey
from appliance.sync.nodes import PeerNode
from appliance.sync.pace import Pace
from appliance.sync.signing import Conversation, verify_answer

PATH = "/api/v1/sync/"
# A handshake over TLS is three round trips; at 1.5 s each, with one lost.
CONNECT_S = 20.0
# Between two pieces of a body, each way.
SILENCE_S = 60.0
_HEADERS = {
    "content-type": say.MEDIA, "accept": "*/*", "accept-encoding": "identity",
    "user-agent": f"nexus/{__version__}",
}  # fmt: skip
T = TypeVar("T", bound=say.Message)


class Counted(msgspec.Struct):
    """Bytes of bodies and heads since the conversation began, as near as HTTP shows them."""

    sent: int = 0
    received: int = 0
    _noted: tuple[int, int] = (0, 0)

    def take(self) -> tuple[int, int]:
        """Sent and received since the last time this was asked."""
        before, self._noted = self._noted, (self.sent, self.received)
        return self.sent - before[0], self.received - before[1]


class HubClient:
    """Close it when done. `transport` is for a hub in the same process."""

    def __init__(
        self,
        hub: PeerNode,
        tenant: UUID,
        *,
        me: UUID,
        key: NodeKey,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        assert hub.public_key is not None, "a hub is known by its key"
        self._public, self._tenant, self._me, self._key = hub.public_key, tenant, me, key
        self._speech = Conversation(key, me, tenant)
        self.pace, self.count = Pace(), Counted()
        self._http = httpx.AsyncClient(
            base_url=hub.url, transport=transport, headers=_HEADERS, follow_redirects=False,
            timeout=httpx.Timeout(SILENCE_S, connect=CONNECT_S, pool=CONNECT_S),
            # One for the long wait, one for what comes meanwhile.
            limits=httpx.Limits(max_connections=3, max_keepalive_connections=2, keepalive_expiry=120),
        )  # fmt: skip

    async def close(self) -> None:
        """Let the connections go."""
        await self._http.aclose()

    async def greet(self, hello: say.Hello) -> say.Welcome:
        """Open a session. Raises Clash where the two programs share no protocol."""
        self._speech = Conversation(self._key, self._me, self._tenant)
        welcome = await self.ask("hello", hello, say.Welcome)
        if any(notice.code == say.SAY_AGAIN for notice in welcome.notices):
            self._speech = Conversation(self._key, self._me, self._tenant, welcome.session)
            welcome = await self.ask("hello", hello, say.Welcome)
        say.agree((welcome.protocol, welcome.protocol))
        self._speech = Conversation(self._key, self._me, self._tenant, welcome.session)
        return welcome

    async def exchange(self, asked: say.Exchange) -> say.Exchanged:
        """Send and fetch; the size of the next one follows from how long it took."""
        before, began = self.count.sent + self.count.received, time.monotonic()
        try:
            found = await self.ask("exchange", asked, say.Exchanged)
        except (Unavailable, TooLarge):
            self.pace.lose()
            raise
        carried = self.count.sent + self.count.received - before
        self.pace.note(carried, time.monotonic() - began)
        return found

    async def compare(self, asked: say.Compare) -> say.Compared:
        """Ask how far chains are the hub's too."""
        return await self.ask("compare", asked, say.Compared)

    async def wait(
        self, standing: bytes, hold_s: float, cursors: dict[UUID, int] | None = None
    ) -> say.Waited:
        """Wait at the hub until something is new there; `cursors` are those that moved."""
        asked = say.Waiting(standing, round(hold_s * 1000), cursors or {})
        return await self.ask("wait", asked, say.Waited, silence_s=hold_s + SILENCE_S / 2)

    def blob_link(self) -> BlobLink:
        """The same conversation, for bytes of files; not while another question is being asked."""
        return BlobLink(self._http, self._speech, self._public)

    async def ask(
        self, verb: str, message: say.Message, shape: type[T], *, silence_s: float = SILENCE_S
    ) -> T:
        """One question. Raises Unavailable, Unauthenticated, Clash, TooLarge, Malformed."""
        body = say.encode(message)
        request = self._http.build_request(
            "POST", PATH + verb, content=body,
            timeout=httpx.Timeout(silence_s, connect=CONNECT_S, pool=CONNECT_S),
        )  # fmt: skip
        target = request.url.raw_path.decode("ascii")
        signed = self._speech.headers("POST", target, body)
        request.headers.update(signed)
        self.count.sent += len(body) + _head_bytes(request.headers) + len(target) + 17
        try:
            answer = await self._http.send(request)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as lost:
            raise Unavailable(
                "The hub does not answer; what is written here waits for it.",
                dependency="hub", code="sync.hub_unreachable", cause=type(lost).__name__,
            ) from lost  # fmt: skip
        self.count.received += len(answer.content) + _head_bytes(answer.headers) + 17
        if answer.status_code != 200:
            raise _refusal(answer)
        verify_answer(
            self._public, answer.status_code, answer.headers, answer.content, signed["signature"]
        )
        return say.decode(answer.content, shape)


class _Told(msgspec.Struct, frozen=True):
    """What is read of a problem: it is not signed, so nothing but a retry follows from it."""

    code: str = ""
    detail: str = ""


def _refusal(answer: httpx.Response) -> ApplianceError:
    """The error that an answer other than 200 means."""
    try:
        told = msgspec.json.decode(answer.content, type=_Told)
    except msgspec.MsgspecError:
        told = _Told()
    code = told.code or f"sync.status_{answer.status_code}"
    match answer.status_code:
        case 401 | 403:
            return Unauthenticated(
                told.detail or "The hub does not let this node in.", code=code or "node.unproven"
            )
        case 409:
            return Clash(told.detail, code=code)
        case 413:
            return TooLarge(told.detail, code=code)
        case _:
            after = answer.headers.get("retry-after", "")
            return Unavailable(
                f"The hub answers {answer.status_code}; what is written here waits for it.",
                dependency="hub", code=code,
                retry_after_s=min(int(after), 300) if after.isdigit() else 0,
            )  # fmt: skip


def _head_bytes(headers: httpx.Headers) -> int:
    return sum(len(name) + len(value) + 4 for name, value in headers.raw)
