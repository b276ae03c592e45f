"""`store check` finds what does not hold, on either database, and `store migrate` brings tables to this version."""

from __future__ import annotations

import sqlite3
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from dingbridge.building import postgres_address
from dingbridge.errors import StoreUnavailable
from dingbridge.model import Outcome, Secret, Task
from dingbridge.settings import StoreConfig
from dingbridge.store.checking import RULES, check_postgres, check_sqlite
from dingbridge.store.migrating import migrate_postgres, migrate_sqlite
from dingbridge.store.postgres import PostgresStore
from dingbridge.store.schema import MIGRATIONS
from dingbridge.store.sqlite import SQLiteStore
from dingbridge.store.store import Store
from tests.filled import ROBOT
from tests.house import write
from tests.operating import as_json, verb
from tests.postgres import Server
from tests.stores import START, UNLIMITED, Clock, message

SCHEMA = f"dingbridge_{ROBOT}"
VERSION = len(MIGRATIONS)


@dataclass
class Place:
    """A store of one of the two engines, and its configuration."""

    kind: str
    folder: Path
    url: str

    @property
    def config(self) -> tuple[str, str]:
        return "--config", str(self.folder / "dingbridge.toml")

    @property
    def configured(self) -> StoreConfig:
        return StoreConfig(self.folder / "seat", Secret(self.url))

    def store(self) -> Store:
        if self.kind == "sqlite":
            return SQLiteStore(Path(self.url), clock=Clock(), limits=UNLIMITED)
        where = postgres_address(self.configured, ROBOT)
        return PostgresStore(where, self.folder / "seat", clock=Clock(), limits=UNLIMITED)

    def execute(self, statement: str) -> None:
        if self.kind == "sqlite":
            with closing(sqlite3.connect(self.url)) as lite, lite:
                lite.execute(statement)
        else:
            with psycopg.connect(self.url, options=f'-c search_path="{SCHEMA}"') as connection:
                connection.execute(statement.encode())


