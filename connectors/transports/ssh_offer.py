"""What an SSH server offers, read from its first packet: for the message when nothing fits."""

from __future__ import annotations

import socket
import struct

from connectors.transports.contract import WAIT_S

_BANNER_LINES = 50
_PACKET_MAX = 64 << 10
_KEXINIT = 20
# RFC 4253 7.1: the name lists of SSH_MSG_KEXINIT in order, the first of each pair.
_LISTS = {"key exchange": 0, "host keys": 1, "ciphers": 3, "checksums": 5}


def read_offer(host: str, port: int) -> str:
    """Its version and algorithms in words; why there are none, when it cannot be asked."""
    try:
        with socket.create_connection((host, port), WAIT_S) as sock:
            sock.settimeout(WAIT_S)
            sock.sendall(b"SSH-2.0-look\r\n")
            file = sock.makefile("rb")
            banner = b""
            for _ in range(_BANNER_LINES):
                banner = file.readline(1_024)
                if banner.startswith(b"SSH-") or not banner:
                    break
            size, padding = struct.unpack(">IB", file.read(5))
            if not 20 < size <= _PACKET_MAX:
                return "its first packet cannot be read"
            body = file.read(size - 1)[: size - 1 - padding]
    except (OSError, struct.error) as error:
        return f"its offer cannot be read ({type(error).__name__})"
    lists = _name_lists(body)
    said = [f"{name}: {lists[at]}" for name, at in _LISTS.items() if at < len(lists)]
    version = banner.decode("ascii", "replace").strip()
    return f"{version} offers {'; '.join(said)}" if said else f"{version} offers nothing readable"


def _name_lists(body: bytes) -> list[str]:
    found: list[str] = []
    if not body or body[0] != _KEXINIT:
        return found
    at = 17
    while at + 4 <= len(body) and len(found) < 10:
        (size,) = struct.unpack_from(">I", body, at)
        if size > len(body):
            break
        found.append(body[at + 4 : at + 4 + size].decode("ascii", "replace"))
        at += 4 + size
    return found
