"""The sole way to a connection: `read` for one round trip, `transaction` for a unit of work.

Promises: the tenant is set inside the transaction and nowhere else; without a tenant there is
no session; the commit is at the edge, once; driver errors leave as errors of ours that name the
dependency, with nothing written.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from uuid import UUID
from weakref import WeakKeyDictionary

import psycopg
from psycopg import errors as pg
from psycopg.conninfo import make_conninfo
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from appliance.base import limits
from appliance.base.errors import (
    ApplianceError,
    Clash,
    Invalid,
    Limited,
    StorageFull,
    Unavailable,
)
from appliance.db.placement import Routes, moving
from appliance.db.wire import Call, Rows, Statement, Wire

Connection = psycopg.AsyncConnection[object]
Pool = AsyncConnectionPool[Connection]

ENTER = Statement("SELECT set_config('nexus.tenant', $1, true)")
ENTER_SLOW = Statement(
    "SELECT set_config('nexus.tenant', $1, true), set_config('statement_timeout', $2, true)"
)
# One plan for any values: planning a look-up by ids costs more than the look-up itself. It is made
# when a connection first needs it and kept until the table is analysed, so it must not be one that
# reads a whole table because that was small then: a site that catches up grows from nothing.
ENTER_GENERIC = Statement(
    "SELECT set_config('nexus.tenant', $1, true), "
    "set_config('plan_cache_mode', 'force_generic_plan', true), "
    "set_config('enable_seqscan', 'off', true)"
)
BEGIN = Statement("BEGIN")
COMMIT = Statement("COMMIT")
ROLLBACK = Statement("ROLLBACK")

_POOL_WAIT_S = 5.0
# Raised by the trigger `fence` of a placement (migration 0002).
FENCED = "NX001"


class Transaction:
    """An open transaction of one tenant. `run` sends any number of calls in one round trip;
    what was deferred goes first. `has_left`: committed, with rows in the outbox.
    """

    def __init__(self, wire: Wire, opening: Sequence[Call]) -> None:
        self._wire = wire
        self._opening: tuple[Call, ...] = tuple(opening)
        self._closed = False
        self._failed = False
        self._sent: asyncio.Task[list[Rows]] | None = None
        self._checks: list[tuple[int, Callable[[Sequence[Rows]], None]]] = []
        self._leaves = False
        self.has_left = False

    async def run(self, *calls: Call, commit: bool = False) -> list[Rows]:
        """Answers in the order of the calls. `commit=True` makes this the last round trip."""
        await self._settle()
        opening, self._opening = self._opening, ()
        checks, self._checks = self._checks, []
        ending: tuple[Call, ...] = ((COMMIT, ()),) if commit else ()
        try:
            answers = await self._wire.run([*opening, *calls, *ending])
        except BaseException:
            self._failed = True
            raise
        self._closed = commit
        self._note(calls)
        self.has_left = commit and self._leaves
        for first, check in checks:
            check(answers[first : len(opening)])
        return answers[len(opening) : len(answers) - len(ending)]

    def defer(self, calls: Sequence[Call], check: Callable[[Sequence[Rows]], None]) -> None:
        """Send calls with the next `run`, and have their answers checked before it returns.

        For the first round trip only, and never with one that commits.
        """
        self._checks.append((len(self._opening), check))
        self._opening = (*self._opening, *calls)

    async def send(self, *calls: Call) -> None:
        """Run calls whose answers nobody needs while the caller goes on.

        A failure is raised by whatever comes next: `send`, `run` or the end.
        """
        await self._settle()
        self._note(calls)
        self._sent = asyncio.create_task(self._wire.run([*self._opening, *calls]))
        self._opening = ()
        # The bytes leave before the caller computes on.
        await asyncio.sleep(0)

    async def abandon(self) -> None:
        """Roll back, whatever is still on its way."""
        with contextlib.suppress(psycopg.Error):
            await self._settle()
        await self.finish(commit=False)

    async def _settle(self) -> None:
        sent, self._sent = self._sent, None
        if sent is None:
            return
        try:
            await sent
        except BaseException:
            self._failed = True
            raise

    async def finish(self, *, commit: bool) -> None:
        """End it if `run` has not yet done so."""
        await self._settle()
        if self._closed or self._opening:
            return
        self._closed = True
        await self._wire.run([(COMMIT if commit and not self._failed else ROLLBACK, ())])
        if commit and self._failed:
            # PostgreSQL answers such a COMMIT with a silent rollback.
            raise ApplianceError(
                "A statement of this transaction had failed, so nothing was written.",
                code="node.fault",
            )
        self.has_left = commit and self._leaves

    def _note(self, calls: Sequence[Call]) -> None:
        self._leaves = self._leaves or any(statement.leaves for statement, _ in calls)


def unheard(tenant: UUID) -> None:
    """What `Database.announce` is where nobody listens: the relay then looks by itself."""


class Database:
    """Pools of this process: one for the control plane, one per placement database.

    `announce` is told the tenant behind each commit that left rows in the outbox, whichever door
    it came through; it must neither wait nor raise (sync/wake.Bell).
    """

    def __init__(
        self,
        control_dsn: str,
        pool_dsn: str,
        *,
        pool_max: int = 8,
        placements: dict[str, str] | None = None,
    ) -> None:
        self._pool_dsn = pool_dsn
        self._pool_max = pool_max
        self._placements = placements or {}
        self._pools: dict[str, Pool] = {}
        self._wires: WeakKeyDictionary[Connection, Wire] = WeakKeyDictionary()
        self.announce: Callable[[UUID], None] = unheard
        self.control: Pool = _make_pool(control_dsn, 4)
        self.routes = Routes(self.control, self._close_unused)

    async def start(self) -> None:
        """Open the control pool and load the routes. Raises Unavailable("PostgreSQL")."""
        with translated():
            await self.control.open(wait=True, timeout=30.0)
            await self.routes.start()

    async def stop(self) -> None:
        """Close every pool."""
        await self.routes.stop()
        for pool in (*self._pools.values(), self.control):
            await pool.close()

    async def pool(self, target: str) -> Pool:
        """The pool of a placement: a URL from the settings, or a database on our own server."""
        found = self._pools.get(target)
        if found is None:
            dsn = self._placements.get(target) or make_conninfo(self._pool_dsn, dbname=target)
            found = self._pools[target] = _make_pool(dsn, self._pool_max)
            await found.open()
        return found

    async def _close_unused(self, targets: set[str]) -> None:
        """Let go of databases that no route leads to any more; borrowed connections finish."""
        for target in set(self._pools) - targets:
            await self._pools.pop(target).close()

    @contextlib.asynccontextmanager
    async def wire(self, target: str) -> AsyncIterator[Wire]:
        """A borrowed connection to a placement, no tenant set: for maintenance of the room db."""
        with translated():
            pool = await self.pool(target)
            async with pool.connection(timeout=_POOL_WAIT_S) as conn:
                wire = self._wires.get(conn)
                if wire is None:
                    wire = self._wires[conn] = Wire(conn)
                yield wire

    async def read(self, tenant: UUID, *calls: Call, timeout_ms: int | None = None) -> list[Rows]:
        """Run calls for a tenant in one round trip and one read-only-by-use transaction."""
        await self.routes.seek(tenant)
        route = self.routes.of(tenant, read=True)
        enter: Call = (
            (ENTER_SLOW, (str(tenant), str(timeout_ms))) if timeout_ms else (ENTER, (str(tenant),))
        )
        async with self.wire(route.target) as wire:
            return (await wire.run([enter, *calls]))[1:]

    @contextlib.asynccontextmanager
    async def transaction(
        self, tenant: UUID, *, timeout_ms: int | None = None, generic: bool = False
    ) -> AsyncIterator[Transaction]:
        """A unit of work: committed at the end of the block, rolled back when it raises.

        `generic` for statements whose best plan does not depend on their values.
        """
        route = self.routes.of(tenant)
        async with (
            self.wire(route.target) as wire,
            bound(wire, tenant, timeout_ms, generic=generic) as tx,
        ):
            yield tx
        if tx.has_left:
            self.announce(tenant)


@contextlib.asynccontextmanager
async def bound(
    wire: Wire, tenant: UUID, timeout_ms: int | None = None, *, generic: bool = False
) -> AsyncIterator[Transaction]:
    """A transaction of a tenant on a given connection."""
    plain: Call = (ENTER_GENERIC if generic else ENTER, (str(tenant),))
    enter: Call = (ENTER_SLOW, (str(tenant), str(timeout_ms))) if timeout_ms else plain
    tx = Transaction(wire, ((BEGIN, ()), enter))
    try:
        yield tx
    except BaseException:
        if not wire.connection.closed:
            with contextlib.suppress(psycopg.Error):
                await tx.abandon()
        raise
    await tx.finish(commit=True)


def _make_pool(dsn: str, size_max: int) -> Pool:
    return AsyncConnectionPool(
        dsn,
        min_size=1,
        max_size=size_max,
        open=False,
        timeout=_POOL_WAIT_S,
        max_idle=120.0,
        kwargs={
            "autocommit": True,
            "options": (
                f"-c statement_timeout={limits.STATEMENT_TIMEOUT_MS} "
                f"-c lock_timeout={limits.LOCK_TIMEOUT_MS} "
                f"-c idle_in_transaction_session_timeout={limits.TRANSACTION_TIMEOUT_MS} "
                "-c timezone=UTC -c search_path=public -c enable_parallel_append=off"
            ),
        },
    )


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Driver errors become ours; ours pass."""
    try:
        yield
    except ApplianceError:
        raise
    except (psycopg.Error, PoolTimeout) as error:
        raise translate(error) from error


