"""What a base publishes, compared with what a profile asks for, before the first question.

`$metadata` of a large configuration has ten thousand types: it is streamed under the bounds that
all XML here has, and only what the profile names is kept.
"""

from __future__ import annotations

import io
import re

from connectors.formats.xml import LOCAL, XmlFile
from connectors.onec.client import Base
from connectors.sdk.contract import Refused
from connectors.sdk.retry import Trouble
from connectors.systems.onec_odata.profile import Profile

_TOLD_MAX = 12
# The parts of a composite value, and those of a virtual table, have no property of their own.
_FILTERED = re.compile(r"(\w+) (?:eq|ne|gt|ge|lt|le) ")
_ALWAYS = frozenset({"Ref_Key", "DataVersion", "DeletionMark"})


def check_published(base: Base, profile: Profile) -> None:
    """Raises Trouble naming every object and property that is missing."""
    wanted = {m.object: m for m in profile.entity.values()}
    try:
        document = base.metadata()
    except Trouble as trouble:
        if trouble.code == "file-too-large":
            # Each question names what is missing as well, only later.
            return
        raise
    found = read_published(document, frozenset(wanted))
    missing = [f"{name} is not published" for name in wanted if name not in found]
    for entity, map_ in profile.entity.items():
        # A virtual table is a function: its result has properties of its own (…Balance).
        held = found.get(map_.object)
        if held is None or map_.slice.startswith("Balance"):
            continue
        asked = {*map_.properties, *_FILTERED.findall(map_.filter)} - _ALWAYS
        missing += [f"{map_.object} has no {name} ({entity})" for name in sorted(asked - held)]
    if missing:
        more = f"; {len(missing) - _TOLD_MAX} more" if len(missing) > _TOLD_MAX else ""
        text = (
            f"{'; '.join(missing[:_TOLD_MAX])}{more}. Publish it in 1C "
            "(СоставСтандартногоИнтерфейсаOData), give a profile of your own, or leave it out"
        )
        raise Trouble("profile-differs", text, is_permanent=True)


def read_published(document: bytes, names: frozenset[str]) -> dict[str, set[str]]:
    """Properties of the entity types of these names. Raises Trouble."""
    found: dict[str, set[str]] = {}
    try:
        file = XmlFile(lambda: io.BytesIO(document), name="$metadata", roots=("Edmx",))
        for element in file.iter_elements("EntityType"):
            name = element.get("Name") or ""
            if name in names:
                found[name] = {
                    child.get("Name") or ""
                    for child in element
                    if LOCAL[child.tag] in ("Property", "NavigationProperty")
                }
    except Refused as refused:
        fault = refused.fault
        text = f"$metadata: {fault.code}: expected {fault.expected}, found {fault.found}"
        raise Trouble("metadata-unreadable", text[:300], is_permanent=True) from None
    return found
