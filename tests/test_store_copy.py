"""An SQLite store is copied into PostgreSQL by the real verb, on a real server: nothing lost, whatever kills it."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import sqlite3
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dingbridge.building import postgres_address
from dingbridge.errors import StoreUnavailable
from dingbridge.model import Secret
from dingbridge.settings import StoreConfig
from dingbridge.store.postgres import PostgresStore, Rhythm
from dingbridge.store.schema import MIGRATIONS
from tests.filled import ROBOT, fill
from tests.house import House, until, write
from tests.operating import DINGBRIDGE, as_json, verb
from tests.postgres import Server
from tests.stores import START, Clock, child

SCHEMA = f"dingbridge_{ROBOT}"
TABLES = {
    "message": "id",
    "lane": "key",
    "context": "robot, conversation, person",
    "webhook": "robot, conversation",
    "person": "robot, person",
    "vote": "robot, key, person",
    "handover": "robot, key",
    "page": "hash",
    "spent": "robot, month, day, pool, kind",
}
ROWS = 7_000
MUCH = 20_000


@dataclass(frozen=True)
class Way:
    """From a file into a database of its own."""

    folder: Path
    file: Path
    url: str

    @property
    def arguments(self) -> tuple[str, ...]:
        return ("store", "copy", "--from", str(self.file), "--config", str(self.folder / "postgres.toml"))

    def configured(self, name: str, url: str, locale: str = "en") -> Path:
        tables = {
            "dingtalk": {"client_id": ROBOT, "client_secret": "unused"},
            "anythingllm": {"base_url": "http://127.0.0.1:9", "api_key": "unused"},
            "reply": {"locale": locale},
            "store": {"url": url},
        }
        return write(self.folder / f"{name}.toml", tables)

    def kept(self, table: str) -> list[tuple[Any, ...]]:
        """As PostgreSQL has them, in the file's order of columns; without a lane's due time, which a start changes."""
        return self.postgres(f"SELECT {self._columns(table)} FROM {table} ORDER BY {TABLES[table]}")

    def stored(self, table: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.file)) as lite:
            return lite.execute(f"SELECT {self._columns(table)} FROM {table} ORDER BY {TABLES[table]}").fetchall()

    def _columns(self, table: str) -> str:
        with closing(sqlite3.connect(self.file)) as lite:
            names = [name for _, name, *_ in lite.execute(f"PRAGMA table_info({table})")]
        return ", ".join(name for name in names if name != "due")

    def lite(self, statement: str, *values: Any) -> None:
        with closing(sqlite3.connect(self.file)) as lite, lite:
            lite.execute(statement, values)

    def postgres(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True, options=f'-c search_path="{SCHEMA}"') as connection:
            found = connection.execute(statement.encode())
            return found.fetchall() if found.description else []

    @asynccontextmanager
    async def daemon(self, clock: Clock) -> AsyncIterator[PostgresStore]:
        place = StoreConfig(self.folder / "seat", Secret(self.url))
        store = PostgresStore(postgres_address(place, ROBOT), place.path, clock=clock, rhythm=Rhythm(steady_s=0))
        await store.open()
        try:
            yield store
        finally:
            await store.close()


@pytest.fixture
def way(tmp_path: Path, postgres: Server) -> Way:
    one = Way(tmp_path, tmp_path / "state" / "x.db", postgres.create_database())
    one.configured("postgres", one.url)
    one.configured("sqlite", str(one.file))
    return one


@pytest.fixture(scope="module")
def much(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that takes several batches, to be copied."""
    path = tmp_path_factory.mktemp("much") / "x.db"
    fill(path, MUCH, waiting=500, held=4)
    return path


@pytest.fixture
def long_way(way: Way, much: Path) -> Way:
    """A way whose file takes a while."""
    way.file.parent.mkdir()
    shutil.copy(much, way.file)
    return way


async def refused(way: Way, *arguments: str, code: int = 1) -> str:
    """What stderr says; nothing was printed."""
    got, out, err = await verb(*(arguments or way.arguments))
    assert (got, out) == (code, "")
    return err


# -- nothing is lost


