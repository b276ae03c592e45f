"""The common ground of the stand-in gateway's sides: record, waiting, planted faults."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Coroutine
from itertools import takewhile
from typing import Any, TypeVar

from aiohttp import web

from dingbridge.sim.gateway_meter import Meter
from dingbridge.sim.gateway_records import Post, Push, Sent
from dingbridge.sim.gateway_tape import Mask, Tape

Fault = int | str | tuple[int, str] | None
"""None in a queue of faults means: this one goes well."""

T = TypeVar("T")

HTML = "<!DOCTYPE html><html><head><title>Login</title></head><body>Please sign in.</body></html>"


def reset(transport: asyncio.BaseTransport | None) -> None:
    """End a TCP connection with RST instead of FIN."""
    if isinstance(transport, asyncio.WriteTransport):
        sock = transport.get_extra_info("socket")
        if sock is not None and not transport.is_closing():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


def answer(body: dict[str, Any], status: int = 200) -> web.Response:
    return web.json_response(body, status=status, dumps=lambda value: json.dumps(value, ensure_ascii=False))


def delivers(fault: Fault) -> bool:
    """Whether the message arrives although the sender is told otherwise."""
    return isinstance(fault, str) and (fault == "lost_response" or fault.endswith("_delivered"))


class Record:
    """One conversation with one client: everything noted in order, and waiting for more of it."""

    def __init__(self, client_id: str, client_secret: str) -> None:
        self.client_id = client_id
        self.client_secret = client_secret
        self.url = ""
        self.traffic: list[dict[str, Any]] = []
        self.pushes: dict[str, list[Push]] = {}
        self.posts: list[Post] = []
        self.keep: int | None = None
        self.tape: Tape | None = None
        self.meter = Meter()
        self.mask = Mask(lambda: [self.client_secret], lambda token: any(token in given for given in self._secrets))
        self._lists: list[list[Any]] = [self.traffic, self.posts]
        self._tables: list[dict[str, Any]] = [self.pushes]
        self._secrets: list[dict[str, Any]] = []
        self._noted = 0
        self._epoch = time.time() - time.monotonic()
        self._changed = asyncio.Event()
        self._closing = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None

    def note(self, kind: str, **facts: Any) -> None:
        """Add `{"at", "number", "kind", **facts}` to `traffic` and wake whoever waits in `until`."""
        self._noted += 1
        entry = {"at": time.monotonic(), "number": self._noted, "kind": kind, **facts}
        self.traffic.append(entry)
        if self.tape is not None:
            self.tape.write(self.line(entry))
        if self.keep is not None:
            self._forget(self.keep)
        self._changed.set()
        self._changed = asyncio.Event()

    def since(self, number: int) -> list[dict[str, Any]]:
        """The entries of `traffic` after that number, oldest first."""
        newer = takewhile(lambda entry: entry["number"] > number, reversed(self.traffic))
        return list(newer)[::-1]

    def line(self, entry: dict[str, Any]) -> str:
        """An entry of `traffic` as a line of JSON with its wall-clock time, without secrets."""
        return self.mask.line(entry, self.wall(entry["at"]))

    def wall(self, at: float) -> float:
        """The epoch seconds of a monotonic time."""
        return self._epoch + at

    def _forget(self, keep: int) -> None:
        """Let go of the oldest, in heaps."""
        for rows in self._lists:
            if len(rows) > 2 * keep:
                del rows[:-keep]
        for table in self._tables:
            if len(table) > 2 * keep:
                for key in list(table)[:-keep]:
                    del table[key]

    async def until(self, look: Callable[[], T | None], timeout_s: float | None = 10.0) -> T:
        """What `look` returns as soon as it is true; it is asked again after each event. TimeoutError else."""
        async with asyncio.timeout(timeout_s):
            while not (found := look()):
                await self._changed.wait()
        return found

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        if self._tasks is None:
            work.close()
            raise RuntimeError("the gateway is not running")
        self._tasks.create_task(work)

    async def pause(self, delay_s: float) -> None:
        """Sleep, but not past the gateway's end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._closing.wait()

    async def play(
        self, request: web.Request, fault: Fault, coded: Callable[[int], web.Response]
    ) -> web.StreamResponse:
        """The answer a fault stands for: html, hang, reset…, lost_response, http<status>…, or `coded(int)`."""
        if fault == "html":
            return web.Response(text=HTML, content_type="text/html")
        if isinstance(fault, int):
            return coded(fault)
        status = re.fullmatch(r"http(\d{3})(_delivered)?", str(fault))
        if status:
            return web.Response(status=int(status[1]), text=HTML, content_type="text/html")
        if fault == "hang":
            await self._closing.wait()
        elif fault not in {"reset", "reset_before", "lost_response"}:
            raise ValueError(f"unknown fault {fault!r}")
        reset(request.transport)
        return web.Response()


async def json_body(request: web.Request) -> Any:
    """The decoded body; None for anything but JSON."""
    try:
        return await request.json()
    except ValueError:
        return None


def take(queue: deque[Fault], sticky: Fault) -> Fault:
    return queue.popleft() if queue else sticky


def conversation_of(target: str | Sent | None) -> str | None:
    return target.conversation if isinstance(target, Sent) else target
