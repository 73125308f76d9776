"""The pictures of a package, by the names that rows give them. The caller brings them to quarantine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from connectors.formats.archive import Member, is_archive, list_members, read_member
from connectors.sdk.contract import Fault, Refused

IMAGE_MAX = 64 << 20


class Images:
    """The members of one package. Raises Refused when it is no sound archive."""

    def __init__(self, path: Path) -> None:
        self._named: dict[str, Member] = {}
        self._ending: dict[str, list[Member]] = {}
        for member in list_members(path) if is_archive(path) else ():
            self._named[member.name] = member
            self._ending.setdefault(_last(member.name), []).append(member)

    def read(self, name: str, most: int = IMAGE_MAX) -> Iterator[bytes]:
        """The bytes of a picture. Rows name it from the folder of their document, so the member
        whose name ends like that is taken. Raises Refused (image-missing, also where two would fit).
        """
        wanted = name.replace("\\", "/").lstrip("/")
        exact = [self._named[wanted]] if wanted in self._named else []
        ending = self._ending.get(_last(wanted), ())
        found = exact or [m for m in ending if m.name.endswith(f"/{wanted}")]
        if len(found) != 1 or not wanted:
            held = f"{len(found)} members" if found else "none"
            raise Refused(Fault("image-missing", f"one member {name[:200]}", held))
        yield from read_member(found[0], most)


def _last(name: str) -> str:
    return name.rpartition("/")[2]
