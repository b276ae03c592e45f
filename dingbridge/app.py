"""Builds the parts, runs them in one TaskGroup, drains, closes. The one place that knows concrete classes."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, MutableMapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import structlog

from dingbridge import __version__
from dingbridge.answerer import ANYTHINGLLM, Answerer
from dingbridge.backends.anythingllm import AnythingLLM
from dingbridge.backends.anythingllm import Limits as AskLimits
from dingbridge.bridge import Bridge
from dingbridge.config import Config
from dingbridge.dingtalk import payload
from dingbridge.dingtalk.openapi import OpenAPI
from dingbridge.dingtalk.replies import Replies
from dingbridge.dingtalk.stream import Stream, Timing
from dingbridge.dispatch import Pauses
from dingbridge.errors import BridgeError, StoreError
from dingbridge.journal.metrics import CONTENT_TYPE, Metrics
from dingbridge.journal.record import recorder
from dingbridge.log import Redactor, pseudonym
from dingbridge.service import Notifier, Presence
from dingbridge.setup import Setup
from dingbridge.store.sqlite import Limits, SQLiteStore
from dingbridge.texts import Texts
from dingbridge.watched import Outages, Watched
from dingbridge.web.server import Health, Web

log = structlog.get_logger("dingbridge.daemon")

STUCK_S = 30.0
CLOSE_S = 5.0


@dataclass(frozen=True, slots=True)
class Timings:
    """Every duration that is not configuration; tests make them short."""

    stream: Timing = field(default_factory=Timing)
    pauses: Pauses = field(default_factory=Pauses)
    reply_s: float = 10.0
    beat_s: float = 2.0
    forget_s: float = 3600.0


def steady_clock() -> Callable[[], float]:
    """Seconds since the epoch that never jump: the wall clock as it was, moved on by the monotonic one."""
    base = time.time() - time.monotonic()
    return lambda: base + time.monotonic()


async def _watch(bridge: asyncio.Task[None]) -> None:
    """Ends as the bridge ends, and can be cancelled without it."""
    await asyncio.wait({bridge})
    if not bridge.cancelled():
        bridge.result()


def ask_limits(config: Config) -> AskLimits:
    settings = config.anythingllm
    return AskLimits(
        attempts=settings.attempts,
        connect_s=settings.connect_timeout_s,
        first_token_s=settings.first_token_timeout_s,
        idle_s=settings.idle_timeout_s,
        total_s=settings.total_timeout_s,
    )


def open_backend(config: Config, on_retry: Callable[[BridgeError, int, float], None] | None = None) -> AnythingLLM:
    settings = config.anythingllm
    return AnythingLLM(
        base_url=settings.base_url,
        api_key=settings.api_key,
        mode=settings.mode,
        limits=ask_limits(config),
        network=settings.network,
        on_retry=on_retry,
    )


def import_handlers_from(config: Config) -> None:
    """Make `[handlers] path` importable, in the order it is written."""
    sys.path[:0] = [str(folder) for folder in config.handlers_path if str(folder) not in sys.path]


def redactor_for(config: Config) -> Redactor:
    """Knows this configuration's secrets by value."""
    dingtalk, anythingllm = config.dingtalk, config.anythingllm
    secrets = (
        dingtalk.client_secret,
        anythingllm.api_key,
        config.web.admin_token,
        dingtalk.network.proxy,
        anythingllm.network.proxy,
    )
    return Redactor(tuple(secret.reveal() for secret in secrets))


