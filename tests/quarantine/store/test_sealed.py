"""The sealed format, by properties: splits change nothing, every change of the bytes is found."""

import asyncio
import hashlib
import os
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import example, given, settings
from hypothesis import strategies as st

from quarantine.store.faults import Damaged
from quarantine.store.reading import Reader
from quarantine.store.sealed import HEADER, TAG, Layout, Opener, Sealer

BLOB, OTHER = UUID(int=7), UUID(int=8)
KEY = bytes(range(32))
CHUNK = 16  # small, so that few bytes make many chunks
plain = st.binary(max_size=100)


def seal(data, *, blob=BLOB, key=KEY, chunk=CHUNK, cuts=()):
    sealer, out, at = Sealer(blob, key, chunk), [], 0
    for cut in [*sorted(cuts), len(data)]:
        out += sealer.feed(data[at : max(at, cut)])
        at = max(at, cut)
    out += sealer.close()
    assert sealer.size == len(data) and sealer.sha256 == hashlib.sha256(data).digest()
    return b"".join(out)


def source(sealed):
    async def read(start, stop):
        return sealed[start:stop]

    return read


def read(sealed, size, start=0, stop=None, *, blob=BLOB, key=KEY, ahead=1):
    async def go():
        reader = await Reader.open(source(sealed), blob=blob, key=key, size=size, ahead=ahead)
        return await reader.read(start, stop)

    return asyncio.run(go())


@given(plain, st.lists(st.integers(0, 100), max_size=8))
@example(b"x" * CHUNK, [CHUNK])
@example(b"x" * CHUNK * 2, [CHUNK, CHUNK])
def test_how_the_bytes_are_split_changes_nothing(data, cuts):
    sealed = seal(data, cuts=cuts)
    assert sealed == seal(data)
    assert len(sealed) == Layout(len(data), CHUNK).sealed_size
    assert read(sealed, len(data)) == data


@given(plain, st.integers(0, 120), st.integers(0, 120), st.integers(1, 5))
def test_a_range_equals_the_slice(data, start, stop, ahead):
    assert read(seal(data), len(data), start, stop, ahead=ahead) == data[start:stop]


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 32, 40])
def test_every_flipped_bit_is_found(size):
    sealed = seal(os.urandom(size))
    for at in range(len(sealed)):
        for bit in range(8):
            spoiled = bytearray(sealed)
            spoiled[at] ^= 1 << bit
            with pytest.raises(Damaged) as found:
                read(bytes(spoiled), size)
            assert found.value.blob == BLOB
            assert found.value.chunk == max(0, at - HEADER) // (CHUNK + TAG)


@given(plain, st.data())
def test_every_cut_is_found_by_whatever_range_meets_it(data, draw):
    sealed = seal(data)
    kept = draw.draw(st.integers(0, len(sealed) - 1))
    with pytest.raises(Damaged):
        read(sealed[:kept], len(data))


@pytest.mark.parametrize("chunks", [1, 2, 3])
def test_a_cut_at_a_chunk_border_does_not_pass_for_a_shorter_blob(chunks):
    """Even with the size of the shorter one in the ledger: the last flag is missing."""
    sealed = seal(bytes(CHUNK * 4))
    kept = sealed[: HEADER + chunks * (CHUNK + TAG)]
    with pytest.raises(Damaged) as found:
        read(kept, CHUNK * chunks)
    assert found.value.chunk == chunks - 1
    with pytest.raises(Damaged) as found:
        read(kept, CHUNK * 4)
    assert found.value.chunk == chunks


def test_a_longer_size_in_the_ledger_does_not_pass_either():
    sealed = seal(bytes(CHUNK * 2))
    with pytest.raises(Damaged):
        read(sealed, CHUNK * 2 + 1)
    with pytest.raises(Damaged):
        read(sealed + bytes(TAG + 1), CHUNK * 2 + 1)


@given(st.permutations(range(4)))
def test_reordered_chunks_are_found(order):
    data = bytes(range(CHUNK * 4))
    sealed = seal(data)
    step = CHUNK + TAG
    body = [sealed[HEADER + i * step : HEADER + (i + 1) * step] for i in order]
    moved = sealed[:HEADER] + b"".join(body)
    if list(order) == [0, 1, 2, 3]:
        assert read(moved, len(data)) == data
        return
    with pytest.raises(Damaged) as found:
        read(moved, len(data))
    assert found.value.chunk == next(i for i, j in enumerate(order) if i != j)


def test_a_repeated_chunk_and_a_chunk_of_another_blob_are_found():
    data, step = bytes(CHUNK * 3), CHUNK + TAG
    sealed = seal(data)
    first = sealed[HEADER : HEADER + step]
    with pytest.raises(Damaged):
        read(sealed[: HEADER + step] + first + sealed[HEADER + 2 * step :], len(data))
    foreign = seal(data, blob=OTHER)  # even under the same key
    with pytest.raises(Damaged):
        read(sealed[:HEADER] + foreign[HEADER : HEADER + step] + sealed[HEADER + step :], len(data))
    with pytest.raises(Damaged):
        read(foreign, len(data))
    with pytest.raises(Damaged):
        read(sealed, len(data), key=bytes(32))


def test_no_byte_of_a_damaged_chunk_comes_out_but_those_before_do():
    data = bytes(range(CHUNK * 3))
    sealed = bytearray(seal(data))
    sealed[-1] ^= 1
    assert read(bytes(sealed), len(data), 0, CHUNK * 2) == data[: CHUNK * 2]

    async def go():
        reader = await Reader.open(source(bytes(sealed)), blob=BLOB, key=KEY, size=len(data))
        got = []
        with pytest.raises(Damaged):
            async for piece in reader.pieces():
                got.append(bytes(piece))
        return got

    assert asyncio.run(go()) == [data[:CHUNK], data[CHUNK : CHUNK * 2]]


def test_the_format_is_what_its_description_says():
    """Opened with nothing but the description and AES-GCM, so that a backup can be read anywhere."""
    data = os.urandom(40)
    sealed = seal(data)
    header, body = sealed[:12], sealed[12:]
    assert header == b"NXSB\x00\x01\x00\x00" + CHUNK.to_bytes(4, "big")
    got = b""
    for index in range(3):
        bound = header + BLOB.bytes + index.to_bytes(8, "big") + bytes([index == 2])
        part = body[index * 32 : (index + 1) * 32]
        got += AESGCM(KEY).decrypt(index.to_bytes(12, "big"), part, bound)
    assert got == data


@given(st.binary(min_size=HEADER, max_size=HEADER))
def test_a_header_of_nonsense_is_refused(header):
    with pytest.raises(Damaged):
        Opener(BLOB, KEY, 1, header)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 3 * 1024 * 1024 + 5))
def test_chunks_of_the_real_size_come_back(size):
    data = hashlib.sha256(size.to_bytes(8, "big")).digest() * (size // 32 + 1)
    data = data[:size]
    sealed = seal(data, chunk=1024 * 1024, cuts=[size // 3])
    assert read(sealed, size) == data
    assert read(sealed, size, size // 2, size // 2 + 70_000) == data[size // 2 : size // 2 + 70_000]


def test_negative_positions_are_refused():
    with pytest.raises(ValueError):
        read(seal(b"abc"), 3, -1)
