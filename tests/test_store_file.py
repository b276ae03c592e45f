"""The store's file: what is forgotten in it, who may open it, and rows that cannot be read."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest

from dingbridge.errors import StoreLocked, StoreUnavailable
from dingbridge.model import Answer, Outcome
from dingbridge.store.lock import take_lock
from dingbridge.store.schema import MIGRATIONS
from dingbridge.store.sqlite import SQLiteStore
from tests.stores import START, Clock, child, crashed, finish, head, leased, message, opened, rows

DAY_S = 24 * 3600.0
End = Callable[[SQLiteStore], Awaitable[object]]


# -- what is forgotten


async def _done(store: SQLiteStore) -> None:
    delivery = await head(store)
    await store.answered(delivery, Answer("机密的答案"), Outcome.ANSWERED)
    await store.sending(delivery, 1)
    await store.done(delivery, Outcome.ANSWERED)


async def _dead(store: SQLiteStore) -> None:
    delivery = await head(store)
    await store.answered(delivery, Answer("机密的答案"), Outcome.ANSWERED)
    await store.dead(delivery, Outcome.UNDELIVERABLE, "no rung left")


async def _cancelled(store: SQLiteStore) -> None:
    await store.cancel(message("x"), before=99)


@pytest.mark.parametrize("end", [_done, _dead, _cancelled])
@pytest.mark.parametrize("wipe", [True, False])
async def test_texts_are_forgotten_at_the_end(tmp_path: Path, end: End, wipe: bool) -> None:
    """With its end a message's webhook goes, and its texts where nobody will come back to it; unless told otherwise."""
    async with opened(tmp_path / "x.db", Clock(), wipe=wipe) as store:
        await store.put(message("m1", text="机密的问题", webhook="https://a/session"))
        before = str(rows(store.path))
        assert "机密的问题" in before
        assert "https://a/session" in before
        await end(store)

    after = str(rows(tmp_path / "x.db"))
    found = [text for text in ("机密的问题", "张三", "https://a/session") if text in after]
    texts = ["机密的问题", "张三"]
    assert found == ([*texts, "https://a/session"] if not wipe else [] if end is _cancelled else texts)
    assert ("机密的答案" in after) is (end is not _cancelled)
    assert rows(tmp_path / "x.db", "finished_at") == [(START,)]


async def test_a_message_is_known_for_seven_days(tmp_path: Path) -> None:
    """Before that a redelivery is a duplicate; after it the row is gone, but never one that is unfinished."""
    clock = Clock()
    async with opened(tmp_path / "x.db", clock) as store:
        await store.put(message("m1"))
        await finish(store, await head(store))
        await store.put(message("waits"))
        clock.tick(7 * DAY_S)
        assert await store.forget() == 0
        assert (await store.put(message("m1"))).duplicate

        clock.tick(1)
        assert await store.forget() == 1
        assert rows(store.path, "key") == [("waits",)]
        assert not (await store.put(message("m1"))).duplicate
        assert await leased(store) == ["waits"]


async def test_forgetting_goes_in_batches(tmp_path: Path) -> None:
    """At most `batch` rows go at a time; the count tells whether there is more."""
    clock = Clock()
    async with opened(tmp_path / "x.db", clock) as store:
        for number in range(5):
            await store.put(message(f"m{number}"))
            await finish(store, await head(store))
        clock.tick(8 * DAY_S)
        assert [await store.forget(batch=2) for _ in range(4)] == [2, 2, 1, 0]


async def test_webhooks_are_forgotten_when_they_expire(tmp_path: Path) -> None:
    """An expired session webhook goes; one without an expiry and a living one stay."""
    clock = Clock()
    async with opened(tmp_path / "x.db", clock) as store:
        for name, expires in (("c1", START + 10), ("c2", START + 100), ("c3", None)):
            await store.put(message(name, conversation=name, webhook=f"https://a/{name}", expires=expires))
        clock.tick(50)
        await store.forget()
        assert [(await store.webhook("ding1", name))[0].reveal() for name in ("c1", "c2", "c3")] == [
            "",
            "https://a/c2",
            "https://a/c3",
        ]


# -- who may open it


async def test_one_daemon_on_a_store(tmp_path: Path) -> None:
    """A second one is refused while the first lives, in this process and in another; a kill lets go of the file."""
    path = tmp_path / "x.db"
    async with opened(path, Clock()):
        second = SQLiteStore(path, clock=Clock())
        with pytest.raises(StoreLocked, match="another dingbridge is running on it") as caught:
            await second.open()
        assert not caught.value.retryable
        await second.close()
    async with child(path, "put:m1", "hold") as process:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        with pytest.raises(StoreLocked):
            await SQLiteStore(path, clock=Clock()).open()
        process.kill()
        await process.wait()
        async with opened(path, Clock()) as store:
            assert await leased(store) == ["m1"]


async def test_another_store_has_another_lock(tmp_path: Path) -> None:
    """Two robots keep two files in one folder."""
    async with opened(tmp_path / "a.db", Clock()), opened(tmp_path / "b.db", Clock()):
        take_lock(tmp_path / "c.db").close()


