"""A place to listen at: a taken port is told, shown and tried again; it never stops the bot."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import structlog
from aiohttp import web

log = structlog.get_logger("dingbridge.web")

RETRY_S = 5.0


@dataclass(frozen=True, slots=True)
class Health:
    """One part of readiness; `why` says what is wrong with it."""

    ok: bool
    why: str = ""


class Listener:
    """`serve` answers until cancelled. name: the section whose `listen` says where."""

    def __init__(self, host: str, port: int, *, name: str, retry_s: float = RETRY_S) -> None:
        self._host = host
        self._port = port
        self._name = name
        self._listening, self._not_listening = f"{name}.listening", f"{name}.not_listening"
        self._retry_s = retry_s
        self.health = Health(False, "not listening yet")
        self.address: tuple[str, int] | None = None

    async def serve(self, app: web.Application) -> None:
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await self._listen(runner)
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    async def _listen(self, runner: web.AppRunner) -> None:
        while True:
            site = web.TCPSite(runner, self._host, self._port)
            try:
                await site.start()
            except OSError as error:
                await site.stop()
                why = f"{self._host}:{self._port}: {error.strerror}; name another one in [{self._name}] listen"
                if self.health.why != why:
                    log.warning(self._not_listening, why=why)
                self.health = Health(False, why)
                await asyncio.sleep(self._retry_s)
            else:
                self.address = runner.addresses[0][:2]
                self.health = Health(True)
                log.info(self._listening, address=f"{self.address[0]}:{self.address[1]}")
                return
