"""Threads that own the connections to a database and run what is asked of them, each in a durable transaction.

Statements are written once, in what both databases understand: `?` stands for a value, and a lock on rows
(`FOR UPDATE`) is left out where one writer is alone. Functions that only one of them has are given to the other.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from dingbridge.errors import StoreError, StoreUnavailable

T = TypeVar("T")


class Rows(Protocol):
    """What a statement has found or changed."""

    @property
    def rowcount(self) -> int: ...

    def fetchone(self) -> Any: ...

    def fetchall(self) -> list[Any]: ...

    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """Inside a transaction."""

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Rows: ...

    def alone(self, *names: str) -> None:
        """Whoever names the same waits until this transaction has ended."""


@dataclass(slots=True)
class Job:
    """given_up: nobody waits for it any more. connection: on which it runs, where an engine has several."""

    work: Callable[[Connection], Any]
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None
    given_up: bool = False
    connection: Any = None


class Engine(ABC):
    """`await run(work)` calls `work(connection)` inside a durable transaction, on one of its threads.

    work that raises is undone. The result is given only after the commit.
    on_commit: told how long each commit took, in seconds, on the engine's thread.
    on_trouble: told in the loop of each transaction that failed, and with None of the first that worked after that.
    """

    def __init__(
        self,
        place: str,
        *,
        threads: int = 1,
        on_commit: Callable[[float], None] = lambda _: None,
        on_trouble: Callable[[StoreError | None], None] = lambda _: None,
    ) -> None:
        self.place = place
        self._on_commit = on_commit
        self._on_trouble = on_trouble
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._main, name="store", daemon=True) for _ in range(threads)]
        self._alive = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opened: asyncio.Future[None] | None = None
        self._ended: asyncio.Future[None] | None = None
        self._closed = False
        self.last_error: StoreError | None = None
        self._telling = threading.Lock()
        self.commits = 0

    @abstractmethod
    def prepare(self) -> Any:
        """What the first thread does before the others start, and gives to `serve`. Raises StoreError."""

    @abstractmethod
    def serve(self, prepared: Any) -> None:
        """Take jobs until None comes; it stands for every thread."""

    async def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._opened = self._loop.create_future()
        self._ended = self._loop.create_future()
        self._alive = 1
        self._threads[0].start()
        await self._opened
        for thread in self._threads[1:]:
            self._alive += 1
            thread.start()

    async def close(self) -> None:
        """What was submitted before is committed first."""
        self._closed = True
        self._jobs.put(None)
        if self._threads[0].ident is not None:
            assert self._ended is not None
            await self._ended  # not in the loop's executor, which handlers may have filled
            for thread in self._threads:
                if thread.ident is not None:
                    thread.join()

    async def run(self, work: Callable[[Any], T]) -> T:
        """Work takes a Connection, or what this engine's own is. Raises what work raises, and StoreError."""
        # Shielded: what is under way goes on without a caller that is cancelled, and is seen to end.
        result: T = await asyncio.shield(self._submit(work).future)
        return result

    def submit(self, work: Callable[[Any], Any]) -> asyncio.Future[Any]:
        """As `run`, for who does not wait for it."""
        return self._submit(work).future

    def _submit(self, work: Callable[[Any], Any]) -> Job:
        if self._closed or self._loop is None or not self._alive:
            raise self._refusal()
        job = Job(work, self._loop.create_future())
        self._jobs.put(job)
        if self._closed:  # the thread died just now, perhaps without seeing this job
            raise self._refusal()
        return job

    def _refusal(self) -> StoreError:
        """Closed, or its thread died: final, so that nobody waits for it to come back."""
        if self.last_error is not None and not self.last_error.retryable:
            return self.last_error
        return StoreUnavailable("the store is closed", retryable=False)

    def _main(self) -> None:
        assert self._ended is not None
        try:
            prepared = self._prepared() if threading.current_thread() is self._threads[0] else None
            if not self._closed:
                self.serve(prepared)
        except BaseException as error:
            self._abandon([], error)
            raise
        finally:
            self._alive -= 1
            if not self._alive:
                self._call(succeed, self._ended, None)

    def _prepared(self) -> Any:
        try:
            prepared = self.prepare()
        except BaseException as error:
            self._closed = True  # first: this thread may still live when the caller comes with a job
            self._call(fail, self._opened, error)
            if not isinstance(error, StoreError):
                raise
            return None
        self._call(succeed, self._opened, None)
        return prepared

    def _abandon(self, jobs: list[Job], error: BaseException) -> None:
        """A thread is dying: whoever waits is told, and `run` refuses from now on."""
        self._closed = True
        died = StoreUnavailable(f"store {self.place}: its thread died: {error}", retryable=False)
        self._trouble(died)
        with suppress(queue.Empty):
            while True:
                job = self._jobs.get_nowait()
                jobs += [job] if job is not None else []
        for job in jobs:
            job.error = died
        self._jobs.put(None)
        self._resolve(jobs)

    def _trouble(self, error: StoreError | None) -> None:
        with self._telling:  # or the loop might hear of two threads in another order, and keep the older for true
            if error is not self.last_error:
                self.last_error = error
                self._call(self._on_trouble, error)

    def _resolve(self, jobs: list[Job]) -> None:
        self._call(_resolve, jobs)

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        assert self._loop is not None
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(function, *arguments)


def _resolve(jobs: list[Job]) -> None:
    for job in jobs:
        if job.error is not None:
            fail(job.future, job.error)
        else:
            succeed(job.future, job.result)


def succeed(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # a caller that was cancelled will not ask for it
