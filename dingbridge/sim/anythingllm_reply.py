"""What AnythingLLM sends back: its JSON bodies and stream events byte for byte, and its ways to fail.

Shapes and failures as version 1.16 sent them in a lab. The stand-in's server decides what is said; here it
is said: at a pace, in pieces, and broken the way a fault asks for.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from aiohttp import web

from dingbridge.sim.anythingllm_rows import JSON, instant

Fault = Literal[
    "down",  # the TCP connection is reset as soon as a request is there
    "http429",  # a plain text page; with _html the page of a reverse proxy
    "http500",
    "http502",
    "http503",
    "http429_html",
    "http500_html",
    "http502_html",
    "http503_html",
    "html",  # 200 and the front page, as for an unknown route
    "empty",  # 200 without a body
    "empty_json",  # 200 and {}
    "bad_key",  # 403
    "refuse",  # nothing found, whatever was asked
    "abort",  # the model answers 500
    "abort_429",  # the model is overloaded
    "abort_401",  # the model's own key is wrong
    "abort_after_text",  # the model dies after some text; the stream ends as if it were good
    "cut",  # the TCP connection is reset after some text
    "no_finish",  # all of the text, then silence for ever
    "stall",  # silence before the first text
    "stall_midway",  # silence after some text
    "endless",  # text for ever
    "slow",  # the first text comes `slow_s` late
    "think",  # reasoning in front of the answer, its tags split over pieces
    "think_only",  # reasoning and no answer
    "empty_answer",  # the model says nothing
    "object_text",  # an object where the text should be
]
Keep = Callable[[str, JSON], int]
"""Stores a text with its metrics in the history and returns its chatId."""

FRONT_PAGE = '<!DOCTYPE html>\n<html lang="en">\n<head>\n<title>AnythingLLM</title>\n</head>\n</html>\n'
BAD_REQUEST_PAGE = (
    '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>Error</title>\n</head>\n'
    "<body>\n<pre>Bad Request</pre>\n</body>\n</html>\n"
)
_GATEWAY_PAGE = (
    "<html>\r\n<head><title>{0}</title></head>\r\n<body>\r\n<center><h1>{0}</h1></center>\r\n</body>\r\n</html>\r\n"
)
_REASONS = {429: "Too Many Requests", 500: "Internal Server Error", 502: "Bad Gateway"}
_ABORTS = {
    "abort": "500 The server had an error while processing your request",
    "abort_429": "429 Rate limit reached for requests",
    "abort_401": "401 Incorrect API key provided",
}
_MIDWAY = ("abort_after_text", "cut", "stall_midway")
_THOUGHTS = ("<thi", "nk>先查一查制", "度。</thi", "nk>")
_THOUGHT_ONLY = "<think>只想不答"
_NO_TEXT = "No text completion could be completed with this input."
_STREAM_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Type": "text/event-stream",
    "Access-Control-Allow-Origin": "*",
    "Connection": "keep-alive",
}


def to_bytes(body: JSON) -> bytes:
    """As `JSON.stringify` writes it: no spaces, nothing escaped that need not be."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def json_response(body: JSON, status: int = 200) -> web.Response:
    return web.Response(status=status, body=to_bytes(body), headers={"Content-Type": "application/json; charset=utf-8"})


def page(text: str, status: int = 200) -> web.Response:
    return web.Response(status=status, text=text, content_type="text/html", charset="utf-8")


def abort(error: str, **named: str) -> JSON:
    """The failure event, and the body of a failed /chat; `named` is its id or uuid."""
    key = named or {"id": str(uuid.uuid4())}
    return {**key, "type": "abort", "textResponse": None, "sources": [], "close": True, "error": error}


def whole_text(text: str, key: str = "") -> JSON:
    """A text in one event: a refusal, or the word that a history was reset."""
    body = {"id": key or str(uuid.uuid4()), "type": "textResponse", "textResponse": text, "sources": []}
    return {**body, "close": True, "error": None, "metrics": {}}


