"""A database that hangs, a daemon that was stopped: nobody waits for ever, and nothing stays in nobody's hand."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dingbridge.errors import StoreError
from dingbridge.model import Secret
from dingbridge.store.intake import Limits
from dingbridge.store.postgres import PostgresStore, Rhythm
from dingbridge.store.postgres_engine import Address, PostgresEngine, address
from tests.postgres import Server
from tests.stores import message

RHYTHM = Rhythm(lease_s=3.0, renew_s=0.2, look_s=0.2, steady_s=60.0)


@pytest.fixture
def where(postgres: Server) -> Iterator[Address]:
    """An empty database; the server goes on in the end, whatever the test did to it."""
    yield address(Secret(postgres.create_database()), Secret(), "dingbridge_test")
    postgres.resume()


class Idle:
    """A crew that holds nothing."""

    def held(self) -> dict[int, str]:
        return {}

    def cease(self, row: int) -> None:
        raise AssertionError(row)

    def wake(self) -> None:
        pass


def facts() -> Mapping[str, Any]:
    return {}


async def test_a_store_closes_while_its_database_hangs(postgres: Server, where: Address, tmp_path: Path) -> None:
    """What is under way is torn off; a stopping daemon waits for seconds only."""
    store = PostgresStore(where, tmp_path / "seat", clock=time.time)
    await store.open()
    attending = asyncio.create_task(store.attend(Idle(), facts))
    await store.depth()
    await asyncio.to_thread(postgres.pause)
    putting = [asyncio.create_task(store.put(message(f"m{number}"))) for number in range(20)]
    await asyncio.sleep(0.1)  # they are with the server, or behind those that are
    attending.cancel()
    async with asyncio.timeout(15):
        await asyncio.wait([attending])
        await store.close()
        results = await asyncio.gather(*putting, return_exceptions=True)
    assert all(isinstance(one, StoreError) for one in results), results


async def test_what_ends_in_the_moment_of_its_timeout_has_its_result(where: Address) -> None:
    """As in a daemon that was stopped meanwhile: both are there when it goes on, and neither ends it."""
    engine = PostgresEngine(where, threads=1, run_s=0.3)
    await engine.open()

    def block(seconds: float) -> Callable[[Any], int]:
        return lambda c: int(c.execute("SELECT pg_sleep(?), 7", (seconds,)).fetchone()[1])

    running = asyncio.create_task(engine.run(block(0.1)))
    await asyncio.sleep(0.05)
    time.sleep(1.0)  # noqa: ASYNC251 - the loop stands still, as the whole process would
    try:
        assert await running == 7
        with pytest.raises(StoreError):
            await engine.run(block(5.0))
    finally:
        await engine.close()


async def test_a_server_that_says_nothing_after_the_login_keeps_nobody() -> None:
    """As a pooler whose database hangs: a start that waits for it can be ended."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(8192)
        writer.write(b"R" + struct.pack("!II", 8, 0) + b"Z" + struct.pack("!I", 5) + b"I")  # logged in, ready
        await reader.read(8192)
        greeted.set()
        await reader.read()
        writer.close()

    greeted = asyncio.Event()
    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        asked = "sslmode=disable&gssencmode=disable&target_session_attrs=any"
        silent = address(Secret(f"postgresql://u@127.0.0.1:{port}/d?{asked}"), Secret(), "dingbridge_test")
        engine = PostgresEngine(silent, threads=1)
        opening = asyncio.create_task(engine.open())
        async with asyncio.timeout(15):
            await greeted.wait()
            await engine.close()
        with pytest.raises(StoreError):
            await opening


async def test_what_nobody_waits_for_is_torn_off_too(where: Address) -> None:
    """A caller that gave up earlier leaves no thread behind that hangs for as long as the database does."""
    engine = PostgresEngine(where, threads=1, run_s=0.5)
    await engine.open()
    try:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await engine.run(lambda c: c.execute("SELECT pg_sleep(15)").fetchone())
        unheard = engine.submit(lambda c: c.execute("SELECT pg_sleep(15)").fetchone())
        async with asyncio.timeout(10):
            await asyncio.wait({unheard})
            while True:
                with suppress(StoreError):
                    assert await engine.run(lambda c: c.execute("SELECT 7").fetchone()) == (7,)
                    break
    finally:
        await engine.close()


async def test_a_daemon_goes_on_with_tables_that_were_changed_under_it(where: Address) -> None:
    """What the server has prepared for the tables as they were is prepared anew."""
    engine = PostgresEngine(where, threads=1)
    await engine.open()

    def read(c: Any) -> Any:
        return c.execute("SELECT url FROM webhook").fetchone()

    try:
        await engine.run(read)
        with psycopg.connect(where.conninfo.reveal()) as connection:
            connection.execute("ALTER TABLE webhook ALTER COLUMN url TYPE varchar(99)")
        await engine.run(read)
        await engine.run(lambda c: c.execute("DEALLOCATE ALL"))
        await engine.run(read)
    finally:
        await engine.close()


async def test_a_lease_of_which_a_daemon_has_not_heard_goes_back(where: Address, tmp_path: Path) -> None:
    """The answer to its commit was lost: the message is leased again, soon, and no crash is counted."""
    store = PostgresStore(where, tmp_path / "seat", clock=time.time, limits=Limits(), rhythm=RHYTHM)
    await store.open()
    await store.put(message("m1"))
    await store.lease(1)
    attending = asyncio.create_task(store.attend(Idle(), facts))
    try:
        again: list[Any] = []
        async with asyncio.timeout(10):
            while not again:
                again = (await store.lease(1)).deliveries
                await asyncio.sleep(0.05)
        with psycopg.connect(where.conninfo.reveal()) as connection:
            assert connection.execute("SELECT crashes FROM message").fetchone() == (0,)
    finally:
        attending.cancel()
        await asyncio.wait([attending])
        await store.close()
