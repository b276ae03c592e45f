"""One connection to PostgreSQL, on which statements go out together until somebody needs to know what one has found.

libpq's pipeline mode, every statement prepared at its first use. psycopg's cursors would do the same at four times
the CPU, and on its own threads that is what bounds a daemon: it is used for connecting, and for its errors.
"""

from __future__ import annotations

import hashlib
import os
import select
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, TypeVar

import psycopg
from psycopg import errors
from psycopg.pq import ConnStatus, ExecStatus

T = TypeVar("T")
Known = tuple[str, tuple[int, ...]]
MOST_PREPARED = 24
"""Values of a statement that is worth keeping; those with more are lists of changing length."""

SMALL = 2**31
_PUT = ("INSERT INTO message", "INSERT INTO webhook")

_READ: dict[int, Callable[[bytes], Any]] = {
    16: lambda found: found == b"t",
    **dict.fromkeys((20, 21, 23, 26), int),
    **dict.fromkeys((700, 701), float),
    **dict.fromkeys((19, 25, 705, 1043, 2278), bytes.decode),
}
"""By the OID of a column's type; one that is not here is an error of whoever wrote the statement."""


def lock_number(*names: str) -> int:
    """For PostgreSQL's advisory locks, which are numbers of 64 bits."""
    return int.from_bytes(hashlib.sha256("\0".join(names).encode()).digest()[:8], "big", signed=True)


@lru_cache(maxsize=512)
def _written(statement: str) -> bytes:
    first, *others = statement.split("?")
    return (first + "".join(f"${number}{other}" for number, other in enumerate(others, start=1))).encode()


def _bound(value: Any) -> tuple[int, bytes | None]:
    """The OID of its type, and how it is written; for 0 the server takes what fits the place."""
    if value is None:
        return 0, None
    if isinstance(value, str):
        return 0, value.replace("\0", "�").encode()  # a text cannot hold the character 0 here
    if isinstance(value, bool):
        return 16, b"t" if value else b"f"
    if isinstance(value, int):
        return 23 if -SMALL <= value < SMALL else 20, b"%d" % value
    if isinstance(value, float):
        return 701, repr(value).encode()
    raise TypeError(f"{type(value).__name__} is no value of a statement")


def _require_commit(ended: Found) -> None:
    """A server that has undone instead says so, and raises no error."""
    if ended.result.command_status != b"COMMIT":
        raise errors.InFailedSqlTransaction("the transaction was undone")


class Found:
    """See `engine.Rows`. Asked for the first time, it waits for the server."""

    __slots__ = ("_rows", "_wire", "prepared", "result")

    def __init__(self, wire: PostgresConnection, prepared: Known | None = None) -> None:
        self._wire = wire
        self._rows: Iterator[Any] | None = None
        self.prepared = prepared
        self.result: Any = None

    @property
    def rowcount(self) -> int:
        return self._settled().command_tuples or 0

    def fetchone(self) -> Any:
        return next(self._all(), None)

    def fetchall(self) -> list[Any]:
        return list(self._all())

    def __iter__(self) -> Iterator[Any]:
        return self._all()

    def _settled(self) -> Any:
        if self.result is None:
            self._wire.collect()
        return self.result

    def _all(self) -> Iterator[Any]:
        if self._rows is None:
            result = self._settled()
            columns = [(column, _READ[result.ftype(column)]) for column in range(result.nfields)]
            self._rows = (
                tuple(
                    None if (value := result.get_value(row, column)) is None else read(value)
                    for column, read in columns
                )
                for row in range(result.ntuples)
            )
        return self._rows