def translate(error: Exception) -> ApplianceError:
    """Which of our refusals a driver error means; its text never leaves (it may hold values)."""
    match error:
        case psycopg.Error() if error.sqlstate == FENCED:
            return moving()
        case pg.DiskFull():
            return StorageFull(
                "The database's disk is full; nothing was written. Free space and repeat.",
                dependency="PostgreSQL",
                retry_after_s=30,
            )
        case pg.QueryCanceled():
            return Limited(
                "The request took longer than its time limit and was stopped; narrow it.",
                code="query.too_slow",
            )
        case pg.LockNotAvailable() | pg.DeadlockDetected() | pg.SerializationFailure():
            return Clash(
                "Someone else is writing the same records; nothing was written. Repeat.",
                code="record.busy",
            )
        case pg.UntranslatableCharacter() | pg.CharacterNotInRepertoire():
            return Invalid(
                "A text holds a character that cannot be stored.", code="text.unstorable"
            )
        case pg.UniqueViolation() if error.diag.table_name == "change":
            return Clash(
                "The same entries were being taken; they are there now. Repeat.",
                code="record.busy",
            )
        case pg.DataError() | pg.IntegrityError() | pg.ProgrammingError():
            return ApplianceError("The database refused a statement of ours.", code="node.fault")
        case _:
            return Unavailable(
                "PostgreSQL does not answer; nothing was written. Try again in a moment.",
                dependency="PostgreSQL",
            )
