"""The daemon as the page shows it: its process, and what its control socket says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from dingbridge.control import call
from dingbridge.demo import explained
from dingbridge.demo.board import Board
from dingbridge.demo.process import Process
from dingbridge.demo.wire import masked
from dingbridge.errors import BridgeError

EVERY_S: Final = 1.0
ANSWER_S: Final = 2.0
RELOAD_S: Final = 20.0


class DaemonWatch:
    """`state` is the page's Daemon; `run()` keeps it fresh while a page is open. store: the daemon's."""

    def __init__(self, board: Board, process: Process, store: Path) -> None:
        self._board = board
        self._process = process
        self._store = store
        self.state: dict[str, Any] = {"running": False, "pid": None, "ready": False, "status": None}

    async def run(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            if self._board.watched:
                await self.look()

    async def look(self) -> dict[str, Any]:
        """What holds now; pages are told when it differs."""
        status = await self.status() if self._process.running else None
        if not self._process.running:  # it ended while it was asked
            status = None
        state = {
            "running": self._process.running,
            "pid": self._process.pid,
            "ready": status is not None and status.get("ready") is True,
            "status": status,
        }
        if state != self.state:
            self.state = state
            self._board.tell("daemon", state)
        return state

    async def status(self) -> dict[str, Any] | None:
        """`/status`, explained; None while the daemon cannot tell it."""
        told = await self._ask("/status")
        return explained.status(told) if isinstance(told, Mapping) else None

    async def trace(self, code: str) -> dict[str, Any] | None:
        """The way of one message, explained; None while the daemon cannot tell it."""
        told = await self._ask(f"/trace/{code}")
        return explained.trace(told) if isinstance(told, Mapping) else None

    async def reload(self) -> None:
        """The daemon reads its configuration anew; one that cannot be asked reads it at its next start."""
        with suppress(BridgeError, TimeoutError):
            async with asyncio.timeout(RELOAD_S):
                await call(self._store, "POST", "/reload")

    async def _ask(self, path: str) -> Any:
        """JSON from the control socket, without secrets; None where there is none."""
        try:
            async with asyncio.timeout(ANSWER_S):
                return masked(await call(self._store, "GET", path))
        except (BridgeError, TimeoutError):
            return None
