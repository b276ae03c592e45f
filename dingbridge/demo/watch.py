"""The daemon as the page shows it: its process, whether it is ready, and what its control socket says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import aiohttp

from dingbridge.demo import explained
from dingbridge.demo.board import Board
from dingbridge.demo.process import Process
from dingbridge.demo.wire import masked
from dingbridge.net import BodyTooLarge, read_capped

EVERY_S: Final = 1.0
TIMEOUT: Final = aiohttp.ClientTimeout(total=2.0)
MOST: Final = 1_000_000  # bytes of an answer


class DaemonWatch:
    """`state` is the page's Daemon; `run()` keeps it fresh while a page is open."""

    def __init__(self, board: Board, process: Process, control: Path, web_port: int) -> None:
        self._board = board
        self._process = process
        self._control = control
        self._web = f"http://127.0.0.1:{web_port}"
        self.state: dict[str, Any] = {"running": False, "pid": None, "ready": False, "status": None}

    async def run(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            if self._board.watched:
                await self.look()

    async def look(self) -> dict[str, Any]:
        """What holds now; pages are told when it differs."""
        running = self._process.running
        status = await self.status() if running else None
        ready = False
        if status is not None:
            ready = status.get("ready") is True
        elif running:
            ready = await self._is_ready()
        if not self._process.running:  # it ended while it was asked
            ready, status = False, None
        state = {"running": self._process.running, "pid": self._process.pid, "ready": ready, "status": status}
        if state != self.state:
            self.state = state
            self._board.tell("daemon", state)
        return state

    async def status(self) -> dict[str, Any] | None:
        """`/status`, explained."""
        told = await self.ask("/status")
        return explained.status(told) if isinstance(told, Mapping) else None

    async def trace(self, code: str) -> dict[str, Any] | None:
        """The way of one message, explained; None while the daemon cannot tell it."""
        told = await self.ask(f"/trace/{quote(code, safe='')}")
        return explained.trace(told) if isinstance(told, Mapping) else None

    async def ask(self, path: str) -> Any:
        """JSON from the control socket, without secrets; None where there is none."""
        if not self._control.exists():
            return None
        return masked(await _json(f"http://daemon{path}", aiohttp.UnixConnector(str(self._control))))

    async def _is_ready(self) -> bool:
        body = await _json(f"{self._web}/readyz", aiohttp.TCPConnector())
        return isinstance(body, Mapping) and body.get("ready") is True


async def _json(url: str, connector: aiohttp.BaseConnector) -> Any:
    """The body of an answer below 500 or of /readyz's refusal; None where there is none that can be read."""
    with suppress(aiohttp.ClientError, TimeoutError, OSError, ValueError, BodyTooLarge):
        async with aiohttp.ClientSession(connector=connector, timeout=TIMEOUT) as http, http.get(url) as response:
            if response.status not in {200, 503}:
                return None
            return json.loads(await read_capped(response, MOST))
    return None
