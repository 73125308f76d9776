"""What a change costs on the wire and what a frame costs the processor.

The payload of an edit of one field is what no reader could work out:
  16 bytes  the record's id
   n bytes  the field's value as MessagePack
   2 bytes  its base: the number of an entry among tens of thousands
   8 bytes  the random half of the change set's id, which is of this edit alone
   2 bytes  when it was made: milliseconds since the edit before
The floor above it (`bare`) leaves the last two out: id, value and base only. Random bytes are
half of it, so a frame can only be below the payload by what values share.

Floor of the processor: MessagePack of the same entries as plain arrays, compressed alike.
"""

import asyncio
import statistics
import time

import msgspec
import zstandard

from appliance.sync.frames import decode_frame, encode_frame
from tests.bench import harness
from tests.sync.sample import LOG_KEY, Life

BATCHES = (1, 10, 100, 1_000)
TARGETS = {1: "-", 10: "2", 100: "-", 1_000: "1.5"}
BARE, ALONE = 16 + 2, 8 + 2
MONEY = [{"name": "amount", "type": "money"}]


async def main():
    for label, edit in (("any field", any_field), ("an amount", an_amount)):
        for count in BATCHES:
            wire(label, edit, count)
    processor()


def any_field(life):
    """One field of a record of any kind of the shipped modules."""
    return life.edit()


def an_amount(life):
    """The shortest usual edit: a price of one kind."""
    record = life.dice.choice(life.records)
    return life.edit([record[0], "deal", MONEY, record[3]])


def written(edit, count, seed):
    """Entries of a node in the middle of its life."""
    life = Life(seed, 3, known=5_000, oseq=20_000, previous=b"p" * 32)
    return life.stream, [edit(life) for _ in range(count)]


def wire(label, edit, count):
    """Bytes per change over its payload, the median of several logs."""
    ratios, bares, sizes = [], [], []
    for seed in range(9):
        stream, entries = written(edit, count, seed)
        size = len(encode_frame(stream, entries, before={3: b"p" * 32}))
        bare = sum(BARE + len(value_of(one)) for one in entries)
        sizes.append(size / count)
        bares.append(size / bare)
        ratios.append(size / (bare + ALONE * count))
    print(
        f"{f'{label}, {count} together':44} {statistics.median(sizes):9.1f} B  over payload "
        f"{statistics.median(ratios):5.2f}  over bare {statistics.median(bares):5.2f}  "
        f"target {TARGETS[count]}", flush=True,
    )  # fmt: skip


def value_of(one):
    """The values of an entry, packed."""
    return b"".join(map(msgspec.msgpack.encode, one.entry.body.fields.values()))


def processor():
    """µs per entry of frames of a thousand."""
    stream, entries = written(any_field, 1_000, 1)
    before = {3: b"p" * 32}
    data = encode_frame(stream, entries, before=before)
    plain = [msgspec.structs.astuple(one.entry) for one in entries]
    packed = zstandard.ZstdCompressor(level=3).compress(msgspec.msgpack.encode(plain))
    print(f"{'entries as plain arrays, 1000 together':44} {len(packed) / 1_000:9.1f} B", flush=True)

    def plainly():
        content = zstandard.ZstdDecompressor().decompress(packed)
        return msgspec.msgpack.decode(content)

    steps = {
        "encode": (
            lambda: encode_frame(stream, entries, before=before),
            lambda: zstandard.ZstdCompressor(level=3).compress(msgspec.msgpack.encode(plain)),
        ),
        "decode": (lambda: decode_frame(data), plainly),
        "decode and prove": (lambda: decode_frame(data, LOG_KEY), plainly),
    }
    for name, (ours, floor) in steps.items():
        harness.report(f"{name}, per entry", micros(ours), micros(floor), "-", "µs")


def micros(call):
    """Processor time per entry, the median of some rounds."""
    found = []
    for _ in range(15):
        began = time.process_time()
        call()
        found.append((time.process_time() - began) * 1e3)
    return statistics.median(found)


if __name__ == "__main__":
    asyncio.run(main())
