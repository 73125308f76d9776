"""Requests and answers between nodes, signed over what they say (RFC 9421 with a fixed cover).

Promises: a request counts once, for one tenant, on one path, with one body, from one node; no
clock is looked at, so a branch whose clock is wrong still gets in. A conversation has a nonce that
the hub gave out and a counter that only grows; what opens one carries a nonce of its own making
and the counter 0, and proves nothing but who asks. An answer is signed over the signature of its
question, so it fits no other one. Everything that is wrong reads alike: 401 with one text; the log
says which node and why.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any
from uuid import UUID

import msgspec

from appliance.base import logs
from appliance.base.errors import TooLarge, Unauthenticated
from appliance.db.database import Database
from appliance.sync.keys import NodeKey, is_signed
from appliance.sync.nodes import ACTIVE, PeerNode, count_request, find_peer

BODY_BYTES_MAX = 5 * 1024 * 1024
NONCE_BYTES = 16
# What says that an answer is not the known hub's.
UNTRUSTED = "sync.answer_untrusted"
COUNTER_MAX = 2**63 - 1
_COVER = ("nexus-node", "nexus-tenant", "nexus-session", "nexus-counter", "content-digest")
_PARAMS = (
    '("@method" "@path" "@query" ' + " ".join(f'"{h}"' for h in _COVER) + ');alg="ed25519";'
    'tag="nexus-sync"'
)
_ANSWER_PARAMS = '("@status" "content-digest" "signature";req);alg="ed25519";tag="nexus-sync"'
_LABEL = "sig1="


class Conversation:
    """One side's place in a session: makes the signed headers of each next request."""

    __slots__ = ("_counter", "_key", "_node", "_session", "_tenant")

    def __init__(self, key: NodeKey, node: UUID, tenant: UUID, session: bytes = b"") -> None:
        """Without a `session` each request is one that opens one."""
        self._key, self._node, self._tenant = key, node, tenant
        self._session, self._counter = session, 0

    def headers(self, method: str, target: str, body: bytes) -> dict[str, str]:
        """The headers of the next request; `target` is its path with its query."""
        if self._session:
            self._counter += 1
        said = {
            "nexus-node": str(self._node),
            "nexus-tenant": str(self._tenant),
            "nexus-session": (self._session or secrets.token_bytes(NONCE_BYTES)).hex(),
            "nexus-counter": str(self._counter),
        }
        return sign(self._key, method, target, said, body)


def sign(
    key: NodeKey, method: str, target: str, headers: Mapping[str, str], body: bytes
) -> dict[str, str]:
    """`headers` (node, tenant, session, counter) with the digest and the signature added."""
    said = {**headers, "content-digest": digest_of(body)}
    signature = key.sign(_request_base(method, target, said))
    return {
        **said,
        "signature-input": _LABEL + _PARAMS,
        "signature": f"{_LABEL}:{base64.b64encode(signature).decode()}:",
    }


async def verify(
    db: Database,
    scope: Mapping[str, Any],
    body: bytes,
    *,
    opening: bool = False,
    leaving: bool = False,
    body_bytes_max: int = BODY_BYTES_MAX,
) -> PeerNode:
    """Who asks, for which tenant, in which session (b"" for what opens one, where `opening`).

    `scope` is the ASGI scope. With `leaving` a node that was revoked, or one that holds the tenant
    no more, is told apart by `state` and `scope_state` instead of being refused: it may have
    something left to hand in. Raises Unauthenticated, TooLarge.
    """
    if len(body) > body_bytes_max:
        raise TooLarge(f"The body is larger than {body_bytes_max} bytes; send it in parts.")
    said = _single(scope["headers"])
    claim = _read_claim(said)
    if claim is None:
        raise _refuse("unreadable")
    if not hmac.compare_digest(said["content-digest"], digest_of(body)):
        raise _refuse("digest", claim.node)
    peer = await find_peer(db, claim.node, claim.tenant)
    if peer is None or not peer.public_key:
        raise _refuse("unknown", claim.node)
    base = _request_base(scope["method"], target_of(scope), said)
    if not is_signed(peer.public_key, claim.signature, base):
        raise _refuse("signature", claim.node)
    if peer.state != ACTIVE and not leaving:
        raise _refuse("revoked", claim.node)
    if not peer.scope_state or not (leaving or peer.scope_state == ACTIVE):
        raise _refuse("tenant", claim.node)
    if claim.counter == 0:
        if not opening:
            raise _refuse("no_session", claim.node)
        session = b""
    elif await count_request(db, peer.id, claim.session, claim.counter):
        session = claim.session
    else:
        raise _refuse("replayed", claim.node)
    return msgspec.structs.replace(peer, session=session)


