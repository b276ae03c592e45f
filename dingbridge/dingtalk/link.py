"""One WebSocket: read, answer each frame on the socket that brought it, leave in order."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import aiohttp

IN_FLIGHT = 256
STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class Frame:
    """What came in. `whole` is None where it is no JSON object; its "headers" are always an object. size: bytes."""

    size: int
    whole: dict[str, Any] | None = None

    @property
    def headers(self) -> dict[str, Any]:
        return self.whole["headers"] if self.whole is not None else {}

    @property
    def is_disconnect(self) -> bool:
        """The server's announcement that it will close this connection, and is silent on it from now on."""
        return (
            self.whole is not None and self.whole.get("type") == "SYSTEM" and self.headers.get("topic") == "disconnect"
        )


def decode(raw: str) -> Frame:
    size = len(raw) if raw.isascii() else len(raw.encode("utf-8", "surrogatepass"))
    try:
        whole = json.loads(raw)
    except (ValueError, RecursionError):
        return Frame(size)
    if not isinstance(whole, dict):
        return Frame(size)
    headers = whole.get("headers", whole.pop("header", None))  # one official sample spells it `header`
    return Frame(size, whole | {"headers": headers if isinstance(headers, dict) else {}})


class Link:
    """`read()` until it ends; `leaving` is set when the next link has to be opened, which is before this one ends.

    answer: the ack for a frame, or None; it raises nothing.
    heartbeat_s: between pings; a pong has half of it.
    leave_s: how long it is read on after the server announced to close it.
    close_s: how long the last acks, and after them the closing handshake, may take.
    """

    def __init__(
        self,
        socket: aiohttp.ClientWebSocketResponse,
        answer: Callable[[Frame], Awaitable[dict[str, Any] | None]],
        *,
        heartbeat_s: float,
        leave_s: float,
        close_s: float,
    ) -> None:
        self._socket = socket
        self._answer = answer
        self._heartbeat_s = heartbeat_s
        self._leave_s = leave_s
        self._close_s = close_s
        self._opened = time.monotonic()
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self._answers: set[asyncio.Task[None]] = set()
        self._ending = asyncio.Event()
        self._ponged = asyncio.Event()
        self._unreadable = ""
        self.leaving = asyncio.Event()
        self.rotated = False
        self.why = ""
        self.cause = ""
        self.age_s = 0.0

    @property
    def is_open(self) -> bool:
        return not self.leaving.is_set()

    async def read(self) -> None:
        """Until the server closes, `leave_s` after it announced to, or `end()`."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._end_in_order())
                pinging = group.create_task(self._ping())
                await self._receive(group)
                pinging.cancel()
                self.end(self._reason())
        finally:
            self.end(STOPPING)
            await self._close_socket()

    def end(self, why: str = STOPPING) -> None:
        """Read no more, acknowledge what was read, and leave with code 1000."""
        self._leave(why)
        self._ending.set()

    async def _receive(self, group: asyncio.TaskGroup) -> None:
        async for received in self._socket:
            match received.type:
                case aiohttp.WSMsgType.TEXT:
                    frame = decode(received.data)
                case aiohttp.WSMsgType.BINARY:
                    frame = Frame(len(received.data))
                case aiohttp.WSMsgType.PING:
                    with suppress(aiohttp.ClientError, ConnectionError):
                        await self._socket.pong(received.data)
                    continue
                case aiohttp.WSMsgType.PONG:
                    self._ponged.set()
                    continue
                case _:
                    self._unreadable = type(received.data).__name__
                    continue
            if frame.is_disconnect and self.is_open:
                self._leave("the server rotates the connection", rotated=True)
                asyncio.get_running_loop().call_later(self._leave_s, self.end)
            # A bound on frames between reading and ack; the order of commits is the order of reading.
            await self._slots.acquire()
            task = group.create_task(self._acknowledge(frame))
            self._answers.add(task)
            task.add_done_callback(self._answers.discard)
            if self._ending.is_set():
                return

    async def _acknowledge(self, frame: Frame) -> None:
        try:
            ack = await self._answer(frame)
            if ack is not None:
                with suppress(aiohttp.ClientError, ConnectionError):  # gone: it will come again on another link
                    # In ASCII: an id may hold half a surrogate pair, which no socket takes.
                    await self._socket.send_str(json.dumps(ack))
        finally:
            self._slots.release()

    async def _ping(self) -> None:
        """Ours, for the library's heartbeat takes anything that comes in for a sign that what goes out arrives."""
        while True:
            await asyncio.sleep(self._heartbeat_s)
            self._ponged.clear()
            try:
                async with asyncio.timeout(self._heartbeat_s / 2):
                    await self._socket.ping()
                    await self._ponged.wait()
            except TimeoutError:
                if not self._slots.locked():  # or it waits behind frames that are not read yet
                    self.cause = "link.silent"
                    self.end("no pong from the gateway: the network drops what is sent")
            except (aiohttp.ClientError, ConnectionError):
                return  # whoever reads sees why

    async def _end_in_order(self) -> None:
        await self._ending.wait()
        if self._answers:
            await asyncio.wait(self._answers, timeout=self._close_s)
        await self._close_socket()

    async def _close_socket(self) -> None:
        # The library bounds the wait for the other side's close frame, not the writing of ours.
        with suppress(TimeoutError):
            async with asyncio.timeout(2 * self._close_s):
                await self._socket.close(code=aiohttp.WSCloseCode.OK)

    def _leave(self, why: str, *, rotated: bool = False) -> None:
        if not self.leaving.is_set():
            self.why, self.rotated = why, rotated
            self.age_s = time.monotonic() - self._opened
            self.leaving.set()

    def _reason(self) -> str:
        error, code = self._socket.exception(), self._socket.close_code
        if self._unreadable:
            return f"a WebSocket frame that cannot be read ({self._unreadable}, code {code})"
        if error is not None or code == aiohttp.WSCloseCode.ABNORMAL_CLOSURE:
            return "the connection broke off"
        return f"the gateway closed the connection (code {code})"
