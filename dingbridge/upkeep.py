"""What the daemon does for itself: metrics, STATUS, the watchdog, forgetting, and a look at the workspaces."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

import structlog

from dingbridge.answerer import workspaces_of
from dingbridge.backends.anythingllm import AnythingLLM
from dingbridge.bridge import Bridge
from dingbridge.dingtalk.stream import Stream
from dingbridge.errors import BridgeError, StoreError
from dingbridge.journal.metrics import Metrics
from dingbridge.service import Notifier
from dingbridge.settings import Config
from dingbridge.store.store import Store

log = structlog.get_logger("dingbridge.daemon")

STUCK_S = 30.0
DUTY_S = 10.0
CARDS_S = 5.0


class Upkeep:
    """line: the daemon in one line. stopping: whether it drains, when nothing has to move."""

    def __init__(
        self,
        *,
        store: Store,
        bridge: Bridge,
        stream: Stream,
        metrics: Metrics,
        notifier: Notifier,
        line: Callable[[], str],
        stopping: Callable[[], bool],
        beat_s: float,
        forget_s: float,
    ) -> None:
        self._store = store
        self._bridge = bridge
        self._stream = stream
        self._metrics = metrics
        self._notifier = notifier
        self._line = line
        self._stopping = stopping
        self._beat_s = beat_s
        self._forget_s = forget_s

    async def beat(self) -> None:
        """Metrics, STATUS and the watchdog; a store that failed is tried here."""
        while True:
            answered = await self._look()
            self._metrics.connected.set(self._stream.state.connected)
            self._metrics.replicas.set(self._store.replicas)
            self._metrics.on_duty.set(self._store.on_duty)
            moving = self._stopping() or time.monotonic() - self._bridge.alive_at < STUCK_S
            if answered and moving:
                self._notifier.send("WATCHDOG=1", f"STATUS={self._line()}")
            else:
                log.error("daemon.stuck", store=answered, dispatcher=moving)
            period = self._notifier.watchdog_s
            pause_s = min(self._beat_s, period / 3) if period else self._beat_s
            due = time.monotonic() + pause_s
            await asyncio.sleep(pause_s)
            self._metrics.loop_lag.set(time.monotonic() - due)

    async def _look(self) -> bool:
        """Whether the store answers; one that says no lives, too."""
        try:
            async with asyncio.timeout(STUCK_S):
                if self._store.trouble is not None:
                    await self._store.probe()
                self._metrics.inbox(await self._store.depth())
        except StoreError as error:
            if not error.retryable:
                raise
        except TimeoutError:
            return False
        return True

    async def forget(self) -> None:
        """One daemon does it for all of its store."""
        while True:
            if not self._store.on_duty:
                await asyncio.sleep(min(DUTY_S, self._forget_s))
                continue
            dropped = True
            with suppress(StoreError):  # told as every trouble of the store is
                while dropped:
                    dropped = bool(await self._store.forget())
            await asyncio.sleep(self._forget_s)

    async def close_cards(self) -> None:
        """A card must not say for ever that something is to come, whatever became of its message."""
        while True:
            if self._store.on_duty:
                with suppress(StoreError):  # told as every trouble of the store is
                    await self._bridge.desk.close_cards()
            with suppress(TimeoutError):
                async with asyncio.timeout(CARDS_S):
                    await self._bridge.desk.card_ended.wait()
            self._bridge.desk.card_ended.clear()


async def check_workspaces(config: Config, backend: AnythingLLM) -> None:
    """A workspace that AnythingLLM does not know is told early; it may be made later."""
    try:
        for workspace in sorted(workspaces_of(config.routes)):
            if await backend.resolve(workspace) is None:
                remedy = "see [[route]] workspace and deep_workspace, or create it"
                log.warning("workspace.unknown", workspace=workspace, remedy=remedy)
    except BridgeError as error:
        log.warning("backend.unreachable", why=error.detail, cause=error.cause)
