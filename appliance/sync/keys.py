"""The key a node proves itself with: Ed25519, in one private file of the data folder.

Promises: the secret half never leaves the file (mode 600, made on first need, whole or not at
all); a key is followed by another only when the old one signs for the new one and the new one
proves that it is held, so that whoever trusts the old key may trust the new one; a rotation that
was broken off anywhere is gone on with.
"""

from __future__ import annotations

import base64
import contextlib
import os
from hashlib import sha256
from pathlib import Path
from uuid import UUID

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from appliance.base.errors import Misconfigured

KEY_FILE = "node.key"
NEXT_FILE = "node.key.next"
KEY_BYTES = 32
_ROTATION = b"nexus-key-rotation-v1\0"


class NodeKey:
    """A node's key pair."""

    __slots__ = ("_private", "public")

    def __init__(self, seed: bytes) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self._private.public_key().public_bytes_raw()

    def sign(self, data: bytes) -> bytes:
        """The signature (64 bytes)."""
        return self._private.sign(data)


class Rotation(msgspec.Struct, frozen=True):
    """A new key of a node, signed by the old one and by itself."""

    node: UUID
    old_key: bytes
    new_key: bytes
    by_old: bytes
    by_new: bytes


class KeyFile:
    """The key of a running process, read anew when the file was replaced."""

    def __init__(self, data: Path) -> None:
        self._path = data / KEY_FILE
        self._seen: tuple[int, int] | None = None
        self._key: NodeKey | None = None

    def current(self) -> NodeKey:
        """The key as it is now; made when there is none. Raises Misconfigured."""
        if not self._path.exists():
            return load_key(self._path.parent)
        found = self._path.stat()
        mark = (found.st_mtime_ns, found.st_ino)
        if self._key is None or mark != self._seen:
            self._key, self._seen = load_key(self._path.parent), mark
        return self._key


def load_key(data: Path) -> NodeKey:
    """The node's key, made on first need. Raises Misconfigured."""
    return _load(data / KEY_FILE)


def begin_rotation(data: Path) -> NodeKey:
    """The key that is to come; the same one until `finish_rotation`, however often it is asked."""
    return _load(data / NEXT_FILE)


def finish_rotation(data: Path) -> None:
    """The new key takes the old one's place."""
    _like_folder(data / NEXT_FILE, data / KEY_FILE)
    (data / NEXT_FILE).replace(data / KEY_FILE)
    _sync_folder(data)


def is_rotating(data: Path) -> bool:
    """Whether a rotation was begun and not finished."""
    return (data / NEXT_FILE).exists()


def make_rotation(node: UUID, old: NodeKey, new: NodeKey) -> Rotation:
    """The statement that `new` follows `old`."""
    said = _statement(node, old.public, new.public)
    return Rotation(node, old.public, new.public, old.sign(said), new.sign(said))


def proves(rotation: Rotation) -> bool:
    """Whether both keys signed the statement."""
    said = _statement(rotation.node, rotation.old_key, rotation.new_key)
    return is_signed(rotation.old_key, rotation.by_old, said) and is_signed(
        rotation.new_key, rotation.by_new, said
    )


def follow(known: bytes, node: UUID, rotations: list[Rotation]) -> bytes:
    """The newest key that the chain leads to from the one that is trusted; else that one."""
    by_old = {r.old_key: r for r in rotations if r.node == node and proves(r)}
    for _ in range(len(by_old)):
        found = by_old.get(known)
        if found is None:
            break
        known = found.new_key
    return known


def is_signed(public: bytes, signature: bytes, data: bytes) -> bool:
    """Whether `signature` over `data` was made by the holder of a key; never raises."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def fingerprint(public: bytes) -> str:
    """What two people read to each other: 160 bits as eight groups of four letters and digits."""
    text = base64.b32encode(sha256(public).digest()[:20]).decode()
    return "-".join(text[n : n + 4] for n in range(0, 32, 4))


def _statement(node: UUID, old: bytes, new: bytes) -> bytes:
    return _ROTATION + node.bytes + old + new


def _load(path: Path) -> NodeKey:
    if not path.exists():
        with contextlib.suppress(FileExistsError):
            _make(path)
    try:
        seed = path.read_bytes()
    except OSError as bad:
        raise Misconfigured(f"{path.name}: cannot be read: {bad.strerror}") from None
    if len(seed) != KEY_BYTES:
        raise Misconfigured(
            f"{path.name}: expected {KEY_BYTES} bytes. Bring it back from a backup of the data "
            "folder; without it this node has to be invited anew."
        )
    return NodeKey(seed)


def _make(path: Path) -> None:
    """A new secret, which appears whole or not at all and never replaces another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(Ed25519PrivateKey.generate().private_bytes_raw())
            file.flush()
            os.fsync(file.fileno())
        _like_folder(draft, path)
        os.link(draft, path)
        _sync_folder(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def _like_folder(path: Path, model: Path) -> None:
    """Who runs the node reads the key: a command run by root must not take it away from them."""
    if os.geteuid() != 0:
        return
    beside = model if model.exists() else model.parent / "cursor.key"
    if beside.exists():
        found = beside.stat()
        os.chown(path, found.st_uid, found.st_gid)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
