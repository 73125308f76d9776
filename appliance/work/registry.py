"""Which jobs there are: one decorator, one table, asked by the relay and by the actors.

A handler is `async def run(node, tenant, payload, run)`. It may be started more than once (a
worker can die at any instruction), so its effect is either committed together with
`run.complete(tx)` and then happens exactly once, or doing it again changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from appliance.base.roles import EVERYWHERE, Role, is_mounted
from appliance.kernel.kind import Json

if TYPE_CHECKING:
    from appliance.work.node import WorkNode
    from appliance.work.run import Run

Payload = dict[str, Json]
Handler = Callable[["WorkNode", UUID, Payload, "Run"], Coroutine[object, object, None]]

ATTEMPTS_MAX = 10
TIME_LIMIT_S = 3_600
TOPIC_PREFIX = "job."


@dataclass(frozen=True, kw_only=True)
class JobSort:
    """One job kind and its bounds; `attempts_max` counts starts."""

    kind: str
    queue: str
    handler: Handler
    placed: frozenset[Role] = EVERYWHERE
    attempts_max: int = ATTEMPTS_MAX
    time_limit_s: int = TIME_LIMIT_S


JOBS: dict[str, JobSort] = {}


def job(
    kind: str,
    *,
    queue: str,
    placed: frozenset[Role] = EVERYWHERE,
    attempts_max: int = ATTEMPTS_MAX,
    time_limit_s: int = TIME_LIMIT_S,
) -> Callable[[Handler], Handler]:
    """Register a handler for outbox rows with topic `job.<kind>`."""

    def register(handler: Handler) -> Handler:
        assert kind not in JOBS, f"job kind {kind} is registered twice"
        JOBS[kind] = JobSort(
            kind=kind, queue=queue, handler=handler, placed=placed,
            attempts_max=attempts_max, time_limit_s=time_limit_s,
        )  # fmt: skip
        return handler

    return register


def mounted_jobs(role: Role) -> dict[str, JobSort]:
    """The jobs that run on a node of this role, by kind."""
    return {k: s for k, s in JOBS.items() if is_mounted(role, s.placed)}
