"""How often we may write into one conversation."""

from __future__ import annotations

import time
from collections.abc import Callable

# DingTalk documents 20 messages a minute for custom robots, then ten minutes of refusal; the session webhook's own
# limit is not documented.
PER_MINUTE = 20.0
NOTICE_RESERVE = 5.0
_MANY = 1000
_FORGOTTEN_S = 600.0
_ROUNDING = 1e-6  # waiting as long as was asked for has to be enough


class Pace:
    """A token bucket a conversation, and turns for those who wait. clock: seconds that do not jump."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, per_minute: float = PER_MINUTE) -> None:
        self._clock = clock
        self._per_minute = per_minute
        self._buckets: dict[str, tuple[float, float]] = {}
        self._turns: dict[tuple[str, str], float] = {}
        self._sweep_at = _MANY

    def take(self, conversation: str, who: str = "", *, reserve: float = 0.0) -> float:
        """0.0 and one message less; or the seconds until there is one (above `reserve`).

        who: comes back after that time, to a turn that is kept for it; so nobody is overtaken. Without, nothing is
        kept.
        """
        now = self._clock()
        if (turn := self._turns.get((conversation, who))) is not None:
            if turn - now > _ROUNDING:
                return turn - now
            del self._turns[conversation, who]
            return 0.0
        left = self._left(conversation)
        wait_s = (1.0 + reserve - left) * 60.0 / self._per_minute
        if wait_s <= _ROUNDING:
            self._set(conversation, left - 1.0)
            return 0.0
        if who:
            self._set(conversation, left - 1.0)
            self._turns[conversation, who] = now + wait_s
        return wait_s

    def pause(self, conversation: str, seconds: float) -> None:
        """DingTalk said too fast: nothing for so long."""
        self._set(conversation, min(self._left(conversation), 1.0 - seconds * self._per_minute / 60.0))
        for key, turn in self._turns.items():
            if key[0] == conversation:
                self._turns[key] = turn + seconds

    def _left(self, conversation: str) -> float:
        left, at = self._buckets.get(conversation, (self._per_minute, 0.0))
        # A clock that was set back must not take messages away.
        passed = max(0.0, self._clock() - at)
        return min(self._per_minute, left + passed * self._per_minute / 60.0)

    def _set(self, conversation: str, left: float) -> None:
        now = self._clock()
        self._buckets[conversation] = (left, now)
        if len(self._buckets) + len(self._turns) > self._sweep_at:
            self._sweep(now)

    def _sweep(self, now: float) -> None:
        """Forget who is full again, and turns nobody came back to; next when there are twice as many."""
        self._buckets = {key: one for key, one in self._buckets.items() if self._left(key) < self._per_minute}
        self._turns = {key: turn for key, turn in self._turns.items() if turn > now - _FORGOTTEN_S}
        self._sweep_at = max(_MANY, 2 * (len(self._buckets) + len(self._turns)))
