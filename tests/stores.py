"""What the tests of the store share: a clock moved by hand, messages, opening, and what a crash leaves behind."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dingbridge.errors import StoreUnavailable
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
from dingbridge.store.sqlite import SQLiteStore
from dingbridge.store.store import Store

ROOT = Path(__file__).parent.parent
CHILD = (sys.executable, "-m", "tests.store_child")
UNLIMITED = Limits(waiting_per_lane=0, per_user_per_minute=0)
START = 1_800_000_000.0
Write = Callable[[Store, Delivery], Awaitable[object]]
WRITES: dict[str, Write] = {
    "answered": lambda store, held: store.answered(held, Answer("迟到"), Outcome.ANSWERED),
    "sending": lambda store, held: store.sending(held, 1),
    "later": lambda store, held: store.later(held, 5.0, sent=1, uncertain=True),
    "trouble": lambda store, held: store.claim_trouble(held),
    "done": lambda store, held: store.done(held, Outcome.ANSWERED),
    "dead": lambda store, held: store.dead(held, Outcome.DEAD, "late"),
}


@dataclass(slots=True)
class Clock:
    """Seconds that move only when told."""

    now: float = START

    def __call__(self) -> float:
        return self.now

    def tick(self, seconds: float = 1.0) -> float:
        self.now += seconds
        return self.now


def message(
    key: str,
    *,
    person: str = "u1",
    conversation: str = "c1",
    robot: str = "ding1",
    text: str = "",
    webhook: str = "",
    expires: float | None = None,
) -> Message:
    """A text message; `expires`: the webhook's, in seconds of the clock."""
    return Message(
        id=key,
        robot=robot,
        conversation=Conversation(conversation, ConversationKind.GROUP, "测试群"),
        sender=Person(person, staff_id=person, nick="张三"),
        kind=MessageKind.TEXT,
        text=text or f"问题 {key}",
        sent_at=datetime.fromtimestamp(START, UTC),
        webhook=Secret(webhook),
        webhook_expires=datetime.fromtimestamp(expires, UTC) if expires is not None else None,
    )


@asynccontextmanager
async def opened(
    path: Path, clock: Clock, limits: Limits = UNLIMITED, *, wipe: bool = True
) -> AsyncIterator[SQLiteStore]:
    """An open store, closed in the end."""
    store = SQLiteStore(path, clock=clock, limits=limits, wipe=wipe)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def head(store: Store, *, express: bool = False) -> Delivery:
    """The one message that is due next, leased."""
    (delivery,) = (await store.lease(1, express=express)).deliveries
    return delivery


async def leased(store: Store, count: int = 100, *, express: bool = False) -> list[str]:
    """The keys of what can be leased, in order; the leases are kept."""
    return [delivery.message.id for delivery in (await store.lease(count, express=express)).deliveries]


async def finish(store: Store, delivery: Delivery) -> None:
    """Answer, send and close it, as a worker does."""
    await store.answered(delivery, Answer("答"), Outcome.ANSWERED)
    await store.sending(delivery, 1)
    await store.done(delivery, Outcome.ANSWERED)


def crashed(path: Path, into: Path) -> Path:
    """The files as a power cut would leave them now, while the store is still open."""
    into.mkdir(parents=True)
    for suffix in ("", "-wal"):
        source = path.with_name(path.name + suffix)
        if source.exists():
            shutil.copy(source, into / source.name)
    return into / path.name


def rows(path: Path, columns: str = "*", table: str = "message") -> list[tuple[Any, ...]]:
    """What the file holds, read beside the store."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return connection.execute(f"SELECT {columns} FROM {table} ORDER BY 1").fetchall()


@asynccontextmanager
async def child(path: Path, *steps: str) -> AsyncIterator[Process]:
    """A process that works on a store; killed in the end if it still lives."""
    process = await asyncio.create_subprocess_exec(*CHILD, str(path), *steps, cwd=ROOT, stdin=PIPE, stdout=PIPE)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def bound(c: sqlite3.Connection) -> None:
    """As on a full disk: the file may not grow."""
    (pages,) = c.execute("PRAGMA page_count").fetchone()
    c.execute(f"PRAGMA max_page_count = {pages}").fetchone()


def unbound(c: sqlite3.Connection) -> None:
    c.execute("PRAGMA max_page_count = 1000000").fetchone()


async def make_room(store: Store) -> None:
    """What shares its commit with a write that does not fit is undone with it, so it is tried again."""
    while True:
        try:
            await store._engine.run(unbound)
        except StoreUnavailable:
            await asyncio.sleep(0.02)
        else:
            return
