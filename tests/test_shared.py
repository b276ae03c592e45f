"""What several daemons of one robot have together: how often a chat is written to, the token, a person's limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dingbridge.bucket import Bucket
from dingbridge.decode import identifier
from dingbridge.dingtalk.openapi import OpenAPI
from dingbridge.dingtalk.pace import Pace
from dingbridge.model import Secret, Task
from dingbridge.sim.gateway import Gateway
from dingbridge.store.intake import Limits
from dingbridge.store.postgres import PostgresStore, Rhythm
from dingbridge.store.postgres_engine import address
from dingbridge.store.postgres_wire import lock_number
from dingbridge.store.shared import Shared
from tests.house import QUICK, House
from tests.postgres import Server
from tests.replying import Direct
from tests.several import configured
from tests.stores import START, UNLIMITED, Clock, message

ROBOT = "dingbridge_test"
GRACE_S = 60.0


def store_at(url: str, folder: Path, clock: Clock, limits: Limits = UNLIMITED, **how: Any) -> PostgresStore:
    return PostgresStore(address(Secret(url), Secret(), ROBOT), folder / "x.db", clock=clock, limits=limits, **how)


@asynccontextmanager
async def stores(
    postgres: Server, folder: Path, clock: Clock, *, count: int = 2, limits: Limits = UNLIMITED
) -> AsyncIterator[list[PostgresStore]]:
    """Open stores on a new database, as of several daemons."""
    url = await asyncio.to_thread(postgres.create_database)
    opened = [store_at(url, folder, clock, limits) for _ in range(count)]
    for one in opened:
        await one.open()
    try:
        yield opened
    finally:
        for one in opened:
            await one.close()


def shared_of(store: PostgresStore) -> Shared:
    assert store.shared is not None
    return store.shared


async def raw(store: PostgresStore, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    return await store._engine.run(lambda c: c.execute(statement, values).fetchall())


# -- the pace of a conversation


async def test_two_daemons_write_twenty_a_minute_together(postgres: Server, tmp_path: Path) -> None:
    """However the sends fall, both together have one conversation's messages of the minute, at the same moment too."""
    clock = Clock()
    async with stores(postgres, tmp_path, clock) as (one, two):
        paces = [Pace(clock, shared=shared_of(store)) for store in (one, two)]
        waits = await asyncio.gather(*(paces[number % 2].take("c") for number in range(30)))
        assert sorted(waits) == [0.0] * 20 + [pytest.approx(3.0)] * 10
        assert await paces[0].take("quiet") == 0.0


async def test_a_turn_is_kept_at_any_daemon(postgres: Server, tmp_path: Path) -> None:
    """Who was told to wait by one daemon is let through by the other after that time, and nobody overtakes."""
    clock = Clock()
    async with stores(postgres, tmp_path, clock) as (one, two):
        first, second = (Pace(clock, shared=shared_of(store)) for store in (one, two))
        for _ in range(20):
            await first.take("c")
        assert await first.take("c", "m1/1") == pytest.approx(3.0)
        clock.tick(3.0)
        assert await second.take("c", "m2/1") == pytest.approx(3.0)
        assert await second.take("c", "m1/1") == 0.0


async def test_too_fast_is_heard_by_all(postgres: Server, tmp_path: Path) -> None:
    """What DingTalk tells one daemon of a conversation, the others keep, too."""
    clock = Clock()
    async with stores(postgres, tmp_path, clock) as (one, two):
        await Pace(clock, shared=shared_of(one)).pause("c", 600.0)
        assert await Pace(clock, shared=shared_of(two)).take("c") == pytest.approx(600.0)


async def test_without_the_database_one_goes_on_by_what_was_seen_last(postgres: Server, tmp_path: Path) -> None:
    """A send fails for no bucket that is out of reach: this daemon counts on by itself, from where it was."""
    clock = Clock()
    async with stores(postgres, tmp_path, clock) as (one, two):
        first, second = (Pace(clock, shared=shared_of(store)) for store in (one, two))
        for _ in range(15):
            await first.take("c")
        assert await second.take("c") == 0.0
        await two._engine.close()
        assert [await second.take("c") for _ in range(5)] == [0.0] * 4 + [pytest.approx(3.0)]
        assert await second.take("new") == 0.0


