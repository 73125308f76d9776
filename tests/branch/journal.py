"""What nodes have acknowledged, as it came, and what may or may not have happened."""

import json
import time
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Journal:
    """`acked` are writes that a node said are done; `doubt` those whose answer never came.

    An acked write names its change set, which is how the checker finds its entries on each node.
    """

    acked: list[dict] = field(default_factory=list)
    doubt: list[dict] = field(default_factory=list)
    refused: Counter = field(default_factory=Counter)
    strange: list[str] = field(default_factory=list)
    retries: int = 0

    def note(self, node, op, answer, **more):
        told = answer.json() if answer.content else {}
        self.acked.append(
            {"node": node, "op": op, "at": time.time(), "change_set": answer.headers.get("x-change-set"),
             "id": told.get("id") if isinstance(told, dict) else None, **more}
        )  # fmt: skip
        return told

    def doubted(self, node, op, **more):
        self.doubt.append({"node": node, "op": op, "at": time.time(), **more})

    def of(self, *ops):
        return [entry for entry in self.acked if entry["op"] in ops]

    def counts(self):
        return Counter((entry["node"], entry["op"]) for entry in self.acked)

    def save(self, path):
        lines = [json.dumps(e, default=str) for e in self.acked]
        path.write_text("\n".join(lines) + "\n")