async def test_every_row_arrives(way: Way) -> None:
    """Ids, trails, lanes, contexts and webhooks are as in the file, and the next message gets the id behind them."""
    fill(way.file, ROWS, waiting=500)
    way.lite("UPDATE sqlite_sequence SET seq = 20000")  # the newest were forgotten; their ids never come again
    told = await as_json(*way.arguments)

    few = dict.fromkeys(("person", "vote", "handover", "page", "spent"), 3)
    assert told["rows"] == {"message": ROWS, "lane": len(way.stored("lane")), "context": 1000, "webhook": 1000, **few}
    for table in TABLES:
        assert way.kept(table) == way.stored(table)
    assert way.postgres("SELECT nextval(pg_get_serial_sequence('message', 'id'))") == [(20_001,)]


async def test_odd_texts_arrive(way: Way) -> None:
    """Line breaks, backslashes, what COPY takes for its own, 4-byte characters and half a megabyte of trail are kept.

    The character 0, which PostgreSQL has not, becomes U+FFFD, as the daemon writes it.
    """
    fill(way.file, 20, people=3)
    odd = ["a\tb\nc\r\\N\\.", "\\.", "😀\u2028\x7f", "", "x" * 500_000, "a\0b", "\0", "\N{REPLACEMENT CHARACTER}"]
    for row, text in enumerate(odd, start=1):
        way.lite("UPDATE message SET trail = ?, reason = ?, key = key || ? WHERE id = ?", text, text, text[:9], row)
    for text in ("c\0", "c\0a", "cb", "C", "ä", "会话", "😀"):
        way.lite("INSERT INTO webhook VALUES (?, ?, 'https://x', NULL)", ROBOT, text)
        way.lite("INSERT INTO context VALUES (?, ?, ?, 7, 0)", ROBOT, text, text)
    await as_json(*way.arguments)

    assert [trail for (trail,) in way.postgres("SELECT trail FROM message ORDER BY id LIMIT 8")] == [
        text.replace("\0", "\N{REPLACEMENT CHARACTER}") for text in odd
    ]
    assert len(way.kept("webhook")) == len(way.kept("context")) == 10


async def test_an_empty_store_is_copied_too(way: Way) -> None:
    """Nothing in it is no fault; the tables are there, and the first message gets the first id."""
    fill(way.file, 0, people=0)
    assert (await as_json(*way.arguments))["rows"] == dict.fromkeys(TABLES, 0)
    async with way.daemon(Clock()):
        assert way.postgres("SELECT count(*) FROM replica") == [(1,)]


async def test_what_was_in_work_is_due_again(way: Way) -> None:
    """As at a start after a crash: a message goes back, the crash is counted, and a part in sending is uncertain."""
    fill(way.file, 100, waiting=60, held=6, people=20)
    assert (await as_json(*way.arguments))["returned"] == 6

    states = way.postgres("SELECT state, uncertain, crashes FROM message WHERE crashes > 0 ORDER BY state")
    assert states == [("ready", False, 1)] * 3 + [("sending", True, 1)] * 3
    assert way.postgres("SELECT count(*) FROM lane WHERE token IS NOT NULL") == [(0,)]
    heads = [
        key for (key,) in way.postgres("SELECT m.key FROM lane l JOIN message m ON m.id = l.head ORDER BY due, head")
    ]
    async with way.daemon(Clock(START + 10_000)) as store:
        assert [one.message.id for one in (await store.lease(100)).deliveries] == heads


async def test_the_daemon_goes_on_with_the_copy(house: House, postgres: Server, tmp_path: Path) -> None:
    """Killed on SQLite with questions waiting, it answers them on PostgreSQL, each lane in order."""
    state = {"STATE_DIRECTORY": str(tmp_path / "seat")}
    house.backend.answer_delay_s = 60.0
    house.configure()
    daemon = await house.daemon(environ=state)
    await house.gateway.connected()
    for number in range(6):
        await house.gateway.say(f"问题 {number}", user=f"u{number % 2}")
    await until(lambda: len(house.backend.asked) == 2)
    await daemon.kill()
    file = house.tables["store"]["url"]
    house.backend.answer_delay_s = 0.0

    config = house.configure(store={"url": postgres.create_database()})
    await as_json("store", "copy", "--from", file, "--config", str(config))
    daemon = await house.daemon(environ=state)
    await until(lambda: len(house.backend.asked) == 8)
    assert await daemon.stop() == 0
    asked = [one.message for one in house.backend.asked[2:]]
    for person in (0, 1):
        assert [text for text in asked if int(text[-1]) % 2 == person] == [f"问题 {person + n}" for n in (0, 2, 4)]
    kept = await as_json("inbox", "list", "--which", "all", "--config", str(config))
    assert [one["outcome"] for one in kept] == ["answered"] * 6


