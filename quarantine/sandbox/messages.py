"""What the two sides of the sandbox say to each other, and the bounds of it.

The control socket keeps message borders (SOCK_SEQPACKET). A request carries two descriptors: the
plaintext, open for reading, and the pipe for the answer. The answer is one MessagePack in the pipe.
"""

from __future__ import annotations

import msgspec

from quarantine.contract import EngineRun, Finding, Policy

MESSAGE_BYTES_MAX = 64 * 1024
ANSWER_BYTES_MAX = 1024 * 1024
FINDINGS_MAX = 200


class Ready(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The server is up: which engines it has loaded, which it could not, and its walls."""

    engines: tuple[str, ...]
    missing: tuple[str, ...]
    system_calls: bool


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file to examine, under this name and policy; `sha256` when it is known."""

    name: str
    policy: Policy
    sha256: str = ""


class Ended(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The process for one file is gone; `status` is its exit code, negative for a signal."""

    status: int


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the engines inside saw. An engine that failed anywhere has no run here."""

    type: str
    findings: tuple[Finding, ...]
    engines: tuple[EngineRun, ...]


encode = msgspec.msgpack.Encoder().encode
decode_ready = msgspec.msgpack.Decoder(Ready).decode
decode_request = msgspec.msgpack.Decoder(Request).decode
decode_ended = msgspec.msgpack.Decoder(Ended).decode
decode_answer = msgspec.msgpack.Decoder(Answer).decode