class App:
    """`run()` returns after `stop()` has drained; it raises when a part dies."""

    def __init__(
        self, config: Config, *, timings: Timings | None = None, environ: MutableMapping[str, str] | None = None
    ) -> None:
        self._config = config
        self._timings = timings or Timings()
        self._notifier = Notifier(os.environ if environ is None else environ)
        self._stop = asyncio.Event()
        self._stopping = False
        self._clock = steady_clock()
        self.metrics = Metrics(__version__)
        self.outages = Outages()
        self.store: SQLiteStore
        self.bridge: Bridge
        self.stream: Stream
        self.web: Web | None = None
        self.started = asyncio.Event()

    def stop(self) -> None:
        """Drain and return; may be called during start-up."""
        self._stop.set()

    async def run(self) -> None:
        """Raises what a part died of, in an ExceptionGroup. A handler that will not end may be left running."""
        async with AsyncExitStack() as stack:
            await self._build(stack)
            # Not of the group: it may hold a handler that ignores its cancellation, and the end must not wait for it.
            bridge = asyncio.create_task(self.bridge.run())
            try:
                await self._run(bridge)
            except asyncio.CancelledError:
                bridge.cancel()
                await self._give_back()  # a second signal is no crash either
                raise
            finally:
                bridge.cancel()
        log.info("daemon.stopped")

    async def _run(self, bridge: asyncio.Task[None]) -> None:
        async with asyncio.TaskGroup() as group:
            stream = group.create_task(self.stream.run())
            others = [
                group.create_task(_watch(bridge)),
                group.create_task(self._beat()),
                group.create_task(self._forget()),
                group.create_task(self._check_workspaces()),
            ]
            if self.web is not None:
                others.append(group.create_task(self.web.run()))
            self._notifier.send("READY=1", "STATUS=starting")
            self.started.set()
            await self._stop.wait()
            await self._drain(bridge)
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await self.stream.close()
            for task in (stream, *others):
                task.cancel()

    async def _build(self, stack: AsyncExitStack) -> None:
        config, clock = self._config, self._clock
        texts = Texts(config.reply.locale)
        import_handlers_from(config)
        backend = open_backend(config, self._on_retry)
        # Before the store: a handler that cannot be imported must not cost a lock or a migration.
        watched = Watched(backend, self.outages.backend)
        answerer = Answerer(config.routes, watched, handler_s=config.anythingllm.total_timeout_s)
        await self._open_store(stack, clock)
        presence = Presence(config.dingtalk.client_id)
        stack.callback(presence.withdraw)
        if not presence.announce():
            log.warning("daemon.not_alone", remedy="another daemon serves this robot; they split its messages")
        self._backend = await stack.enter_async_context(backend)
        setup = Setup(
            answerer=answerer,
            replies=await self._open_replies(stack, texts, clock),
            texts=texts,
            notice_after_s=config.reply.notice_after_s,
            notice=config.reply.notice == "text",
            waiting_per_lane=config.limits.waiting_per_lane,
            workers=config.limits.workers,
        )
        self.bridge = Bridge(
            store=self.store,
            setup=setup,
            record=recorder(self.metrics, pseudonym),
            clock=clock,
            pauses=self._timings.pauses,
        )
        self._webhook_allowed = payload.webhook_origin_check(config.dingtalk.oapi_base)
        self.stream = Stream(
            client_id=config.dingtalk.client_id,
            client_secret=config.dingtalk.client_secret,
            api_base=config.dingtalk.api_base,
            network=config.dingtalk.network,
            accept=self._accept,
            on_event=self.metrics.link_event,
            timing=self._timings.stream,
        )
        if config.web.enabled:
            self.web = Web(
                host=config.web.host,
                port=config.web.port,
                admin_token=config.web.admin_token,
                parts=self.parts,
                status=self.status,
                metrics=self.metrics.text,
                metrics_type=CONTENT_TYPE,
            )

    async def _open_replies(self, stack: AsyncExitStack, texts: Texts, clock: Callable[[], float]) -> Replies:
        dingtalk = self._config.dingtalk
        session = await stack.enter_async_context(dingtalk.network.open_session())
        openapi = OpenAPI(
            session,
            dingtalk.network,
            api_base=dingtalk.api_base,
            client_id=dingtalk.client_id,
            client_secret=dingtalk.client_secret,
            timeout_s=self._timings.reply_s,
        )
        replies = Replies(
            session,
            dingtalk.network,
            openapi,
            newest_webhook=self.store.webhook,
            texts=texts,
            clock=clock,
            uncertain=self._config.reply.uncertain,
            timeout_s=self._timings.reply_s,
        )
        stack.callback(replies.close)
        return replies

    async def _open_store(self, stack: AsyncExitStack, clock: Callable[[], float]) -> None:
        limits = self._config.limits
        self.store = SQLiteStore(
            self._config.store_path,
            clock=clock,
            limits=Limits(
                waiting_per_lane=limits.waiting_per_lane,
                per_user_per_minute=limits.per_user_per_minute,
                answer_deadline_s=limits.answer_deadline_min * 60.0,
            ),
            on_commit=self.metrics.commit.observe,
            on_trouble=self.outages.of_store,
        )
        recovered = await self.store.open()
        stack.push_async_callback(self.store.close)
        log.info("daemon.started", version=__version__, returned=recovered.returned, dead=recovered.dead)

    async def _accept(self, data: dict[str, Any], frame_id: str) -> None:
        """A bot message's data: read it, keep it. What raises is not acknowledged as kept."""
        started = time.perf_counter()
        message = payload.parse(
            data,
            robot=self._config.dingtalk.client_id,
            frame_id=frame_id,
            webhook_allowed=partial(self._webhook_checked, frame_id),
            now=self._clock(),
        )
        await self.bridge.accept(message)
        self.metrics.ack.observe(time.perf_counter() - started)

    def _webhook_checked(self, frame_id: str, url: str) -> bool:
        allowed = self._webhook_allowed(url)
        if not allowed:
            log.error(
                "security.foreign_webhook",
                frame=frame_id[:80],
                host=payload.host_of(url),
                expected=payload.host_of(self._config.dingtalk.oapi_base),
                remedy="nothing is sent there; if it is your private DingTalk, name it in [dingtalk] oapi_base",
            )
        return allowed

    def _on_retry(self, error: BridgeError, attempt: int, delay_s: float) -> None:
        self.metrics.retries.labels("anythingllm", type(error).__name__).inc()
        log.info("backend.retry", why=error.detail, attempt=attempt, delay_s=round(delay_s, 2))

    async def _drain(self, bridge: asyncio.Task[None]) -> None:
        """Keep reading and acknowledging; lease nothing; finish what runs, or give it back."""
        self._stopping = True
        self._notifier.send("STOPPING=1", f"STATUS=finishing {self.bridge.running} answers")
        log.info("daemon.draining", running=self.bridge.running)
        self.bridge.drain()
        await asyncio.wait({bridge}, timeout=self._config.limits.drain_s or None)
        if not bridge.done():
            bridge.cancel()
            await asyncio.wait({bridge}, timeout=CLOSE_S)
        await self._give_back()

    async def _give_back(self) -> None:
        with suppress(StoreError):
            if given_back := await self.store.release_all():
                log.info("daemon.given_back", messages=given_back)

    # -- watching itself

    async def _beat(self) -> None:
        """Metrics, STATUS and the watchdog; a store that failed is tried here."""
        while True:
            try:
                async with asyncio.timeout(STUCK_S):
                    if self.store.trouble is not None:
                        await self.store.probe()
                    depth = await self.store.depth()
                for state in ("ready", "leased", "answered", "sending"):
                    self.metrics.depth.labels(state).set(depth.by_state.get(state, 0))
                self.metrics.oldest.set(depth.oldest_age_s)
                self.metrics.dead.set(depth.dead)
                answered = True
            except StoreError as error:
                if not error.retryable:
                    raise
                answered = True  # it says no, but it lives
            except TimeoutError:
                answered = False
            self.metrics.connected.set(self.stream.state.connected)
            moving = self._stopping or time.monotonic() - self.bridge.alive_at < STUCK_S
            if answered and moving:
                self._notifier.send("WATCHDOG=1", f"STATUS={self._one_line()}")
            else:
                log.error("daemon.stuck", store=answered, dispatcher=moving)
            period = self._notifier.watchdog_s
            pause_s = min(self._timings.beat_s, period / 3) if period else self._timings.beat_s
            due = time.monotonic() + pause_s
            await asyncio.sleep(pause_s)
            self.metrics.loop_lag.set(time.monotonic() - due)

    async def _forget(self) -> None:
        while True:
            dropped = True
            with suppress(StoreError):  # told as every trouble of the store is
                while dropped:
                    dropped = bool(await self.store.forget())
            await asyncio.sleep(self._timings.forget_s)

    async def _check_workspaces(self) -> None:
        """A workspace that AnythingLLM does not know is told early; it may be made later."""
        wanted = {route.workspace for route in self._config.routes if route.handler == ANYTHINGLLM}
        try:
            for workspace in sorted(wanted):
                if await self._backend.resolve(workspace) is None:
                    log.warning(
                        "workspace.unknown", workspace=workspace, remedy="see [[route]] workspace, or create it"
                    )
        except BridgeError as error:
            log.warning("backend.unreachable", why=error.detail)

    def parts(self) -> dict[str, Health]:
        """What readiness is made of."""
        state = self.stream.state
        trouble = self.store.trouble
        parts = {
            "store": Health(trouble is None, trouble or ""),
            "link": Health(state.connected, state.why),
        }
        if self.web is not None and not self.web.health.ok:
            parts["web"] = self.web.health
        if self._stopping:
            parts["daemon"] = Health(False, "stopping")
        return parts

    def _one_line(self) -> str:
        bad = [f"{name}: {part.why}" for name, part in self.parts().items() if not part.ok]
        return "; ".join(bad) if bad else f"connected, {self.bridge.running} answers in work"

    def status(self) -> str:
        """The status page, in plain text."""
        lines = [f"dingbridge {__version__}", ""]
        for name, part in self.parts().items():
            lines.append(f"{name:10} {'ok' if part.ok else 'NOT OK: ' + part.why}")
        backend = self.outages.backend.state()
        lines.append(f"{'backend':10} {'ok' if backend['ok'] else 'NOT OK: ' + backend['why']}")
        state = self.stream.state
        lines.append(f"{'opens':10} {state.opens}")
        lines.append(f"{'in work':10} {self.bridge.running}")
        return "\n".join(lines) + "\n"
