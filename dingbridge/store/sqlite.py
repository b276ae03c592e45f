"""The inbox in an SQLite file, for one daemon."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, TypeVar

from dingbridge.errors import StoreError, StoreLocked
from dingbridge.store import recovery
from dingbridge.store.engine import Connection
from dingbridge.store.intake import Limits
from dingbridge.store.lock import take_lock
from dingbridge.store.recovery import Recovered
from dingbridge.store.schema import require
from dingbridge.store.sqlite_engine import SQLiteEngine
from dingbridge.store.store import Store

LOOK_S = 1.0
T = TypeVar("T")


class SQLiteStore(Store):
    """`open()` takes the file's lock, migrates, and returns what a crash left leased; `close()` lets go.

    on_commit: told how long each group of commits took, in seconds, on the store's thread.
    on_trouble: told in the loop of each transaction that failed, and with None of the first that worked after that.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float],
        limits: Limits | None = None,
        wipe: bool = True,
        on_commit: Callable[[float], None] = lambda _: None,
        redact: Callable[[str], str] = str,
        on_trouble: Callable[[StoreError | None], None] = lambda _: None,
    ) -> None:
        self._sqlite = SQLiteEngine(path, on_commit=on_commit, on_trouble=on_trouble)
        super().__init__(self._sqlite, clock=clock, limits=limits, wipe=wipe, redact=redact)
        self.path = path
        self._lock: IO[str] | None = None

    @property
    def beside(self) -> Path:
        return self.path

    async def open(self) -> Recovered:
        await self._take_lock()
        return await self._open(self._recover)

    def _recover(self, c: Connection) -> Recovered:
        now = self._clock()
        recovered = recovery.recover(c, owner=self.owner, now=now, wipe=self._wipe)
        recovery.hurry(c, now=now)
        return recovered

    async def open_beside(self) -> None:
        """While no daemon runs: it takes the lock."""
        self._sqlite.prepared_by = require
        self._lock = await asyncio.to_thread(take_lock, self.path)
        await self._open(lambda _: None)

    async def _take_lock(self) -> None:
        """An operator's look holds the lock for a moment; another daemon holds it for good."""
        until = time.monotonic() + LOOK_S
        while self._lock is None:
            try:
                self._lock = await asyncio.to_thread(take_lock, self.path)
            except StoreLocked:
                if time.monotonic() >= until:
                    raise
                await asyncio.sleep(0.1)

    async def _open(self, first: Callable[[Connection], T]) -> T:
        try:
            await self._engine.open()
            return await self._engine.run(first)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        await self._engine.close()
        if self._lock is not None:
            self._lock.close()
