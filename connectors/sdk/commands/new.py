"""`new KEY --like …`: a system folder that runs as it is, from one of the templates of the sdk."""

from __future__ import annotations

import re
from pathlib import Path

from connectors.sdk.commands.check import check
from connectors.sdk.commands.golden import golden
from connectors.sdk.commands.lines import Say
from connectors.sdk.manifest import SYSTEMS

TEMPLATES = Path(__file__).resolve().parents[1] / "templates"
LIKES = tuple(sorted(p.name for p in TEMPLATES.iterdir() if p.is_dir()))
_KEY = re.compile(r"[a-z][a-z0-9_]{1,39}")


def new(key: str, like: str, say: Say) -> int:
    """Write it, keep its golden rows, and check it; 1 when it cannot be made."""
    target = SYSTEMS / key
    if not _KEY.fullmatch(key):
        say(f"a key has lower-case latin letters, digits and _, 2 to 40 of them; {key} is none")
        return 1
    if target.exists():
        say(f"{target} is there already; nothing was written")
        return 1
    source = TEMPLATES / like
    for path in sorted(p for p in source.rglob("*") if p.is_file()):
        place = target / path.relative_to(source)
        place = place.with_name(place.name.removesuffix(".txt"))
        place.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text("utf-8").replace("{{key}}", key)
        place.write_text(text, "utf-8")
        say(f"wrote     {place.relative_to(SYSTEMS)}: {len(text.splitlines())} lines")
    golden(key, say, keep=True)
    return check(key, say)
