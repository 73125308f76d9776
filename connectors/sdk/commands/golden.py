"""`golden KEY [--keep]`: compare how the small inputs of a system are read, or keep it."""

from __future__ import annotations

from connectors.sdk.commands.lines import Say
from connectors.sdk.golden import compare, golden_inputs, golden_path, write_rows


def golden(system: str, say: Say, *, keep: bool) -> int:
    """Each input of the folder's `golden`; 1 when one is read otherwise than before."""
    given = golden_inputs(system)
    if not given:
        say(f"{system}: there is no input in its golden folder; put a small one there")
        return 1
    wrong = 0
    for path in given:
        if keep:
            lines = write_rows(system, path)
            golden_path(path).write_bytes(lines)
            say(f"kept      {golden_path(path).name}: {len(lines.splitlines())} lines")
            continue
        found = compare(system, path)
        wrong += len(found)
        for text in found or [f"{path.name}: as before"]:
            say(f"{'differs' if found else 'equal':9} {text}")
    return 1 if wrong else 0
