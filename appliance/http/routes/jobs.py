"""Background work of the tenant: what runs, what waits, what failed."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from litestar.response.base import ASGIResponse

from appliance.base.errors import FieldFault, Invalid
from appliance.http.answers import reply
from appliance.http.ask import Ask
from appliance.http.route import API, Book

book = Book("jobs")
PATH = f"{API}/jobs"
_STATES = frozenset({"queued", "running", "done", "failed", "cancelled"})
_ROWS_MAX = 200


class JobView(msgspec.Struct, frozen=True):
    """One job. `cancel_asked`: it stops at its next checkpoint."""

    id: UUID
    job_kind: str
    state: str
    progress: int
    total: int | None
    detail: str
    cancel_asked: bool
    created_by: UUID | None
    created_at: datetime
    updated_at: datetime


class JobList(msgspec.Struct, frozen=True):
    """Newest first; `next` is `before` of the following page."""

    jobs: list[JobView]
    next: UUID | None


class JobParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A page of jobs."""

    state: str | None = None
    limit: int = 50
    before: UUID | None = None


@book.route("GET", PATH, capability="jobs.read", params=JobParams, answers={200: JobList})
async def list_jobs(ask: Ask) -> ASGIResponse:
    """The jobs of the tenant."""
    given = ask.params(JobParams)
    if given.state not in (None, *_STATES):
        raise _wrong("/state", f"Expected one of {', '.join(sorted(_STATES))}.")
    if not 0 < given.limit <= _ROWS_MAX:
        raise _wrong("/limit", f"Expected 1 to {_ROWS_MAX}.")
    page = await ask.node.jobs.list_jobs(
        ask.ctx.tenant, state=given.state, limit=given.limit, before=given.before
    )
    return reply(JobList([_view(j) for j in page.jobs], page.next))


@book.route("GET", f"{PATH}/{{id}}", capability="jobs.read", answers={200: JobView})
async def read_job(ask: Ask) -> ASGIResponse:
    """One job."""
    return reply(_view(await ask.node.jobs.get_job(ask.ctx.tenant, ask.ident())))


@book.route(
    "POST", f"{PATH}/{{id}}/cancel", capability="tenant.manage", writes=True, answers={200: JobView}
)
async def cancel_job(ask: Ask) -> ASGIResponse:
    """Ask a job to stop."""
    return reply(_view(await ask.node.jobs.cancel_job(ask.ctx.tenant, ask.ident())))


def _view(job: Any) -> JobView:
    return JobView(**{name: getattr(job, name) for name in JobView.__struct_fields__})


def _wrong(pointer: str, detail: str) -> Invalid:
    return Invalid(
        detail, code="request.parameter", faults=(FieldFault(pointer, "out_of_range", detail),)
    )