async def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    """A file of a newer version is named as such, nothing in it changes, and the lock is let go."""
    path = tmp_path / "x.db"
    known = len(MIGRATIONS)
    async with opened(path, Clock()) as store:
        await store.put(message("m1"))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {known + 1}")
    before = path.read_bytes()
    store = SQLiteStore(path, clock=Clock())
    words = rf"newer dingbridge \(schema {known + 1}, this one knows {known}\): install that version"
    with pytest.raises(StoreUnavailable, match=words) as caught:
        await store.open()

    assert not caught.value.retryable
    assert caught.value.cause == "store.newer"
    assert path.read_bytes() == before
    take_lock(path).close()
    await store.close()


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """Where there is no folder to be had the path and the remedy are told."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    store = SQLiteStore(tmp_path / "file" / "x.db", clock=Clock())
    words = r"file/x\.db: .*; does the folder exist, may the service's user write"
    with pytest.raises(StoreUnavailable, match=words) as caught:
        await store.open()
    assert caught.value.cause == "store.readonly"
    await store.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
async def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A read-only folder is told with its remedy."""
    folder = tmp_path / "readonly"
    folder.mkdir(mode=0o500)
    with pytest.raises(StoreUnavailable, match="may the service's user write to it"):
        await SQLiteStore(folder / "x.db", clock=Clock()).open()


async def test_folders_are_made_for_the_owner_alone(tmp_path: Path) -> None:
    """A missing folder is created; what stands in it is nobody else's business."""
    async with opened(tmp_path / "new" / "x.db", Clock()):
        assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


async def test_a_file_that_is_no_store_is_named(tmp_path: Path) -> None:
    """A wrong file is told as such, not overwritten, and the lock is let go."""
    path = tmp_path / "x.db"
    content = b"this is a letter, no database\n" * 100
    path.write_bytes(content)
    words = r"this is no SQLite file: name another one in \[store\] url"
    with pytest.raises(StoreUnavailable, match=words) as caught:
        await SQLiteStore(path, clock=Clock()).open()

    assert caught.value.cause == "store.corrupt"
    assert path.read_bytes() == content
    take_lock(path).close()


async def test_a_start_that_fails_in_its_recovery_lets_go(tmp_path: Path) -> None:
    """A store whose tables are broken is told, and neither its thread nor its lock stays."""
    path = tmp_path / "x.db"
    async with opened(path, Clock()):
        pass
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE lane")
    store = SQLiteStore(path, clock=Clock())
    with pytest.raises(StoreUnavailable, match="no such table: lane"):
        await store.open()

    assert not store._engine._threads[0].is_alive()
    take_lock(path).close()


async def test_a_copy_of_the_files_is_a_store(tmp_path: Path) -> None:
    """File and log, copied beside a running store, are a backup that opens."""
    async with opened(tmp_path / "x.db", Clock()) as store:
        await store.put(message("m1"))
        copy = crashed(store.path, tmp_path / "backup")
        async with opened(copy, Clock()) as other:
            assert await leased(other) == ["m1"]


# -- damage


async def _damage(store: SQLiteStore, key: str, column: str, value: str) -> None:
    statement = f"UPDATE message SET {column} = ? WHERE key = ?"
    await store._engine.run(lambda c: c.execute(statement, (value, key)).rowcount)


@pytest.mark.parametrize(
    ("column", "value"),
    [("body", "{"), ("body", "{}"), ("body", "[]"), ("task", "dance"), ("answer", "{}"), ("outcome", "fine")],
)
async def test_a_row_that_cannot_be_read_stops_nobody(tmp_path: Path, column: str, value: str) -> None:
    """It ends dead with its content kept for whoever looks into it, and its lane and the others go on."""
    async with opened(tmp_path / "x.db", Clock()) as store:
        for key, person in (("bad", "u1"), ("behind", "u1"), ("other", "u2")):
            await store.put(message(key, person=person))
        await _damage(store, "bad", column, value)
        assert await leased(store) == ["other"]
        assert await leased(store) == ["behind"]

        assert (await store.depth()).dead == 1
        key, state, reason, body = rows(store.path, "key, state, reason, body")[0]
        assert (key, state, reason) == ("bad", "dead", "the row cannot be read")
        assert body


async def test_a_row_that_cannot_be_read_can_be_cancelled(tmp_path: Path) -> None:
    """It is among the cancelled, without its message; nobody can be told a notice for it."""
    async with opened(tmp_path / "x.db", Clock()) as store:
        placed = await store.put(message("bad"))
        await _damage(store, "bad", "body", "{")
        assert await store.claim_notice(placed.row) is None
        assert await store.cancel(message("x"), before=9) == {placed.row: None}
        assert await leased(store) == []


async def test_an_operators_look_does_not_stop_a_start(tmp_path: Path) -> None:
    """Who holds the lock only for a moment is waited for."""
    path = tmp_path / "x.db"
    looking = take_lock(path)
    starting = asyncio.create_task(_opened_and_closed(path))
    await asyncio.sleep(0.3)
    assert not starting.done()
    looking.close()

    async with asyncio.timeout(10):
        await starting


async def _opened_and_closed(path: Path) -> None:
    async with opened(path, Clock()):
        pass
