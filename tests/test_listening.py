"""A listener beside the bot: who holds connections open, or begins a request for ever, keeps nobody out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from dingbridge.web.listening import Listener

SEATS = 8


async def _answer(_: web.Request) -> web.Response:
    return web.Response(text="here")


@asynccontextmanager
async def listening(
    listener: Listener, answer: Callable[[web.Request], Awaitable[web.StreamResponse]] = _answer
) -> AsyncIterator[tuple[str, int]]:
    app = web.Application()
    app.router.add_get("/", answer)
    running = asyncio.create_task(listener.serve(app))
    try:
        while listener.address is None:
            await asyncio.sleep(0.005)
        yield listener.address
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "])
async def test_those_who_only_sit_there_give_way(begun: bytes) -> None:
    """Beyond its seats the oldest connection is closed for the newest; whoever really asks is answered."""
    async with listening(Listener("127.0.0.1", 0, name="web", seats=SEATS)) as (host, port):
        sitting = [await asyncio.open_connection(host, port) for _ in range(3 * SEATS)]
        for _, writer in sitting:
            writer.write(begun)
        async with aiohttp.ClientSession() as http, http.get(f"http://{host}:{port}/") as got:
            assert await got.text() == "here"
        async with asyncio.timeout(10):
            for reader, _ in sitting[: 2 * SEATS]:
                with pytest.raises((ConnectionError, EOFError)):
                    await reader.readexactly(1)
        for _, writer in sitting:
            writer.close()


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "])
async def test_a_request_that_never_comes_is_not_waited_for(begun: bytes) -> None:
    """A connection without a whole request is closed after a while."""
    async with listening(Listener("127.0.0.1", 0, name="web", idle_s=0.05)) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(begun)
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        writer.close()


@pytest.mark.parametrize(
    "sent",
    [b"GET / HTTP/1.1\r\nHost: x\r\nno header\r\n\r\n", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n", b"x" * 20_000],
)
async def test_what_is_no_request_is_no_line_of_the_log(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Refused, and whoever sends it a million times fills no disk."""
    async with listening(Listener("127.0.0.1", 0, name="web")) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(sent)
        writer.write_eof()
        async with asyncio.timeout(10):
            answer = await reader.read()
        writer.close()
    assert answer == b"" or b" 400 " in answer.split(b"\r\n")[0]
    assert caplog.records == []


async def test_who_goes_away_is_no_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Whether in the middle of an answer, or by giving way to others before it."""
    begun, go, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        begun.set()
        await go.wait()
        try:
            response = web.StreamResponse()
            await response.prepare(request)
            for _ in range(100):
                await response.write(b"x" * 100_000)
        finally:
            asyncio.get_running_loop().call_soon(ended.set)
        return response

    async with listening(Listener("127.0.0.1", 0, name="web", seats=1), slow) as (host, port):
        _, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await begun.wait()
        _, other = await asyncio.open_connection(host, port)
        writer.transport.abort()
        async with asyncio.timeout(10):
            go.set()
            await ended.wait()
        other.close()
    assert [record.getMessage() for record in caplog.records] == []
