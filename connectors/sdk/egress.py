"""Where a program that is told addresses by others may connect: public ones, unless allowed.

A name is resolved once, every address that it has must be fine, and the connection goes to the
very address that was looked at, so that a name which changes its mind in between gains nothing.
What counts as public is listed here: `is_global` of the standard library lets addresses through
that lead inside by another name (NAT64, 6to4, IPv4 written as IPv6).
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Collection, Sequence

import msgspec

from connectors.sdk.retry import Trouble

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Sequence[str]]

_NETWORKS_4 = tuple(
    map(
        ipaddress.IPv4Network,
        "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 "
        "192.0.2.0/24 192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.168.0.0/16 192.175.48.0/24 "
        "198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/3".split(),
    )
)
_UNICAST_6 = ipaddress.IPv6Network("2000::/3")
_NETWORKS_6 = tuple(
    map(
        ipaddress.IPv6Network,
        "2001::/23 2001:db8::/32 2002::/16 2620:4f:8000::/48 3fff::/20".split(),
    )
)


class Target(msgspec.Struct, frozen=True):
    """A server by name, and the address that may be connected to."""

    host: str
    address: str
    port: int


def choose_address(host: str, port: int, allowed: Collection[str] = ()) -> Target:
    """The first address of a host that may be used. Raises Trouble, OSError.

    `allowed`: networks or host names of one's own that are meant, such as `10.1.2.0/24`.
    """
    return pick_address(host, port, resolve(host, port), allowed)


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name, as the system says. Raises OSError, UnicodeError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in found))


def pick_address(
    host: str, port: int, addresses: Sequence[str], allowed: Collection[str] = ()
) -> Target:
    """The first of the addresses that a name has, when all of them may be used. Raises Trouble."""
    if not addresses:
        raise Trouble("name-unresolved", f"{host} has no address just now")
    for address in addresses:
        # One private address among public ones is how rebinding looks: all have to be fine.
        if not (is_own(host, address, allowed) or _is_public(_read(address))):
            text = f"{host} is at {address}, which is no public address; allow it if it is meant"
            raise Trouble("address-forbidden", text, is_permanent=True)
    return Target(host, addresses[0], port)


def is_own(host: str, address: str, allowed: Collection[str]) -> bool:
    """Whether a host or its address is allowed by name or network, public or not."""
    if host in allowed:
        return True
    found = _read(address)
    networks = [n for a in allowed if (n := _network(a)) is not None]
    return any(found.version == n.version and found in n for n in networks)


def _read(text: str) -> Address:
    """An address, an IPv4 one written as IPv6 as what it is."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or address
    return address


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in n for n in _NETWORKS_4)
    return address in _UNICAST_6 and not any(address in n for n in _NETWORKS_6)


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
