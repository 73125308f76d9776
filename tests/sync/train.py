"""How `appliance/sync/frames.1.dict` was made: `python -m tests.sync.train OUT`.

A dictionary that has shipped is never made again: frames that were packed with it would be lost.
"""

import random
import sys
from pathlib import Path

import zstandard

from appliance.sync import batch, frames
from tests.sync.sample import Life

SIZE = 16_384


def samples():
    """Contents of small batches without their random end, as blocks of their own."""
    dice = random.Random(1)
    for seed in range(1_500):
        life = Life(seed, dice.choice([1, 2, 7, 31]), known=20, oseq=dice.randrange(1, 40_000))
        count = dice.choice([1, 1, 2, 3, 5, 10, 20])
        entries = life.live(count) if dice.random() < 0.5 else [life.edit() for _ in range(count)]
        packed = batch.pack_batch(life.stream, entries, {life.origin: b"h" * 32})
        content = frames._pack(packed)
        yield content[: len(content) - len(packed.noise)]


if __name__ == "__main__":
    trained = zstandard.train_dictionary(SIZE, list(samples()), level=3, dict_id=1)
    Path(sys.argv[1]).write_bytes(trained.as_bytes())
