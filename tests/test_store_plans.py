"""What the store costs does not grow with what is stored: every statement finds its rows by an index."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dingbridge.model import Answer, Outcome, Task, Verdict
from dingbridge.store.intake import Limits
from dingbridge.store.pages import AnswerPages
from dingbridge.store.sqlite import SQLiteStore
from tests.stores import START, Clock, finish, head, message, opened

STATEMENTS = ("SELECT", "UPDATE", "INSERT", "DELETE")
# Each of these holds only what is unfinished, leased, suspected or given up.
SMALL = (
    " USING INDEX message_open",
    " USING INDEX lane_leased",
    " USING INDEX lane_suspect",
    "INDEX message_dead",
    "INDEX message_depth",
)
Work = Callable[[SQLiteStore], Awaitable[object]]


async def _ask(store: SQLiteStore) -> None:
    await store.put(message("m1", webhook="https://a/1"))
    await store.put(message("m1", webhook="https://a/2"))
    await store.put(message("new"), Task.COMMAND, fresh=True)


async def _work(store: SQLiteStore) -> None:
    placed = await store.put(message("m1"))
    await store.claim_notice(placed.row)
    delivery = await head(store)
    await store.claim_trouble(delivery)
    await store.later(delivery, 0.0)
    await finish(store, await head(store))
    assert (await store.lease(2)).deliveries == []


async def _suspect(store: SQLiteStore) -> None:
    placed = await store.put(message("m1"))
    await store._engine.run(lambda c: c.execute("UPDATE lane SET suspect = 1 WHERE key = ?", (placed.lane,)).rowcount)
    delivery = await head(store)
    assert (await store.lease(1)).deliveries == []
    await store.dead(delivery, Outcome.DEAD, "")


async def _cancel(store: SQLiteStore) -> None:
    await store.put(message("m1"))
    await store.put(message("m2"))
    await store.cancel(message("x"), before=9)


async def _look(store: SQLiteStore) -> None:
    await store.put(message("m1"))
    await store.waiting(message("m1"))
    await store.waiting()
    await store.depth()
    await store.webhook("ding1", "c1")


async def _release(store: SQLiteStore) -> None:
    await store.put(message("m1"))
    await head(store)
    await store.release_all()


async def _forget(store: SQLiteStore) -> None:
    await store.forget()


async def _page(store: SQLiteStore) -> None:
    pages = AnswerPages(store._engine, store._clock, ttl_s=60.0)
    placed = await store.put(message("m1"))
    await store.answered(await head(store), Answer("答"), Outcome.ANSWERED)
    assert await pages.vote(await pages.issue(placed.row), Verdict.GOOD)


@asynccontextmanager
async def statements(store: SQLiteStore) -> AsyncIterator[list[str]]:
    """What the writer's connection is asked to do meanwhile."""
    found: list[str] = []
    await store._engine.run(lambda c: c.set_trace_callback(found.append))
    yield found
    await store._engine.run(lambda c: c.set_trace_callback(None))


async def plans(store: SQLiteStore, asked: list[str]) -> dict[str, list[str]]:
    def explain(c: sqlite3.Connection) -> dict[str, list[str]]:
        return {one: [step for *_, step in c.execute(f"EXPLAIN QUERY PLAN {one}")] for one in asked}

    return await store._engine.run(explain)


@pytest.mark.parametrize("work", [_ask, _work, _suspect, _cancel, _look, _release, _forget, _page])
async def test_nothing_reads_a_whole_table(tmp_path: Path, work: Work) -> None:
    """Messages and lanes are found by an index, or walked in one that holds only what is unfinished."""
    async with opened(tmp_path / "x.db", Clock(), Limits()) as store:
        async with statements(store) as asked:
            await work(store)
        asked = [one for one in asked if one.lstrip().startswith(STATEMENTS)]
        assert asked
        for statement, steps in (await plans(store, asked)).items():
            scans = [
                step
                for step in steps
                if step.startswith(("SCAN message", "SCAN lane", "SCAN m", "SCAN l", "SCAN p", "SCAN v"))
            ]
            assert [step for step in scans if not step.endswith(SMALL)] == [], statement


@pytest.mark.parametrize("work", [_ask, _work, _cancel])
async def test_the_way_of_a_message_walks_through_nothing(tmp_path: Path, work: Work) -> None:
    """Taking in, leasing, writing, ending and cancelling look at no other message than those concerned."""
    async with opened(tmp_path / "x.db", Clock(), Limits()) as store:
        async with statements(store) as asked:
            await work(store)
        asked = [one for one in asked if one.lstrip().startswith(STATEMENTS)]
        for statement, steps in (await plans(store, asked)).items():
            scans = [step for step in steps if re.search("SCAN(?! CONSTANT ROW)", step)]
            assert [step for step in scans if " lane_" not in step] == [], statement


async def _steps(store: SQLiteStore, clock: Clock) -> dict[str, int]:
    """How many instructions of SQLite's machine each step of a message takes."""
    taken = 0

    def count() -> int:
        nonlocal taken
        taken += 1
        return 0

    found = {}
    await store._engine.run(lambda c: c.set_progress_handler(count, 1))

    async def measured(name: str, work: Awaitable[object]) -> None:
        nonlocal taken
        taken = 0
        await work
        found[name] = taken

    await measured("put", store.put(message("probe", person="u-probe")))
    await measured("again", store.put(message("probe", person="u-probe")))
    await store.put(message("probe2", person="u-probe"))
    clock.tick()
    lanes = await store.lease(1)
    delivery = lanes.deliveries[0]
    await measured("lease", store.lease(1))
    await measured("answered", store.answered(delivery, Answer("答"), Outcome.ANSWERED))
    await measured("later", store.later(delivery, 5.0))
    clock.tick(60)
    await measured("cancel", store.cancel(message("x", person="u-probe"), before=10**9))
    await store._engine.run(lambda c: c.set_progress_handler(None, 0))
    return found


async def _filled(store: SQLiteStore, waiting: int, finished: int) -> None:
    for number in range(waiting):
        await store.put(message(f"w{number}", person=f"u{number}"))

    def plant(c: sqlite3.Connection) -> None:
        c.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
            " INSERT INTO message (robot, key, lane, conversation, person, task, state, body, webhook, received_at,"
            " finished_at) SELECT 'ding1', 'f' || i, 'gone' || (i % 50), 'c1', 'u' || (i % 50), 'question', 'done', '',"
            " '', ?, ? FROM n",
            (finished, START - 3600, START - 3600),
        )

    await store._engine.run(plant)


async def test_a_message_costs_the_same_in_a_full_store(tmp_path: Path) -> None:
    """With a hundred times as many finished and waiting messages no step takes more instructions, but a few."""
    counts = []
    for size in (10, 1000):
        clock = Clock()
        async with opened(tmp_path / f"{size}.db", clock, Limits()) as store:
            await _filled(store, waiting=size, finished=20 * size)
            counts.append(await _steps(store, clock))
    small, large = counts
    assert set(small) == {"put", "again", "lease", "answered", "later", "cancel"}
    assert min(small.values()) > 10
    assert {name: count for name, count in large.items() if count > 1.5 * small[name]} == {}
