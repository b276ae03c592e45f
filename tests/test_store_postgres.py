"""PostgreSQL is lost, hangs, fills up or refuses: each operation ends, says why, and works again by itself."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dingbridge.dingtalk import payload
from dingbridge.errors import ConfigError, LeaseLost, StoreUnavailable
from dingbridge.model import Answer, Delivery, Outcome, Secret, Task
from dingbridge.store import recovery
from dingbridge.store.checking import check_postgres
from dingbridge.store.postgres import PostgresStore, Rhythm, look
from dingbridge.store.postgres_engine import address
from dingbridge.store.postgres_schema import NEWEST
from dingbridge.store.postgres_wire import PostgresConnection
from dingbridge.store.recovery import SETTLE_S, Recovered
from dingbridge.store.store import LEASE_S, Store
from tests.house import until
from tests.places import PostgresPlace, serving
from tests.postgres import Server, account
from tests.stores import START, UNLIMITED, Clock, finish, head, leased, message
from tests.test_store_replicas import QUICK, attended, daemons

HANG_S = 30.0
GRANT = 'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "{schema}" TO {role}'
PASSWORD = "geh+eim/42"


@pytest.fixture(scope="module")
def durable() -> Iterator[Server]:
    """A server that keeps what was committed, to be killed; it asks for a password."""
    with serving(password=PASSWORD) as server:
        yield server


@pytest.fixture
def place(durable: Server, tmp_path: Path) -> Iterator[PostgresPlace]:
    if not durable.running:
        durable.start()
    durable.resume()
    one = PostgresPlace(durable, tmp_path)
    yield one
    one.close()


@pytest.fixture
def troubles() -> list[str]:
    """What the store's owner was told, cause by cause; "" when it was over."""
    return []


@pytest.fixture
async def store(place: PostgresPlace, troubles: list[str]) -> AsyncIterator[PostgresStore]:
    one = PostgresStore(
        place.where,
        place.folder / "x.db",
        clock=Clock(),
        limits=UNLIMITED,
        on_trouble=lambda error: troubles.append(error.cause if error is not None else ""),
    )
    await one.open()
    async with asyncio.timeout(HANG_S * 2):
        yield one
    await one.close()


async def blocking(work: Callable[[], object]) -> None:
    await asyncio.to_thread(work)


async def refused(work: Awaitable[object], cause: str = "store.unreachable") -> StoreUnavailable:
    """It ends in time, and may be tried again."""
    async with asyncio.timeout(HANG_S):
        with pytest.raises(StoreUnavailable) as caught:
            await work
    assert (caught.value.cause, caught.value.retryable) == (cause, True)
    assert PASSWORD not in caught.value.detail
    return caught.value


async def works_again(store: Store) -> None:
    async with asyncio.timeout(HANG_S):
        while True:
            with suppress(StoreUnavailable):
                await store.probe()
                return
            await asyncio.sleep(0.05)


OPERATIONS: dict[str, Callable[[PostgresStore, Delivery], Awaitable[object]]] = {
    "put": lambda store, _: store.put(message("m2")),
    "lease": lambda store, _: store.lease(1),
    "renew": lambda store, held: store.renew([held.token]),
    "answered": lambda store, held: store.answered(held, Answer("答"), Outcome.ANSWERED),
    "sending": lambda store, held: store.sending(held, 1),
    "later": lambda store, held: store.later(held, 5.0),
    "trouble": lambda store, held: store.claim_trouble(held),
    "done": lambda store, held: store.done(held, Outcome.ANSWERED),
    "dead": lambda store, held: store.dead(held, Outcome.FAILED, ""),
    "cancel": lambda store, _: store.cancel(message("x"), before=99),
    "notice": lambda store, held: store.claim_notice(held.row),
    "release": lambda store, _: store.release_all(),
    "forget": lambda store, _: store.forget(),
    "probe": lambda store, _: store.probe(),
    "webhook": lambda store, _: store.webhook("ding1", "c1"),
    "waiting": lambda store, _: store.waiting(),
    "find": lambda store, _: store.find("ding1", "m1"),
    "listed": lambda store, _: store.listed("all", 9),
    "lanes": lambda store, _: store.lanes(9),
    "retry": lambda store, held: store.retry(held.row),
    "drop": lambda store, held: store.drop(held.row, tell=True),
    "depth": lambda store, _: store.depth(),
    "peers": lambda store, _: store.peers(),
}


