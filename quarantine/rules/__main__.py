"""`python -m quarantine.rules build`: compile the rules of this folder, sign them, write the pack.

Without `--key` a key is made for this one pack and forgotten: the pack and its public key are then
replaced together, and nobody can ever sign a second one under that key. With `--key FILE` (PEM,
Ed25519) a hub makes packs of its own for its branches. `check` says whether the pack at hand holds
the rules at hand.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from quarantine.rules import pack as packs
from quarantine.rules.compiled import compile_sources

DENIED = packs.HERE / "denied.txt"


def build(out: Path, key: Ed25519PrivateKey, *, sources: Path, denied: Path, version: int) -> str:
    """Write a signed pack and its public key beside it; the answer is the pack's id."""
    rules = packs.read_sources(sources)
    compile_sources({"build": rules})
    lines = denied.read_text("ascii").split("\n") if denied.exists() else []
    hashes = [line.split("#")[0].strip() for line in lines]
    pack = packs.compose(
        rules, [h for h in hashes if h], version=version, issued_at=datetime.now(UTC)
    )
    data = packs.sign(pack, key)
    public = key.public_key().public_bytes_raw()
    out.write_bytes(data)
    out.with_suffix(".pub").write_text(public.hex() + "\n", "ascii")
    return packs.verify(data, [public], name=out.name).id


def check() -> str:
    """The id of the program's own pack; raises PackError when its rules are not those at hand."""
    signed = packs.load_packs()[0]
    if signed.pack.rules != packs.read_sources():
        raise packs.PackError(
            "baseline.pack holds other rules than this folder: run `python -m quarantine.rules build`."
        )
    compile_sources({"check": signed.pack.rules})
    return signed.id


def main(arguments: list[str] | None = None) -> int:
    """The command; 0 when all is well, 1 with one sentence when not."""
    parser = argparse.ArgumentParser(prog="python -m quarantine.rules", description=__doc__)
    parser.add_argument("action", choices=["build", "check"])
    parser.add_argument("--out", type=Path, default=packs.BASELINE)
    parser.add_argument("--key", type=Path, help="private key, PEM; none makes one for this pack")
    parser.add_argument("--sources", type=Path, default=packs.HERE)
    parser.add_argument("--denied", type=Path, default=DENIED)
    parser.add_argument("--version", type=int, help="default: the present pack's, plus one")
    given = parser.parse_args(arguments)
    try:
        if given.action == "check":
            sys.stdout.write(f"{check()}\n")
            return 0
        version = given.version or _next_version(given.out)
        key = _read_key(given.key) if given.key else Ed25519PrivateKey.generate()
        made = build(given.out, key, sources=given.sources, denied=given.denied, version=version)
    except packs.PackError as fault:
        sys.stderr.write(f"{fault}\n")
        return 1
    sys.stdout.write(f"{made}\n")
    return 0


def _next_version(out: Path) -> int:
    public = out.with_suffix(".pub")
    if not out.exists() or not public.exists():
        return 1
    key = bytes.fromhex(public.read_text("ascii").strip())
    return packs.verify(out.read_bytes(), [key], name=out.name).pack.version + 1


def _read_key(path: Path) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as fault:
        raise packs.PackError(f"{path} is not a readable private key in PEM.") from fault
    if not isinstance(key, Ed25519PrivateKey):
        raise packs.PackError(f"{path} is not an Ed25519 key.")
    return key


if __name__ == "__main__":
    raise SystemExit(main())
