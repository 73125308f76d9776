"""One try to deliver: a POST to an address that was looked at, and what became of it.

Promises: the name is resolved once, every address it has must be public or allowed, and the
connection goes to that very address with the name in SNI and Host; no redirect is followed, no proxy
of the environment is used; a try ends after its time however slowly the other side talks, and of
the answer at most ANSWER_BYTES_MAX are read and nothing is kept but its status.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from urllib.parse import urlsplit

import httpx
import msgspec

from appliance.webhooks.shape import PORTS, fault_of_url
from connectors.sdk.egress import is_own, pick_address, resolve
from connectors.sdk.retry import Trouble, as_trouble, read_retry_after

ANSWER_BYTES_MAX = 65_536
DRAIN_S = 1.0
AGENT = "Nexus-Webhooks/1"
# A name server that hangs must not hold up what else the process does in threads.
_RESOLVERS = ThreadPoolExecutor(32, thread_name_prefix="webhook-names")
# The receiver understood the event and does not want it: no later try helps that one.
_REFUSED = frozenset({400, 406, 409, 411, 413, 414, 415, 422, 431})
# A person has to look: the address, or what is behind it, is not what was meant.
_WRONG = frozenset({401, 402, 403, 404, 405, 407, 426, 451, 501, 505, 511})

Resolve = Callable[[str, int], Sequence[str]]


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """How a try ended. `code` is empty when the receiver took the event.

    `is_refused`: this event will never be taken; `is_wrong`: none will until somebody acts;
    `is_gone`: the receiver said that it is to end for good.
    """

    status: int | None = None
    code: str = ""
    duration_ms: int = 0
    after_s: float = 0.0
    is_refused: bool = False
    is_wrong: bool = False
    is_gone: bool = False


class Sender:
    """Sends to one address, over connections that are kept between tries; `close` it."""

    def __init__(
        self, url: str, allowed: Collection[str], *, timeout_s: float, ca_file: str = "",
        look_up: Resolve = resolve,
    ) -> None:  # fmt: skip
        self._url, self._allowed, self._timeout_s = url, allowed, timeout_s
        self._look_up = look_up
        self._client = httpx.AsyncClient(
            timeout=timeout_s, trust_env=False, follow_redirects=False, verify=_trusted(ca_file),
        )  # fmt: skip

    async def send(self, headers: dict[str, str], body: bytes) -> Sent:
        """Try once. Raises nothing."""
        begun = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._ask(headers, body)
        except (Trouble, OSError, TimeoutError, httpx.HTTPError, httpx.InvalidURL) as error:
            trouble = _trouble(error)
            sent = Sent(code=trouble.code, is_wrong=trouble.is_permanent)
        else:
            sent = _judge(answer.status_code, answer.headers.get("Retry-After", ""))
            await _drain(answer)
        took = int((time.monotonic() - begun) * 1000)
        return msgspec.structs.replace(sent, duration_ms=took)

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.aclose()

    async def _ask(self, headers: dict[str, str], body: bytes) -> httpx.Response:
        if fault_of_url(self._url, self._allowed) is not None:
            raise Trouble("address-forbidden", "this address is not allowed", is_permanent=True)
        parts = urlsplit(self._url)
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
        address = await self._address(
            host, port, is_usual=parts.scheme == "https" and port in PORTS
        )
        bare = f"[{address}]" if ":" in address else address
        pinned = parts._replace(netloc=f"{bare}:{port}", fragment="").geturl()
        named = {**headers, "Host": parts.netloc, "User-Agent": AGENT, "Accept": "*/*",
                 "Accept-Encoding": "identity"}  # fmt: skip
        request = self._client.build_request(
            "POST", pinned, content=body, headers=named, extensions={"sni_hostname": host}
        )
        return await self._client.send(request, stream=True)

    async def _address(self, host: str, port: int, *, is_usual: bool) -> str:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(_RESOLVERS, self._look_up, host, port)
        except UnicodeError:
            raise Trouble("name-unresolved", f"{host} is no name", is_permanent=True) from None
        target = pick_address(host, port, found, self._allowed)
        if not is_usual and not all(is_own(host, a, self._allowed) for a in found):
            text = f"{host}: without TLS, or on this port, only allowed addresses are spoken to"
            raise Trouble("address-forbidden", text, is_permanent=True)
        return target.address


@lru_cache(maxsize=4)
def _trusted(ca_file: str) -> ssl.SSLContext:
    """Whose certificates are believed; reading the system's takes longer than a whole delivery."""
    found = ssl.create_default_context()
    if ca_file:
        found.load_verify_locations(cafile=ca_file)
    return found


async def _drain(answer: httpx.Response) -> None:
    """Read what there is of a body, so that the connection serves again, and not for long: the
    receiver has said what it had to say.
    """
    read = 0
    try:
        async with asyncio.timeout(DRAIN_S):
            async for piece in answer.aiter_raw():
                read += len(piece)
                if read > ANSWER_BYTES_MAX:
                    break
    except (OSError, TimeoutError, httpx.HTTPError):
        return
    finally:
        await answer.aclose()


def _judge(status: int, retry_after: str) -> Sent:
    if 200 <= status < 300:
        return Sent(status=status)
    return Sent(
        status=status, code=f"http-{status}", after_s=read_retry_after(retry_after),
        is_refused=status in _REFUSED, is_wrong=300 <= status < 400 or status in _WRONG,
        is_gone=status == 410,
    )  # fmt: skip


def _trouble(error: Exception) -> Trouble:
    """Any end without an answer, in the words of connectors.sdk.retry."""
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        return Trouble("timeout", "no answer in time")
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
        return Trouble("address-forbidden", "this is no address", is_permanent=True)
    if isinstance(error, httpx.ConnectError):
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return Trouble("certificate-untrusted", "unknown issuer", is_permanent=True)
        code = "tls-failed" if "SSL" in str(error) else "connection-failed"
        return Trouble(code, "no connection was made")
    if isinstance(error, httpx.HTTPError):
        return Trouble("connection-failed", type(error).__name__)
    return as_trouble(error)