# -- lost between transactions


@pytest.mark.parametrize("way", ["stopped", "killed"])
async def test_without_its_database_each_operation_says_so(
    durable: Server, place: PostgresPlace, store: PostgresStore, troubles: list[str], way: str
) -> None:
    """Everything asked is told in time that it may be tried again; then all works again, with nothing lost."""
    await store.put(message("m1"))
    held = await head(store)
    await blocking(durable.stop if way == "stopped" else durable.kill)
    for operation in OPERATIONS.values():
        await refused(operation(store, held))
    assert store.trouble is not None
    assert "is the server up" in store.trouble
    assert set(troubles) == {"store.unreachable"}

    await blocking(durable.start)
    await works_again(store)
    assert store.trouble is None
    assert troubles[-1] == ""
    await finish(store, held)
    assert place.rows("key, outcome") == [("m1", "answered")]


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_a_restart_between_two_operations_is_not_noticed(
    durable: Server, store: PostgresStore, troubles: list[str], mode: Any
) -> None:
    """A connection that broke while nobody used it is made anew for the next who asks."""
    await store.put(message("m1"))
    await blocking(partial(durable.restart, mode))
    held = await head(store)
    await finish(store, held)
    assert set(troubles) <= {""}


async def test_what_was_told_as_kept_survives_a_kill_of_the_database(
    durable: Server, place: PostgresPlace, store: PostgresStore
) -> None:
    """Killed in the middle of many puts: each that came back is there, and each that failed can come again."""
    kept, failed = set[str](), set[str]()

    async def ask(person: str) -> None:
        for number in range(1000):
            key = f"{person}-{number}"
            try:
                await store.put(message(key, person=person))
            except StoreUnavailable:
                failed.add(key)
                return
            kept.add(key)

    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(ask(f"u{number}"))
        await until(lambda: len(kept) > 100)
        await blocking(durable.kill)
    await blocking(durable.start)
    await works_again(store)
    assert len(failed) == 8
    stored = {key for (key,) in place.rows("key")}
    assert kept <= stored <= kept | failed
    for key in failed:
        await store.put(message(key, person=key.partition("-")[0]))
    assert {key for (key,) in place.rows("key")} == kept | failed
    assert len(place.rows("key", "lane")) == 8


# -- lost inside of one


@pytest.mark.parametrize("way", ["stopped", "killed"])
async def test_lost_inside_a_transaction(durable: Server, place: PostgresPlace, store: PostgresStore, way: str) -> None:
    """Whoever waits for the server then is told at once, and nothing of what was begun is there."""
    entered = threading.Event()

    def work(c: Any) -> None:
        c.execute("INSERT INTO context VALUES ('r', 'c', 'p', 1)")
        entered.set()
        c.execute("SELECT pg_sleep(60)")

    task = asyncio.create_task(store._engine.run(work))
    assert await asyncio.to_thread(entered.wait, HANG_S)
    await blocking(partial(durable.stop, "immediate") if way == "stopped" else durable.kill)
    await refused(task)
    await blocking(durable.start)
    await works_again(store)
    assert place.rows("*", "context") == []


async def test_a_database_that_hangs(durable: Server, place: PostgresPlace, store: PostgresStore) -> None:
    """Stopped like a virtual machine: more callers than there are connections are all told in time; then it goes on."""
    store._postgres._run_s = 1.0
    await store.put(message("m1"))
    held = await head(store)
    await blocking(durable.pause)
    began = time.monotonic()
    told = await asyncio.gather(*(refused(store.put(message(f"w{number}"))) for number in range(12)))
    assert time.monotonic() - began < HANG_S
    assert "no answer within 1 s" in told[0].detail
    assert store.trouble is not None
    await blocking(durable.resume)
    await works_again(store)
    await finish(store, held)
    for number in range(12):
        await store.put(message(f"w{number}"))
    assert len(place.rows("key")) == 13


