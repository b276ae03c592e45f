"""An event loop and a store's writer that move only when told, so that a history is the same every time."""

from __future__ import annotations

import asyncio
import heapq
import sqlite3
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from contextvars import Context
from pathlib import Path
from typing import Any, TypeVar, TypeVarTuple, Unpack

from dingbridge.errors import StoreUnavailable
from dingbridge.store import engine
from dingbridge.store.sqlite_engine import SQLiteConnection, SQLiteEngine

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
TURNS = 5_000


class Loop(asyncio.SelectorEventLoop):
    """Its clock stands still: `turn` runs what is ready, `settle` until nothing is, `advance` moves the clock."""

    def __init__(self) -> None:
        self._now = 0.0
        self._whens: list[float] = []
        super().__init__()
        self.set_debug(False)  # with -X dev each callback would remember its stack: five times as slow
        self._turns = 0

    def time(self) -> float:
        return self._now

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        heapq.heappush(self._whens, when)
        return super().call_at(when, callback, *args, context=context)

    def run_in_executor(  # here and now, so that no thread decides on the order
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - whoever awaits it sees it
            future.set_exception(error)
        return future

    def turn(self, count: int = 1) -> None:
        """What is ready, so many times over: a place between two awaits."""
        for _ in range(count):
            self.call_soon(self.stop)
            self.run_forever()

    def settle(self) -> None:
        """Until everybody waits for the clock."""
        self._turns = TURNS
        self.call_soon(self._look)
        self.run_forever()
        assert self._turns, "it never comes to rest"

    def _look(self) -> None:
        self._turns -= 1
        ready: Any = self._ready  # type: ignore[attr-defined]
        if ready and self._turns:
            self.call_soon(self._look)
        else:
            self.stop()

    def advance(self, seconds: float) -> None:
        """Let time pass, and everything happen at its time."""
        until = self._now + seconds
        self.settle()
        while self._whens and self._whens[0] <= until:
            self._now = max(self._now, heapq.heappop(self._whens))
            self.settle()
        self._now = until

    def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Something that needs no time."""
        task = self.create_task(work)
        self.settle()
        assert task.done(), f"{work} waits for the clock"
        return task.result()


class TurnedEngine(SQLiteEngine):
    """The store's own transactions, but committed in a turn of the loop instead of by a thread.

    seen: shown the tables after each piece of work, in the transaction. full: whatever writes is undone.
    """

    def __init__(self, path: Path, seen: Callable[[sqlite3.Connection], None]) -> None:
        super().__init__(path)
        self._seen = seen
        self._waiting: list[engine.Job] = []
        self._connection: SQLiteConnection
        self.full = False

    async def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = self.prepare()

    async def close(self) -> None:
        self._turn()
        self.die()

    def die(self) -> None:
        """What has been committed is kept, and nothing else."""
        self._closed = True
        self._connection.close()

    async def run(self, work: Callable[[Any], T]) -> T:
        if self._closed or self._loop is None:
            raise self._refusal()

        def watched(connection: Any) -> T:
            changes = connection.total_changes
            result = work(connection)
            if self.full and connection.total_changes != changes:
                raise StoreUnavailable("the disk is full")
            self._seen(connection)
            return result

        job = engine.Job(watched, self._loop.create_future())
        self._waiting.append(job)
        if len(self._waiting) == 1:
            self._loop.call_soon(self._turn)
        result: T = await asyncio.shield(job.future)
        return result

    def _turn(self) -> None:
        jobs, self._waiting = self._waiting, []
        if self._closed or not jobs:
            return
        self._commit(self._connection, jobs)
        assert self._loop is not None
        self._loop.call_soon(engine._resolve, jobs)
