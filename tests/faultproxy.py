"""A TCP proxy between any two parts, whose faults are switched while it runs.

They hold per direction, also for connections that are open. They are those of toxiproxy (latency, bandwidth, slicer,
limit_data, timeout, reset_peer, slow_close, down), and a half-close, a black hole, and a path that delivers late.

    async with FaultProxy(gateway.port) as proxy:         # at proxy.url
        proxy.set(down=Way(end=End(How.RESET, after_bytes=100)))
        proxy.heal()
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

CHUNK = 16_384
BUFFERED = 256 * 1024  # bytes a direction keeps; beyond them the sender is not read any more
POLL_S = 0.01
TRICKLE_S = 0.02  # a limited bandwidth passes as much at once as it would in this time
CLOSE_S = 1.0


class How(StrEnum):
    """How a direction ends. RESET and CLOSE end the whole connection, FIN only this half; SILENCE ends none."""

    RESET = "reset"
    CLOSE = "close"
    FIN = "fin"
    SILENCE = "silence"


@dataclass(frozen=True, slots=True)
class End:
    """After so many bytes, counted from the switching on, nothing passes; after_s later it ends as `how` says."""

    how: How
    after_bytes: int = 0
    after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Way:
    """What one direction does to what passes; by default nothing.

    jitter_s: drawn for each chunk, around latency_s; order is kept. slices: least and most bytes of one write.
    hold: everything waits for the fault's end, as TCP repeats what was lost. close_delay_s: a FIN comes so much later.
    """

    latency_s: float = 0.0
    jitter_s: float = 0.0
    bytes_per_s: float = 0.0
    slices: tuple[int, int] = (0, 0)
    slice_gap_s: float = 0.0
    hold: bool = False
    close_delay_s: float = 0.0
    end: End | None = None


CLEAN = Way()
RESET = Way(end=End(How.RESET))
BLACK_HOLE = Way(end=End(How.SILENCE))


class FaultProxy:
    """127.0.0.1:`port` in front of a port of this machine.

    What vanished is missing: a connection that lost bytes stays silent after `heal()`, as behind a router that has
    forgotten it. struck: how often each fault acted, by the names of `Way` and `How`, and "vanished" bytes.
    """

    def __init__(self, to_port: int, *, up: Way = CLEAN, down: Way = CLEAN, seed: int = 1) -> None:
        self.up, self.down = up, down
        self.struck: Counter[str] = Counter()
        self.accepted = 0
        self.switched = 0
        self.draw = random.Random(seed)
        self._to_port = to_port
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def open(self) -> int:
        """Connections that are up."""
        return len(self._connections)

    async def __aenter__(self) -> Self:
        # Bound and not listening: the port stays ours while connections are refused.
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._reserved.bind(("127.0.0.1", 0))
        self.port: int = self._reserved.getsockname()[1]
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop_listening()
        self._reserved.close()
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        bugs = [one for one in results if isinstance(one, Exception)]
        if bugs:
            raise ExceptionGroup("the proxy's own", bugs)

    def set(self, *, up: Way = CLEAN, down: Way = CLEAN) -> None:
        """From now on, for the connections that are open, too. `up` is towards the port behind."""
        self.up, self.down = up, down
        self.switched += 1
        for connection in self._connections:
            connection.stir()

    def both(self, way: Way) -> None:
        self.set(up=way, down=way)

    def heal(self) -> None:
        self.set()

    def cut(self) -> None:
        """RST to both sides of each connection."""
        for connection in list(self._connections):
            connection.reset()

    def refuse(self) -> None:
        """As a server that is stopped: open connections are cut, new ones refused until `listen()`."""
        self._stop_listening()
        self.cut()

    async def listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, reuse_port=True)

    def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or task.exception() is None:
            self._tasks.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far = await asyncio.open_connection("127.0.0.1", self._to_port)
        except OSError:
            reset(writer)
            return
        except BaseException:
            writer.transport.abort()
            raise
        connection = _Connection(self, (reader, writer), far)
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)


Peer = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Connection:
    """Both directions of one connection, until both have ended or it is reset."""

    def __init__(self, proxy: FaultProxy, near: Peer, far: Peer) -> None:
        self._writers = (near[1], far[1])
        self._pipes = (_Pipe(proxy, self, "up", near[0], far[1]), _Pipe(proxy, self, "down", far[0], near[1]))
        self.over = False

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                reading = [group.create_task(pipe.read()) for pipe in self._pipes]
                await asyncio.wait([group.create_task(pipe.pump()) for pipe in self._pipes])
                for task in reading:
                    task.cancel()
            await self._close()
        finally:
            for writer in self._writers:
                writer.transport.abort()

    async def _close(self) -> None:
        """What was passed on is still written."""
        for writer in self._writers:
            writer.close()
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await writer.wait_closed()

    def stir(self) -> None:
        for pipe in self._pipes:
            pipe.stir()

    def reset(self) -> None:
        for writer in self._writers:
            reset(writer)
        self.end()

    def end(self) -> None:
        self.over = True
        self.stir()


@dataclass(slots=True)
class _Chunk:
    """Read at a time of the loop; no data is a FIN, None a RST. draw: -1 to 1, for the jitter. at: passed so far."""

    data: bytes | None
    read_at: float
    draw: float
    at: int = 0


class _Pipe:
    """One direction of one connection: reads ahead, and passes on as the proxy's `Way` says at that moment."""

    def __init__(
        self,
        proxy: FaultProxy,
        connection: _Connection,
        name: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._proxy = proxy
        self._connection = connection
        self._name = name
        self._reader = reader
        self._writer = writer
        self._way = CLEAN
        self._switched = -1
        self._chunks: deque[_Chunk] = deque()
        self._size = 0
        self._passed = 0  # bytes since the way was switched
        self._free_at = 0.0  # when a limited bandwidth or the gap of slices lets the next byte through
        self._reached_at: float | None = None
        self._broken = False  # bytes are missing: nothing more may pass
        self._half_closed = False
        self._done = False
        self._stirred = asyncio.Event()
        self._room = asyncio.Event()

    def stir(self) -> None:
        self._stirred.set()

    async def read(self) -> None:
        try:
            while data := await self._reader.read(CHUNK):
                self._put(data)
                while self._size > BUFFERED:
                    self._room.clear()
                    await self._room.wait()
            self._put(b"")
        except OSError:
            self._put(None)

    async def pump(self) -> None:
        while not (self._done or self._connection.over):
            self._stirred.clear()
            wait_s = self._due_in()
            if wait_s is not None and wait_s <= 0:
                self._act()
                await asyncio.sleep(0)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._stirred.wait()

    def _put(self, data: bytes | None) -> None:
        self._chunks.append(_Chunk(data, _now(), self._proxy.draw.uniform(-1, 1)))
        self._size += len(data or b"")
        self.stir()

    def _due_in(self) -> float | None:
        """Seconds until there is something to do; None: nothing, until something comes or the way is switched."""
        way = self._look()
        if way.end is not None and self._passed >= way.end.after_bytes:
            self._vanish()
            return self._end_in(way.end)
        if self._broken or self._half_closed:
            self._vanish()
        if not self._chunks:
            return None
        if way.hold:
            self._proxy.struck["hold"] += 1
            return None
        if self._writer.transport.get_write_buffer_size() > BUFFERED:
            return POLL_S
        chunk = self._chunks[0]
        late_s = way.latency_s + way.jitter_s * chunk.draw + (way.close_delay_s if chunk.data == b"" else 0.0)
        return max(chunk.read_at + late_s, self._free_at) - _now()

    def _end_in(self, end: End) -> float | None:
        self._reached_at = _now() if self._reached_at is None else self._reached_at
        if end.how is How.SILENCE or (end.how is How.FIN and self._half_closed):
            return None
        return self._reached_at + end.after_s - _now()

    def _look(self) -> Way:
        """The way as it is now; what an end counts begins anew when it was switched."""
        if self._switched != self._proxy.switched:
            self._switched = self._proxy.switched
            self._way = self._proxy.up if self._name == "up" else self._proxy.down
            self._passed, self._reached_at, self._free_at = 0, None, 0.0
        return self._way

    def _vanish(self) -> None:
        """What was read is dropped: an end is never seen any more, unless this half has had its own."""
        while self._chunks:
            chunk = self._chunks.popleft()
            self._broken = True
            self._proxy.struck["vanished"] += len(chunk.data or b"") - chunk.at
            if not chunk.data and self._half_closed:
                self._done = True
                self.stir()
        self._size = 0
        self._room.set()

    def _act(self) -> None:
        if self._way.end is not None and self._reached_at is not None:
            self._finish(self._way.end.how)
            return
        chunk = self._chunks[0]
        if chunk.data is None or self._writer.is_closing():
            self._connection.reset()
        elif not chunk.data:
            self._chunks.popleft()
            if self._way.close_delay_s:
                self._proxy.struck["close_delay"] += 1
            self._close_half()
            self._done = True
        else:
            self._pass_on(chunk, chunk.data)

    def _pass_on(self, chunk: _Chunk, data: bytes) -> None:
        way, struck, now = self._way, self._proxy.struck, _now()
        size = len(data) - chunk.at
        if way.latency_s or way.jitter_s:
            struck["latency"] += 1
        if way.slices[1]:
            struck["slices"] += 1
            size = min(size, self._proxy.draw.randint(*way.slices))
            self._free_at = now + way.slice_gap_s
        if way.bytes_per_s:
            struck["bandwidth"] += 1
            size = min(size, max(1, int(way.bytes_per_s * TRICKLE_S)))
            self._free_at = max(now, self._free_at) + size / way.bytes_per_s
        if way.end is not None:
            size = min(size, way.end.after_bytes - self._passed)
        self._writer.write(data[chunk.at : chunk.at + size])
        chunk.at += size
        self._passed += size
        self._size -= size
        if chunk.at == len(data):
            self._chunks.popleft()
        if self._size <= BUFFERED:
            self._room.set()

    def _finish(self, how: How) -> None:
        self._proxy.struck[how] += 1
        match how:
            case How.RESET:
                self._connection.reset()
            case How.CLOSE:
                self._connection.end()
            case _:
                self._half_closed = True
                self._close_half()

    def _close_half(self) -> None:
        try:
            self._writer.write_eof()
        except OSError:  # the receiver has left with a RST
            self._connection.reset()


def reset(writer: asyncio.StreamWriter) -> None:
    """RST instead of FIN; what has not been written yet is lost."""
    if not writer.is_closing():
        endpoint = writer.get_extra_info("socket")
        endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _now() -> float:
    return asyncio.get_running_loop().time()
