"""Thousands of schedules of the merge core: no write is lost, all nodes agree, known bugs are found."""

import os
import time
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.merge import model

SCHEDULES = 20_000
LONG = 1_000_000
BLOCK = 500
# The rarest of them, an acknowledgement before the commit, shows in one schedule of about ten.
MUTANT_SEEDS = 400


def block(first):
    """The seeds of a block that went wrong, and what."""
    found = []
    for seed in range(first, first + BLOCK):
        try:
            wrong = model.run(seed)
        except model.Gap:
            wrong = "a gap was pulled"
        if wrong:
            found.append((seed, wrong))
    return found


def run_all(count, capsys):
    began = time.perf_counter()
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        wrong = [w for found in pool.map(block, range(0, count, BLOCK)) for w in found]
    took = time.perf_counter() - began
    with capsys.disabled():
        print(
            f"\nmerge core: seeds 0–{count - 1}, {len(wrong)} wrong, {count / took:.0f} schedules/s"
        )
    assert not wrong, wrong[:5]


def test_no_schedule_loses_a_write_or_parts_the_nodes(capsys):
    run_all(SCHEDULES, capsys)


@pytest.mark.slow
def test_a_million_schedules(capsys):
    run_all(LONG, capsys)


@pytest.mark.parametrize("mutant", model.MUTANTS)
def test_each_known_bug_is_found(mutant):
    for seed in range(MUTANT_SEEDS):
        try:
            if model.run(seed, mutant):
                return
        except (model.Gap, AssertionError, KeyError, ValueError):
            return
    pytest.fail(f"{mutant} passed {MUTANT_SEEDS} schedules")
