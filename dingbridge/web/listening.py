"""A place to listen at: a taken port is told, shown and tried again; it never stops the bot."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

import structlog
from aiohttp import web
from aiohttp.http import HttpProcessingError

log = structlog.get_logger("dingbridge.web")

RETRY_S = 5.0
SEATS = 256  # connections at once: each costs one of the file descriptors that the chat needs, too
IDLE_S = 30.0  # without a whole request; the library's own is an hour


def _is_ours(record: logging.LogRecord) -> bool:
    """Whether a fault says something of us: who sends what is no request, or goes away, would fill the log."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError | web.RequestPayloadError | ConnectionResetError)


_requests = logging.getLogger("dingbridge.web.requests")
_requests.addFilter(_is_ours)


@dataclass(frozen=True, slots=True)
class Health:
    """One part of readiness; `why` says what is wrong with it."""

    ok: bool
    why: str = ""


class Listener:
    """`serve` answers until cancelled. name: the section whose `listen` says where.

    seats: connections at once. idle_s: after which one without a whole request is closed.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        name: str,
        retry_s: float = RETRY_S,
        seats: int = SEATS,
        idle_s: float = IDLE_S,
    ) -> None:
        self._host = host
        self._port = port
        self._name = name
        self._listening, self._not_listening = f"{name}.listening", f"{name}.not_listening"
        self._retry_s = retry_s
        self._seats, self._idle_s = seats, idle_s
        self.health = Health(False, "not listening yet")
        self.address: tuple[str, int] | None = None

    async def serve(self, app: web.Application) -> None:
        runner = web.AppRunner(
            app,
            access_log=None,
            logger=_requests,
            handle_signals=False,
            shutdown_timeout=1.0,
            keepalive_timeout=self._idle_s,
        )
        await runner.setup()
        listening: asyncio.Server | None = None
        try:
            listening = await self._listen(runner)
            await asyncio.Event().wait()
        finally:
            if listening is not None:
                listening.close()
            await runner.cleanup()

    async def _listen(self, runner: web.AppRunner) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        while True:
            try:
                listening = await loop.create_server(lambda: self._seated(runner), self._host, self._port)
            except OSError as error:
                why = f"{self._host}:{self._port}: {error.strerror}; name another one in [{self._name}] listen"
                if self.health.why != why:
                    log.warning(self._not_listening, why=why)
                self.health = Health(False, why)
                await asyncio.sleep(self._retry_s)
            else:
                self.address = listening.sockets[0].getsockname()[:2]
                self.health = Health(True)
                log.info(self._listening, address=f"{self.address[0]}:{self.address[1]}")
                return listening

    def _seated(self, runner: web.AppRunner) -> asyncio.Protocol:
        """Where all seats are taken, who has sat longest goes: a request takes moments."""
        assert runner.server is not None
        there = [one for one in runner.server.connections if one.transport is not None]
        for one in there[: max(0, len(there) + 1 - self._seats)]:
            one.force_close()
        return runner.server()
