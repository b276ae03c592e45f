"""What a store costs without the daemon around it: one question after another, and as fast as it goes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from statistics import median
from typing import Any

from dingbridge.model import (
    Answer,
    Conversation,
    ConversationKind,
    Delivery,
    Message,
    MessageKind,
    Outcome,
    Person,
    Secret,
)
from dingbridge.store.intake import Limits

CALLERS = 50
LANES = 200
LIMITS = Limits(waiting_per_lane=1000, per_user_per_minute=100_000)  # counted, and never reached
TEXT = "出差住酒店能报多少？"
ANSWER = Answer("根据《差旅管理办法》第三条，国内出差的住宿标准按城市分为三档。" * 5)


def message(number: int) -> Message:
    return Message(
        id=f"msg{number:012d}",
        robot="dingrobot",
        conversation=Conversation(f"cid{number % LANES}", ConversationKind.SINGLE, ""),
        sender=Person(f"user{number % LANES}", staff_id=f"user{number % LANES}", nick="张三"),
        kind=MessageKind.TEXT,
        text=TEXT,
        sent_at=datetime.now(UTC),
        webhook=Secret(f"https://oapi.dingtalk.com/robot/sendBySession?session={number:032d}"),
        webhook_expires=datetime.fromtimestamp(2_000_000_000, UTC),
    )


class Load:
    """The same for every store; each call has questions of its own."""

    def __init__(self, store: Any, start: int = 0) -> None:
        self._store = store
        self._number = start

    def _next(self, count: int) -> list[Message]:
        self._number += count
        return [message(number) for number in range(self._number - count, self._number)]

    async def puts(self, count: int) -> dict[str, float]:
        """One after another."""
        return {"put": await _each(self._next(count), self._store.put)}

    async def puts_at_once(self, count: int) -> dict[str, float]:
        waiting = iter(self._next(count))

        async def caller() -> None:
            for one in waiting:
                await self._store.put(one)

        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(CALLERS):
                group.create_task(caller())
        return {"puts/s": count / (time.perf_counter() - started)}

    async def one_by_one(self, count: int) -> dict[str, float]:
        async def whole(one: Message) -> None:
            await self._store.put(one)
            (delivery,) = (await self._store.lease(1)).deliveries
            await self._work(delivery)

        return {"message": await _each(self._next(count), whole)}

    async def drain(self) -> dict[str, float]:
        """Everything that is stored, by as many as the daemon's workers."""
        done, started = 0, time.perf_counter()
        running: set[asyncio.Task[None]] = set()
        while True:
            free = 64 - len(running)
            leased = (await self._store.lease(free)).deliveries
            running |= {asyncio.create_task(self._work(one)) for one in leased}
            if not running:
                break
            ended, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
            done += len(ended)
        took = time.perf_counter() - started
        return {"drained/s": done / took, "count": done}

    async def whole(self, count: int) -> dict[str, float]:
        """Put by some, worked on by others at the same time."""
        cpu, started = time.process_time(), time.perf_counter()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.puts_at_once(count))
            done = 0
            while done < count:
                done += int((await self.drain())["count"])
        took = time.perf_counter() - started
        return {"messages/s": count / took, "cpu": (time.process_time() - cpu) / count * 1000}

    async def _work(self, delivery: Delivery) -> None:
        await self._store.answered(delivery, ANSWER, Outcome.ANSWERED, sending=True)
        await self._store.done(delivery, Outcome.ANSWERED)


async def _each(messages: list[Message], what: Callable[[Message], Awaitable[object]]) -> float:
    """The median, in milliseconds."""
    seconds = []
    for one in messages:
        began = time.perf_counter()
        await what(one)
        seconds.append(time.perf_counter() - began)
    return median(seconds) * 1000
