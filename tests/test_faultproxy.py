"""The fault proxy itself: each fault alone, over real sockets, in front of a server that echoes."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Self

import pytest

from tests.faultproxy import BLACK_HOLE, CLEAN, RESET, End, FaultProxy, How, Way, reset
from tests.house import until

TEXT = "年假有几天？😀" * 20
SENT = TEXT.encode()


@dataclass
class Echo:
    """Sends back what it gets, until its client half-closes; `got` and `pieces` are what it read. `ends` per client."""

    got: bytearray = field(default_factory=bytearray)
    pieces: list[bytes] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    greeting: bytes = b""
    reads: bool = True
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self.writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        writer.write(self.greeting)
        if not self.reads:
            writer.transport.pause_reading()  # type: ignore[attr-defined] # a socket's transport has it
            return
        try:
            while data := await reader.read(65_536):
                self.got += data
                self.pieces.append(data)
                writer.write(data)
            self.ends.append("fin")
            writer.close()
        except ConnectionError:
            self.ends.append("rst")


@dataclass
class Client:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def echoed(self, data: bytes) -> bytes:
        """What comes back for it."""
        self.writer.write(data)
        return await self.read(len(data))

    async def read(self, size: int) -> bytes:
        async with asyncio.timeout(10):
            return await self.reader.readexactly(size)

    async def rest(self) -> bytes:
        """Everything up to the FIN. Raises ConnectionResetError at a RST."""
        async with asyncio.timeout(10):
            return await self.reader.read()

    async def hears_nothing(self, for_s: float = 0.15) -> bool:
        """TCP is up, and nothing comes."""
        try:
            async with asyncio.timeout(for_s):
                await self.reader.read(1)
        except TimeoutError:
            return True
        return False


@dataclass
class Line:
    echo: Echo
    proxy: FaultProxy

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.proxy.port)
        try:
            yield Client(reader, writer)
        finally:
            writer.transport.abort()
            with suppress(ConnectionError):
                await writer.wait_closed()


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    async with Echo() as echo, FaultProxy(echo.port) as proxy:
        yield Line(echo, proxy)


async def test_without_a_fault_everything_passes(line: Line) -> None:
    """Bytes, a FIN and what follows it the other way arrive as they were sent."""
    async with line.client() as client:
        assert await client.echoed(SENT) == SENT
        client.writer.write(SENT)
        client.writer.write_eof()
        assert await client.rest() == SENT
    assert line.echo.ends == ["fin"]
    await until(lambda: not line.proxy.open)
    assert not line.proxy.struck


async def test_a_clients_reset_is_passed_on(line: Line) -> None:
    """The server sees a RST as a RST."""
    async with line.client() as client:
        await client.echoed(b"x")
        reset(client.writer)
        await until(lambda: line.echo.ends)
    assert line.echo.ends == ["rst"]


async def test_a_server_that_is_down(line: Line) -> None:
    """Where nobody listens behind it, the client's connection is ended at once."""
    line.echo._server.close()
    async with line.client() as client:
        with pytest.raises(ConnectionResetError):
            await client.rest()


async def test_a_reader_that_does_not_read_is_waited_for(line: Line) -> None:
    """The proxy keeps a bounded part of what its receiver does not take; the sender feels it."""
    line.echo.reads = False
    async with line.client() as client:
        client.writer.write(b"x" * (64 * 1024 * 1024))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await client.writer.drain()
        (connection,) = line.proxy._connections
        assert connection._pipes[0]._size <= 1024 * 1024


async def test_latency(line: Line) -> None:
    """Each way costs its latency, and a row of chunks costs it once, not once each."""
    line.proxy.set(up=Way(latency_s=0.1), down=Way(latency_s=0.2))
    async with line.client() as client:
        began = time.monotonic()
        assert await client.echoed(b"x") == b"x"
        assert time.monotonic() - began >= 0.3
        began = time.monotonic()
        for _ in range(50):
            client.writer.write(b"x")
            await asyncio.sleep(0.002)
        await client.read(50)
        assert time.monotonic() - began < 50 * 0.1
    assert line.proxy.struck["latency"]


