"""A Stream alone, with a recording stand-in for the inbox, for tests of the connection itself."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, MutableMapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import structlog

from dingbridge.dingtalk.stream import Accept, Backoff, Stream, Timing
from dingbridge.model import Secret
from dingbridge.net import Network
from dingbridge.sim.gateway import Connection, Gateway, Sent
from tests.house import until

# Seconds become tenths: the same code, shorter waits. A black hole is noticed far later than any test takes.
QUICK = Timing(
    open_s=0.3,
    heartbeat_s=30.0,
    leave_s=0.3,
    close_s=1.0,
    backoff=Backoff(base_s=0.02, factor=1.5, cap_s=0.1, rejected_s=0.1, steady_s=30.0),
)

Event = MutableMapping[str, Any]


class Bot:
    """What the Stream hands over, in order: `messages` by msgId, `frames` by frame id, `events` with their times."""

    def __init__(
        self,
        gateway: Gateway,
        *,
        accept: Accept | None = None,
        timing: Timing = QUICK,
        network: Network | None = None,
        client_secret: str | None = None,
        api_base: str | None = None,
    ) -> None:
        self.gateway = gateway
        self.messages: list[str] = []
        self.frames: list[str] = []
        self.events: list[tuple[float, str]] = []
        self._accept = accept
        self.stream = Stream(
            client_id=gateway.client_id,
            client_secret=Secret(client_secret or gateway.client_secret),
            api_base=api_base or gateway.url,
            network=network or Network(),
            accept=self._take,
            on_event=lambda name: self.events.append((time.monotonic(), name)),
            timing=timing,
        )
        self.running: asyncio.Task[None]

    @property
    def counted(self) -> Counter[str]:
        return Counter(name for _, name in self.events)

    def times(self, name: str) -> list[float]:
        return [at for at, one in self.events if one == name]

    async def count(self, name: str, times: int, timeout_s: float = 20.0) -> None:
        """As soon as this was counted so often."""
        await until(lambda: self.counted[name] >= times, timeout_s, f"{name} {times} times")

    async def _take(self, data: dict[str, Any], frame_id: str) -> None:
        if self._accept is not None:
            await self._accept(data, frame_id)
        self.messages.append(str(data.get("msgId", "")))
        self.frames.append(frame_id)

    async def up(self) -> Connection:
        """The live connection, as soon as both sides know it."""
        connection = await self.gateway.connected()
        await until(lambda: self.stream.state.connected, what="connected")
        return connection

    async def works(self, **saying: Any) -> Sent:
        """A message comes through and is acknowledged with 200."""
        sent = await self.gateway.say(**saying)
        ack = await self.gateway.acked(sent)
        assert ack.code == 200
        assert self.messages.count(sent.msg_id) == 1
        return sent


@asynccontextmanager
async def running(bot: Bot) -> AsyncIterator[Bot]:
    """The Stream runs, is closed at the end, and leaves nothing behind."""
    bot.running = asyncio.create_task(bot.stream.run())
    try:
        yield bot
    finally:
        async with asyncio.timeout(20):
            await bot.stream.close()
            await bot.running


@asynccontextmanager
async def linked(gateway: Gateway, **how: Any) -> AsyncIterator[tuple[Bot, Connection]]:
    """A running Stream whose link is up, and that link as the gateway sees it."""
    async with running(Bot(gateway, **how)) as bot:
        yield bot, await bot.up()


@contextmanager
def told(*secrets: str) -> Iterator[list[Event]]:
    """The log's events; none of these texts may be in any of them, nor a ticket."""
    with structlog.testing.capture_logs() as events:
        yield events
    whole = repr(events)
    for secret in secrets:
        assert secret not in whole
    assert "ticket=" not in whole


def names(events: list[Event]) -> list[str]:
    """What an operator sees of the link, in order: the debug level is not shown."""
    return [
        str(event["event"])
        for event in events
        if event["log_level"] != "debug" and str(event["event"]).startswith("stream.")
    ]


async def next_connection(gateway: Gateway, after: Connection, timeout_s: float = 10.0) -> Connection:
    """The live connection that was accepted after this one."""
    position = gateway.accepted.index(after)
    return await gateway.until(
        lambda: next((c for c in gateway.accepted[position + 1 :] if c.state.value == "live"), None), timeout_s
    )
