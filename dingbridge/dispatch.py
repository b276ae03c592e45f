"""Who works when: leases what is due and has it worked on, so many at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from dingbridge.errors import StoreError
from dingbridge.model import Delivery
from dingbridge.store.work import Leased

AT_A_TIME = 256


@dataclass(frozen=True, slots=True)
class Pauses:
    """Seconds. A delivery that failed comes again after first_s, doubling to most_s; a reply is tried for send_s."""

    first_s: float = 5.0
    most_s: float = 30.0
    send_s: float = 600.0
    store_s: float = 1.0
    beat_s: float = 5.0

    def delay_s(self, tries: int) -> float:
        return min(self.most_s, self.first_s * 2.0 ** min(tries, 16))


class Dispatcher:
    """`run()` leases and works until `drain()`, then waits for what runs.

    crew: how many at once, 0 means no limit. What work raises ends everything. on_end: called after each, so that a
    dispatcher that is held back looks again.
    Whoever gives a lane something to do, now or later, calls `wake()`.
    """

    def __init__(
        self,
        *,
        lease: Callable[[int], Awaitable[Leased]],
        work: Callable[[Delivery], Coroutine[None, None, None]],
        on_end: Callable[[], None],
        crew: int,
        pauses: Pauses,
    ) -> None:
        self._lease = lease
        self._work = work
        self._on_end = on_end
        self._crew = crew
        self._pauses = pauses
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._woken = asyncio.Event()
        self._draining = False
        self._held = False
        self.beat_at = time.monotonic()

    @property
    def running(self) -> int:
        return len(self._tasks)

    @property
    def full(self) -> bool:
        """Nothing more can be taken on."""
        return bool(self._crew) and self.running >= self._crew

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        return list(self._tasks.values())

    def change(self, *, crew: int) -> None:
        self._crew = crew
        self.wake()

    def wake(self) -> None:
        """There may be something to lease."""
        self._woken.set()

    def look_again(self) -> None:
        """Something has ended, here or on the other path: a suspect may have waited for that."""
        if self._held:
            self.wake()

    def drain(self) -> None:
        self._draining = True
        self.wake()

    def cancel(self, row: int) -> None:
        """Stop working on a row that was ended meanwhile."""
        if task := self._tasks.get(row):
            task.cancel()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            while not self._draining:
                self.beat_at = time.monotonic()
                self._woken.clear()
                free = min(AT_A_TIME, self._crew - self.running) if self._crew else AT_A_TIME
                leased = await self._leased(free) if free > 0 else Leased([], None)
                self._held = leased.held
                for delivery in leased.deliveries:
                    task = group.create_task(self._work(delivery))
                    self._tasks[delivery.row] = task
                    task.add_done_callback(partial(self._ended, delivery.row))
                if free <= 0 or len(leased.deliveries) < free:
                    await self._rest(leased.wait_s)

    async def _leased(self, count: int) -> Leased:
        try:
            return await self._lease(count)
        except StoreError as error:
            if not error.retryable:
                raise
            return Leased([], self._pauses.store_s)

    async def _rest(self, wait_s: float | None) -> None:
        """Until woken, until something is due, and never so long that it looks stuck."""
        pause_s = self._pauses.beat_s if wait_s is None else min(wait_s, self._pauses.beat_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._woken.wait()

    def _ended(self, row: int, task: asyncio.Task[None]) -> None:
        full = self.full
        if self._tasks.get(row) is task:
            del self._tasks[row]
        if full:
            self.wake()
        self._on_end()