# -- killed, and called again


async def killed_after(way: Way, rows: int) -> None:
    """SIGKILL when so many rows have arrived, or a little later."""
    process = await asyncio.create_subprocess_exec(*DINGBRIDGE, *way.arguments, stdout=PIPE, stderr=PIPE)
    try:
        await until(lambda: process.returncode is not None or arrived(way) >= rows, what=f"{rows} rows")
        await asyncio.sleep(random.random() / 20)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def arrived(way: Way) -> int:
    try:
        ((count,),) = way.postgres("SELECT coalesce(max(id), 0) FROM message")
    except psycopg.Error:
        return 0
    return int(count)


async def test_killed_at_random_it_goes_on(long_way: Way) -> None:
    """SIGKILL several times: what has arrived stays, no daemon starts meanwhile, and in the end each row is equal."""
    before = 0
    for rows in (0, 1, 5000, 10_000):
        await killed_after(long_way, rows)
        assert before <= arrived(long_way)
        before = arrived(long_way)
    assert before > 0
    with pytest.raises(StoreUnavailable, match="is not finished: call `dingbridge store copy --from"):
        async with long_way.daemon(Clock()):
            pass
    told = await as_json(*long_way.arguments)
    assert told["rows"]["message"] == MUCH
    assert told["returned"] == 4
    assert [row[0] for row in long_way.kept("message")] == list(range(1, MUCH + 1))


async def test_done_twice_there_is_nothing_to_do(way: Way) -> None:
    """Also where a look at the file has moved its bytes, and daemons have gone on with the copy."""
    fill(way.file, 300, waiting=9)
    first = await as_json(*way.arguments)
    async with way.daemon(Clock(START + 9999)) as store:
        await store.lease(3)
        await store.release_all()
    os.utime(way.file)
    again = await as_json(*way.arguments)
    assert (first["done"], again["done"], again["digest"]) == (True, False, first["digest"])
    assert again["rows"] == first["rows"]
    code, out, _ = await verb(*way.arguments)
    assert code == 0
    assert out.startswith("Nothing to do")


async def test_a_file_that_was_used_since_is_not_mixed_in(long_way: Way) -> None:
    """After the end of the copy what came into both is refused; before it the copy begins anew."""
    await killed_after(long_way, 1)
    long_way.lite("UPDATE message SET reason = 'since' WHERE id = 1")
    long_way.lite("DELETE FROM message WHERE id = 2")
    assert (await as_json(*long_way.arguments))["rows"]["message"] == MUCH - 1
    assert long_way.postgres("SELECT reason FROM message WHERE id = 1") == [("since",)]

    long_way.lite("UPDATE message SET reason = 'later' WHERE id = 1")
    assert "has been used since" in await refused(long_way)
    assert long_way.postgres("SELECT reason FROM message WHERE id = 1") == [("since",)]


# -- compared


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("UPDATE message SET trail = trail || ' ' WHERE id = 77", "message id 77 differs in trail"),
        (
            "UPDATE message SET finished_at = finished_at + 0.000001 WHERE id = 78",
            "message id 78 differs in finished_at",
        ),
        ("DELETE FROM message WHERE id = 79", "message id 79 is on one side only"),
        (
            "INSERT INTO webhook VALUES ('ding1', 'c0', 'https://x', 1)",
            "webhook robot ding1, conversation c0 differs in url, expires",
        ),
    ],
)
async def test_a_changed_row_is_found(long_way: Way, statement: str, told: str) -> None:
    """A row that is not as in the file is named with its column, and the copy is not finished."""
    await killed_after(long_way, 1)
    assert 79 < arrived(long_way) < MUCH
    long_way.postgres(statement)
    err = await refused(long_way)
    assert told in err
    assert "https" not in err
    assert long_way.postgres("SELECT ended_at FROM copied") == [(None,)]


# -- refused


async def test_daemons_on_either_side_are_named(way: Way) -> None:
    """While one runs on the file, or on the database, nothing is copied."""
    async with child(way.file, "put:m1", "hold") as process:
        assert process.stdout is not None
        await process.stdout.readline()
        assert "another dingbridge is running on it" in await refused(way)
    async with way.daemon(Clock()) as store:
        err = await refused(way)
        assert f"these daemons are running on it: {store.owner} (process {os.getpid()} on " in err
        err = await refused(way, "store", "migrate", "--config", str(way.folder / "postgres.toml"))
        assert store.owner in err
    await as_json(*way.arguments)