@pytest.fixture(params=["sqlite", "postgres"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """With work of every kind in it: waiting, in work, being sent, ended, retried, commands."""
    url = str(tmp_path / "x.db")
    if request.param == "postgres":
        url = request.getfixturevalue("postgres").create_database()
    one = Place(request.param, tmp_path, url)
    tables = {"dingtalk": {"client_id": ROBOT, "client_secret": "unused"}, "store": {"url": url}}
    write(tmp_path / "dingbridge.toml", {**tables, "reply": {"locale": "en"}})
    store = one.store()
    await store.open()
    await work(store)
    await store.close()
    return one


async def work(store: Store) -> None:
    for key in ("a1", "a2", "a3", "b1", "b2", "c1", "d1"):
        await store.put(message(key, person=key[0], webhook="https://x/1"))
    await store.put(message("new", person="a"), Task.COMMAND, fresh=True)
    held = {one.message.id: one for one in (await store.lease(9)).deliveries}
    await store.done(held["a1"], Outcome.FAILED)
    await store.retry(held["a1"].row)  # behind a2, which is the head now
    await store.done(held["d1"], Outcome.CANCELLED)
    await store.sending(held["b1"], 1)


# -- what holds


async def test_a_store_at_work_is_whole(place: Place) -> None:
    """Everything that daemons do leaves the tables as they have to be; exit 0, and how much there is."""
    told = await as_json("store", "check", *place.config)
    assert (told["ok"], told["findings"], told["version"]) == (True, [], VERSION)
    assert told["rows"] == {"message": 8, "lane": 4, "context": 4, "webhook": 1}
    assert told["states"] == {"done": 1, "leased": 1, "ready": 5, "sending": 1}
    code, out, err = await verb("store", "check", *place.config)
    assert (code, err) == (0, "")
    assert "It is whole." in out


async def test_a_running_daemon_is_not_disturbed(place: Place) -> None:
    """Beside a daemon that holds the store it looks only."""
    store = place.store()
    await store.open()
    try:
        assert (await as_json("store", "check", *place.config))["ok"]
        await store.put(message("meanwhile", person="e"))
        assert (await as_json("store", "check", *place.config))["rows"]["message"] == 9
    finally:
        await store.close()


BREACHES = {
    "lane_without_head": "UPDATE lane SET head = 7 WHERE key = (SELECT lane FROM message WHERE key = 'b1')",
    "lane_out_of_order": (
        "UPDATE lane SET head = (SELECT id FROM message WHERE key = 'b2')"
        " WHERE key = (SELECT lane FROM message WHERE key = 'b1')"
    ),
    "message_without_lane": "DELETE FROM lane WHERE key = (SELECT lane FROM message WHERE key = 'c1')",
    "leased_without_lease": ("UPDATE lane SET token = NULL WHERE key = (SELECT lane FROM message WHERE key = 'c1')"),
    "unknown_name": "UPDATE message SET state = 'asleep' WHERE key = 'b2'",
    "half_ended": "UPDATE message SET state = 'ready' WHERE key = 'd1'",
    "wrong_code": "UPDATE message SET code = 'AAAAAAAA' WHERE key = 'd1'",
    "unreadable": "UPDATE message SET body = '{}' WHERE key = 'b2'",
}


@pytest.mark.parametrize("rule", sorted(BREACHES))
async def test_what_does_not_hold_is_found(place: Place, rule: str) -> None:
    """Each rule that is broken is named with an example and its remedy; exit 1."""
    place.execute(BREACHES[rule])
    told = await as_json("store", "check", *place.config, expected=1)
    assert not told["ok"]
    found = {one["rule"]: one for one in told["findings"]}
    # Who moves a lane's head breaks several rules of lanes at once.
    assert {*found} <= ({one for one in BREACHES if "lane" in one or "lease" in one} if "lane" in rule else {rule})
    assert found[rule]["count"] == 1
    assert found[rule]["examples"]
    code, out, _ = await verb("store", "check", *place.config)
    assert code == 1
    assert found[rule]["what"] in out
    assert found[rule]["remedy"] in out


async def test_an_answer_that_cannot_be_read_is_found(place: Place) -> None:
    """As a question is."""
    place.execute("UPDATE message SET answer = '[]' WHERE key = 'b1'")
    assert [one["rule"] for one in (await as_json("store", "check", *place.config, expected=1))["findings"]] == [
        "unreadable"
    ]


async def test_a_damaged_file_is_found(tmp_path: Path) -> None:
    """SQLite's own check, by a page that was overwritten."""
    path = tmp_path / "x.db"
    store = SQLiteStore(path, clock=Clock(), limits=UNLIMITED)
    await store.open()
    for number in range(300):
        await store.put(message(f"m{number}", person=f"u{number}"))
    await store.close()
    with closing(sqlite3.connect(path)) as lite:
        (page,) = lite.execute("SELECT rootpage FROM sqlite_master WHERE name = 'message_code'").fetchone()
        (size,) = lite.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * size + size // 2)
        file.write(b"\x07" * (size // 2))
    assert "file" in [one.rule for one in check_sqlite(path).findings]


async def test_what_only_postgresql_has_is_found(postgres: Server, tmp_path: Path) -> None:
    """A lease that has ended although its daemon is gone, and a copy that is not finished."""
    place = Place("postgres", tmp_path, postgres.create_database())
    store = place.store()
    await store.open()
    await work(store)
    await store.close()
    where = postgres_address(place.configured, ROBOT)
    assert check_postgres(where).findings == []
    place.execute("UPDATE lane SET leased_until = 1 WHERE token IS NOT NULL")
    place.execute("INSERT INTO copied VALUES ('host:/x.db', '', 1)")
    found = {one.rule: one for one in check_postgres(where).findings}
    assert set(found) == {"lease_without_owner", "copy"} == RULES - set(BREACHES) - {"file"}
    assert found["lease_without_owner"].count == 2


# -- another version


def _old(path: Path) -> None:
    """As the first version left it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as lite:
        lite.executescript(f"PRAGMA journal_mode = WAL; {MIGRATIONS[0]} PRAGMA user_version = 1;")
        lite.execute(
            "INSERT INTO message (robot, key, lane, conversation, person, task, state, body, webhook, received_at)"
            " VALUES ('ding1', 'm1', 'l', 'c', 'p', 'question', 'ready', '{}', '', ?)",
            (START,),
        )


async def test_an_old_file_is_brought_to_this_version(tmp_path: Path) -> None:
    """Once; then there is nothing to do. A check before that says what to call."""
    path = tmp_path / "x.db"
    _old(path)
    tables = {"dingtalk": {"client_id": ROBOT, "client_secret": "unused"}, "store": {"url": str(path)}}
    config = ("--config", str(write(tmp_path / "dingbridge.toml", {**tables, "reply": {"locale": "en"}})))
    code, _, err = await verb("store", "check", *config)
    assert code == 1
    assert "dingbridge store migrate" in err
    told = await as_json("store", "migrate", *config)
    assert (told["from"], told["to"]) == (1, VERSION)
    assert await verb("store", "migrate", *config) == (0, f"{path}: is of version {VERSION}, nothing to do.\n", "")


async def test_nothing_is_migrated_under_a_daemon(place: Place, tmp_path: Path) -> None:
    """It is refused, and says who is to be stopped."""
    store = place.store()
    await store.open()
    try:
        code, out, err = await verb("store", "migrate", *place.config)
        assert (code, out) == (1, "")
        assert "stop" in err
        assert store.owner in err
    finally:
        await store.close()
    assert (await verb("store", "migrate", *place.config))[0] == 0


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """Neither by a check nor by a migration."""
    for verb_of in (check_sqlite, migrate_sqlite):
        with pytest.raises(StoreUnavailable, match="there is no store at"):
            verb_of(tmp_path / "x.db")
    assert list(tmp_path.iterdir()) == []


async def test_a_role_without_rights_to_make_tables_can_run(postgres: Server, tmp_path: Path) -> None:
    """After `store migrate` by their owner a daemon needs to look at the schema, and to read and write rows."""
    url = postgres.create_database()
    place = Place("postgres", tmp_path, url)
    assert migrate_postgres(postgres_address(place.configured, ROBOT)) == (0, VERSION)
    role = f"plain_{url.rpartition('_')[2]}"
    place.execute(f"CREATE ROLE {role} LOGIN")
    place.execute(f"GRANT USAGE ON SCHEMA {SCHEMA} TO {role}")
    place.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {SCHEMA} TO {role}")
    plain = Place("postgres", tmp_path, url.replace("dingbridge@", f"{role}@"))
    async with AsyncExitStack() as stack:
        store = plain.store()
        await store.open()
        stack.push_async_callback(store.close)
        await work(store)
        await store.probe()
        assert await store.forget() == 0
        assert len(await store.peers()) == 1
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        plain.execute("CREATE TABLE mine (x text)")
