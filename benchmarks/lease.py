"""What one message costs in an empty and in a full store, on both databases: `python -m benchmarks.lease`."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from benchmarks.table import Bound, Figure, render
from dingbridge.model import Answer, Conversation, ConversationKind, Message, MessageKind, Outcome, Person, Secret
from dingbridge.store.codec import encode_message
from dingbridge.store.engine import Connection
from dingbridge.store.intake import Limits
from dingbridge.store.postgres import PostgresStore
from dingbridge.store.postgres_engine import address
from dingbridge.store.sqlite import SQLiteStore
from dingbridge.store.store import Store
from tests.postgres import Server, Unavailable

AT_A_TIME = 50_000
MESSAGE = Message(
    id="m",
    robot="ding1",
    conversation=Conversation("c1", ConversationKind.GROUP),
    sender=Person("u1"),
    kind=MessageKind.TEXT,
    text="年假有几天？",
    sent_at=datetime.fromtimestamp(1_800_000_000, UTC),
)


@dataclass(frozen=True, slots=True)
class Size:
    """stored: messages that have ended. waiting: lanes with one message each."""

    stored: int
    waiting: int


SMALL, FULL, QUICK = Size(1_000, 1_000), Size(1_000_000, 10_000), Size(50_000, 5_000)


def fill(c: Connection, size: Size, first: int, *, now: float, trail: str = "") -> None:
    """Up to AT_A_TIME of the messages from number `first` on, as they stand after days of work."""
    last = min(first + AT_A_TIME, size.stored)
    c.execute(
        "WITH RECURSIVE n(i) AS (SELECT CAST(? AS integer) UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?),"
        " who(i, w) AS (SELECT i, i - i / 5000 * 5000 FROM n)"  # of five thousand
        " INSERT INTO message (robot, key, lane, conversation, person, task, state, outcome, body, webhook,"
        " received_at, finished_at, code, trail) SELECT 'ding1', 'f' || i, 'gone' || w, 'c' || w,"
        " 'u' || w, 'question', 'done', 'answered', '', '', ? - i, ? - i, 'C' || i, ? FROM who",
        (first, last, now, now, trail),
    )


def wait(c: Connection, size: Size, *, now: float) -> None:
    """Lanes of one message each, all due."""
    c.execute(
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?)"
        " INSERT INTO message (robot, key, lane, conversation, person, task, state, body, webhook, received_at, code)"
        " SELECT 'ding1', 'w' || i, 'lane' || i, 'c' || i, 'p' || i, 'question', 'ready', ?, '', ?, 'W' || i FROM n",
        (size.waiting, encode_message(MESSAGE), now),
    )
    c.execute(
        "INSERT INTO lane (key, head, due, express) SELECT lane, id, ?, FALSE FROM message WHERE finished_at IS NULL",
        (now,),
    )


async def filled(store: Store, size: Size, *, trail: str = "x" * 300) -> None:
    now = time.time() - 60
    for first in range(0, size.stored, AT_A_TIME):
        await store._engine.run(lambda c, first=first: fill(c, size, first, now=now, trail=trail))  # type: ignore[misc]  # noqa: SLF001 - rows that nobody could put in so fast
    await store._engine.run(lambda c: wait(c, size, now=now))  # noqa: SLF001 - as above
    if isinstance(store, PostgresStore):  # as its autovacuum would in a minute
        await store._engine.run(lambda c: c.execute("ANALYZE").rowcount)  # noqa: SLF001 - as above


async def cycle(store: Store) -> float:
    """Milliseconds of a lease, an answer and an end, one after the other."""
    began = time.perf_counter()
    (delivery,) = (await store.lease(1)).deliveries
    await store.answered(delivery, Answer("五天"), Outcome.ANSWERED, sending=True)
    await store.done(delivery, Outcome.ANSWERED)
    return (time.perf_counter() - began) * 1000


async def figures(folder: Path, full: Size, count: int, tell: Callable[[str], None]) -> list[Figure]:
    """For each database the median in a full store, beside that in an almost empty one of the same run."""
    found = [await _compared("SQLite", lambda n: _sqlite(folder / f"{n}.db"), full, count, tell)]
    try:
        server = Server()
    except Unavailable as reason:
        tell(str(reason))
        return found
    with server:
        url = server.create_database()
        where = [address(Secret(url), Secret(), f"bench{n}") for n in range(2)]
        found.append(
            await _compared(
                "PostgreSQL",
                lambda n: PostgresStore(where[n], folder / f"pg{n}", clock=time.time, limits=Limits(0, 0)),
                full,
                count,
                tell,
            )
        )
    return found


def _sqlite(path: Path) -> Store:
    return SQLiteStore(path, clock=time.time, limits=Limits(0, 0))


async def _compared(
    name: str, make: Callable[[int], Store], full: Size, count: int, tell: Callable[[str], None]
) -> Figure:
    async with AsyncExitStack() as stack:
        stores = [make(0), make(1)]
        for store, size in zip(stores, (SMALL, full), strict=True):
            tell(f"{name}: {size.stored:,} stored, {size.waiting:,} waiting")
            await store.open()
            stack.push_async_callback(store.close)
            await filled(store, size)
        runs: list[list[float]] = [[], []]
        for number in range(10 + count):  # taking turns: what else the machine does meets both
            for run, store in zip(runs, stores, strict=True):
                took_ms = await cycle(store)
                if number >= 10:
                    run.append(took_ms)
    small, large = ([median(run)] for run in runs)
    title = f"{name}: lease + answer + end, {full.stored:,} stored, {full.waiting:,} waiting, p50"
    return Figure(title, "ms", large, f"{SMALL.stored:,} stored", small, Bound(1.5, of_baseline=True))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lease", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="50 000 stored instead of a million")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dingbridge-bench-") as folder:
        found = asyncio.run(
            figures(Path(folder), QUICK if options.quick else FULL, 300, lambda text: print(text, file=sys.stderr))  # noqa: T201 - progress
        )
    print(render(found))  # noqa: T201 - the result
    return 0


if __name__ == "__main__":
    sys.exit(main())
