"""What time it is, for lanes and deadlines."""

from __future__ import annotations

import time

import structlog

log = structlog.get_logger("dingbridge.clock")

DRIFT_S = 1.0


class SteadyClock:
    """Seconds since the epoch: the wall clock as it was, moved on by the monotonic one. Only `set` makes it jump."""

    def __init__(self) -> None:
        self._base = time.time() - time.monotonic()
        self._set = False

    def __call__(self) -> float:
        return self._base + time.monotonic()

    def set(self, now: float) -> None:
        """From now on by a clock that others share; small differences are left alone."""
        off_s = now - self()
        if self._set and abs(off_s) < DRIFT_S:
            return
        if abs(off_s) >= DRIFT_S:
            log.warning("clock.differs", off_s=round(off_s, 1), remedy="the store's clock counts; see NTP on both")
        self._set = True
        self._base += off_s
