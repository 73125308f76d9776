"""One round trip for many prepared statements: libpq pipeline mode on a psycopg connection.

Promises: values travel as parameters only, never inside SQL text; a statement is prepared once
per connection under a name derived from its text; statements sent together up to the final sync
form one implicit transaction, so a transaction-local setting made by the first one holds for
the rest and for nothing after. Measured against four round trips it halves the CPU of a read
(tests/bench/bench_list.py).

Errors: any psycopg.Error; the connection is left usable after a statement failed, and must be
discarded after a lost connection or a cancelled call (the pool does).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime
from decimal import Decimal
from hashlib import blake2b
from typing import Any
from uuid import UUID

import psycopg
from psycopg import pq

from appliance.base import limits
from appliance.base.errors import Invalid
from appliance.db.columns import Column

Param = (
    None | bool | int | str | bytes | UUID | datetime | date | Decimal | Column | Sequence["Param"]
)
Row = tuple[bytes | None, ...]

_FORGOTTEN = b""
_READY = frozenset({pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK})


class Statement:
    """SQL text with $1… placeholders and the name it is prepared under.

    `leaves`: it puts rows into the outbox, so its commit is worth a wake (Database.announce).
    """

    __slots__ = ("leaves", "name", "sql")

    def __init__(self, sql: str, *, leaves: bool = False) -> None:
        self.leaves = leaves
        self.sql = sql.encode()
        self.name = b"n" + blake2b(self.sql, digest_size=12).hexdigest().encode()


Call = tuple[Statement, Sequence[Param]]


class Rows:
    """The answer to one statement; values are PostgreSQL's text form, undecoded."""

    __slots__ = ("_result",)

    def __init__(self, result: pq.abc.PGresult) -> None:
        self._result = result

    def __len__(self) -> int:
        return self._result.ntuples

    def __iter__(self) -> Iterator[Row]:
        result, columns = self._result, range(self._result.nfields)
        return iter([tuple(result.get_value(r, c) for c in columns) for r in range(result.ntuples)])

    def column(self, place: int = 0) -> list[bytes | None]:
        """One column of all rows: how pages of ready JSON leave without being decoded."""
        get = self._result.get_value
        return [get(row, place) for row in range(self._result.ntuples)]

    def first(self) -> Row | None:
        """The first row, or None."""
        if not self._result.ntuples:
            return None
        return tuple(self._result.get_value(0, c) for c in range(self._result.nfields))

    def values(self, row: int) -> list[str | None]:
        """One row as text values."""
        result = self._result
        found = (result.get_value(row, c) for c in range(result.nfields))
        return [v.decode() if v is not None else None for v in found]

    @property
    def affected(self) -> int:
        """Rows touched by INSERT, UPDATE, DELETE."""
        return self._result.command_tuples or 0


def encode(value: Param) -> bytes | None:
    """One parameter: PostgreSQL's text form, sequences as array literals; columns in binary."""
    known = _ENCODERS.get(type(value))
    return known(value) if known is not None else encode_array(value)  # type: ignore[arg-type]


def _encode_plain(value: object) -> bytes:
    return str(value).encode()


def encode_text(value: str) -> bytes:
    """UTF-8; Invalid for what PostgreSQL's text cannot hold (libpq would cut at the NUL)."""
    if "\0" in value:
        raise Invalid("A text holds a character that cannot be stored.", code="text.unstorable")
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise Invalid(
            "A text holds a character that cannot be stored.", code="text.unstorable"
        ) from None


def encode_array(values: Sequence[Param]) -> bytes:
    """A one-dimensional array literal; every non-null member is quoted."""
    parts: list[bytes] = []
    for value in values:
        found = encode(value)
        if found is None:
            parts.append(b"NULL")
        else:
            quoted = found.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
            parts.append(b'"' + quoted + b'"')
    return b"{" + b",".join(parts) + b"}"


