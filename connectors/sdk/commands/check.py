"""`check KEY`: manifest, vocabulary, golden rows and the hostile suite of one system folder."""

from __future__ import annotations

from collections.abc import Callable

from connectors.sdk.commands.lines import Say, clean
from connectors.sdk.golden import compare, golden_inputs
from connectors.sdk.hostile import try_system
from connectors.sdk.manifest import SYSTEMS, list_systems, read_manifest, read_vocabulary
from connectors.sdk.recognise import load_connector, read_head, recognise

LINES_MAX = 400


def check_manifest(system: str) -> list[str]:
    """What is wrong with the manifest, the vocabulary it names, or the folder's files."""
    try:
        manifest = read_manifest(system)
        read_vocabulary(manifest.entities)
        connector = load_connector(system)
    except (ValueError, ImportError, AttributeError) as error:
        return [str(error)]
    found = [] if callable(getattr(connector, "open", None)) else ["CONNECTOR has no open(path)"]
    if "en" not in manifest.labels:
        found.append("manifest.toml has no label in en")
    for path in (SYSTEMS / system).rglob("*.py"):
        length = len(path.read_text("utf-8").splitlines())
        if length > LINES_MAX:
            found.append(f"{path.name}: {length} lines, at most {LINES_MAX}")
    return found


def check_golden(system: str) -> list[str]:
    """Golden inputs that are read otherwise than before, or that another connector claims."""
    given = golden_inputs(system)
    if not given:
        return ["there is no input in its golden folder; put a small one there"]
    found = [text for path in given for text in compare(system, path)]
    for path in given:
        claims = recognise(read_head(path), path.name)
        if any(key == system for _, key in claims) and claims[0][1] != system:
            found.append(f"{path.name}: {claims[0][1]} claims it before {system}")
    return found


STEPS: dict[str, Callable[[str], list[str]]] = {
    "manifest": check_manifest,
    "golden": check_golden,
    "hostile": try_system,
}


def check(system: str, say: Say) -> int:
    """Every step in turn; 1 when one has found something."""
    if system not in list_systems():
        say(f"there is no connector {system}; there are {', '.join(list_systems())}")
        return 1
    wrong = 0
    for name, step in STEPS.items():
        found = step(system)
        wrong += len(found)
        say(f"{name:9} {'sound' if not found else f'{len(found)} wrong'}")
        for text in found:
            say(f"          {clean(text, 500)}")
    return 1 if wrong else 0