def broken(fault: Fault | None, retry_after_s: float | None) -> web.Response | None:
    """The response of a fault that never reaches the model, or None."""
    if fault == "bad_key":
        return json_response({"error": "No valid api key found."}, 403)
    if fault == "html":
        return page(FRONT_PAGE)
    if fault == "empty":
        return web.Response(body=b"", headers={"Content-Type": "application/json; charset=utf-8"})
    if fault == "empty_json":
        return json_response({})
    if fault is None or not fault.startswith("http"):
        return None
    status = int(fault[4:7])
    line = f"{status} {_REASONS.get(status, 'Service Temporarily Unavailable')}"
    html = fault.endswith("_html")
    response = page(_GATEWAY_PAGE.format(line), status) if html else web.Response(status=status, text=line)
    if retry_after_s is not None:
        response.headers["Retry-After"] = f"{retry_after_s:g}"
    return response


def reset(request: web.Request) -> web.Response:
    """Closes the connection with RST; the response returned goes nowhere."""
    if (transport := request.transport) is not None:
        endpoint: socket.socket = transport.get_extra_info("socket")
        endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response()


class Dropped(Exception):
    """The connection is to be reset here."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Delays in seconds, and how many characters a piece of the stream has."""

    first_s: float
    token_s: float
    slow_s: float
    piece: int


