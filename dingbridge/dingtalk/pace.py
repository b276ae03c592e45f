"""How often we may write into one conversation."""

from __future__ import annotations

import time
from collections.abc import Callable

# DingTalk documents 20 messages a minute for custom robots, then ten minutes of refusal; the session webhook's own
# limit is not documented.
PER_MINUTE = 20.0
NOTICE_RESERVE = 5.0
_ROUNDING = 1e-6  # waiting as long as was asked for has to be enough


class Pace:
    """A token bucket a conversation. clock: seconds that do not jump."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, per_minute: float = PER_MINUTE) -> None:
        self._clock = clock
        self._per_minute = per_minute
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, conversation: str, *, reserve: float = 0.0) -> float:
        """0.0 and one message less; or the seconds until there is one (above `reserve`), and nothing taken."""
        left = self._left(conversation)
        missing = 1.0 + reserve - left
        if missing > _ROUNDING:
            return missing * 60.0 / self._per_minute
        self._set(conversation, left - 1.0)
        return 0.0

    def pause(self, conversation: str, seconds: float) -> None:
        """DingTalk said too fast: nothing for so long."""
        self._set(conversation, min(self._left(conversation), 1.0 - seconds * self._per_minute / 60.0))

    def _left(self, conversation: str) -> float:
        left, at = self._buckets.get(conversation, (self._per_minute, 0.0))
        # A clock that was set back must not take messages away.
        passed = max(0.0, self._clock() - at)
        return min(self._per_minute, left + passed * self._per_minute / 60.0)

    def _set(self, conversation: str, left: float) -> None:
        now = self._clock()
        self._buckets[conversation] = (left, now)
        if len(self._buckets) > 1000:
            full = [key for key in self._buckets if self._left(key) >= self._per_minute]
            for key in full:
                del self._buckets[key]
