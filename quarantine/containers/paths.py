"""Whether the path that a container gives to an entry stays inside, and is one path for everybody."""

from __future__ import annotations

import re
import unicodedata

from quarantine.containers.budget import Refused

_DRIVE = re.compile(r"[A-Za-z]:")
_PATH_CHARS_MAX = 1024
_LEVELS_MAX = 40


class Paths:
    """The entries of one container so far. Two that one disk would write to one place are refused."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._folders: set[str] = set()

    def add(self, name: str, *, folder: bool) -> str:
        """The entry's path with slashes and without `./`. Raises Refused."""
        path = check_path(name)
        key = unicodedata.normalize("NFC", path).casefold()
        levels = key.split("/")
        above = {"/".join(levels[:n]) for n in range(1, len(levels))}
        again = key in self._files or (not folder and key in self._folders)
        if again or above & self._files:
            raise Refused(
                "container.duplicate", "Two entries have one name, so two readers see two files."
            )
        self._folders |= above | ({key} if folder else set())
        if not folder:
            self._files.add(key)
        return path


def check_path(name: str) -> str:
    """One way to write an entry's path. Raises Refused when it leads out or hides characters."""
    if "\0" in name or any(unicodedata.category(c) in ("Cc", "Cs") for c in name):
        raise Refused("container.traversal", "An entry's name has control characters.")
    path = name.replace("\\", "/")
    if path.startswith("/") or _DRIVE.match(path):
        raise Refused("container.traversal", "An entry's name is an absolute path.")
    levels = [level for level in path.split("/") if level not in ("", ".")]
    if ".." in (level.rstrip(" .") + ".." * level.startswith("..") for level in levels):
        raise Refused("container.traversal", "An entry's name leads out of the archive.")
    if any(level.strip(" .") == "" for level in levels):
        raise Refused("container.traversal", "An entry's name leads out of the archive.")
    if len(path) > _PATH_CHARS_MAX or len(levels) > _LEVELS_MAX:
        raise Refused("container.traversal", "An entry's name is too long or too deep.")
    return "/".join(levels)
