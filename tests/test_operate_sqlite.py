"""What an operator's verbs ask of an SQLite file: one of before, its indexes, its locks."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from dingbridge.model import trace_code
from dingbridge.store import operate
from dingbridge.store.operate import Row
from dingbridge.store.schema import MIGRATIONS
from dingbridge.store.sqlite import SQLiteStore
from dingbridge.store.store import Store
from dingbridge.trail import Step
from tests.stores import Clock, message, opened, rows


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    """An open one."""
    async with opened(tmp_path / "x.db", Clock()) as one:
        yield one


async def seen(store: Store, key: str) -> Row:
    found = await store.find("ding1", key)
    assert found is not None
    return found


def _old_file(path: Path, *keys: str) -> None:
    """As the first release left it."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"BEGIN; {MIGRATIONS[0]} PRAGMA user_version = 1; COMMIT;")
        for key in keys:
            connection.execute(
                "INSERT INTO message (robot, key, lane, conversation, person, task, state, body, webhook, received_at,"
                " outcome, finished_at) VALUES ('ding1', ?, 'l', 'c', 'u', 'question', 'done', '', '', 1, 'failed', 2)",
                (key,),
            )
        connection.commit()


async def test_a_store_of_the_first_release_is_taken_over(tmp_path: Path) -> None:
    """Its messages get their codes, an empty trail and no cause, and new ones are kept beside them."""
    path = tmp_path / "x.db"
    _old_file(path, "m1", "m/2+==")
    async with opened(path, Clock()) as store:
        for key in ("m1", "m/2+=="):
            found = await seen(store, trace_code("ding1", key))
            assert (found.id, found.steps, found.cause, found.outcome) == (key, (), "", "failed")
            assert not found.retryable
        assert [row.id for row in await store.listed("failed", 9)] == ["m/2+==", "m1"]
        await store.put(message("m3"), steps=[Step(1.5, "received", {})])
        assert [one.name for one in (await seen(store, "m3")).steps] == ["received"]
    assert rows(path, "code")[0]


def test_the_first_migration_is_as_it_was_released() -> None:
    """A released step is never edited: files of that version exist."""
    assert hashlib.sha256(" ".join(MIGRATIONS[0].split()).encode()).hexdigest()[:16] == "0bfd4bf380b1f107"


async def test_finding_and_listing_read_no_whole_table(store: SQLiteStore) -> None:
    """By index, however many messages there are."""
    found, listed = "code = 'x' OR (robot = 'r' AND key = 'x') ORDER BY id DESC", operate._WHERE["failed"]
    plans = {
        f"SELECT id FROM message WHERE {found} LIMIT 1": "message_code",
        f"SELECT id FROM message WHERE {listed} ORDER BY {operate._ORDER['failed']} LIMIT 9": "message_failed",
    }
    for query, index in plans.items():
        lines = await store._engine.run(lambda c, q=query: [r[3] for r in c.execute(f"EXPLAIN QUERY PLAN {q}")])  # type: ignore[misc]
        assert any(index in line for line in lines), lines
        assert not any(line.startswith("SCAN") and "USING" not in line for line in lines), lines


async def test_asking_whether_the_store_is_in_use_leaves_its_locks(store: SQLiteStore) -> None:
    """In the daemon's own process: a POSIX lock goes with the first descriptor that is closed, whoever's it is."""
    from dingbridge.checks import _sqlite  # noqa: PLC0415 - what `check` asks of it

    await store.put(message("m1"))
    held = posix_locks(store.path)
    assert held
    in_use, _ = _sqlite(store.path)
    assert in_use
    assert posix_locks(store.path) == held


def posix_locks(path: Path) -> set[str]:
    """What this process holds of a file, by `man 5 proc_locks`."""
    found = (line.split(maxsplit=1)[1] for line in Path("/proc/locks").read_text().splitlines())
    mine = f" {os.getpid()} ", f":{path.stat().st_ino} "
    return {line for line in found if line.startswith("POSIX") and all(part in line for part in mine)}
