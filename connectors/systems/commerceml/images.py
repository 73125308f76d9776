"""One picture of a package, by the name that a row gives it. The caller brings it to quarantine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from connectors.formats.archive import is_archive, list_members, read_member
from connectors.sdk.contract import Fault, Refused

IMAGE_MAX = 64 << 20


def read_image(path: Path, name: str, most: int = IMAGE_MAX) -> Iterator[bytes]:
    """The bytes of a picture. Rows name it from the folder of their document, so the member whose
    name ends like that is taken. Raises Refused (image-missing, also where two would fit).
    """
    members = list_members(path) if is_archive(path) else []
    wanted = name.replace("\\", "/").lstrip("/")
    exact = [m for m in members if m.name == wanted]
    found = exact or [m for m in members if m.name.endswith(f"/{wanted}")]
    if len(found) != 1 or not wanted:
        held = f"{len(found)} members" if found else "none"
        raise Refused(Fault("image-missing", f"one member {name[:200]}", held))
    yield from read_member(found[0], most)
