"""The writer's thread: groups, failures of one and of all, a full disk, cancelled callers, the end."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from dingbridge.errors import StoreError, StoreUnavailable
from dingbridge.model import Answer, Outcome
from dingbridge.store.sqlite_engine import GROUP, SQLiteEngine
from tests.stores import CHILD, ROOT, Clock, bound, head, message, opened, rows, unbound

Job = Callable[[sqlite3.Connection], Any]
HANG_S = 30.0


def note(text: str) -> Job:
    return lambda c: c.execute("INSERT INTO note VALUES (?)", (text,)).rowcount


def notes(c: sqlite3.Connection) -> list[str]:
    return [text for (text,) in c.execute("SELECT text FROM note ORDER BY rowid")]


def too_much(c: sqlite3.Connection) -> None:
    """One row larger than a bounded file; SQLite ends the whole transaction over it."""
    c.execute("INSERT INTO note VALUES (zeroblob(1000000))")


@pytest.fixture
async def writer(tmp_path: Path) -> AsyncIterator[SQLiteEngine]:
    one = SQLiteEngine(tmp_path / "x.db")
    await one.open()
    await one.run(lambda c: c.execute("CREATE TABLE note (text)").rowcount)
    yield one
    await one.close()


@asynccontextmanager
async def one_group(writer: SQLiteEngine) -> AsyncIterator[Callable[[Job], asyncio.Task[Any]]]:
    """What is submitted inside waits behind a job that holds the thread, and so comes as one group."""
    entered, gate = threading.Event(), threading.Event()

    def hold(_: sqlite3.Connection) -> None:
        entered.set()
        assert gate.wait(HANG_S)

    holding = asyncio.create_task(writer.run(hold))
    assert await asyncio.to_thread(entered.wait, HANG_S)
    try:
        yield lambda job: asyncio.create_task(writer.run(job))
        await asyncio.sleep(0)  # every task hands its job over in its first step
    finally:
        gate.set()
        await holding


async def outcomes(*tasks: asyncio.Task[Any]) -> list[Any]:
    return await asyncio.gather(*tasks, return_exceptions=True)


# -- groups


async def test_many_callers_share_a_commit(writer: SQLiteEngine) -> None:
    """What waits while the thread is busy is committed together, at most GROUP at a time."""
    async with one_group(writer) as submit:
        before = writer.commits
        tasks = [submit(note(str(number))) for number in range(GROUP + 10)]
    await asyncio.gather(*tasks)

    assert writer.commits - before == 3  # the one that held the thread, a full group, the rest
    assert len(await writer.run(notes)) == GROUP + 10


async def test_the_store_shares_commits_under_load(tmp_path: Path) -> None:
    """Messages that arrive together cost fewer commits than there are messages."""
    async with opened(tmp_path / "x.db", Clock()) as store:
        async with one_group(store._sqlite):
            before = store._engine.commits
            tasks = [asyncio.create_task(store.put(message(f"m{number}"))) for number in range(100)]
        placed = await asyncio.gather(*tasks)

        assert store._engine.commits - before == 2
        assert [one.row for one in placed] == list(range(1, 101))


async def test_the_order_of_submission_is_the_order_of_commit(writer: SQLiteEngine) -> None:
    """Across groups too."""
    texts = [str(number) for number in range(3 * GROUP)]
    async with one_group(writer) as submit:
        first = [submit(note(text)) for text in texts]
    second = [asyncio.create_task(writer.run(note(f"later {text}"))) for text in texts]
    await asyncio.gather(*first, *second)

    assert await writer.run(notes) == texts + [f"later {text}" for text in texts]


async def test_commits_are_durable(writer: SQLiteEngine, tmp_path: Path) -> None:
    """The log is written ahead and flushed with every commit; another reader sees what was told as kept."""

    def pragmas(c: sqlite3.Connection) -> tuple[Any, ...]:
        return tuple(c.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous"))

    assert await writer.run(pragmas) == ("wal", 2)
    await writer.run(note("kept"))
    assert rows(tmp_path / "x.db", "text", table="note") == [("kept",)]


async def test_every_group_is_timed(tmp_path: Path) -> None:
    """on_commit is told once for each group that was committed."""
    took: list[float] = []
    writer = SQLiteEngine(tmp_path / "x.db", on_commit=took.append)
    await writer.open()
    async with one_group(writer) as submit:
        tasks = [submit(lambda _: None) for _ in range(5)]
    await asyncio.gather(*tasks)
    await writer.close()

    assert len(took) == writer.commits == 2
    assert min(took) >= 0.0


# -- failures of one


async def test_a_job_that_fails_is_undone_alone(writer: SQLiteEngine) -> None:
    """What it wrote is gone, its caller gets its own error, and its group is kept."""

    def half(c: sqlite3.Connection) -> None:
        note("half")(c)
        raise LookupError("mine")

    def wrong(c: sqlite3.Connection) -> None:
        note("wrong")(c)
        c.execute("INSERT INTO nowhere VALUES (1)")

    async with one_group(writer) as submit:
        before = writer.commits
        tasks = [submit(job) for job in (note("a"), half, note("b"), wrong, note("c"))]
    results = await outcomes(*tasks)

    assert writer.commits - before == 2
    assert [type(one) for one in results] == [int, LookupError, int, StoreUnavailable, int]
    assert results[1].args == ("mine",)
    assert "no such table: nowhere" in results[3].detail
    assert await writer.run(notes) == ["a", "b", "c"]


async def test_a_failure_of_a_worker_is_no_trouble_of_the_store(writer: SQLiteEngine) -> None:
    """Only what SQLite refuses makes the store unhealthy."""

    def mine(_: sqlite3.Connection) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError):
        await writer.run(mine)
    assert writer.last_error is None


# -- failures of all


async def test_a_full_file_fails_the_whole_group(writer: SQLiteEngine) -> None:
    """SQLite ends the transaction: nobody of the group is told as kept, nothing of it is; the next ones work again."""
    await writer.run(note("before"))
    await writer.run(bound)
    async with one_group(writer) as submit:
        tasks = [submit(job) for job in (note("a"), note("b"), too_much, note("c"))]
    results = await outcomes(*tasks)

    assert {type(one) for one in results} == {StoreUnavailable}
    for error in results:
        assert error.retryable
        assert error.cause == "store.full"
        assert error.detail.endswith("x.db: database or disk is full; the disk is full: free some space, nothing "
                                     "accepted is lost")  # fmt: skip
    assert writer.last_error is results[0]
    assert await writer.run(notes) == ["before"]

    await writer.run(unbound)
    await writer.run(note("after"))
    assert writer.last_error is None
    assert await writer.run(notes) == ["before", "after"]


async def test_trouble_is_told_at_each_failure_and_once_when_it_is_over(tmp_path: Path) -> None:
    """on_trouble hears every transaction that failed, the first that worked after that, and nothing else."""
    heard: list[StoreError | None] = []
    writer = SQLiteEngine(tmp_path / "x.db", on_trouble=heard.append)
    await writer.open()
    await writer.run(lambda c: c.execute("CREATE TABLE note (text TEXT NOT NULL) STRICT").rowcount)
    await writer.run(note("before"))
    await writer.run(bound)
    failed = [await outcomes(asyncio.ensure_future(writer.run(too_much))) for _ in range(2)]
    await writer.run(notes)  # reading proves nothing
    assert heard == [error for (error,) in failed]
    await writer.run(unbound)
    await writer.run(note("after"))
    await writer.run(note("later"))
    await writer.close()

    assert heard == [*(error for (error,) in failed), None]


async def test_a_full_file_that_fails_one_job_is_trouble_too(writer: SQLiteEngine) -> None:
    """A statement over many rows is undone alone by SQLite; the commit of its group does not hide that."""
    await writer.run(note("a"))
    await writer.run(note("b"))
    await writer.run(bound)
    async with one_group(writer) as submit:
        many = submit(lambda c: c.execute("INSERT INTO note SELECT hex(zeroblob(100000)) FROM note").rowcount)
        small = submit(note("c"))
    refused, kept = await outcomes(many, small)

    assert (type(refused), kept) == (StoreUnavailable, 1)
    assert writer.last_error is refused
    assert await writer.run(notes) == ["a", "b", "c"]


async def test_a_swallowed_failure_does_not_make_a_half_commit(writer: SQLiteEngine) -> None:
    """A job that carries on although SQLite ended the transaction takes its group down, not half of it in."""

    def careless(c: sqlite3.Connection) -> None:
        try:
            too_much(c)
        except sqlite3.OperationalError:
            note("outside any transaction")(c)

    def misled(c: sqlite3.Connection) -> None:
        try:
            too_much(c)
        except sqlite3.OperationalError:
            raise LookupError("mine") from None

    await writer.run(bound)
    for job in (careless, misled):
        async with one_group(writer) as submit:
            tasks = [submit(one) for one in (note("a"), job, note("b"))]
        assert {type(one) for one in await outcomes(*tasks)} == {StoreUnavailable}
    assert "a" not in await writer.run(notes)
    assert "b" not in await writer.run(notes)


async def test_the_store_says_its_trouble_until_it_can_write_again(tmp_path: Path) -> None:
    """Reading proves nothing; a probe that writes does, and leaves nothing behind. A failed message can come again."""
    async with opened(tmp_path / "x.db", Clock()) as store:
        await store.put(message("m1", webhook="https://a/1"))
        delivery = await head(store)
        await store._engine.run(bound)
        with pytest.raises(StoreUnavailable, match="free some space"):
            await store.answered(delivery, Answer("长" * 100_000), Outcome.ANSWERED)
        await store.depth()
        await store.waiting()
        await store.lease(5)
        assert "free some space" in str(store.trouble)
        with pytest.raises(StoreUnavailable):
            await store.probe()
        assert store.trouble is not None

        await store._engine.run(unbound)
        await store.probe()
        assert store.trouble is None
        assert rows(store.path, "url", table="webhook") == [("https://a/1",)]
        await store.answered(delivery, Answer("长" * 100_000), Outcome.ANSWERED)


async def test_a_disk_without_space(tmp_path: Path) -> None:
    """On a disk that is really full nothing is told as kept, the trouble stays until there is room, then all works."""
    mount = 'mount -t tmpfs -o size=1m tmpfs "$1"'
    unshared = ("unshare", "--mount", "--map-root-user", "sh", "-c")
    try:
        trying = await asyncio.create_subprocess_exec(*unshared, mount, "-", str(tmp_path), stderr=PIPE)
    except FileNotFoundError:
        pytest.skip("there is no unshare here")
    _, why = await trying.communicate()
    if trying.returncode:
        pytest.skip(f"a file system of its own cannot be mounted: {why.decode().strip()}")
    command = (*unshared, f'{mount}; shift; exec "$@"', "-", str(tmp_path), *CHILD, str(tmp_path / "x.db"), "space")
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=PIPE)
    output, _ = await process.communicate()

    full = (
        f"store {tmp_path}/x.db: database or disk is full; the disk is full: free some space, nothing accepted is lost"
    )
    assert output.decode().splitlines() == [
        f"put: {full}",
        f"probe: {full}",
        f"trouble: {full}",
        "trouble: None",
        "before after",
    ]
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("plant", "words", "cause"),
    [
        (
            "PRAGMA query_only = 1",
            "the file or its folder cannot be written: give the service's user the right to",
            "store.readonly",
        ),
        ("DROP TABLE message", "no such table: message; see the SQLite error", "store.unavailable"),
    ],
)
async def test_what_sqlite_says_comes_with_a_remedy(tmp_path: Path, plant: str, words: str, cause: str) -> None:
    """The operator is told the file, the reason and what to do; the error carries the cause."""
    async with opened(tmp_path / "x.db", Clock()) as store:
        await store._engine.run(lambda c: c.execute(plant).rowcount)
        with pytest.raises(StoreUnavailable, match=words) as caught:
            await store.put(message("m1"))
        assert caught.value.detail.startswith(f"store {tmp_path}/x.db: ")
        assert caught.value.cause == cause
        assert store.trouble == caught.value.detail


# -- callers


async def test_a_cancelled_caller_loses_no_job(writer: SQLiteEngine) -> None:
    """The job is committed although nobody waits any more, and the thread goes on; failing is no difference."""
    async with one_group(writer) as submit:
        tasks = [submit(note("given up")), submit(lambda _: 1 / 0), submit(note("waited for"))]
        await asyncio.sleep(0)
        for task in tasks[:2]:
            task.cancel()
    results = await outcomes(*tasks)

    assert [type(one) for one in results] == [asyncio.CancelledError, asyncio.CancelledError, int]
    assert await writer.run(notes) == ["given up", "waited for"]


async def test_closing_commits_what_was_submitted(tmp_path: Path) -> None:
    """Everything handed over before the close is kept and told; what comes after is refused."""
    writer = SQLiteEngine(tmp_path / "x.db")
    await writer.open()
    await writer.run(lambda c: c.execute("CREATE TABLE note (text)").rowcount)
    async with one_group(writer) as submit:
        tasks = [submit(note(str(number))) for number in range(GROUP + 5)]
        await asyncio.sleep(0)
        closing = asyncio.create_task(writer.close())
        await asyncio.sleep(0)
        with pytest.raises(StoreUnavailable, match="the store is closed"):
            await writer.run(note("late"))
    await asyncio.gather(*tasks)
    await closing

    assert len(rows(tmp_path / "x.db", table="note")) == GROUP + 5
    assert not writer._threads[0].is_alive()
    with pytest.raises(StoreUnavailable, match="the store is closed"):
        await writer.run(note("later"))


async def test_a_writer_that_never_opened(tmp_path: Path) -> None:
    """It refuses work, and can be closed; one that could not open says why."""
    closed = SQLiteEngine(tmp_path / "x.db")
    with pytest.raises(StoreUnavailable, match="the store is closed"):
        await closed.run(notes)
    await closed.close()
    (tmp_path / "folder").mkdir()
    broken = SQLiteEngine(tmp_path / "folder")
    with pytest.raises(StoreUnavailable, match="the file cannot be opened: may the service user write to"):
        await broken.open()
    with pytest.raises(StoreUnavailable, match="the store is closed"):
        await broken.run(notes)
    await broken.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_thread_that_dies_tells_everybody(writer: SQLiteEngine) -> None:
    """Whoever waits is told, whoever comes later is refused, for good; nothing hangs."""

    def die(_: sqlite3.Connection) -> None:
        raise SystemExit

    async with one_group(writer) as submit:
        tasks = [submit(note("a")), submit(die), *(submit(note(str(number))) for number in range(GROUP))]
    async with asyncio.timeout(HANG_S):
        results = await outcomes(*tasks)

    assert {type(one) for one in results} == {StoreUnavailable}
    assert {one.retryable for one in results} == {False}
    assert writer.last_error is not None
    assert "its thread died" in writer.last_error.detail
    with pytest.raises(StoreUnavailable):
        await writer.run(note("later"))
    await asyncio.to_thread(writer._threads[0].join, HANG_S)
    assert rows(writer._path, table="note") == []


async def test_the_last_that_is_told_of_the_store_is_true(tmp_path: Path) -> None:
    """Where one thread fails as another succeeds, the loop hears of them in the order in which they count."""
    told: list[StoreError | None] = []
    between = threading.Event()

    class Slow(SQLiteEngine):
        def _call(self, function: Callable[..., None], *arguments: Any) -> None:
            if arguments == (error,):
                between.set()
                threading.Event().wait(0.2)  # as a thread may lose the processor here
            super()._call(function, *arguments)

    error = StoreUnavailable("away")
    engine = Slow(tmp_path / "x.db", on_trouble=told.append)
    await engine.open()
    failing = asyncio.create_task(asyncio.to_thread(engine._trouble, error))
    await asyncio.to_thread(between.wait, HANG_S)
    await asyncio.to_thread(engine._trouble, None)
    await failing
    await engine.close()
    assert told == [error, None]
