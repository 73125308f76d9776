"""`python -m connectors quality FOLDER`: what would be proposed for each file, and its faults."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from connectors.sdk.contract import Refused, Rows
from connectors.systems.price_list import CONNECTOR


def main() -> int:
    """Print the table."""
    if len(sys.argv) < 3 or sys.argv[1] != "quality":
        print(__doc__)
        return 2
    for path in sorted(Path(sys.argv[2]).iterdir()):
        print(_line(path))
    return 0


def _line(path: Path) -> str:
    try:
        source = CONNECTOR.open(path)
        found = source.inspect({})
        rows, faults = 0, Counter[str]()
        for frame in source.read(found.proposal):
            if isinstance(frame, Rows):
                rows += len(frame.rows)
                faults.update(f.code for r in frame.rows for f in r.faults)
    except Refused as refused:
        return f"{path.name[:50]:50} refused: {refused.fault.code}"
    columns = [
        f"{c.letters}={c.target}" + (f":{c.options.get('price_type')} {c.options.get('currency', '')}".rstrip() if c.target == "price" else "")
        for t in found.proposal.tables for c in t.columns
    ]  # fmt: skip
    said = ", ".join(f"{k} {n}" for k, n in faults.most_common(4)) or "no faults"
    return f"{path.name[:50]:50} {rows:6} rows  {' '.join(columns)[:160]}  {said}"


if __name__ == "__main__":
    sys.exit(main())
