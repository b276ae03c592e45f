"""Who cannot keep what comes leaves it to the other daemons of the robot."""

from __future__ import annotations

import asyncio

from dingbridge.dingtalk.stream import Stream
from dingbridge.errors import StoreError


class Yielding:
    """Holds the link while the shared store is away: DingTalk sends to daemons that have a link, and to no other.

    after_s: a restart of the database is shorter, and is not worth a new link. Call `of_store` in the loop.
    """

    def __init__(self, stream: Stream, *, after_s: float) -> None:
        self._stream = stream
        self._after_s = after_s
        self._timer: asyncio.TimerHandle | None = None
        self._error: StoreError | None = None

    def of_store(self, error: StoreError | None) -> None:
        """What a store's `on_trouble` tells."""
        was, self._error = self._error, error
        if error is None:
            if self._timer is not None:
                self._timer.cancel()
            self._stream.release()
        elif was is None:
            self._timer = asyncio.get_running_loop().call_later(self._after_s, self._hold)

    def _hold(self) -> None:
        assert self._error is not None
        self._stream.hold(f"left to other daemons: {self._error.detail}", self._error.cause)