_ENCODERS: dict[type, Callable[[Any], bytes | None]] = {
    type(None): lambda _: None,
    bool: lambda value: b"t" if value else b"f",
    str: encode_text,
    bytes: lambda value: b"\\x" + value.hex().encode(),
    datetime: lambda value: value.isoformat().encode(),
    date: lambda value: value.isoformat().encode(),
    int: _encode_plain,
    UUID: _encode_plain,
    Decimal: _encode_plain,
    Column: Column.encode,
}


class Wire:
    """Pipeline access to one connection. Not for use by two tasks at once."""

    def __init__(self, connection: psycopg.AsyncConnection[object]) -> None:
        self.connection = connection
        self._pg = connection.pgconn
        self._prepared: OrderedDict[bytes, None] = OrderedDict()
        self._pg.nonblocking = 1

    async def run(self, calls: Sequence[Call]) -> list[Rows]:
        """Send all calls, one sync, read all answers; raises the first error."""
        pg = self._pg
        # Before anything is sent: a value that cannot be encoded must not cost the connection.
        values = [[encode(p) for p in params] for _, params in calls]
        pg.enter_pipeline_mode()
        try:
            steps = self._send(calls, values)
            pg.pipeline_sync()
            results = await self._receive(len(steps))
        except BaseException:
            # The stream of answers is torn: nothing on this connection can be trusted now.
            pg.finish()
            raise
        pg.exit_pipeline_mode()
        answers: list[Rows] = []
        failed: pq.abc.PGresult | None = None
        for prepares, result in zip(steps, results, strict=True):
            if result.status not in _READY:
                # Statements after a failed one answer "aborted"; the first failure says why.
                failed = failed or result
            elif prepares is None:
                answers.append(Rows(result))
            elif prepares != _FORGOTTEN:
                self._prepared[prepares] = None
        if failed is not None:
            raise psycopg.errors.error_from_result(failed, encoding="utf-8")
        return answers

    def _send(
        self, calls: Sequence[Call], values: Sequence[list[bytes | None]]
    ) -> list[bytes | None]:
        """Queue the calls; per message the name it prepares, or None where rows come back."""
        pg, prepared = self._pg, self._prepared
        steps: list[bytes | None] = []
        fresh: set[bytes] = set()
        names = {statement.name for statement, _ in calls}
        for name in names & prepared.keys():
            prepared.move_to_end(name)
        surplus = len(prepared) + len(names - prepared.keys()) - limits.PREPARED_MAX
        # In a failed transaction only its end is allowed: a DEALLOCATE would abort the ROLLBACK.
        if surplus > 0 and pg.transaction_status != pq.TransactionStatus.INERROR:
            for name in [n for n in prepared if n not in names][:surplus]:
                del prepared[name]
                pg.send_query_params(b'DEALLOCATE "' + name + b'"', None)
                steps.append(_FORGOTTEN)
        for (statement, given), params in zip(calls, values, strict=True):
            name = statement.name
            if name not in prepared and name not in fresh:
                pg.send_prepare(name, statement.sql)
                fresh.add(name)
                steps.append(name)
            pg.send_query_prepared(name, params, [int(isinstance(p, Column)) for p in given])
            steps.append(None)
        return steps

    async def _receive(self, count: int) -> list[pq.abc.PGresult]:
        pg, loop = self._pg, asyncio.get_running_loop()
        results: list[pq.abc.PGresult] = []
        unsent = pg.flush()
        while True:
            while pg.is_busy():
                await _ready(loop, pg.socket, write=bool(unsent))
                if unsent:
                    unsent = pg.flush()
                pg.consume_input()
            result = pg.get_result()
            if result is None:
                continue
            if result.status == pq.ExecStatus.PIPELINE_SYNC:
                break
            results.append(result)
        if len(results) != count:
            raise psycopg.InternalError("pipeline answered out of step")
        return results


async def _ready(loop: asyncio.AbstractEventLoop, fd: int, *, write: bool) -> None:
    done: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not done.done():
            done.set_result(None)

    loop.add_reader(fd, wake)
    if write:
        loop.add_writer(fd, wake)
    try:
        await done
    finally:
        loop.remove_reader(fd)
        if write:
            loop.remove_writer(fd)
