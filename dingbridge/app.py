"""Builds the parts, runs them in one TaskGroup, reloads, drains, closes."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import AsyncExitStack, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import structlog

from dingbridge import __version__, checks
from dingbridge import config as configuration
from dingbridge.answerer import load_handlers
from dingbridge.backends.anythingllm import AnythingLLM
from dingbridge.bridge import Bridge
from dingbridge.building import (
    Setups,
    import_handlers_from,
    make_store,
    open_backend,
    redactor_for,
    secrets_of,
    store_limits,
)
from dingbridge.clock import SteadyClock
from dingbridge.control import ControlServer
from dingbridge.dingtalk import composing
from dingbridge.dingtalk.stream import Stream, Timing
from dingbridge.dispatch import Pauses
from dingbridge.errors import BridgeError, ConfigError, StoreError
from dingbridge.journal.budget import Budget
from dingbridge.journal.metrics import CONTENT_TYPE, Metrics
from dingbridge.journal.record import recorder
from dingbridge.journal.thrift import WEBHOOK_STREAM
from dingbridge.log import pseudonym
from dingbridge.operations import Operations
from dingbridge.receiving import Receiving
from dingbridge.redaction import Redactor
from dingbridge.reloading import Reloaded, merged
from dingbridge.service import Notifier, Presence
from dingbridge.settings import Config
from dingbridge.setup import Setup
from dingbridge.store.store import Store
from dingbridge.trail import Step
from dingbridge.upkeep import Upkeep, check_workspaces
from dingbridge.vitals import Vitals
from dingbridge.watched import Outages, Watched
from dingbridge.web.pages import Pages
from dingbridge.web.server import Web
from dingbridge.yielding import Yielding

log = structlog.get_logger("dingbridge.daemon")

CLOSE_S = 5.0
RELOAD_S = 30.0


@dataclass(frozen=True, slots=True)
class Timings:
    """Every duration that is not configuration; tests make them short."""

    stream: Timing = field(default_factory=Timing)
    pauses: Pauses = field(default_factory=Pauses)
    reply_s: float = 10.0
    beat_s: float = 2.0
    yield_s: float = 3.0
    forget_s: float = 3600.0


async def _watch(bridge: asyncio.Task[None]) -> None:
    """Ends as the bridge ends, and can be cancelled without it."""
    await asyncio.wait({bridge})
    if not bridge.cancelled():
        bridge.result()


class App:
    """`run()` returns after `stop()` has drained; it raises when a part dies.

    redactor: learns the secrets of a reloaded configuration. recent: the last lines of the log, for `support`.
    """

    def __init__(
        self,
        config: Config,
        *,
        timings: Timings | None = None,
        environ: MutableMapping[str, str] | None = None,
        redactor: Redactor | None = None,
        recent: Callable[[], list[str]] = list,
    ) -> None:
        self._config = config
        self._timings = timings or Timings()
        self._environ = os.environ if environ is None else environ
        self._notifier = Notifier(self._environ)
        self._redactor = redactor or redactor_for(config)
        self._recent = recent
        self._stop = asyncio.Event()
        self._stopping = False
        self._clock = SteadyClock()
        self._reloads = asyncio.Queue[None](1)
        self._reloading = asyncio.Lock()
        self.metrics = Metrics(__version__)
        self.outages = Outages()
        self.store: Store
        self.budget: Budget
        self.bridge: Bridge
        self.stream: Stream
        self.web: Web | None = None
        self.pages: Pages | None = None
        self.started = asyncio.Event()

    def stop(self) -> None:
        """Drain and return; may be called during start-up."""
        self._stop.set()

    def ask_to_reload(self) -> None:
        """As `reload`, soon; what comes of it is logged."""
        with suppress(asyncio.QueueFull):
            self._reloads.put_nowait(None)

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
                await self._resources.aclose()
        log.info("daemon.stopped")

    async def _run(self, bridge: asyncio.Task[None]) -> None:
        async with asyncio.TaskGroup() as self._group:
            parts = [_watch(bridge), self._upkeep.beat(), self._upkeep.forget(), self._upkeep.close_cards()]
            parts.append(self._control.run())
            parts += [self._reload_when_asked(), check_workspaces(self._config, self._backend)]
            parts += [self.store.attend(self.bridge, self.vitals.told), self.budget.run()]
            parts += [listener.run() for listener in (self.web, self.pages) if listener is not None]
            tasks = [self._group.create_task(part) for part in (self.stream.run(), *parts)]
            self._notifier.send("READY=1", "STATUS=starting")
            self.started.set()
            await self._stop.wait()
            await self._drain(bridge)
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await self.stream.close()
            for task in (*tasks, *self._retiring):
                task.cancel()

    async def _build(self, stack: AsyncExitStack) -> None:
        config, clock = self._config, self._clock
        import_handlers_from(config)
        load_handlers(config.routes)  # before the store: what cannot be imported must not cost a lock or a migration
        await self._open_store(stack)
        robot = config.dingtalk.client_id
        self.budget = Budget(config.budget, robot, self.store.spent, clock=clock, metrics=self.metrics)
        stack.push_async_callback(self.budget.close)
        self._announce(stack)
        self._retiring: set[asyncio.Task[None]] = set()
        if config.pages.enabled:
            self.pages = self._open_pages(config)
        self._setups = Setups(
            self.store, clock=clock, reply_s=self._timings.reply_s, budget=self.budget, pages=self.pages
        )
        setup = await self._open_setup(config)
        self.bridge = Bridge(
            store=self.store,
            setup=setup,
            record=recorder(self.metrics, pseudonym),
            clock=clock,
            pauses=self._timings.pauses,
            counted=self.metrics.happened,
        )
        self._receiving = Receiving(
            self.bridge,
            robot=config.dingtalk.client_id,
            oapi_base=config.dingtalk.oapi_base,
            clock=clock,
            took=self.metrics.ack.observe,
            came=partial(self.budget.count, WEBHOOK_STREAM),
        )
        self.stream = self._open_stream(config)
        self.vitals = Vitals(
            store=self.store,
            bridge=self.bridge,
            stream=self.stream,
            outages=self.outages,
            web=lambda: self.web.health if self.web is not None else None,
            pages=lambda: self.pages.health if self.pages is not None else None,
            stopping=lambda: self._stopping,
            budget=self.budget,
            redact=self._redactor.text,
        )
        self._operations = Operations(self.store, robot=robot, config=str(config.path), live=self, budget=self.budget)
        self._control = ControlServer(self.store.beside, self._operations)
        self._upkeep = Upkeep(
            store=self.store,
            bridge=self.bridge,
            stream=self.stream,
            metrics=self.metrics,
            notifier=self._notifier,
            line=self.vitals.line,
            stopping=lambda: self._stopping,
            beat_s=self._timings.beat_s,
            forget_s=self._timings.forget_s,
        )
        if config.web.enabled:
            self.web = self._open_web()
        self.metrics.reloaded(ok=True)

    def _announce(self, stack: AsyncExitStack) -> None:
        presence = Presence(self._config.dingtalk.client_id)
        stack.callback(presence.withdraw)
        if not presence.announce() and not self._config.store.is_postgres:
            log.warning("daemon.not_alone", remedy="another daemon serves this robot; they split its messages")

    def _open_stream(self, config: Config) -> Stream:
        stream = Stream(
            client_id=config.dingtalk.client_id,
            client_secret=config.dingtalk.client_secret,
            api_base=config.dingtalk.api_base,
            network=config.dingtalk.network,
            accept=self._receiving.accept,
            press=self._receiving.press,
            on_event=self.metrics.link_event,
            timing=self._timings.stream,
        )
        if config.store.is_postgres:
            self.outages.on_store = Yielding(stream, after_s=self._timings.yield_s).of_store
        return stream

    def _open_pages(self, config: Config) -> Pages:
        return Pages(
            config.pages,
            self.store.pages,
            locale=config.reply.locale,
            locale_of=lambda name: route.locale if (route := self.bridge.route(name)) is not None else "",
            address_of=lambda source: composing.linked(source, self._config.sources).url,
            voted=partial(self.metrics.happened, "feedback"),
        )

    def _open_web(self) -> Web:
        return Web(
            host=self._config.web.host,
            port=self._config.web.port,
            admin_token=self._config.web.admin_token,
            parts=self.vitals.parts,
            status=self.vitals.page,
            metrics=self.metrics.text,
            metrics_type=CONTENT_TYPE,
        )

    async def _open_setup(self, config: Config) -> Setup:
        """And `_backend` and `_resources`, which belong to it. Raises ConfigError, then nothing has changed."""
        async with AsyncExitStack() as opening:
            backend: AnythingLLM = await opening.enter_async_context(open_backend(config, self._on_retry))
            setup = await self._setups.open(opening, config, Watched(backend, self.outages.backend))
            self._backend, self._resources = backend, opening.pop_all()
        return setup

    async def _open_store(self, stack: AsyncExitStack) -> None:
        self.store = make_store(
            self._config.store,
            self._config.dingtalk.client_id,
            clock=self._clock,
            limits=store_limits(self._config),
            on_commit=self.metrics.commit.observe,
            on_trouble=self.outages.of_store,
            redact=self._redactor.text,
            on_time=self._clock.set,
        )
        recovered = await self.store.open()
        stack.push_async_callback(self.store.close)
        log.info("daemon.started", version=__version__, returned=recovered.returned, dead=recovered.dead)

    def _on_retry(self, error: BridgeError, attempt: int, delay_s: float) -> None:
        self.metrics.retries.labels("anythingllm", type(error).__name__).inc()
        log.info("backend.retry", why=error.detail, cause=error.cause, attempt=attempt, delay_s=round(delay_s, 2))

    # -- reloading and stopping

    async def reload(self) -> Reloaded:
        """Read the configuration anew and go on by it; what runs ends by the old one.

        Also where no key has changed: certificates are read again. Raises ConfigError, and BridgeError while stopping.
        """
        async with self._reloading:
            if self._stopping:
                raise BridgeError("the daemon is stopping: the configuration counts at its next start")
            self._notifier.send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
            try:
                config, reloaded, setup, old = await self._prepare()
            except ConfigError as error:
                self.metrics.reloaded(ok=False)
                log.error("config.kept", faults=error.faults)
                raise
            finally:
                if not self._stopping:
                    self._notifier.send("READY=1", f"STATUS={self.vitals.line()}")
            self.metrics.reloaded(ok=True)
            self._config, self.store.limits = config, store_limits(config)
            self.budget.use(config.budget)
            self._retire(self.bridge.use(setup), old)
            self._spawn(check_workspaces(config, self._backend))
            # Lists: a pair of texts is taken for a header, whose value may be a secret.
            log.info("config.reloaded", applied=list(reloaded.applied), restart=list(reloaded.restart))
            return reloaded

    async def _prepare(self) -> tuple[Config, Reloaded, Setup, AsyncExitStack]:
        """What the file says now, opened; and the resources of the old setup. Raises ConfigError."""
        old = self._resources
        try:
            async with asyncio.timeout(RELOAD_S):  # the loop's threads may all be busy with somebody's handler
                read = await asyncio.to_thread(configuration.load, self._config.path, self._environ)
            self._redactor.learn(*secrets_of(read))
            config, reloaded = merged(self._config, read)
            import_handlers_from(config)
            await asyncio.to_thread(load_handlers, config.routes)  # somebody else's imports take as long as they like
            return config, reloaded, await self._open_setup(config), old
        except OSError as error:  # a certificate of [dingtalk], which stays as it was, may be gone
            raise ConfigError([f"{type(error).__name__}: {error}"]) from error

    def _retire(self, running: list[asyncio.Task[Any]], resources: AsyncExitStack) -> None:
        async def retire() -> None:
            try:
                if running:
                    await asyncio.wait(running)
            finally:
                await resources.aclose()

        self._spawn(retire())

    def _spawn(self, work: Any) -> None:
        task = self._group.create_task(work)
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _reload_when_asked(self) -> None:
        while True:
            await self._reloads.get()
            with suppress(BridgeError):  # told, or the daemon is stopping
                await self.reload()

    async def _drain(self, bridge: asyncio.Task[None]) -> None:
        """Keep reading and acknowledging; lease nothing; finish what runs, or give it back."""
        self._stopping = True
        self._notifier.send("STOPPING=1", f"STATUS=finishing {self.bridge.running} answers")
        log.info("daemon.draining", running=self.bridge.running)
        self.bridge.drain()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S), self._reloading:
                pass  # a reload that had begun is at its end
        await asyncio.wait({bridge}, timeout=self._config.limits.drain_s or None)
        if not bridge.done():
            bridge.cancel()
            await asyncio.wait({bridge}, timeout=CLOSE_S)
        await self._give_back()

    async def _give_back(self) -> None:
        with suppress(StoreError, TimeoutError):  # a database that hangs must not keep it
            async with asyncio.timeout(CLOSE_S):
                if given_back := await self.store.release_all():
                    log.info("daemon.given_back", messages=given_back)

    # -- what operators ask (operations.Live)

    def facts(self) -> dict[str, Any]:
        return self.vitals.facts()

    def steps(self, row: int) -> tuple[Step, ...]:
        return self.bridge.steps(row)

    def unkept(self, wanted: str) -> Mapping[str, Any] | None:
        return self._receiving.unkept(wanted)

    async def retry(self, row: int) -> bool:
        return await self.bridge.retry(row)

    async def drop(self, row: int, *, tell: bool) -> None:
        await self.bridge.drop(row, tell=tell)

    async def support(self) -> dict[str, Any]:
        findings = await checks.run(self._config)
        told = [self._redactor.structure(asdict(finding)) for finding in findings]
        return {"check": told, "log": self._recent()}