async def test_jitter_keeps_the_order(line: Line) -> None:
    """Delays differ from chunk to chunk, and none overtakes another."""
    line.proxy.set(up=Way(latency_s=0.02, jitter_s=0.02))
    async with line.client() as client:
        delays = []
        for number in range(20):
            began = time.monotonic()
            assert await client.echoed(bytes([number])) == bytes([number])
            delays.append(time.monotonic() - began)
        for number in range(20):
            client.writer.write(bytes([number]))
            await asyncio.sleep(0.001)
        assert await client.read(20) == bytes(range(20))
    assert max(delays) - min(delays) > 0.01


async def test_bandwidth(line: Line) -> None:
    """So many bytes a second and no more, from the first byte on."""
    line.proxy.set(down=Way(bytes_per_s=5_000))
    async with line.client() as client:
        began = time.monotonic()
        client.writer.write(b"x" * 2_000)
        await client.read(1_000)
        middle = time.monotonic() - began
        await client.read(1_000)
        assert middle >= 0.15
        assert time.monotonic() - began >= 0.35
    assert len(line.echo.pieces) == 1


async def test_slicing(line: Line) -> None:
    """Characters, and whatever else has more than one byte, come in pieces of one to three bytes."""
    line.proxy.set(up=Way(slices=(1, 3), slice_gap_s=0.001))
    async with line.client() as client:
        assert await client.echoed(SENT) == SENT
    assert len(line.echo.pieces) >= len(SENT) / 6
    with pytest.raises(UnicodeDecodeError):
        [piece.decode() for piece in line.echo.pieces]


async def test_reset_at_once(line: Line) -> None:
    """Open connections are reset when it is switched on, new ones when they are made; both sides see it."""
    async with line.client() as old:
        await old.echoed(b"x")
        line.proxy.set(down=RESET)
        with pytest.raises(ConnectionResetError):
            await old.rest()
        async with line.client() as new:
            with pytest.raises(ConnectionResetError):
                await new.rest()
        await until(lambda: line.echo.ends[:1] == ["rst"])
        line.proxy.heal()
        async with line.client() as healed:
            assert await healed.echoed(SENT) == SENT


async def test_reset_after_so_many_bytes(line: Line) -> None:
    """Exactly these bytes arrive, counted from the switching on, then the RST."""
    async with line.client() as client:
        await client.echoed(b"before")
        line.proxy.set(down=Way(end=End(How.RESET, after_bytes=10)))
        client.writer.write(SENT)
        assert await client.read(10) == SENT[:10]
        with pytest.raises(ConnectionResetError):
            await client.rest()
    assert line.proxy.struck["reset"] == 1


async def test_reset_after_a_while(line: Line) -> None:
    """Nothing passes meanwhile."""
    line.proxy.set(up=Way(end=End(How.RESET, after_s=0.2)))
    async with line.client() as client:
        began = time.monotonic()
        client.writer.write(SENT)
        with pytest.raises(ConnectionResetError):
            await client.rest()
        assert time.monotonic() - began >= 0.2
    assert not line.echo.got


async def test_close_after_so_many_bytes(line: Line) -> None:
    """Exactly these bytes arrive, then a FIN, on both sides."""
    line.proxy.set(down=Way(end=End(How.CLOSE, after_bytes=10)))
    async with line.client() as client:
        client.writer.write(SENT)
        assert await client.rest() == SENT[:10]
    await until(lambda: line.echo.ends)
    assert not line.proxy.open


async def test_timeout(line: Line) -> None:
    """Accepted, never forwarded, closed after a while."""
    line.proxy.set(up=Way(end=End(How.CLOSE, after_s=0.2)))
    async with line.client() as client:
        began = time.monotonic()
        client.writer.write(SENT)
        assert await client.rest() == b""
        assert time.monotonic() - began >= 0.2
    assert not line.echo.got
    assert line.proxy.struck["vanished"] == len(SENT)


