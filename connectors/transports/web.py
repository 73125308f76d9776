"""What every question over HTTP has in common: where it may go, how it is told, what went wrong.

The environment's proxies are ignored, redirects are not followed here, and the connection goes to
the very address that was looked at, under the name that its certificate has to bear.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Collection, Iterator
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import msgspec

from connectors.sdk.egress import choose_address, is_own
from connectors.sdk.retry import TRANSIENT_STATUSES, Trouble, as_trouble, read_retry_after
from connectors.transports.contract import WAIT_S


class Pinned(msgspec.Struct, frozen=True):
    """A question to an address: the URL with it, and the name that stays with the question."""

    url: str
    headers: dict[str, str]
    extensions: dict[str, str]


def open_client(ca_file: str = "") -> httpx.Client:
    """A client that believes the system's certificates, or those of `ca_file` alone."""
    return httpx.Client(
        timeout=WAIT_S, trust_env=False, follow_redirects=False,
        verify=_trust(ca_file, Path(ca_file).stat().st_mtime_ns if ca_file else 0),
        headers={"User-Agent": "nexus-connectors"},
    )  # fmt: skip


@lru_cache(maxsize=32)
def _trust(ca_file: str, changed_ns: int) -> ssl.SSLContext:
    """Who is believed: reading the system's list takes longer than asking a question."""
    return ssl.create_default_context(cafile=ca_file or None)


def pin(url: str, allowed: Collection[str], *, is_plain_allowed: bool = False) -> Pinned:
    """Where a URL leads. Raises Trouble, or OSError where the name has no address.

    Plain http is for a server of one's own alone: it has to be asked for, and the host or its
    network has to stand in `allowed`.
    """
    parts = urlsplit(url)
    is_plain = parts.scheme == "http" and is_plain_allowed
    if not (parts.scheme == "https" or is_plain) or not parts.hostname or parts.username:
        text = "only https addresses without a name and password in them are asked"
        raise Trouble("address-forbidden", text, is_permanent=True)
    try:
        port = parts.port or (80 if is_plain else 443)
    except ValueError:
        raise Trouble("address-forbidden", "the port is no number", is_permanent=True) from None
    target = choose_address(parts.hostname, port, allowed)
    if is_plain and not is_own(target.host, target.address, allowed):
        text = f"{parts.hostname} is asked in the clear only when it is allowed by name or network"
        raise Trouble("address-forbidden", text, is_permanent=True)
    bare = f"[{target.address}]" if ":" in target.address else target.address
    pinned = parts._replace(netloc=f"{bare}:{target.port}", fragment="").geturl()
    return Pinned(pinned, {"Host": parts.netloc}, {"sni_hostname": parts.hostname})


@contextlib.contextmanager
def told(host: str) -> Iterator[None]:
    """Errors of the way as Trouble that names the host, never the address with its parameters."""
    try:
        yield
    except httpx.TimeoutException:
        raise Trouble("timeout", f"{host} did not answer in time") from None
    except httpx.ConnectError as error:
        known = as_trouble(error.__cause__ or error)
        is_certificate = "CERTIFICATE_VERIFY_FAILED" in str(error)
        code = "certificate-untrusted" if is_certificate else known.code
        raise Trouble(code, f"{host}: {str(error)[:200]}", is_permanent=is_certificate) from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Trouble("connection-failed", f"{host}: {type(error).__name__}") from None
    except OSError as error:
        raise as_trouble(error) from None


def check_status(answer: httpx.Response) -> None:
    """Raises Trouble unless there is an answer to read (200, 206, 304)."""
    status = answer.status_code
    if status in (200, 206, 304):
        return
    raise Trouble(
        f"http-{status}", f"the server answered {status} {answer.reason_phrase}"[:100],
        is_permanent=status not in TRANSIENT_STATUSES,
        after_s=read_retry_after(answer.headers.get("Retry-After", "")),
    )  # fmt: skip


def read_pairs(path: Path, mark: str) -> dict[str, str]:
    """Lines `name<mark> value` of a file of secrets; others are no lines. Raises OSError."""
    lines = path.read_text("utf-8").splitlines()
    pairs = [line.partition(mark) for line in lines if mark in line]
    return {name.strip(): value.strip() for name, _, value in pairs}
