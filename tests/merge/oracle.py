"""What must be live, as a pure function of the set of entries: written apart from the core, slowly.

A register's live values are those of the entries that wrote it and that no other entry's base for
this register names; a creation wrote every register. Counters are sums.
"""

from decimal import Decimal

from appliance.kernel.change import EntryOp
from appliance.kernel.stamps import EXISTS


def dot(entry):
    return f"{entry.dot}@{entry.stream.hex}"


def full(entry, name):
    return name if "@" in name else f"{name}@{entry.stream.hex}"


def writes(entry):
    """Register → values, and None for all registers at once (a creation)."""
    body = entry.body
    if entry.op is EntryOp.NEW:
        return None
    if entry.op in (EntryOp.DEL, EntryOp.UNDEL):
        return {EXISTS: {EXISTS: entry.op is EntryOp.UNDEL}}
    group_of = {fid: name for name, fids in body.groups.items() for fid in fids}
    found = {}
    for fid, value in body.fields.items():
        found.setdefault(group_of.get(fid, fid), {})[fid] = value
    for fid, (added, removed) in body.sets.items():
        found.update({f"{fid}/{m}": {f"{fid}/{m}": True} for m in added})
        found.update({f"{fid}/{m}": {f"{fid}/{m}": None} for m in removed})
    return found


def live(entries):
    """Register → dots that are live; and the sums of counters. All of one record."""
    covered, written, created = {}, {}, []
    sums = {}
    for entry in entries:
        for register, bases in entry.body.base.items():
            covered.setdefault(register, set()).update(full(entry, b) for b in bases)
        found = writes(entry)
        if found is None:
            created.append(dot(entry))
        else:
            for register in found:
                written.setdefault(register, []).append(dot(entry))
        for fid, delta in entry.body.deltas.items():
            sums[fid] = sums.get(fid, Decimal(0)) + Decimal(delta)
    registers = {
        r: sorted({*created, *dots} - covered.get(r, set())) for r, dots in written.items()
    }
    return registers, sums
