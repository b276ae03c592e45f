"""The waiting notice: for a question unanswered after some seconds, once per lane."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import structlog

from dingbridge.errors import StoreError
from dingbridge.model import Message

log = structlog.get_logger("dingbridge.notice")

AT_ONCE = 32
SETTLE_S = 5.0


@dataclass(slots=True)
class _Pending:
    text: str | None = None
    sending: asyncio.Task[None] | None = None


class Notices:
    """Holds the questions of the last `after_s` seconds, and at a start those left from before.

    claim: the message if its notice is still to be sent, stored as sent. send: puts it into the chat.
    """

    def __init__(
        self,
        *,
        after_s: float,
        claim: Callable[[int], Awaitable[Message | None]],
        send: Callable[[int, Message, str | None], Awaitable[bool]],
        enabled: bool = True,
    ) -> None:
        self._after_s = after_s
        self._claim = claim
        self._send = send
        self._enabled = enabled
        self._pending: dict[int, _Pending] = {}
        self._due: list[tuple[float, int]] = []
        self._armed = asyncio.Event()
        self._slots = asyncio.Semaphore(AT_ONCE)

    @property
    def sending(self) -> list[asyncio.Task[None]]:
        return [pending.sending for pending in self._pending.values() if pending.sending is not None]

    def change(self, *, after_s: float, enabled: bool) -> None:
        """For questions that come from now on."""
        self._after_s, self._enabled = after_s, enabled

    def arm(self, row: int, *, waited_s: float = 0.0) -> None:
        """A question has been stored; its asker may have waited since before a restart."""
        if self._enabled:
            self._pending[row] = _Pending()
            heapq.heappush(self._due, (_now() + max(0.0, self._after_s - max(0.0, waited_s)), row))
            self._armed.set()

    def replace(self, row: int, text: str) -> None:
        """Another text for a notice that has not been sent."""
        if row in self._pending:
            self._pending[row].text = text

    async def settle(self, row: int) -> None:
        """The answer is there: no notice any more, and none on its way when this returns."""
        pending = self._pending.pop(row, None)
        if pending is not None and pending.sending is not None:
            await asyncio.wait({pending.sending}, timeout=SETTLE_S)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                self._armed.clear()
                wait_s = self._due[0][0] - _now() if self._due else None
                if wait_s is None or wait_s > 0:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(wait_s):
                            await self._armed.wait()
                    continue
                _, row = heapq.heappop(self._due)
                await self._slots.acquire()
                pending = self._pending.get(row)
                if pending is None:
                    self._slots.release()
                else:
                    pending.sending = group.create_task(self._notify(row, pending))

    async def _notify(self, row: int, pending: _Pending) -> None:
        try:
            message = await self._claim(row)
            if message is not None:
                await self._send(row, message, pending.text)
        except StoreError as error:
            log.warning("notice.failed", why=error.detail, cause=error.cause)
        except Exception:
            log.exception("notice.failed")  # a notice is worth no daemon
        finally:
            self._slots.release()
            self._pending.pop(row, None)


class Progress:
    """What a handler sees of the chat while it works. show: on a card, where there is one."""

    def __init__(self, notices: Notices, row: int, show: Callable[[str], None] | None = None) -> None:
        self._notices = notices
        self._row = row
        self._show = show

    async def update(self, text: str) -> None:
        if self._show is not None:
            self._show(str(text))
        else:
            self._notices.replace(self._row, str(text))


def _now() -> float:
    return asyncio.get_running_loop().time()
