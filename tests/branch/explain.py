"""The history of what was complained about: a record's entries, and which node has which."""

import re

from appliance.kernel.change import decode_body
from tests.branch.stand import read_stand

RECORD = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
MOST = 3


def explain(fleet, lines):
    """Sentences about the first few records that the complaints name."""
    stands = fleet.at_once(read_stand)
    names = {i: told[0] for stand in stands.values() for i, told in stand.streams.items()}
    wanted = list(dict.fromkeys(i for line in lines for i in RECORD.findall(line)))[:MOST]
    return [line for ident in wanted for line in history(stands, names, ident)]


def history(stands, names, ident):
    yield f"{ident}:"
    found = {}
    for node, stand in stands.items():
        for row in stand.rows:
            if str(row.record_id) == ident:
                found.setdefault((row.hlc, row.stream, row.origin, row.oseq), (row, []))[1].append(
                    f"{node}#{row.seq}"
                )
    for key in sorted(found, key=lambda key: (key[0], key[2], key[3])):
        row, where = found[key]
        body = decode_body(bytes(row.body))
        yield (
            f"  {row.origin}.{row.oseq} tx {row.tx} in {names.get(row.stream, row.stream)} {row.op} "
            f"{body.fields} base {body.base} ext {body.ext} at {', '.join(where)}"
        )
    for node, stand in stands.items():
        for stream, records in stand.records.items():
            for record, state in records.items():
                if str(record) == ident:
                    yield f"  {node} has it in {names.get(stream, stream)}: {state[1:]}"
