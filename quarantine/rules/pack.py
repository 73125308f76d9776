"""A rule pack: YARA-X rules as text and a deny list of SHA-256, versioned, dated, signed (Ed25519).

A file is `NXPACK1\\n`, the publisher's public key (32 bytes), the signature (64 bytes) over magic,
key and payload, and the payload in MessagePack. A pack is read only when its publisher is trusted
and the signature verifies; a pack that is there and does not verify is an error and never "no
rules". The program brings its own pack (`baseline.pack`) and the key that it trusts for it; packs
of a hub lie in a folder, and its key is given by the operator.

Of each publisher the highest version counts; packs of several publishers add up.
"""

from __future__ import annotations

import bisect
import hashlib
import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

MAGIC = b"NXPACK1\n"
KEY_BYTES, SIGNATURE_BYTES, HASH_BYTES = 32, 64, 32
PACK_BYTES_MAX = 256 << 20

HERE = Path(__file__).parent
BASELINE = HERE / "baseline.pack"
BASELINE_KEY = HERE / "baseline.pub"

FOLDER_VARIABLE = "QUARANTINE_PACKS"
KEYS_VARIABLE = "QUARANTINE_PACK_KEYS"


class PackError(Exception):
    """A pack or its rules cannot be used; the text says which, why, and what to do."""


class Pack(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is signed. `rules` maps the name of a source to its text, `denied` is sorted 32-byte
    hashes one after another, `version` grows by one with each pack of a publisher.
    """

    version: int
    issued_at: datetime
    rules: dict[str, str]
    denied: bytes = b""

    def denies(self, digest: bytes) -> bool:
        """Whether the SHA-256 (32 bytes) is on the deny list."""
        count = len(self.denied) // HASH_BYTES
        hashes = _Hashes(self.denied, count)
        at = bisect.bisect_left(hashes, digest)
        return at < count and hashes[at] == digest


class SignedPack(msgspec.Struct, frozen=True):
    """A pack that verified, who signed it, and its id: publisher, version, digest of the file."""

    pack: Pack
    publisher: bytes
    id: str


class _Hashes:
    """The deny list as a sequence, without making an object for each hash."""

    def __init__(self, data: bytes, count: int) -> None:
        self.data, self.count = data, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, at: int) -> bytes:
        return self.data[at * HASH_BYTES : (at + 1) * HASH_BYTES]


def read_sources(folder: Path = HERE) -> dict[str, str]:
    """The `.yar` files of a folder by name. None at all is an error."""
    sources = {path.name: path.read_text("utf-8") for path in sorted(folder.glob("*.yar"))}
    if not sources:
        raise PackError(f"No rules: {folder} holds no .yar file.")
    return sources


def compose(
    rules: Mapping[str, str], denied: Iterable[str], *, version: int, issued_at: datetime
) -> Pack:
    """A pack of rule texts and SHA-256 in hex. The caller checks the rules by compiling them."""
    if issued_at.tzinfo is None:
        raise PackError("The moment of issue needs a time zone.")
    hashes = set()
    for text in denied:
        try:
            digest = bytes.fromhex(text.strip())
        except ValueError as fault:
            raise PackError(f"Not a SHA-256 in hexadecimal: {text!r}.") from fault
        if len(digest) != HASH_BYTES:
            raise PackError(f"Not a SHA-256, 64 hexadecimal digits were expected: {text!r}.")
        hashes.add(digest)
    return Pack(version, issued_at, dict(rules), b"".join(sorted(hashes)))


def sign(pack: Pack, key: Ed25519PrivateKey) -> bytes:
    """The bytes of a pack file."""
    head = MAGIC + key.public_key().public_bytes_raw()
    payload = msgspec.msgpack.encode(pack)
    return head + key.sign(head + payload) + payload


def verify(data: bytes, trusted: Iterable[bytes], *, name: str = "pack") -> SignedPack:
    """The pack in `data`, when one of the `trusted` public keys (32 bytes each) signed it."""
    head_bytes = len(MAGIC) + KEY_BYTES
    if len(data) <= head_bytes + SIGNATURE_BYTES or not data.startswith(MAGIC):
        raise PackError(f"{name} is not a rule pack: its first bytes are not those of one.")
    publisher = data[len(MAGIC) : head_bytes]
    signature = data[head_bytes : head_bytes + SIGNATURE_BYTES]
    payload = data[head_bytes + SIGNATURE_BYTES :]
    if publisher not in set(trusted):
        raise PackError(f"{name} is signed by {publisher.hex()}, which is not trusted here.")
    try:
        Ed25519PublicKey.from_public_bytes(publisher).verify(signature, data[:head_bytes] + payload)
    except InvalidSignature as fault:
        raise PackError(
            f"{name} does not match its signature: it was changed. Fetch it again."
        ) from fault
    try:
        pack = msgspec.msgpack.decode(payload, type=Pack)
    except msgspec.MsgspecError as fault:
        raise PackError(f"{name} is signed but not readable: {fault}.") from fault
    if not pack.rules or len(pack.denied) % HASH_BYTES or pack.issued_at.tzinfo is None:
        raise PackError(f"{name} is signed but incomplete: no rules, or a broken deny list.")
    digest = hashlib.sha256(data).hexdigest()[:12]
    return SignedPack(pack, publisher, f"{publisher.hex()[:8]}.{pack.version}.{digest}")


def load_packs(folder: Path | None = None, trusted: Iterable[bytes] = ()) -> list[SignedPack]:
    """The program's own pack and the newest of every trusted publisher in `folder`.

    Any pack file there that does not verify is a PackError: falling back in silence to fewer
    rules would be what an intruder wants.
    """
    own = bytes.fromhex(_read(BASELINE_KEY).decode("ascii").strip())
    newest = {own: verify(_read(BASELINE), [own], name=BASELINE.name)}
    keys = {own, *trusted}
    for path in sorted(folder.glob("*.pack")) if folder else ():
        signed = verify(_read(path), keys, name=path.name)
        known = newest.get(signed.publisher)
        if known is None or signed.pack.version > known.pack.version:
            newest[signed.publisher] = signed
    return [newest[publisher] for publisher in sorted(newest)]


def load_configured(environment: Mapping[str, str] | None = None) -> list[SignedPack]:
    """`load_packs` as the environment says: a folder, and trusted keys in hex split by commas."""
    values = os.environ if environment is None else environment
    folder = values.get(FOLDER_VARIABLE, "").strip()
    if folder and not Path(folder).is_dir():
        raise PackError(f"{FOLDER_VARIABLE} names {folder}, which is not a folder.")
    try:
        keys = [bytes.fromhex(k) for k in values.get(KEYS_VARIABLE, "").split(",") if k.strip()]
    except ValueError as fault:
        raise PackError(f"{KEYS_VARIABLE}: public keys in hexadecimal were expected.") from fault
    return load_packs(Path(folder) if folder else None, keys)


def ids_of(packs: Iterable[SignedPack]) -> str:
    """Which packs these are, as one word: other packs, another word."""
    return "+".join(signed.id for signed in packs)


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > PACK_BYTES_MAX:
            raise PackError(f"{path.name} is larger than a rule pack may be.")
        return path.read_bytes()
    except OSError as fault:
        raise PackError(f"{path.name} cannot be read: {fault.strerror}.") from fault
