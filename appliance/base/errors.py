"""The one error tree: every refusal carries a code, a status and a text for people.

Promises: what reaches a client is built only from these classes (RFC 9457 problem details);
anything else is a fault of ours, answered as 500 with a request id and logged with its cause.
"""

from __future__ import annotations

import msgspec


class FieldFault(msgspec.Struct, frozen=True):
    """One fault at one place: `pointer` is an RFC 6901 JSON pointer into the request body."""

    pointer: str
    code: str
    detail: str


class ApplianceError(Exception):
    """Base of every refusal; `code` is `area.noun_state`, `detail` says what to do next."""

    status = 500
    title = "Internal fault"
    code = "node.fault"

    def __init__(
        self,
        detail: str = "",
        *,
        code: str | None = None,
        faults: tuple[FieldFault, ...] = (),
        **extra: object,
    ) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.code = code or type(self).code
        self.faults = faults
        self.extra = extra


class Invalid(ApplianceError):
    """The request is well-formed but its content is not acceptable (422)."""

    status = 422
    title = "Content not acceptable"
    code = "request.invalid"


class Malformed(ApplianceError):
    """The request cannot be read at all (400)."""

    status = 400
    title = "Request cannot be read"
    code = "request.malformed"


class TooLarge(ApplianceError):
    """The body or the batch is over its bound (413)."""

    status = 413
    title = "Request too large"
    code = "request.too_large"


class WrongMediaType(ApplianceError):
    """The body's media type is not the one this route takes (415)."""

    status = 415
    title = "Media type not accepted"
    code = "request.media_type"


class NotAcceptable(ApplianceError):
    """None of the media types in Accept can be produced (406)."""

    status = 406
    title = "No acceptable representation"
    code = "request.not_acceptable"


class Unauthenticated(ApplianceError):
    """No session, or one that has ended (401)."""

    status = 401
    title = "Sign in first"
    code = "session.missing"


class Refused(ApplianceError):
    """Unknown and forbidden read alike (404), so that an answer is never an oracle."""

    status = 404
    title = "Not found"
    code = "resource.unknown"


class Forbidden(ApplianceError):
    """The thing is known to the caller, the action is not theirs (403)."""

    status = 403
    title = "Not allowed"
    code = "access.denied"


class Clash(ApplianceError):
    """The state of the thing speaks against the request (409)."""

    status = 409
    title = "Conflict"
    code = "record.conflict"


class Locked(ApplianceError):
    """Another request is at work on the thing just now (423); to be tried again in a moment."""

    status = 423
    title = "Locked"
    code = "resource.locked"


class Spoiled(ApplianceError):
    """Bytes are not those of their checksum, so none of them was kept (460, as tus has it)."""

    status = 460
    title = "Checksum mismatch"
    code = "upload.spoiled"


class Limited(ApplianceError):
    """Too many requests or too costly a request (429)."""

    status = 429
    title = "Too many requests"
    code = "request.limited"

    def __init__(self, detail: str = "", *, retry_after_s: int = 1, **kw: object) -> None:
        super().__init__(detail, **kw)  # type: ignore[arg-type]
        self.retry_after_s = retry_after_s


class Unavailable(ApplianceError):
    """A dependency is down; `dependency` names it, nothing was written (503)."""

    status = 503
    title = "Temporarily unavailable"
    code = "node.unavailable"

    def __init__(
        self, detail: str = "", *, dependency: str, retry_after_s: int = 2, **kw: object
    ) -> None:
        super().__init__(detail, **kw)  # type: ignore[arg-type]
        self.dependency = dependency
        self.retry_after_s = retry_after_s


class StorageFull(Unavailable):
    """The disk is full: writes are refused by name, reads go on (507)."""

    status = 507
    title = "Storage is full"
    code = "node.storage_full"


class Misconfigured(ApplianceError):
    """The node refuses to start; the text names the setting and what was expected."""

    title = "Settings not acceptable"
    code = "node.misconfigured"
