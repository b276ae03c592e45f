"""One Stream connection as the stand-in gateway sees it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import secrets
import struct
import time
import uuid
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any, Final

from aiohttp import WSMsgType, web

from dingbridge.sim.gateway_base import Record, reset
from dingbridge.sim.gateway_records import Ack, Push, Sent, build_frame, frame_kind

FAULT: Final = re.compile(
    r"(?P<coded>close)(?P<code>[1-4]\d{3})?"
    r"|(?P<timed>half_open|disconnect|slow)(?P<seconds>\d{1,6}(\.\d{1,3})?)?"
    r"|cut|hang_up|ignore_acks|well|malformed|binary"
)


class State(Enum):
    """Only a live connection is chosen for pushes (a half-open one too, with `dead_channel`)."""

    GREETING = "greeting"
    LIVE = "live"
    LEAVING = "leaving"
    HALF_OPEN = "half-open"
    CLOSED = "closed"


class Connection:
    """Frames out, acks in. `closed_code` is the client's close code, 1005 without one, 1006 without a frame."""

    def __init__(
        self,
        record: Record,
        request: web.Request,
        subscriptions: list[Any],
        on_frame: Callable[[Connection, dict[str, Any]], None],
    ) -> None:
        self.id = str(uuid.uuid1())
        self.opened_at = time.monotonic()
        self.subscriptions = subscriptions
        self.headers = dict(request.headers)
        self.state = State.GREETING
        self.acks: list[Ack] = []
        self.pings = 0
        self.closed_code: int | None = None
        self.ignores_acks = False
        self.delay_s = 0.0
        self.gone = asyncio.Event()
        self._record = record
        self._request = request
        self._on_frame = on_frame
        self._swallows = False
        self._turn = asyncio.Lock()
        self._late = 0
        self._awaits_pong = False
        self._hang_up: asyncio.TimerHandle | None = None
        self._close_sent = False
        self._ws = web.WebSocketResponse(autoping=False, autoclose=False, compress=False)

    def takes(self, kind: str, topic: str) -> bool:
        """Whether this connection subscribed to it; SYSTEM needs no subscription."""
        wanted = ({"type": kind, "topic": topic}, {"type": kind, "topic": "*"})
        return kind == "SYSTEM" or any(entry in wanted for entry in self.subscriptions)

    async def push(self, frame: dict[str, Any], sent: Sent | None = None) -> Push:
        """Write a frame as it stands, or later while `delay_s` is set. ConnectionError when this connection is gone."""
        push = Push(time.monotonic(), self.id, frame, sent)
        if not self._swallows:
            self._raise_if_closed()
        self._record.pushes.setdefault(push.message_id, []).append(push)
        if sent is not None:
            sent.pushes.append(push)
        if kind := frame_kind(frame):
            self._record.meter.frame(kind)
        self._record.note("frame", connection=self.id, frame=frame, swallowed=self._swallows)
        if not self._swallows:
            await self._write(json.dumps(frame, ensure_ascii=False))
        return push

    async def _write(self, text: str) -> None:
        if self.delay_s or self._late:
            self._late += 1
            self._record.spawn(self._write_late(text, self.delay_s))
        else:
            await self.send_raw(text)

    async def _write_late(self, text: str, delay_s: float) -> None:
        """One after the other, each after its delay."""
        async with self._turn:
            await self._record.pause(delay_s)
            self._late -= 1
            with contextlib.suppress(ConnectionError):
                await self.send_raw(text)

    async def send_raw(self, payload: str | bytes) -> None:
        """Any text frame, or a binary one for bytes."""
        self._raise_if_closed()
        if isinstance(payload, str):
            await self._ws.send_str(payload)
        else:
            await self._ws.send_bytes(payload)

    async def ping_opaque(self, opaque: str | None = None, timeout_s: float = 10.0) -> Ack:
        """A SYSTEM ping and its ack."""
        data = {"opaque": opaque or secrets.token_hex(8)}
        push = await self.push(build_frame("SYSTEM", "ping", data))
        return await self._record.until(lambda: push.ack, timeout_s)

    async def disconnect(
        self,
        reason: str = "connection is expired",
        *,
        close_after_s: float = 10.0,
        with_message_id: bool = True,
    ) -> Push:
        """Announce the rotation, be silent, then close TCP without a close frame, as DingTalk does."""
        self.state = State.LEAVING
        message_id = None if with_message_id else ""
        push = await self.push(build_frame("SYSTEM", "disconnect", {"reason": reason}, message_id=message_id))
        self._close_in(close_after_s)
        return push

    async def close(self, code: int = 1000, reason: str = "", *, wait_s: float = 2.0) -> None:
        """Send a close frame; TCP ends with the client's answer to it, at the latest after `wait_s`."""
        self.state = State.LEAVING
        self._close_sent = True
        self._close_in(wait_s)
        await self._ws.send_frame(struct.pack("!H", code) + reason.encode(), WSMsgType.CLOSE)

    def cut(self) -> None:
        """End TCP with RST, at once."""
        self.state = State.CLOSED
        reset(self._request.transport)

    def hang_up(self) -> None:
        """End TCP with FIN, without a close frame: the client sees 1006."""
        self.state = State.LEAVING
        self._close_in(0)

    def half_open(self, *, deliver: bool = False, notice_after_s: float | None = None) -> None:
        """Read and pong no more while TCP stays up; pushed frames vanish too, unless `deliver`.

        After `notice_after_s` this side notices and ends the connection; with None only its own pings tell it.
        """
        self.state = State.HALF_OPEN
        self._swallows = not deliver
        if isinstance(self._request.transport, asyncio.ReadTransport):
            self._request.transport.pause_reading()
        if notice_after_s is not None:
            self._hang_up = asyncio.get_running_loop().call_later(notice_after_s, self.cut)

    async def suffer(self, fault: str) -> None:
        """Plant a fault on this connection alone; `well` ends `ignore_acks` and `slow`. ValueError: no such fault.

        half_open[seconds until noticed], cut, hang_up, close[code], disconnect[seconds until TCP ends], ignore_acks,
        slow[seconds before each frame], malformed, binary.
        """
        parts = FAULT.fullmatch(fault)
        if parts is None:
            raise ValueError(f"unknown fault {fault!r}: {FAULT.pattern}")
        seconds = float(parts["seconds"]) if parts["seconds"] else None
        self._record.note("fault", connection=self.id, fault=fault)
        match parts["coded"] or parts["timed"] or fault:
            case "close":
                await self.close(int(parts["code"] or 1000))
            case "disconnect":
                await self.disconnect(close_after_s=10.0 if seconds is None else seconds)
            case "malformed":
                await self.send_raw('{"specVersion":"1.0","type":"CALLBACK","headers":')
            case "binary":
                await self.send_raw(b"\x00\x01")
            case quiet:
                self._turn_bad(quiet, seconds)

    def _turn_bad(self, fault: str, seconds: float | None) -> None:
        """Without a word to the client."""
        match fault:
            case "half_open":
                self.half_open(notice_after_s=seconds)
            case "cut":
                self.cut()
            case "hang_up":
                self.hang_up()
            case "slow":
                self.delay_s = 1.0 if seconds is None else seconds
            case "ignore_acks":
                self.ignores_acks = True
            case "well":
                self.ignores_acks, self.delay_s = False, 0.0

    async def every(self, interval_s: float, act: Callable[[], Awaitable[object]]) -> None:
        """Do something again and again until this connection is gone."""
        while not self.gone.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval_s):
                    await self.gone.wait()
                return
            with contextlib.suppress(ConnectionError):
                await act()

    async def expect_pong(self) -> None:
        """A WebSocket ping; when the one before is still unanswered, the connection is taken for dead and ended."""
        if self._awaits_pong:
            self._record.note("no pong", connection=self.id)
            self.cut()
        else:
            self._awaits_pong = True
            if not self._swallows:
                await self._ws.ping()

    async def serve(self) -> web.WebSocketResponse:
        """Read until either side ends the connection."""
        try:
            while True:
                message = await self._ws.receive()
                if message.type is WSMsgType.TEXT:
                    self._read(message.data)
                elif message.type is WSMsgType.PING:
                    await self._pong(message.data)
                elif message.type is WSMsgType.PONG:
                    self._awaits_pong = False
                else:
                    break
            if message.type is WSMsgType.CLOSE:
                self.closed_code = message.data or 1005
                if not self._close_sent:
                    await self._ws.close(code=message.data or 1000)
        finally:
            self._end()
        return self._ws

    async def accept(self) -> None:
        await self._ws.prepare(self._request)

    def greeted(self) -> None:
        """From now on this connection may be chosen, unless it has been ended meanwhile."""
        if self.state is State.GREETING:
            self.state = State.LIVE
            self._record.note("live", connection=self.id)

    def _read(self, text: str) -> None:
        if self.state is State.HALF_OPEN:
            return  # came in before reading was paused
        try:
            frame = json.loads(text)
        except ValueError:
            frame = None
        if not isinstance(frame, dict) or not isinstance(frame.get("headers"), dict):
            self._record.note("garbage", connection=self.id, text=text)
        elif self.ignores_acks:
            self._record.note("ack ignored", connection=self.id, message_id=str(frame["headers"].get("messageId", "")))
        else:
            self._on_frame(self, frame)

    async def _pong(self, payload: bytes) -> None:
        self.pings += 1
        if self.state is not State.HALF_OPEN:
            await self._ws.pong(payload)

    def _raise_if_closed(self) -> None:
        transport = self._request.transport
        if self.state is State.CLOSED or self._ws.closed or transport is None or transport.is_closing():
            raise ConnectionResetError("this connection is closed")

    def _close_in(self, delay_s: float) -> None:
        transport = self._request.transport
        if transport is not None:
            self._hang_up = asyncio.get_running_loop().call_later(delay_s, transport.close)

    def _end(self) -> None:
        if self._hang_up is not None:
            self._hang_up.cancel()
        if self._request.transport is not None:
            self._request.transport.close()
        if self.closed_code is None:
            self.closed_code = 1006
        self.state = State.CLOSED
        self.gone.set()