# -- nobody knows whether it was committed


@pytest.fixture
def lossy(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """As often as there is something in it, the answer to a commit is lost, and the connection with it."""
    armed: list[bool] = []
    original = PostgresConnection.transact

    def transact(self: PostgresConnection, work: Callable[[Any], Any]) -> Any:
        result = original(self, work)
        if armed:
            armed.pop()
            self.raw.close()
            raise psycopg.OperationalError("the answer to COMMIT was lost")
        return result

    monkeypatch.setattr(PostgresConnection, "transact", transact)
    return armed


@pytest.mark.parametrize("name", OPERATIONS)
async def test_a_commit_whose_answer_is_lost_once(
    store: PostgresStore, lossy: list[bool], troubles: list[str], name: str
) -> None:
    """It is done again, and bears that; a worker may be told that it has lost the lease, never something false."""
    await store.put(message("m1"))
    await store.put(message("other", person="u2"))
    held = await head(store)
    lossy.append(True)
    ended = name in {"later", "done", "dead"}
    try:
        await OPERATIONS[name](store, held)
    except LeaseLost:
        assert ended
    else:
        assert not ended
    assert not lossy
    assert set(troubles) <= {""}


async def test_a_lease_in_doubt_is_no_crash(place: PostgresPlace, store: PostgresStore, lossy: list[bool]) -> None:
    """What was leased unheard is given back, and nothing else; its daemon goes on with the rest."""
    for number in range(6):
        await store.put(message(f"m{number}", person=f"u{number}"))
    lossy.append(True)
    heard = (await store.lease(2)).deliveries
    assert [one.message.id for one in heard] == ["m2", "m3"]
    lossy += [True, True]
    await refused(store.lease(1))
    assert len(place.rows("key", "lane WHERE token IS NOT NULL")) == 6
    held, late = {one.token for one in heard}, store._clock() + LEASE_S + 1
    returned = store._engine.run(lambda c: recovery.reclaim(c, owner=store.owner, held=held, before=late))
    assert await returned == 4
    assert await leased(store, 9) == ["m0", "m1", "m4", "m5"]
    assert place.rows("DISTINCT crashes, tries") == [(0, 0)]


async def test_an_end_in_doubt_is_an_end(place: PostgresPlace, store: PostgresStore, lossy: list[bool]) -> None:
    """Where done was committed unheard, a second try finds no lease; the message has ended once."""
    await store.put(message("m1"))
    await store.put(message("m2"))
    held = await head(store)
    lossy += [True, True, True, True]
    with pytest.raises((StoreUnavailable, LeaseLost)):
        await store.done(held, Outcome.ANSWERED)
    lossy.clear()
    with pytest.raises(LeaseLost):
        await store.done(held, Outcome.ANSWERED)
    assert place.rows("key, outcome") == [("m1", "answered"), ("m2", None)]
    assert await leased(store) == ["m2"]


async def test_ids_as_long_as_a_frame_may_have_them_are_kept(store: PostgresStore) -> None:
    """An index of PostgreSQL takes them; a message that it did not take would look like a store that fails."""
    one, two, three = (secrets.token_hex(payload.ID_BYTES // 2) for _ in range(3))
    asked = message(one, conversation=two, person=three, webhook="https://x")
    placed = await store.put(asked, Task.COMMAND, fresh=True)
    assert not placed.duplicate
    assert not (await store.put(replace(asked, id=two))).duplicate


# -- several, and an outage


async def test_an_outage_condemns_nobody(durable: Server, place: PostgresPlace) -> None:
    """Away for longer than a lease: whoever comes back keeps what they held; whoever does not loses it later."""
    clock = Clock()
    rhythm = Rhythm(lease_s=30.0, renew_s=0.1, look_s=0.02, steady_s=2.0)
    async with daemons(place, clock, 3, rhythm=rhythm) as (one, two, three):
        for person in ("back", "gone"):
            await one.put(message(person, person=person))
        back, gone = await head(one), await head(three)
        async with attended(one) as hands, attended(two):
            hands.holds[back.row] = back.token
            await blocking(partial(durable.stop, "immediate"))
            clock.tick(100)
            await until(lambda: one.trouble is not None and two.trouble is not None)
            await blocking(durable.start)
            await until(lambda: (clock() + 30.0,) in place.rows("leased_until", "lane"))
            await until(lambda: (gone.row, 1) in place.rows("id, crashes"), HANG_S)
            assert (back.row, 0) in place.rows("id, crashes")
            assert hands.ceased == []


async def test_after_a_restart_of_the_database_all_hear_each_other(durable: Server, place: PostgresPlace) -> None:
    """The ear, the name and the chores come back by themselves."""
    async with daemons(place, Clock(), 2, rhythm=QUICK) as (one, two):
        async with attended(one) as _, attended(two) as hands:
            await until(lambda: one.on_duty or two.on_duty)
            await blocking(durable.restart)
            await until(lambda: one.on_duty or two.on_duty)
            await works_again(one)

            def woken() -> bool:
                one.call_others()
                return hands.woken.is_set()

            hands.woken.clear()
            await until(woken)
        await place.die(one)
        async with place.opened(Clock()) as again:
            assert again.owner == one.owner


async def test_a_daemon_can_end_while_its_database_is_away(durable: Server, place: PostgresPlace) -> None:
    """Closing takes no longer than a connection that is refused; the next start finds what was held."""
    one = place.make(Clock())
    await one.open()
    await one.put(message("m1"))
    await head(one)
    await blocking(durable.kill)
    async with asyncio.timeout(HANG_S):
        await one.close()
        await refused(place.make(Clock()).open())
    await blocking(durable.start)
    again = place.make(Clock(START + SETTLE_S))
    assert await again.open() == Recovered(1, 0)
    await again.close()


# -- a full disk


@pytest.fixture
def small(durable: Server, tmp_path: Path) -> Iterator[tuple[PostgresPlace, Path]]:
    """A database on a disk of 24 MB, and what fills that disk."""
    if os.geteuid():
        pytest.skip("only root can mount a small disk")
    disk = durable.folder / "disk"
    disk.mkdir(exist_ok=True)
    owner = account()
    options = f"size=24m,uid={owner.uid},gid={owner.gid},mode=700"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    space = disk / "space"
    space.mkdir()
    os.chown(space, owner.uid, owner.gid)
    if not durable.running:
        durable.start()
    try:
        with psycopg.connect(durable.socket_url_of(), autocommit=True) as connection:
            connection.execute(f"CREATE TABLESPACE small LOCATION '{space}'".encode())
            connection.execute("CREATE DATABASE small TABLESPACE small")
        one = PostgresPlace(durable, tmp_path, url=durable.url_of("small"))
        yield one, disk / "filling"
        (disk / "filling").unlink(missing_ok=True)
        durable.drop_database("small")
        with psycopg.connect(durable.socket_url_of(), autocommit=True) as connection:
            connection.execute("DROP TABLESPACE small")
    finally:
        subprocess.run(["umount", "-l", str(disk)], capture_output=True, check=False)


async def test_a_disk_without_space(small: tuple[PostgresPlace, Path]) -> None:
    """On a disk that is really full nothing is told as kept, the trouble stays until there is room, then all works."""
    place, filling = small
    async with place.opened(Clock()) as store:
        await store.put(message("before"))
        with suppress(OSError), filling.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        told = await refused(_put_many(store), "store.full")
        assert "No space left on device" in told.detail
        assert "disk is full" in told.detail
        await refused(store.probe(), "store.full")
        await store.depth()
        assert store.trouble is not None
        kept = len(place.rows("key"))

        filling.unlink()
        await works_again(store)
        assert store.trouble is None
        await store.put(message("after", person="u2"))
        assert len(place.rows("key")) == kept + 1
        assert await leased(store, 1) == ["before"]


async def _put_many(store: Store) -> None:
    """Until there is no room for one."""
    for number in range(1000):
        await store.put(message(f"m{number}", text=os.urandom(20_000).hex()))


# -- what cannot be opened


async def test_a_wrong_password_is_told_without_it(durable: Server, place: PostgresPlace) -> None:
    """What to look at is said; neither the password nor the URL's is in it."""
    wrong = durable.url.replace("geh%2Beim%2F42", "fal%2Bsch")
    assert wrong != durable.url
    where = address(Secret(wrong), Secret(), place.schema)
    told = await refused(PostgresStore(where, place.folder / "x.db", clock=Clock()).open(), "store.password")
    for hidden in ("fal+sch", "fal%2Bsch"):
        assert hidden not in told.detail
        assert hidden not in repr(where)
        assert hidden not in where.place
    assert "[store] password" in told.detail
    right = address(Secret(wrong), Secret(PASSWORD), place.schema)
    store = PostgresStore(right, place.folder / "x.db", clock=Clock())
    await store.open()
    await store.close()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:geheim@h:54x/d",
        "postgresql://u:geh/eim@h/d",
        "postgresql://u:geheim@h/d?nothing=1",
        "postgresql://u:geheim@[::1/d",
        "postgresql://u:geheim%zz@h/d",
        "postgresql://u:geh eim@h/d",
        "postgresql://h/d?password=geheim&=",
        "postgresql://u:x@geheim@h:1/d",
        "postgresql:geheim",
    ],
)
def test_no_url_is_told_with_its_password(url: str) -> None:
    """What libpq does not understand it quotes, and takes parts of a password for a host: none of that is shown."""
    with pytest.raises(ConfigError) as caught:
        address(Secret(url), Secret(), "s")
    assert not [part for part in ("geh", "eim") if part in str(caught.value)]
    assert "%40" in str(caught.value) or "unknown parameter" in str(caught.value)


async def test_a_database_in_another_encoding_is_refused(durable: Server, place: PostgresPlace) -> None:
    """Before any table is made; how to make a right one is said."""
    with psycopg.connect(durable.socket_url_of(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE ascii ENCODING 'SQL_ASCII' TEMPLATE template0")
    other = PostgresPlace(durable, place.folder, url=durable.url_of("ascii"))
    with pytest.raises(StoreUnavailable, match="in SQL_ASCII: make one in UTF8") as caught:
        await other.make(Clock()).open()
    assert not caught.value.retryable
    with other.beside() as connection:
        assert connection.execute("SELECT to_regnamespace(%s)", (other.schema,)).fetchone() == (None,)
    durable.drop_database("ascii")


async def test_tables_of_a_newer_version_are_left_alone(place: PostgresPlace) -> None:
    """A daemon, and an operator's command, say which version it is, and change nothing."""
    async with place.opened(Clock()) as store:
        await store.put(message("m1"))
    with place.beside() as connection:
        connection.execute("UPDATE schema_version SET number = 99")
    with pytest.raises(StoreUnavailable, match=f"schema 99, this one knows {NEWEST}") as caught:
        await place.make(Clock()).open()
    assert (caught.value.cause, caught.value.retryable) == ("store.newer", False)
    with pytest.raises(StoreUnavailable, match="version 99"):
        await place.make(Clock()).open_beside()
    assert place.rows("key") == [("m1",)]


async def test_an_operator_makes_no_tables(place: PostgresPlace) -> None:
    """Where there are none yet, a command says so and leaves it at that."""
    with pytest.raises(StoreUnavailable, match=r"no tables in schema \w+ yet: the first start of `dingbridge run`"):
        await place.make(Clock()).open_beside()
    with pytest.raises(StoreUnavailable, match="no tables in schema"):
        await asyncio.to_thread(check_postgres, place.where)
    with place.beside() as connection:
        assert connection.execute("SELECT to_regnamespace(%s)", (place.schema,)).fetchone() == (None,)


@pytest.mark.parametrize("rights", ["none", "tables", "reading"])
async def test_a_role_without_rights_is_told_which(durable: Server, place: PostgresPlace, rights: str) -> None:
    """Neither silence nor a traceback: that the role may not, and what to give it."""
    role = f"guest_{rights}"
    with psycopg.connect(durable.socket_url_of(), autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'guest'".encode())
    if rights != "none":
        async with place.opened(Clock()):
            pass
    if rights == "reading":
        with place.beside() as connection:
            connection.execute(f'GRANT USAGE ON SCHEMA "{place.schema}" TO {role}'.encode())
            connection.execute(f'GRANT SELECT ON ALL TABLES IN SCHEMA "{place.schema}" TO {role}'.encode())
    url = place.url.replace("dingbridge:geh%2Beim%2F42", f"{role}:guest")
    guest = PostgresPlace(durable, place.folder, url=url, schema=place.schema)
    if rights == "none":
        told = await refused(guest.make(Clock()).open(), "store.readonly")
        assert "permission denied" in told.detail
        assert "grant this role its rights" in told.detail
    else:
        for asked in (guest.make(Clock()).open(), look(guest.where)):
            with pytest.raises(StoreUnavailable) as caught:
                await asked
            assert (caught.value.cause, caught.value.retryable) == ("store.readonly", False)
            lacking = "INSERT, UPDATE, DELETE on bucket; " if rights == "reading" else "USAGE on schema "
            assert f"role {role} lacks {lacking}" in caught.value.detail
            assert "on schema_version" not in caught.value.detail
            assert GRANT.format(schema=place.schema, role=role) in caught.value.detail
    place.close()
    with psycopg.connect(durable.socket_url_of(), autocommit=True) as connection:
        connection.execute(f"DROP ROLE {role}".encode())


async def test_a_table_that_may_not_be_written_any_more(durable: Server, place: PostgresPlace) -> None:
    """Trouble from the first message that is not kept until one can be; no heartbeat ends it, nor a probe elsewhere."""
    role, tables = "revoked", f'ALL TABLES IN SCHEMA "{place.schema}"'
    async with place.opened(Clock()):
        pass
    with psycopg.connect(durable.url_of(place.url.rpartition("/")[2]), autocommit=True) as owner:
        owner.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'guest'".encode())
        owner.execute(f'GRANT USAGE ON SCHEMA "{place.schema}" TO {role}'.encode())
        owner.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO {role}".encode())
        url = place.url.replace("dingbridge:geh%2Beim%2F42", f"{role}:guest")
        async with PostgresPlace(durable, place.folder, url=url, schema=place.schema).opened(Clock()) as store:
            assert isinstance(store, PostgresStore)
            await store.put(message("m1"))
            owner.execute(f'REVOKE INSERT ON "{place.schema}".message FROM {role}'.encode())
            await refused(store.put(message("m2")), "store.readonly")
            await store._beat({})
            assert "grant this role its rights" in str(store.trouble)
            told = await refused(store.probe(), "store.readonly")
            assert f"role {role} lacks INSERT on message; " in told.detail
            assert store.trouble is not None
            owner.execute(f"GRANT INSERT ON {tables} TO {role}".encode())
            await store.probe()
            assert store.trouble is None
        place.close()
        owner.execute(f"DROP ROLE {role}".encode())


async def test_a_database_that_is_not_there(durable: Server, tmp_path: Path) -> None:
    """Its name is said; the server is up, so that is not asked."""
    place = PostgresPlace(durable, tmp_path, url=durable.url_of("nowhere"))
    with pytest.raises(StoreUnavailable, match=r'database "nowhere" does not exist; make it \(createdb') as caught:
        await place.make(Clock()).open()
    assert "is the server" not in caught.value.detail.lower()


@pytest.mark.parametrize("where", ["127.0.0.1:1/db", "/db?host=/nowhere"])
async def test_whether_the_server_is_up_is_asked_once(where: str) -> None:
    """The client's library asks it too, in more words."""
    with pytest.raises(StoreUnavailable) as caught:
        await look(address(Secret(f"postgresql://{where}"), Secret(), "s"))
    assert caught.value.detail.lower().count("is the server") == 1


def test_an_ssl_mode_that_there_is_not() -> None:
    """A fault of the configuration, which names those that there are."""
    with pytest.raises(ConfigError, match="sslmode must be one of disable, allow"):
        address(Secret("postgresql://h/db?sslmode=required"), Secret(), "s")
