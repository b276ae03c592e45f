"""How often we may call one API of DingTalk: 20 times a second for each app and API, divided by the daemons.

(DingTalk's page on API throttling; what is refused for being too fast is not billed, but costs a second.)
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

from dingbridge.errors import ReplyPaced

PER_SECOND = 20
# Calls may arrive a little closer together than they were made.
WINDOW_S = 1.1


class Rate:
    """Turns, first come first served. replicas: how many daemons divide the rate just now. clock: does not jump."""

    def __init__(self, replicas: Callable[[], int] = lambda: 1, clock: Callable[[], float] = time.monotonic) -> None:
        self._replicas = replicas
        self._clock = clock
        self._turns: dict[str, deque[float]] = {}
        self._paused: dict[str, float] = {}

    @property
    def share(self) -> float:
        """Calls a second to one API that this daemon takes."""
        return PER_SECOND / max(1, self._replicas())

    async def turn(self, path: str, within_s: float) -> None:
        """Wait until this API may be called. Raises ReplyPaced at once where that is later than `within_s`."""
        if wait_s := self.reserve(path, within_s):
            await asyncio.sleep(wait_s)

    def pause(self, path: str, seconds: float) -> None:
        """DingTalk said too fast: no new turn at this API for so long, whoever asks."""
        self._paused[path] = max(self._paused.get(path, 0.0), self._clock() + seconds)

    def reserve(self, path: str, within_s: float) -> float:
        """As `turn`, for who waits by himself: the seconds."""
        now, wait_s = self._clock(), self.wait_s(path)
        if wait_s > within_s:
            raise ReplyPaced(f"OpenAPI: {path} has had its calls of this second", retry_after=wait_s)
        self._turns.setdefault(path, deque(maxlen=PER_SECOND)).append(now + wait_s)
        return wait_s

    def wait_s(self, path: str) -> float:
        """How long who came now would wait."""
        turns = self._turns.get(path, ())
        count = max(1, int(self.share))
        now = self._clock()
        before = turns[-count] + WINDOW_S / min(1.0, self.share) if len(turns) >= count else now
        return max(0.0, max(before, turns[-1] if turns else now, self._paused.get(path, now)) - now)