async def test_a_table_that_hangs_delays_a_send_a_moment_only(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody holds the row and does not let go: the send goes on with the local count."""
    monkeypatch.setattr("dingbridge.dingtalk.pace.SHARED_S", 0.1)
    clock = Clock()
    held, let_go = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    async with stores(postgres, tmp_path, clock) as (one, two):

        def hold(bucket: Bucket) -> tuple[float, Bucket]:
            loop.call_soon_threadsafe(held.set)
            asyncio.run_coroutine_threadsafe(let_go.wait(), loop).result(GRACE_S)
            return 0.0, bucket

        holding = asyncio.create_task(shared_of(one).change("c", hold))
        async with asyncio.timeout(GRACE_S):
            await held.wait()
            assert await Pace(clock, shared=shared_of(two)).take("c") == 0.0
            let_go.set()
            await holding


async def test_buckets_and_tokens_are_forgotten(postgres: Server, tmp_path: Path) -> None:
    """A bucket that is full again has no row, one in a long pause has; a token's text goes when it has ended."""
    clock = Clock()
    async with stores(postgres, tmp_path, clock, count=1) as (store,):
        pace = Pace(clock, shared=shared_of(store))
        await pace.take("quiet")
        await pace.pause("paused", 3600.0)
        await shared_of(store).keep_token(Secret("t1"), 600.0)
        await store.forget()
        assert len(await raw(store, "SELECT * FROM bucket")) == 2
        clock.tick(900.0)
        await store.forget()
        assert await raw(store, "SELECT name FROM bucket") == [("paused",)]
        assert await raw(store, "SELECT value FROM token") == [("",)]


# -- the token


@asynccontextmanager
async def apis(gateway: Gateway, stores: list[PostgresStore], timeout_s: float = 5.0) -> AsyncIterator[list[OpenAPI]]:
    async with Direct().open_session() as session:
        yield [
            OpenAPI(
                session,
                Direct(),
                api_base=gateway.url,
                client_id=gateway.client_id,
                client_secret=Secret(gateway.client_secret),
                timeout_s=timeout_s,
                shared=shared_of(store),
            )
            for store in stores
        ]


async def test_one_token_for_all_daemons(gateway: Gateway, postgres: Server, tmp_path: Path) -> None:
    """Three daemons that need it at the same moment ask DingTalk once."""
    async with stores(postgres, tmp_path, Clock(), count=3) as opened, apis(gateway, opened) as asking:
        tokens = await asyncio.gather(*(api.token() for api in asking for _ in range(5)))
        assert len({token.reveal() for token in tokens}) == 1
        assert gateway.token_calls == 1


async def test_a_refused_token_is_renewed_once_for_all(gateway: Gateway, postgres: Server, tmp_path: Path) -> None:
    """DingTalk knows the token no more: one daemon fetches, the others take what it has kept."""
    async with stores(postgres, tmp_path, Clock(), count=3) as opened, apis(gateway, opened) as asking:
        await asyncio.gather(*(api.token() for api in asking))
        gateway.expire_tokens()
        body = {"robotCode": gateway.client_id, "msgKey": "sampleText", "msgParam": '{"content":"x"}', "userIds": ["u"]}
        await asyncio.gather(*(api.call("POST", "/v1.0/robot/oToMessages/batchSend", body) for api in asking))
        assert gateway.token_calls == 2
        assert len(gateway.posts) == 3


async def test_a_fetcher_that_died_holds_nobody_for_long(gateway: Gateway, postgres: Server, tmp_path: Path) -> None:
    """Its claim ends: the next daemon fetches the token itself."""
    clock = Clock()
    async with stores(postgres, tmp_path, clock) as opened, apis(gateway, opened, 10 * GRACE_S) as (_, second):
        assert (await shared_of(opened[0]).token(Secret(), claim_s=6.0)).yours
        waiting = asyncio.create_task(second.token())
        await asyncio.sleep(0.3)
        assert not waiting.done()
        assert gateway.token_calls == 0
        clock.tick(6.1)
        async with asyncio.timeout(GRACE_S):
            assert await waiting
        assert gateway.token_calls == 1


async def test_without_the_database_each_fetches_its_own(gateway: Gateway, postgres: Server, tmp_path: Path) -> None:
    """A store out of reach costs a call more, not the send."""
    async with stores(postgres, tmp_path, Clock(), count=1) as opened, apis(gateway, opened) as (api,):
        await opened[0]._engine.close()
        assert await api.token()
        assert gateway.token_calls == 1


# -- a person's limits


async def test_a_persons_limits_count_at_all_daemons(postgres: Server, tmp_path: Path) -> None:
    """Questions that come in at several daemons count together, by the minute and by what waits."""
    limits = Limits(waiting_per_lane=0, per_user_per_minute=5)
    async with stores(postgres, tmp_path, Clock(START), limits=limits) as opened:
        placed = await asyncio.gather(*(opened[n % 2].put(message(f"m{n}")) for n in range(12)))
        assert [one.task for one in placed].count(Task.QUESTION) == 5
        assert [one.task for one in placed].count(Task.LIMITED) == 7
    limits = Limits(waiting_per_lane=2, per_user_per_minute=0)
    async with stores(postgres, tmp_path, Clock(START), limits=limits) as opened:
        placed = await asyncio.gather(*(opened[n % 2].put(message(f"m{n}")) for n in range(6)))
        kept = [one.task for one in placed].count(Task.QUESTION)
        assert kept == 2 + 1


# -- leases that cannot be renewed, and the chores of all


class Holding:
    """A crew that works on what it was given."""

    def __init__(self) -> None:
        self.leases: dict[int, str] = {}

    def held(self) -> dict[int, str]:
        return self.leases

    def cease(self, row: int) -> None:
        self.leases.pop(row, None)

    def wake(self) -> None:
        """Nothing waits here."""


async def test_leases_that_cannot_be_renewed_are_a_trouble(postgres: Server, tmp_path: Path) -> None:
    """While writes work but no lease could be renewed for its whole time, the store says so; then no more."""
    url = await asyncio.to_thread(postgres.create_database)
    rhythm = Rhythm(lease_s=0.5, renew_s=0.1, look_s=3600.0)
    store = store_at(url, tmp_path, Clock(), rhythm=rhythm)
    await store.open()
    await store.put(message("m1"))
    (delivery,) = (await store.lease(1)).deliveries
    crew = Holding()
    crew.leases[delivery.row] = delivery.token
    attending = asyncio.create_task(store.attend(crew, dict))
    try:
        async with asyncio.timeout(GRACE_S), await psycopg.AsyncConnection.connect(url) as other:
            assert store.trouble is None
            await other.execute(f"SELECT * FROM {ROBOT}.lane FOR UPDATE")
            while store.trouble is None:
                await asyncio.sleep(0.05)
            assert "leases could not be renewed" in store.trouble
            await store.put(message("m2", person="u2"))
            assert store.trouble is not None
            await other.rollback()
            while store.trouble is not None:
                await asyncio.sleep(0.05)
        assert crew.leases == {delivery.row: delivery.token}
    finally:
        attending.cancel()
        await asyncio.wait({attending})
        await store.close()


async def test_only_the_daemon_on_duty_forgets(house: House, postgres: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another one has the chores of all this one forgets nothing; when that one is gone it does."""
    url = await configured(house, postgres, monkeypatch)
    where = address(Secret(url), Secret(), f"dingbridge_{identifier(house.gateway.client_id)}")
    async with asyncio.timeout(GRACE_S), await psycopg.AsyncConnection.connect(url, autocommit=True) as other:
        await other.execute("SELECT pg_advisory_lock(%s)", (lock_number(where.schema, "duty"),))
        async with house.app(timings=replace(QUICK, forget_s=0.05), store={"url": url}) as app:
            assert app.store.shared is not None
            await app.store.shared.change("old", lambda bucket: bucket.take(0.0))
            await asyncio.sleep(0.5)
            counting = f'SELECT count(*) FROM "{where.schema}".bucket'
            assert await (await other.execute(counting)).fetchone() == (1,)
            assert not app.store.on_duty
            await other.execute("SELECT pg_advisory_unlock(%s)", (lock_number(where.schema, "duty"),))
            while await (await other.execute(counting)).fetchone() != (0,):
                await asyncio.sleep(0.05)
            assert app.store.on_duty
