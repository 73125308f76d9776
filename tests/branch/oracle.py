"""What must be live in each register, said once more: a set of dots minus a set of dots.

Nothing of the product's merge is used here but the codec of its entries. An entry writes registers
and names the dots that it had seen in them; live is what nobody names (research/sync 2.3).
"""

from collections import defaultdict
from uuid import UUID

from appliance.kernel.change import decode_body

MOVED = "move"


def qualify(dot, stream):
    return dot if "@" in dot else f"{dot}@{stream.hex}"


class Oracle:
    """Fed with every applied entry of a node; `live(record, register)` is the answer."""

    def __init__(self):
        self.born = defaultdict(dict)
        self.written = defaultdict(lambda: defaultdict(dict))
        self.covered = defaultdict(lambda: defaultdict(set))
        self.dots, self.bases = set(), set()
        self.kinds = {}

    def take(self, row):
        body = decode_body(bytes(row.body))
        dot = qualify(f"{row.origin}.{row.oseq}", row.stream)
        record = row.record_id
        self.dots.add(dot)
        self.kinds[record] = row.kind
        if row.op == "new":
            self.born[record][dot] = dict(body.fields)
        for register, values in written(row.op, body).items():
            self.written[record][register][dot] = values
        # What came from another stream had seen dots of that one.
        seen_in = UUID(str(body.ext["from"])) if row.op == "arrive" else row.stream
        for register, dots in body.base.items():
            bases = {qualify(d, seen_in) for d in dots}
            self.covered[record][register] |= bases
            self.bases |= bases

    def registers(self, record):
        return set(self.written[record])

    def live(self, record, register):
        """Live dots of a register with what each wrote."""
        all_of = self.born[record] | self.written[record][register]
        gone = self.covered[record][register]
        return {dot: values for dot, values in all_of.items() if dot not in gone}

    def without_their_base(self):
        """Dots that an entry had seen and that are not here: I6."""
        return self.bases - self.dots


def written(op, body):
    """By register: the values of an edit; a group as one, a set member by member."""
    if op in ("del", "undel"):
        return {"!": {"!": op == "undel"}}
    if op in ("new", MOVED):
        return {}
    grouped = {fid: name for name, fids in body.groups.items() for fid in fids}
    found = defaultdict(dict)
    for fid, value in body.fields.items():
        found[grouped.get(fid, fid)][fid] = value
    for fid, (added, removed) in body.sets.items():
        for member in added:
            found[f"{fid}/{member}"] = {fid: True}
        for member in removed:
            found[f"{fid}/{member}"] = {fid: None}
    return dict(found)