@dataclass(slots=True)
class Turn:
    """One answer on its way. `refused`: `text` is the workspace's refusal, which is not kept."""

    text: str
    sources: Sequence[JSON]
    refused: bool
    fault: Fault | None
    pace: Pace
    keep: Keep
    key: str = field(default_factory=lambda: str(uuid.uuid4()))
    said: str = ""
    kept: bool = False
    began: float = field(default_factory=time.monotonic)

    async def events(self) -> AsyncGenerator[list[JSON], None]:
        """The events of a stream, in batches that are written at once."""
        await self._wait_for_the_model()
        if error := _ABORTS.get(self.fault or ""):
            yield [abort(error, id=self.key)]
        elif self.refused:
            self.store_the_refusal()
            yield [whole_text(self.text, self.key)]
        elif self.fault in ("empty_answer", "think_only"):
            thought = [] if self.fault == "empty_answer" else [self._piece(_THOUGHT_ONLY)]
            yield [*thought, self._piece("", close=True), self._end()]
        else:
            async with aclosing(self._spoken()) as spoken:
                async for batch in spoken:
                    yield batch
            yield await self._ending()

    async def _wait_for_the_model(self) -> None:
        if self.fault == "stall":
            await _silence()
        await asyncio.sleep(self.pace.first_s + (self.pace.slow_s if self.fault == "slow" else 0.0))

    async def _spoken(self) -> AsyncGenerator[list[JSON], None]:
        pieces = self._pieces()
        if self.fault == "object_text":
            yield [{**self._piece(""), "textResponse": {}}]
            return
        while self.fault == "endless":
            for piece in pieces:
                yield [self._piece(piece)]
                await asyncio.sleep(self.pace.token_s or 0.005)
        if not self.pace.token_s:
            yield [self._piece(piece) for piece in pieces]
            return
        for piece in pieces:
            yield [self._piece(piece)]
            await asyncio.sleep(self.pace.token_s)

    def _pieces(self) -> list[str]:
        size = self.pace.piece
        pieces = [self.text[at : at + size] for at in range(0, len(self.text), size)]
        if self.fault in _MIDWAY:
            return pieces[: max(1, min(3, len(pieces) // 2))]
        return [*_THOUGHTS, *pieces] if self.fault == "think" else pieces

    async def _ending(self) -> list[JSON]:
        if self.fault in ("no_finish", "stall_midway"):
            await _silence()
        if self.fault == "cut":
            # A reset overtakes what the peer has not read yet.
            await asyncio.sleep(0.05)
            raise Dropped
        last = (
            abort("Premature close", uuid=self.key) if self.fault == "abort_after_text" else self._piece("", close=True)
        )
        return [last, self._end(kept=True)]

    def _piece(self, text: str, *, close: bool = False) -> JSON:
        self.said += text
        event = {"uuid": self.key, "sources": [], "type": "textResponseChunk", "textResponse": text}
        return {**event, "close": close, "error": False}

    def _end(self, *, kept: bool = False) -> JSON:
        event: JSON = {"uuid": self.key, "type": "finalizeResponseStream", "close": True, "error": False}
        if not kept:
            self.kept = True
            return event
        metrics = self.metrics(("completion_tokens", "prompt_tokens", "total_tokens", "outputTps", "duration"))
        return {**event, "chatId": self._store(metrics), "metrics": metrics, "sources": list(self.sources)}

    def store_the_refusal(self) -> None:
        self.said = self.text
        self._store({})

    def _store(self, metrics: JSON) -> int:
        self.kept = True
        return self.keep(self.said, metrics)

    def store_what_was_said(self) -> None:
        """The client left: what it had got is kept as if it were the answer, as the real server does."""
        if self.said and not self.kept:
            self._store({})

    def metrics(self, order: Sequence[str]) -> JSON:
        took = max(round(time.monotonic() - self.began, 3), 0.001)
        spoken = max(len(self.said) // 2, 1)
        figures: JSON = {"prompt_tokens": 442, "completion_tokens": spoken, "total_tokens": 442 + spoken}
        figures |= {"duration": took, "outputTps": spoken / took}
        named = {"model": "stand-in", "provider": "GenericOpenAiLLM", "timestamp": instant(datetime.now(UTC))}
        return {name: figures[name] for name in order} | named

    async def whole(self) -> tuple[int, JSON]:
        """Status and body of /chat. It is stored whether or not the client is still there."""
        await self._wait_for_the_model()
        if self.fault in ("no_finish", "stall_midway", "endless"):
            await _silence()
        if self.fault == "cut":
            raise Dropped
        await asyncio.sleep(self.pace.token_s * len(self._pieces()))
        if error := _ABORTS.get(self.fault or "") or (self.fault == "abort_after_text" and "Premature close"):
            return 500, abort(error)
        if self.refused:
            self.store_the_refusal()
            shape = ("id", "type", "sources", "close", "error", "textResponse", "metrics")
            refusal = whole_text(self.text, self.key)
            return 200, {name: refusal[name] for name in shape}
        order = ("prompt_tokens", "completion_tokens", "total_tokens", "duration", "outputTps")
        if self.fault == "empty_answer":
            return 200, {**abort(_NO_TEXT), "metrics": self.metrics(order)}
        self.said = f"{_THOUGHT_ONLY}</think>null" if self.fault == "think_only" else "".join(self._pieces())
        body = {"id": self.key, "type": "textResponse", "close": True, "error": None}
        metrics = self.metrics(order)
        body |= {"chatId": self._store(metrics), "textResponse": self.said}
        if self.fault == "object_text":
            body["textResponse"] = {}
        return 200, {**body, "sources": list(self.sources), "metrics": metrics}


async def single(request: web.Request, text: str, *, streamed: bool) -> web.StreamResponse:
    """One text that no model said, as the one event of a stream or as a body."""
    if not streamed:
        return json_response(whole_text(text))
    response = web.StreamResponse(headers=_STREAM_HEADERS)
    await response.prepare(request)
    await response.write(_event_bytes(whole_text(text)))
    return response


async def stream(request: web.Request, turn: Turn) -> tuple[web.StreamResponse, bool]:
    """Sends the events; the flag tells whether all of them went out before the client left."""
    response = web.StreamResponse(headers=_STREAM_HEADERS)
    try:
        await response.prepare(request)
        async with aclosing(turn.events()) as events:
            async for batch in events:
                await response.write(b"".join(map(_event_bytes, batch)))
        await response.write_eof()
    except Dropped:
        reset(request)
        return response, False
    except asyncio.CancelledError:
        turn.store_what_was_said()
        raise
    except ConnectionError:
        turn.store_what_was_said()
        return response, False
    return response, True


def _event_bytes(event: JSON) -> bytes:
    return b"data: %b\n\n" % to_bytes(event)


async def _silence() -> None:
    await asyncio.get_running_loop().create_future()
