"""Keys open what they wrapped and nothing else; the master key's file is closed to others."""

import hashlib
import multiprocessing
import os
import stat
from uuid import UUID

import pytest

from quarantine.store.faults import KeyFault
from quarantine.store.keys import MasterKey, load_master_key

ONE, TWO, BLOB, OTHER = (UUID(int=n) for n in (1, 2, 3, 4))


@pytest.fixture
def master(tmp_path):
    return load_master_key(tmp_path / "keys" / "master", may_make=True)


def test_the_file_is_made_once_and_closed_to_others(tmp_path):
    path = tmp_path / "keys" / "master"
    first = load_master_key(path, may_make=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [p.name for p in path.parent.iterdir()] == ["master"]
    assert load_master_key(path, may_make=True).id == first.id
    assert load_master_key(path, may_make=False).id == first.id


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_file_that_others_may_read_is_refused(tmp_path, mode):
    path = tmp_path / "master"
    load_master_key(path, may_make=True)
    path.chmod(mode)
    with pytest.raises(KeyFault, match="open to others"):
        load_master_key(path, may_make=True)


def test_a_lost_key_is_not_replaced_in_silence(tmp_path):
    with pytest.raises(KeyFault, match="is gone"):
        load_master_key(tmp_path / "master", may_make=False)
    assert not (tmp_path / "master").exists()


def test_a_link_and_a_short_file_are_refused(tmp_path):
    load_master_key(tmp_path / "real", may_make=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(KeyFault):
        load_master_key(tmp_path / "link", may_make=False)
    for wrong in (b"", b"x" * 31, b"x" * 33):
        (tmp_path / "real").write_bytes(wrong)
        with pytest.raises(KeyFault, match="32 bytes"):
            load_master_key(tmp_path / "real", may_make=False)


def _start(path, out, gate):
    gate.wait()
    out.put(load_master_key(path, may_make=True).id)


def test_two_processes_that_start_together_have_one_key(tmp_path):
    context = multiprocessing.get_context("fork")
    out, gate = context.Queue(), context.Barrier(6)
    for attempt in range(5):
        path = tmp_path / str(attempt) / "m"
        many = [context.Process(target=_start, args=(path, out, gate)) for _ in range(6)]
        for each in many:
            each.start()
        found = {out.get(timeout=20) for _ in many}
        for each in many:
            each.join()
        assert len(found) == 1
        assert [p.name for p in path.parent.iterdir()] == ["m"]


def test_a_wrapped_key_opens_only_for_what_it_was_made(master):
    wrapped = master.make_tenant_key(ONE)
    key = master.open_tenant_key(ONE, wrapped)
    raw, kept = key.make_key("content", BLOB)
    assert master.open_tenant_key(ONE, wrapped).open_key("content", BLOB, kept) == raw
    for purpose, blob in (("upload", BLOB), ("content", OTHER)):
        with pytest.raises(KeyFault):
            key.open_key(purpose, blob, kept)
    with pytest.raises(KeyFault):
        master.open_tenant_key(TWO, wrapped)
    with pytest.raises(KeyFault):
        master.open_tenant_key(TWO, master.make_tenant_key(TWO)[:-1])
    other = master.open_tenant_key(TWO, master.make_tenant_key(TWO))
    with pytest.raises(KeyFault):
        other.open_key("content", BLOB, kept)
    with pytest.raises(KeyFault):
        MasterKey(os.urandom(32)).open_tenant_key(ONE, wrapped)
    for nonsense in (b"", b"x", bytes(60)):
        with pytest.raises(KeyFault):
            key.open_key("content", BLOB, nonsense)


def test_equal_bytes_have_one_mark_in_a_tenant_and_unrelated_marks_in_two(master):
    digest = hashlib.sha256(b"same").digest()
    wrapped = master.make_tenant_key(ONE)
    one, again = master.open_tenant_key(ONE, wrapped), master.open_tenant_key(ONE, wrapped)
    two = master.open_tenant_key(TWO, master.make_tenant_key(TWO))
    assert one.mark(digest) == again.mark(digest) != two.mark(digest)
    assert digest.hex() not in one.mark(digest)


def test_a_new_master_key_takes_tenants_over_and_the_old_one_opens_nothing_then(master):
    wrapped, new = master.make_tenant_key(ONE), MasterKey(os.urandom(32))
    raw, kept = master.open_tenant_key(ONE, wrapped).make_key("content", BLOB)
    moved = new.adopt_tenant_key(ONE, wrapped, master)
    assert new.open_tenant_key(ONE, moved).open_key("content", BLOB, kept) == raw
    with pytest.raises(KeyFault):
        master.open_tenant_key(ONE, moved)
    with pytest.raises(KeyFault):
        new.adopt_tenant_key(TWO, wrapped, master)
    assert new.id != master.id
