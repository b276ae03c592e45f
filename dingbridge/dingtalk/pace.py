"""How often we may write into one conversation."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from dingbridge.bucket import PER_MINUTE, Bucket, Step
from dingbridge.errors import StoreError

NOTICE_RESERVE = 5.0
SHARED_S = 2.0  # what is shared may be out of reach; an answer does not wait for it
_MANY = 1000


class SharedBuckets(Protocol):
    """Where several daemons keep one bucket for each conversation."""

    async def change(self, name: str, step: Step, /) -> tuple[float, Bucket]:
        """What `step` makes of the bucket of that name, which nobody else changes meanwhile. Raises StoreError."""


class Pace:
    """A bucket a conversation; shared with other daemons where there is a place for it.

    Where that is out of reach, this daemon goes on by what it saw last. clock: seconds that do not jump, the same
    for all who share.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        per_minute: float = PER_MINUTE,
        shared: SharedBuckets | None = None,
    ) -> None:
        self._clock = clock
        self._full = Bucket(per_minute, per_minute=per_minute)
        self._shared = shared
        self._buckets: dict[str, Bucket] = {}
        self._sweep_at = _MANY

    async def take(self, conversation: str, who: str = "", *, reserve: float = 0.0) -> float:
        """As `Bucket.take`: 0.0 and one message less; or the seconds until there is one."""
        return await self._change(conversation, lambda bucket: bucket.take(self._clock(), who, reserve=reserve))

    async def pause(self, conversation: str, seconds: float) -> None:
        """DingTalk said too fast: nothing for so long."""
        await self._change(conversation, lambda bucket: (0.0, bucket.pause(self._clock(), seconds)))

    async def _change(self, conversation: str, step: Step) -> float:
        found = await self._change_shared(conversation, step)
        wait_s, self._buckets[conversation] = found or step(self._buckets.get(conversation, self._full))
        if len(self._buckets) > self._sweep_at:
            self._sweep(self._clock())
        return wait_s

    async def _change_shared(self, conversation: str, step: Step) -> tuple[float, Bucket] | None:
        if self._shared is None:
            return None
        try:
            async with asyncio.timeout(SHARED_S):
                return await self._shared.change(conversation, step)
        except (StoreError, TimeoutError):  # told as every trouble of the store is
            return None

    def _sweep(self, now: float) -> None:
        """Forget who is as good as new; next when there are twice as many."""
        self._buckets = {key: one for key, one in self._buckets.items() if one.idle_at > now}
        self._sweep_at = max(_MANY, 2 * len(self._buckets))
