"""Where the tests of the store keep their messages: an SQLite file, or a schema of its own on one PostgreSQL.

What both databases promise is tested in a place of each. A daemon ends there as planned, or dies without a word.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from abc import ABC, abstractmethod
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dingbridge.model import Secret
from dingbridge.store.intake import Limits
from dingbridge.store.postgres import PostgresStore, Rhythm
from dingbridge.store.postgres_engine import Address, address
from dingbridge.store.recovery import Recovered
from dingbridge.store.sqlite import SQLiteStore
from dingbridge.store.store import Store
from tests.postgres import Server, Unavailable
from tests.stores import ROOT, UNLIMITED, Clock, crashed


@contextmanager
def serving(*, fast: bool = False, password: str = "") -> Iterator[Server]:
    """A PostgreSQL of one's own; where none can be started, the test is skipped."""
    try:
        server = Server(fast=fast, password=password)
    except Unavailable as reason:
        pytest.skip(str(reason))
    with server:
        yield server


CHILD = (sys.executable, "-m", "tests.store_child")
_numbers = count(1)


class Place(ABC):
    """`make` gives a store that is not open yet; where one of this place has died, the next finds what it left."""

    @abstractmethod
    def make(self, clock: Clock, limits: Limits = UNLIMITED, *, wipe: bool = True) -> Store: ...

    @abstractmethod
    async def die(self, store: Store) -> None:
        """Nothing is given back, nobody is told."""

    @abstractmethod
    def rows(self, columns: str = "*", table: str = "message") -> list[tuple[Any, ...]]:
        """What is stored, read beside the store."""

    @property
    @abstractmethod
    def arguments(self) -> tuple[str, ...]:
        """For `tests.store_child`."""

    @abstractmethod
    def close(self) -> None:
        """Leave nothing behind."""

    @asynccontextmanager
    async def opened(self, clock: Clock, limits: Limits = UNLIMITED, *, wipe: bool = True) -> AsyncIterator[Store]:
        """An open store, closed in the end."""
        store = self.make(clock, limits, wipe=wipe)
        await store.open()
        try:
            yield store
        finally:
            await store.close()

    @asynccontextmanager
    async def child(self, *steps: str) -> AsyncIterator[Process]:
        """A process that works on the store; killed in the end if it still lives."""
        process = await asyncio.create_subprocess_exec(
            *CHILD, *self.arguments, *steps, cwd=ROOT, stdin=PIPE, stdout=PIPE
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


class SQLitePlace(Place):
    """A crash leaves a copy of the files as they stood, and the next start opens that."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._crashes = 0
        self.path = folder / "x.db"

    def make(self, clock: Clock, limits: Limits = UNLIMITED, *, wipe: bool = True) -> SQLiteStore:
        return SQLiteStore(self.path, clock=clock, limits=limits, wipe=wipe)

    async def die(self, store: Store) -> None:
        self._crashes += 1
        self.path = crashed(self.path, self._folder / f"life{self._crashes}")
        await store.close()

    def close(self) -> None:
        """The folder is the test's."""

    def rows(self, columns: str = "*", table: str = "message") -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as connection:
            return connection.execute(f"SELECT {columns} FROM {table} ORDER BY 1").fetchall()

    @property
    def arguments(self) -> tuple[str, ...]:
        return (str(self.path),)


class PostgresPlace(Place):
    """Several stores may be open at the same time; each start takes the first free seat of the folder."""

    def __init__(self, server: Server, folder: Path, *, url: str = "", schema: str = "") -> None:
        self.url = url or _database_of(server)
        self.schema = schema or f"dingbridge_t{next(_numbers)}"
        self.folder = folder

    @property
    def where(self) -> Address:
        return address(Secret(self.url), Secret(), self.schema)

    def make(
        self, clock: Clock, limits: Limits = UNLIMITED, *, wipe: bool = True, rhythm: Rhythm | None = None
    ) -> PostgresStore:
        return PostgresStore(self.where, self.folder / "x.db", clock=clock, limits=limits, wipe=wipe, rhythm=rhythm)

    async def die(self, store: Store) -> None:
        """As the server sees it: every connection ends, and nothing was said before."""
        assert isinstance(store, PostgresStore)
        session, store._session = store._session, None
        assert session is not None
        await session.close()
        await store.close()

    def rows(self, columns: str = "*", table: str = "message") -> list[tuple[Any, ...]]:
        with self.beside() as connection:
            return connection.execute(f"SELECT {columns} FROM {table} ORDER BY 1").fetchall()

    def beside(self) -> psycopg.Connection[Any]:
        """A connection of the test's own, in this schema."""
        return psycopg.connect(self.where.conninfo.reveal(), autocommit=True)

    @property
    def arguments(self) -> tuple[str, ...]:
        return (self.url, self.schema, str(self.folder / "x.db"))

    def close(self) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("SET client_min_messages = warning")
            connection.execute(f'DROP SCHEMA IF EXISTS "{self.schema}" CASCADE'.encode())


@lru_cache(maxsize=8)
def _database_of(server: Server) -> str:
    return server.create_database()


class Life:
    """One daemon of a place through its ends and starts. recovered: what its last start found."""

    def __init__(self, place: Place, clock: Clock) -> None:
        self.place = place
        self.clock = clock
        self.store = place.make(clock)
        self.recovered = Recovered(0, 0)

    async def start(self) -> Store:
        self.store = self.place.make(self.clock)
        self.recovered = await self.store.open()
        return self.store

    async def crash(self) -> Store:
        """Die without a word, and start again."""
        await self.place.die(self.store)
        return await self.start()

    async def restart(self) -> Store:
        """Stop as planned, and start again."""
        await self.store.release_all()
        await self.store.close()
        return await self.start()


@asynccontextmanager
async def life(place: Place, clock: Clock | None = None) -> AsyncIterator[Life]:
    """A first start."""
    one = Life(place, clock or Clock())
    await one.start()
    try:
        yield one
    finally:
        await one.store.close()