class PostgresConnection:
    """See `engine.Connection`. Between its transactions `raw` is free for other uses."""

    def __init__(self, raw: psycopg.Connection[Any], schema: str) -> None:
        self.raw = raw
        self._pg = raw.pgconn
        self._schema = schema
        self._names: dict[Known, bytes] = {}
        self._number = 0
        self._pending: deque[Found] = deque()
        self._writes: list[Found] = []
        self._put = False
        self._ready = select.poll()
        self._fd = raw.fileno()
        self._ready.register(self._fd, select.POLLIN)

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Found:
        found = self._send(statement, values)
        if not statement.lstrip().startswith("SELECT"):
            self._writes.append(found)
            self._put = self._put or statement.startswith(_PUT)
        return found

    def alone(self, *names: str) -> None:
        self._send("SELECT pg_advisory_xact_lock(?)", (lock_number(self._schema, *names),))

    def transact(self, work: Callable[[Any], T]) -> T:
        self._writes = []
        self._put = False
        self._pg.enter_pipeline_mode()
        try:
            self._send("BEGIN")
            result = work(self)
            ended = self._send("COMMIT")
            self._mark()
            self._receive()
            _require_commit(ended)
        except BaseException:
            self._undo()
            raise
        self._pg.exit_pipeline_mode()
        return result

    @property
    def wrote(self) -> bool:
        """Whether the last transaction has changed something."""
        return any(found.rowcount for found in self._writes)

    @property
    def put(self) -> bool:
        """Whether the last transaction was one that keeps a message, or the probe that stands for one."""
        return self._put

    def abort(self) -> None:
        """From another thread: whoever waits for the server waits no more."""
        with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(self.raw.fileno())) as wire:
            wire.shutdown(socket.SHUT_RDWR)

    def collect(self) -> None:
        """Everything that was asked for. Raises psycopg.Error of the first that failed.

        With a mark, which ends no transaction: behind a mere flush the server waits for more without a limit, and a
        daemon that has stopped would keep its locks.
        """
        self._mark()
        self._receive()

    def _send(self, statement: str, values: Sequence[Any] = ()) -> Found:
        types, bound = zip(*map(_bound, values), strict=True) if values else ((), ())
        if len(bound) > MOST_PREPARED:
            self._pg.send_query_params(_written(statement), bound, types)
        else:
            known = statement, types
            if (name := self._names.get(known)) is None:
                self._number += 1
                name = self._names[known] = b"s%d" % self._number
                self._pg.send_prepare(name, _written(statement), types)
                self._pending.append(Found(self, known))
            self._pg.send_query_prepared(name, bound)
        found = Found(self)
        self._pending.append(found)
        return found

    def _mark(self) -> None:
        """An error skips what follows up to here."""
        self._pg.pipeline_sync()
        self._pending.append(Found(self))

    def _receive(self) -> None:
        while self._pg.flush():  # more than the socket takes at once
            self._ready.modify(self._fd, select.POLLIN | select.POLLOUT)
            self._ready.poll()
            self._ready.modify(self._fd, select.POLLIN)
            self._pg.consume_input()
        while self._pending:
            self._settle(self._pending.popleft())

    def _settle(self, found: Found) -> None:
        found.result = result = self._next()
        if result is None:
            raise errors.OperationalError("the connection was lost")
        if result.status == ExecStatus.PIPELINE_SYNC:
            return
        while self._next() is not None:
            pass
        if result.status in (ExecStatus.FATAL_ERROR, ExecStatus.PIPELINE_ABORTED):
            if found.prepared is not None:
                self._names.pop(found.prepared, None)
            raise self._error(result)

    def _next(self) -> Any:
        while self._pg.is_busy():
            self._ready.poll()
            self._pg.consume_input()
        return self._pg.get_result()

    def _error(self, result: Any) -> psycopg.Error:
        if result.status == ExecStatus.PIPELINE_ABORTED:
            return errors.PipelineAborted("one before it failed")
        if self._pg.status == ConnStatus.BAD and not result.error_field(psycopg.pq.DiagnosticField.SQLSTATE):
            return errors.OperationalError(result.get_error_message())
        return errors.error_from_result(result)

    def _undo(self) -> None:
        """What is under way is not asked for any more."""
        try:
            self._mark()
            self._send("ROLLBACK")
            self._mark()
            while self._pending and self._pg.status == ConnStatus.OK:
                with suppress(psycopg.Error):  # of what failed, and of all that was behind it
                    self._receive()
            self._pg.exit_pipeline_mode()
        except psycopg.Error:
            self.raw.close()
        self._pending.clear()
