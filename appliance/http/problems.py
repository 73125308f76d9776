"""Every refusal leaves as RFC 9457 problem details, built from our own errors and nothing else.

Promises: no internals, no SQL, no traceback in an answer; an exception that is none of ours is
answered 500 with the request id and logged by its type; 409 bodies hold both values.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from uuid import UUID

import msgspec
from litestar.exceptions import HTTPException, MethodNotAllowedException

from appliance.base import logs
from appliance.base.errors import (
    ApplianceError,
    FieldFault,
    Limited,
    Unauthenticated,
    Unavailable,
)
from appliance.kernel.kind import Json

MEDIA_TYPE = b"application/problem+json"
TYPE_PREFIX = "urn:nexus:problem:"
_PLACE = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")
_ROUTER_TITLES = {404: "Not found", 405: "Method not allowed"}


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of every refusal. `conflicts` stands in answers 409 about records."""

    type: str
    title: str
    status: int
    detail: str
    request_id: UUID
    code: str = ""
    errors: tuple[FieldFault, ...] = ()
    conflicts: tuple[Json, ...] = ()
    dependency: str | None = None


Headers = list[tuple[bytes, bytes]]


class Refusal(msgspec.Struct, frozen=True):
    """A problem ready to be sent."""

    status: int
    body: bytes
    headers: Headers


def refuse(error: Exception, request_id: UUID) -> Refusal:
    """The problem of any exception; what is none of ours becomes a 500 that says nothing."""
    match error:
        case ApplianceError():
            return _ours(error, request_id)
        case HTTPException() if error.status_code < 500:
            return _router(error, request_id)
        case _:
            # The type alone: the text of a foreign exception may hold values.
            logs.event(
                "http.request_failed", level="error", error_type=type(error).__name__,
                request_id=request_id, source=_place_of(error),
            )  # fmt: skip
            fault = ApplianceError("The node could not answer this; the log tells why.")
            return _ours(fault, request_id, is_logged=True)


def _ours(error: ApplianceError, request_id: UUID, *, is_logged: bool = False) -> Refusal:
    conflicts = error.extra.get("conflicts")
    problem = Problem(
        type=TYPE_PREFIX + error.code,
        title=error.title,
        status=error.status,
        detail=error.detail,
        request_id=request_id,
        code=error.code,
        errors=error.faults,
        conflicts=tuple(conflicts) if isinstance(conflicts, Sequence) else (),
        dependency=error.dependency if isinstance(error, Unavailable) else None,
    )
    headers: Headers = []
    if isinstance(error, Limited | Unavailable):
        headers.append((b"retry-after", str(error.retry_after_s).encode()))
    if isinstance(error, Unauthenticated):
        headers.append((b"www-authenticate", b'Bearer realm="nexus"'))
    if error.status == 500 and not is_logged:
        logs.event(
            "http.request_failed", level="error", error_type=type(error.__cause__ or error).__name__,
            code=error.code, request_id=request_id, source=_place_of(error.__cause__ or error),
        )  # fmt: skip
    return _sealed(problem, headers)


def _router(error: HTTPException, request_id: UUID) -> Refusal:
    status = error.status_code if error.status_code in _ROUTER_TITLES else 400
    title = _ROUTER_TITLES.get(status, "Request cannot be read")
    detail = {
        404: "There is nothing at this address; the list is at /schema/openapi.json.",
        405: "This address does not take this method; the header Allow names those it takes.",
    }.get(status, "The request cannot be read.")
    headers: Headers = []
    if isinstance(error, MethodNotAllowedException) and error.headers:
        headers = [(b"allow", str(error.headers.get("allow", "")).encode())]
    code = {404: "route.unknown", 405: "route.method"}.get(status, "request.malformed")
    problem = Problem(TYPE_PREFIX + code, title, status, detail, request_id, code)
    return _sealed(problem, headers)


def _sealed(problem: Problem, headers: Headers) -> Refusal:
    body = msgspec.json.encode(problem)
    length = str(len(body)).encode()
    return Refusal(
        problem.status, body, [(b"content-type", MEDIA_TYPE), (b"content-length", length), *headers]
    )


def _place_of(error: BaseException) -> str | None:
    """The file and line of ours that raised it, for the log."""
    found, trace = None, error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if "appliance" in name:
            found = f"{name.rpartition('appliance/')[2]}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found


def pointer_of(message: str) -> tuple[str, str]:
    """A decoder's message cut into an RFC 6901 pointer and the text before it."""
    text, _, path = message.partition(" - at `")
    keys = (name or place for name, place in _PLACE.findall(path.rstrip("`")))
    return "".join(f"/{k.replace('~', '~0').replace('/', '~1')}" for k in keys), text