def sign_answer(key: NodeKey, status: int, body: bytes, request_signature: str) -> dict[str, str]:
    """The headers that bind an answer to its question; `request_signature` is its header."""
    digest = digest_of(body)
    signature = key.sign(_answer_base(status, digest, request_signature))
    return {
        "content-digest": digest,
        "signature-input": _LABEL + _ANSWER_PARAMS,
        "signature": f"{_LABEL}:{base64.b64encode(signature).decode()}:",
    }


def verify_answer(
    public: bytes, status: int, headers: Mapping[str, str], body: bytes, request_signature: str
) -> None:
    """Refuse an answer that the holder of `public` did not give to this very question.

    `headers` by lower-case name. Raises Unauthenticated.
    """
    digest = digest_of(body)
    signature = _read_signature(headers.get("signature", ""))
    base = _answer_base(status, digest, request_signature)
    if (
        signature is None
        or not hmac.compare_digest(headers.get("content-digest", "").encode(), digest.encode())
        or not is_signed(public, signature, base)
    ):
        logs.event("sync.answer_refused", level="warning", status=status)
        raise Unauthenticated(
            "The answer was not signed by the hub that this node knows. Nothing was taken from it; "
            "compare the fingerprints on both sides (`nexus node status`).",
            code=UNTRUSTED,
        )


def digest_of(body: bytes) -> str:
    """The value of Content-Digest (RFC 9530)."""
    return f"sha-256=:{base64.b64encode(sha256(body).digest()).decode()}:"


def target_of(scope: Mapping[str, Any]) -> str:
    """Path and query of a request as they stood on its first line."""
    path = scope.get("raw_path") or str(scope["path"]).encode()
    query = scope.get("query_string") or b""
    raw = path.partition(b"?")[0] + (b"?" + query if query else b"")
    return str(raw, "latin-1")


class _Claim(msgspec.Struct, frozen=True):
    node: UUID
    tenant: UUID
    session: bytes
    counter: int
    signature: bytes


def _request_base(method: str, target: str, said: Mapping[str, str]) -> bytes:
    path, _, query = target.partition("?")
    lines = [f'"@method": {method.upper()}', f'"@path": {path}', f'"@query": ?{query}']
    lines += [f'"{name}": {said[name]}' for name in _COVER]
    lines.append(f'"@signature-params": {_PARAMS}')
    return "\n".join(lines).encode("latin-1", "replace")


def _answer_base(status: int, digest: str, request_signature: str) -> bytes:
    return (
        f'"@status": {status}\n"content-digest": {digest}\n"signature";req: {request_signature}\n'
        f'"@signature-params": {_ANSWER_PARAMS}'
    ).encode("latin-1", "replace")


def _single(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """The headers that are covered, as text; one that stands twice is left out."""
    wanted = {*_COVER, "signature", "signature-input"}
    found: dict[str, list[str]] = {}
    for raw, value in headers:
        name = str(raw, "latin-1").lower()
        if name in wanted:
            found.setdefault(name, []).append(str(value, "latin-1").strip())
    return {name: values[0] for name, values in found.items() if len(values) == 1}


def _read_claim(said: Mapping[str, str]) -> _Claim | None:
    """What the headers claim, in the one form that is written; None for any other."""
    if said.get("signature-input") != _LABEL + _PARAMS or not all(h in said for h in _COVER):
        return None
    signature = _read_signature(said.get("signature", ""))
    try:
        node, tenant = UUID(said["nexus-node"]), UUID(said["nexus-tenant"])
        session = bytes.fromhex(said["nexus-session"])
        counter = int(said["nexus-counter"])
    except ValueError:
        return None
    plain = (str(node), str(tenant), session.hex(), str(counter))
    written = tuple(said[h] for h in _COVER[:4])
    if signature is None or plain != written or len(session) != NONCE_BYTES:
        return None
    if not (0 <= counter <= COUNTER_MAX and said["content-digest"].isascii()):
        return None
    return _Claim(node, tenant, session, counter, signature)


def _read_signature(text: str) -> bytes | None:
    if not (text.startswith(_LABEL + ":") and text.endswith(":")):
        return None
    try:
        found = base64.b64decode(text[len(_LABEL) + 1 : -1], validate=True)
    except (binascii.Error, ValueError):
        return None
    return found if len(found) == 64 else None


def _refuse(reason: str, node: UUID | None = None) -> Unauthenticated:
    logs.event("sync.request_refused", level="warning", node=node, reason=reason)
    return refusal()


def refusal() -> Unauthenticated:
    """The one text for every wrong thing between nodes."""
    return Unauthenticated(
        "The request does not prove which node it comes from, or it was made before. Open a new "
        "session with hello; `nexus node status` says what this node is here.",
        code="node.unproven",
    )
