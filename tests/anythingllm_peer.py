"""A scripted HTTP/1.1 server and a forward proxy on raw sockets, for tests of the AnythingLLM client."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import ssl
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Self

RECORDINGS = Path(__file__).parent / "recordings"


class Act(Enum):
    """What a script does beside writing bytes."""

    HANG = "say nothing more until the client leaves"
    CLOSE = "close the connection"
    RESET = "reset the connection"


Script = list[bytes | Act | float]


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def recording(name: str) -> dict[str, Any]:
    """A recorded exchange by the beginning of its name, like `50-`."""
    (path,) = RECORDINGS.glob(f"{name}*.json")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def replay(name: str, cut: int = 0) -> Script:
    """The recorded answer as it went over the wire; `cut`: bytes per write and chunk instead of one event each."""
    exchange = recording(name)
    response = exchange["response"]
    body = json.dumps(response["body_json"]) if "body_json" in response else response["body_text"]
    headers = [(key, value) for key, value in response["headers"] if key not in ("Content-Length", "Connection")]
    chunked = ("Transfer-Encoding", "chunked") in headers
    raw = body.encode()
    if not chunked:
        headers.append(("Content-Length", str(len(raw))))
    head = "\r\n".join([response["status_line"], *(f"{key}: {value}" for key, value in headers)])
    script: Script = [head.encode() + b"\r\n\r\n"]
    if not chunked:
        return [*script, raw]
    pieces = [event + b"\n\n" for event in raw.split(b"\n\n") if event]
    if cut:
        pieces = [raw[start : start + cut] for start in range(0, len(raw), cut)]
    script += map(chunk, pieces)
    return [*script, b"0\r\n\r\n"] if exchange["ended_by"] == "response complete" else [*script, Act.HANG]


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def answer(status: int, body: bytes | str = b"", kind: str = "application/json", **headers: str) -> Script:
    raw = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status} Some", f"Content-Length: {len(raw)}"]
    lines += [f"Content-Type: {kind}"] if kind else []
    lines += [f"{key.replace('_', '-')}: {value}" for key, value in headers.items()]
    return ["\r\n".join(lines).encode() + b"\r\n\r\n" + raw]


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields, ensure_ascii=False).encode() + b"\n\n"


def token(text: Any, *, close: bool = False, **more: Any) -> bytes:
    fields = {"uuid": "u", "sources": [], "type": "textResponseChunk", "close": close, "error": False}
    return event(**fields | {"textResponse": text} | more)


def finalize(**more: Any) -> bytes:
    return event(**{"uuid": "u", "type": "finalizeResponseStream", "close": True, "error": False} | more)


def abort(error: str) -> bytes:
    return event(id="i", type="abort", textResponse=None, sources=[], close=True, error=error)


STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def stream(*parts: bytes | Act | float, end: bool = True) -> Script:
    """Events, each a chunk of its own, and the terminator."""
    script: Script = [STREAM_HEAD]
    script += [chunk(part) if isinstance(part, bytes) else part for part in parts]
    return [*script, END] if end else script


GOOD = stream(token("好的。"), token("", close=True), finalize(chatId=1, sources=[], metrics={}))


class Peer:
    """Answers questions with `scripts` in turn, the last one for ever; other paths from `plain`."""

    def __init__(self, *scripts: Script, tls: ssl.SSLContext | None = None, close_idle_s: float | None = None) -> None:
        self.scripts = list(scripts) or [GOOD]
        self.plain: dict[str, Script] = {
            "/api/v1/workspaces": replay("16-"),
            "/api/v1/auth": replay("02-"),
        }
        self.asked: list[Request] = []
        self.requests: list[Request] = []
        self.left = asyncio.Event()
        self.connections = 0
        self._tls = tls
        self._close_idle_s = close_idle_s
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"{'https' if self._tls else 'http'}://{'localhost' if self._tls else '127.0.0.1'}:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._tasks)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        self._tasks.add(asyncio.current_task())  # type: ignore[arg-type] # a handler always runs in a task
        number = self.connections
        try:
            while (request := await self._next(reader, number)) is not None:
                self.requests.append(request)
                played = await self._play(self._script(request), reader, writer)
                if not played or request.headers.get("connection") == "close":
                    break
        except ConnectionError:
            pass
        except NotHttp:
            writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        finally:
            writer.close()
            with suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

    async def _next(self, reader: asyncio.StreamReader, number: int) -> Request | None:
        try:
            async with asyncio.timeout(self._close_idle_s):
                return await read_request(reader, number)
        except TimeoutError:
            return None

    def _script(self, request: Request) -> Script:
        if not request.target.endswith("/stream-chat"):
            return self.plain.get(request.target, replay("22-"))
        self.asked.append(request)
        return self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]

    async def _play(self, script: Script, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        for step in script:
            if isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
                await asyncio.sleep(0)
            elif isinstance(step, float):
                await asyncio.sleep(step)
            else:
                await self._act(step, reader, writer)
                return False
        return True

    async def _act(self, act: Act, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if act is Act.HANG:
            with suppress(ConnectionError):
                await reader.read(1)
            self.left.set()
        if act is Act.RESET:
            raw: socket.socket = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


class NotHttp(Exception):
    """Something else, like a TLS hello."""


async def read_request(reader: asyncio.StreamReader, number: int = 0) -> Request | None:
    try:
        first_byte = await reader.readexactly(1)
        if not first_byte.isalpha():
            raise NotHttp
        head = (first_byte + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    first, *lines = head.strip().split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, target, headers, body, number)


@dataclass
class Proxy:
    """A forward proxy with Basic credentials: CONNECT tunnels, and absolute-form requests for http."""

    user: str = "bridge"
    password: str = "p@ss/word-7"
    lines: list[str] = field(default_factory=list)
    refuse: Script | None = None

    async def __aenter__(self) -> Self:
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._tasks)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        self._tasks.add(asyncio.current_task())  # type: ignore[arg-type] # a handler always runs in a task
        try:
            while (request := await read_request(reader)) is not None:
                self.lines.append(f"{request.method} {request.target}")
                await self._serve(request, reader, writer)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _serve(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        expected = "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        refused = self.refuse
        if request.headers.get("proxy-authorization") != expected:
            refused = answer(407, "", "text/html", Proxy_Authenticate="Basic")
        if refused is not None:
            writer.writelines(part for part in refused if isinstance(part, bytes))
            await writer.drain()
            return
        await self._forward(request, reader, writer)

    async def _forward(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connect = request.method == "CONNECT"
        name, _, port = (request.target if connect else request.target.split("/")[2]).partition(":")
        up_reader, up_writer = await asyncio.open_connection(name, int(port))
        try:
            if connect:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                async with asyncio.TaskGroup() as both:
                    ways = (_pump(reader, up_writer), _pump(up_reader, writer))
                    first = [both.create_task(way) for way in ways]
                    await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
                    for each in first:
                        each.cancel()
            else:
                up_writer.write(_origin_form(request))
                await _pump(up_reader, writer)
        finally:
            up_writer.close()
            with suppress(ConnectionError):
                await up_writer.wait_closed()


def _origin_form(request: Request) -> bytes:
    """The request for the server itself, one per connection, without what is meant for the proxy."""
    kept = {key: value for key, value in request.headers.items() if not key.startswith("proxy-")}
    lines = [f"{key}: {value}" for key, value in (kept | {"connection": "close"}).items()]
    path = "/" + request.target.split("/", 3)[3]
    return "\r\n".join([f"{request.method} {path} HTTP/1.1", *lines]).encode() + b"\r\n\r\n" + request.body


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()


def events_of(name: str) -> Iterable[dict[str, Any]]:
    """The decoded events of a recorded stream."""
    body: str = recording(name)["response"]["body_text"]
    return [json.loads(line[6:]) for line in body.split("\n") if line.startswith("data: ")]