def _no_file(way: Way) -> tuple[str, ...]:
    way.file.unlink()
    return ()


def _folder(way: Way) -> tuple[str, ...]:
    return ("store", "copy", "--from", str(way.folder), "--config", str(way.folder / "postgres.toml"))


def _other_file(way: Way) -> tuple[str, ...]:
    way.file.write_text("no SQLite file, but long enough to be read as one\n" * 100)
    return ()


def _foreign(way: Way) -> tuple[str, ...]:
    way.lite("PRAGMA user_version = 0")
    return ()


def _older(way: Way) -> tuple[str, ...]:
    way.lite(f"PRAGMA user_version = {len(MIGRATIONS) - 1}")
    return ()


def _newer(way: Way) -> tuple[str, ...]:
    way.lite(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    return ()


def _robot(way: Way) -> tuple[str, ...]:
    way.lite("UPDATE message SET robot = 'ding2'")
    return ()


def _backwards(way: Way) -> tuple[str, ...]:
    return ("store", "copy", "--from", way.url, "--config", str(way.folder / "sqlite.toml"))


def _sqlite(way: Way) -> tuple[str, ...]:
    return ("store", "copy", "--from", str(way.file), "--config", str(way.folder / "sqlite.toml"))


@pytest.mark.parametrize(
    ("arrange", "told"),
    [
        (_no_file, "there is no store at"),
        (_folder, "there is no store at"),
        (_other_file, "this is no SQLite file"),
        (_foreign, "is no store of dingbridge"),
        (_older, "first call `dingbridge store migrate`"),
        (_newer, "is of a newer dingbridge"),
        (_robot, "holds the messages of robot ding2, and the configuration is of ding1"),
        (_backwards, "from SQLite to PostgreSQL only"),
        (_sqlite, "from SQLite to PostgreSQL only"),
    ],
)
async def test_what_cannot_be_copied_is_said(way: Way, arrange: Callable[[Way], tuple[str, ...]], told: str) -> None:
    """One sentence with the remedy, exit 1, and the target is as before."""
    fill(way.file, 10)
    assert told in await refused(way, *arrange(way))
    assert not arrived(way)


async def test_other_data_is_left_alone(way: Way) -> None:
    """A database that daemons have used, or another file was copied into, is refused with the remedy."""
    fill(way.file, 10)
    other = Way(way.folder, way.folder / "other.db", way.url)
    fill(other.file, 5)
    async with way.daemon(Clock()) as store:
        await store.probe()
    way.postgres("INSERT INTO context VALUES ('ding1', 'c', 'p', 1, 0)")
    err = await refused(way)
    assert "holds other data already (table context)" in err
    assert f'DROP SCHEMA "{SCHEMA}" CASCADE (this deletes all messages in it; pg_dump before)' in err
    assert err.index("an empty database") < err.index("DROP SCHEMA")
    way.postgres("DELETE FROM context")
    await as_json(*other.arguments)
    assert "other.db" in await refused(way)
    assert arrived(way) == 5


async def test_an_unreachable_server_is_explained(way: Way) -> None:
    """No traceback, and no password."""
    fill(way.file, 1)
    way.configured("postgres", "postgresql://u:verysecret@127.0.0.1:9/x")
    err = await refused(way)
    assert "is the server up" in err
    assert "verysecret" not in err


# -- bounded, and told


async def test_the_next_step_is_printed(way: Way) -> None:
    """Which line belongs into [store], without the password; in both languages."""
    fill(way.file, 10)
    url = way.url.replace("dingbridge@", "dingbridge:verysecret@")
    for locale in ("en", "zh-CN"):
        way.configured("postgres", url, locale)
        _, out, err = await verb(*way.arguments)
        assert f'url = "{way.url}"' in out
        assert "verysecret" not in out + err


@pytest.mark.slow
async def test_memory_is_bounded(way: Way) -> None:
    """The table is not loaded: with 200 000 rows of more than a kilobyte it needs less than 200 MB."""
    fill(way.file, 200_000)
    code = (
        "import resource, sys\nfrom dingbridge.cli import main\nfrom contextlib import suppress\n"
        f"with suppress(SystemExit):\n    main({[*way.arguments, '--json']!r})\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=PIPE, stderr=PIPE)
    async with asyncio.timeout(300):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    told, peak_kb = out.decode().splitlines()
    assert json.loads(told)["rows"]["message"] == 200_000
    assert int(peak_kb) < 200_000
