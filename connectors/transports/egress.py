"""Where a program that is told addresses by others may connect: public ones, unless allowed.

A name is resolved here and the connection goes to the address that was looked at, so that a name
which changes its mind in between gains nothing.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection

import msgspec

from connectors.sdk.retry import Trouble


class Target(msgspec.Struct, frozen=True):
    """A server by name, and the address that may be connected to."""

    host: str
    address: str
    port: int


def choose_address(host: str, port: int, allowed: Collection[str] = ()) -> Target:
    """The first address of a host that may be used. Raises Trouble.

    `allowed`: networks or host names of one's own that are meant, such as `10.1.2.0/24`.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
    for address in addresses:
        # One private address among public ones is how rebinding looks: all have to be fine.
        if not _may(host, address, allowed):
            text = f"{host} is at {address}, which is no public address; allow it if it is meant"
            raise Trouble("address-forbidden", text, is_permanent=True)
    return Target(host, addresses[0], port)


def is_own(host: str, text: str, allowed: Collection[str]) -> bool:
    """Whether a host, or the network of its address, was allowed by name."""
    if host in allowed:
        return True
    address = _plain(text)
    networks = [n for a in allowed if (n := _network(a)) is not None]
    return any(address.version == n.version and address in n for n in networks)


def _may(host: str, text: str, allowed: Collection[str]) -> bool:
    address = _plain(text)
    return is_own(host, text, allowed) or (address.is_global and not address.is_multicast)


def _plain(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or address.sixtofour or address
    return address


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
