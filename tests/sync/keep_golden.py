"""How the frames of a release were kept: `python -m tests.sync.keep_golden FOLDER`, once for a format.

What is there is never written anew: it is what nodes of that release send and USB carriers hold.
"""

import sys
from pathlib import Path

import msgspec

from appliance.kernel.change import GENESIS, Body, EntryOp, Logged, encode_body
from appliance.sync.frames import encode_frame
from tests.sync.sample import LOG_KEY, Life

FOLDER = Path(__file__).with_name("golden")


def cases():
    """Name, entries, and the hashes before them."""
    life = Life(101, 4, oseq=1_000, previous=b"p" * 32)
    yield "one_edit", [life.edit()], {4: b"p" * 32}
    life = Life(102)
    yield "a_day_from_the_beginning", life.live(60), {}
    life = Life(103, 7, oseq=5_000, previous=b"q" * 32)
    yield "one_transaction", life.create(40), {7: b"q" * 32}
    lives = [Life(104, n, oseq=n, previous=b"r" * 32) for n in (1, 2, 3)]
    for other in lives:
        other.stream = lives[0].stream
    many = [e for _ in range(6) for other in lives for e in other.live(2)]
    yield "three_nodes", many, dict.fromkeys((1, 2, 3), b"r" * 32)
    yield "odd_things", list(odd(Life(105, 4_294_967_295))), {}
    life = Life(106, 5)
    whole = life.live(12)
    whole[6] = Logged(entry=whole[6].entry, hash=b"", ehlc=whole[6].ehlc)
    yield "stripped", whole, {}


def odd(life):
    """Each thing that an entry can hold."""
    record = life.records[0]
    stream = life.stream.hex
    yield life.log(
        EntryOp.PUT,
        record,
        Body(sets={"tags": (["a", "ё"], [])}, base={"tags/a": ["1.1"], "tags/ё": []}),
    )
    yield life.log(EntryOp.PUT, record, Body(deltas={"visits": "-1.50"}), ahead=3_600_000 << 16)
    yield life.log(
        EntryOp.PUT,
        record,
        Body(
            fields={"x": None, "y": [1, {"z": [True, 2.5, "ї"]}]},
            base={"x": ["9.9", f"8.7@{stream}"], "y": ["strange"]},
        ),
        parked="unknown_op",
    )
    yield life.log(
        EntryOp.MOVE, record, Body(seen=["1.1", f"2.2@{stream}", "1.1"], ext={"to": stream})
    )
    yield life.log(
        EntryOp.ARRIVE,
        record,
        Body(fields={"@unit": None}, groups={"address": ["city", "zip"]}, ext={"data": {"a": 1}}),
    )
    yield life.log("redirect", record, Body(ext={"of": "a newer program"}), door="newer")
    yield life.log(EntryOp.DEL, record, Body(base={"!": ["1.1"]}, seen=["1.1"]))
    yield life.log(EntryOp.UNDEL, record, Body(base={"!": ["4294967295.7"]}))


def story(one):
    """An entry as JSON can say it; the body as it is stored."""
    entry = msgspec.to_builtins(one.entry)
    entry["body"] = encode_body(one.entry.body).hex()
    return {"entry": entry, "hash": one.hash.hex(), "ehlc": one.ehlc, "parked": one.parked}


def keep(folder):
    """Write frames and what they hold."""
    for name, entries, before in cases():
        stream = entries[0].entry.stream
        told = {
            "log_key": LOG_KEY.hex(), "stream": str(stream),
            "before": {str(o): h.hex() for o, h in {**dict.fromkeys({e.entry.origin for e in entries if e.entry.oseq == 1}, GENESIS), **before}.items()},
            "stripped": [n for n, one in enumerate(entries) if not one.hash],
            "entries": [story(one) for one in entries],
        }  # fmt: skip
        (folder / f"{name}.frame").write_bytes(encode_frame(stream, entries, before=before))
        text = msgspec.json.format(msgspec.json.encode(told), indent=1)
        (folder / f"{name}.json").write_bytes(text + b"\n")


if __name__ == "__main__":
    keep(Path(sys.argv[1]))