async def test_a_half_close_by_the_server(line: Line) -> None:
    """The client reads a FIN, and what it writes still arrives; the server's FIN ends it all."""
    async with line.client() as client:
        await client.echoed(b"x")
        line.proxy.set(down=Way(end=End(How.FIN)))
        assert await client.rest() == b""
        client.writer.write(SENT)
        await until(lambda: line.echo.got == b"x" + SENT)
        assert line.proxy.open == 1
        client.writer.close()
        await until(lambda: not line.proxy.open)
    assert line.echo.ends == ["fin"]


async def test_a_half_close_by_the_client(line: Line) -> None:
    """The server reads a FIN after so many bytes, and its answer still arrives."""
    line.proxy.set(up=Way(end=End(How.FIN, after_bytes=10)))
    async with line.client() as client:
        client.writer.write(SENT)
        assert await client.rest() == SENT[:10]
    assert line.echo.ends == ["fin"]


async def test_a_slow_close(line: Line) -> None:
    """Bytes come at once, the FIN later."""
    line.proxy.set(down=Way(close_delay_s=0.2))
    async with line.client() as client:
        began = time.monotonic()
        client.writer.write(SENT)
        client.writer.write_eof()
        await client.read(len(SENT))
        assert await client.rest() == b""
        assert time.monotonic() - began >= 0.2
    assert line.proxy.struck["close_delay"] == 1


@pytest.mark.parametrize(("up", "down"), [(BLACK_HOLE, BLACK_HOLE), (BLACK_HOLE, CLEAN), (CLEAN, BLACK_HOLE)])
async def test_a_black_hole(line: Line, up: Way, down: Way) -> None:
    """What vanishes never comes, one way or both, TCP stays up, and only what lost nothing goes on when it heals."""
    async with line.client() as client, line.client() as idle:
        assert await client.echoed(b"x") == b"x"
        assert await idle.echoed(b"y") == b"y"
        line.proxy.set(up=up, down=down)
        client.writer.write(SENT)
        if up is CLEAN:
            await until(lambda: line.echo.got.endswith(SENT))
        assert await client.hears_nothing()
        assert line.proxy.open == 2
        line.proxy.heal()
        client.writer.write(b"again")
        assert await client.hears_nothing()
        assert await idle.echoed(SENT) == SENT
        async with line.client() as new:
            assert await new.echoed(SENT) == SENT
    assert line.proxy.struck["vanished"] == len(SENT) + len(b"again")
    assert not [end for end in line.echo.ends if end == "fin"]


async def test_silence_after_so_many_bytes(line: Line) -> None:
    """Exactly these bytes arrive, and TCP stays up."""
    line.proxy.set(down=Way(end=End(How.SILENCE, after_bytes=10)))
    async with line.client() as client:
        client.writer.write(SENT)
        assert await client.read(10) == SENT[:10]
        assert await client.hears_nothing()
        assert line.proxy.open == 1


async def test_held_bytes_come_late_and_whole(line: Line) -> None:
    """What is held arrives in order when it heals, with what followed."""
    line.proxy.both(Way(hold=True))
    async with line.client() as client:
        client.writer.write(SENT)
        assert await client.hears_nothing()
        line.proxy.heal()
        assert await client.echoed(b"!") == SENT[:1]
        assert await client.read(len(SENT)) == SENT[1:] + b"!"


async def test_refuse_and_listen(line: Line) -> None:
    """Open connections are cut, new ones refused, and the port is the same afterwards."""
    async with line.client() as old:
        await old.echoed(b"x")
        line.proxy.refuse()
        with pytest.raises(ConnectionResetError):
            await old.rest()
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", line.proxy.port)
    with pytest.raises(OSError, match="in use"), socket.socket() as other:
        other.bind(("127.0.0.1", line.proxy.port))
    await line.proxy.listen()
    async with line.client() as client:
        assert await client.echoed(SENT) == SENT


async def test_faults_add_up(line: Line) -> None:
    """Latency, bandwidth and slices of one direction hold together, before its end."""
    line.proxy.set(up=Way(latency_s=0.1, bytes_per_s=20_000, slices=(1, 3), end=End(How.CLOSE, after_bytes=300)))
    async with line.client() as client:
        began = time.monotonic()
        client.writer.write(SENT)
        await until(lambda: line.echo.ends)
        assert time.monotonic() - began >= 0.1
    assert line.echo.got == SENT[:300]
