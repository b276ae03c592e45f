"""One to three daemons on PostgreSQL beside one on SQLite, and both stores without a daemon. It takes turns, too."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from benchmarks import stage
from benchmarks.figures import Course, Runs
from benchmarks.stage import Subject, cpu_s
from benchmarks.stores import LIMITS, Load
from benchmarks.table import Figure
from dingbridge.model import Secret
from dingbridge.sim.anythingllm import AnythingLLM
from dingbridge.store.postgres import PostgresStore
from dingbridge.store.postgres_engine import address
from dingbridge.store.sqlite import SQLiteStore
from dingbridge.store.store import Store
from tests.postgres import Server

SQLITE, POSTGRES = "SQLite", "PostgreSQL"
DAEMONS = (1, 2, 3)


class Engines(Course):
    """Daemons that share a store also share the machine, so that what they have to add is hardly seen here."""

    async def figures(self) -> list[Figure]:
        self._number = 1000  # its places are in the same folder
        server = Server()
        await asyncio.to_thread(server.open)
        try:
            found = await self._stores(server)
            async with stage.backend() as backend, self._subjects(backend, server) as subjects:
                found += await self._daemons(backend, subjects)
        finally:
            await asyncio.to_thread(server.close)
        return found

    @asynccontextmanager
    async def _subjects(self, backend: AnythingLLM, server: Server) -> AsyncIterator[Sequence[Subject]]:
        async with AsyncExitStack() as stack:
            found = [await stack.enter_async_context(stage.dingbridge(backend, self._place(), name=_many(SQLITE, 1)))]
            for count in DAEMONS:
                url = await asyncio.to_thread(server.create_database)
                running = stage.dingbridge(
                    backend, self._place(), name=_many(POSTGRES, count), store=url, daemons=count
                )
                found.append(await stack.enter_async_context(running))
            yield found

    async def _daemons(self, backend: AnythingLLM, subjects: Sequence[Subject]) -> list[Figure]:
        effort = self._effort
        flat = await self._in_turns("engines: flat out", effort.long_runs, subjects, self._flat)
        one = await self._in_turns("engines: one question", effort.runs, subjects, self._one_by_one)
        backend.answer_delay_s = 0.2
        paced = await self._in_turns("engines: acks", effort.long_runs, subjects, self._paced)
        backend.answer_delay_s = 0.0
        return [
            *_beside(flat, "rate", "durable questions/s", "/s"),
            *_beside(flat, "cpu", "CPU a question, of the daemons", "ms"),
            *_beside(one, "p50", "overhead of a question, p50", "ms"),
            *_beside(paced, "p99", "ack at 100 messages/s, p99", "ms"),
        ]

    async def _flat(self, subject: Subject) -> dict[str, float]:
        self._number += 1
        return await self._flood(subject, self._effort.engines_flood)

    async def _paced(self, subject: Subject) -> dict[str, float]:
        return await self._at_pace(subject, self._effort.engines_paced_s)

    async def _stores(self, server: Server) -> list[Figure]:
        count, number = self._effort.engines_flood, 0
        runs: Runs = {SQLITE: {}, POSTGRES: {}}
        async with self._opened(server) as stores:
            for turn in range(self._effort.long_runs + 1):  # the first one warms up
                for name, store in stores.items():
                    self._tell(f"{name} without a daemon: run {turn} of {self._effort.long_runs}")
                    values = await self._store(Load(store, number), store, count, server)
                    number += 10 * count
                    for key, value in values.items() if turn else ():
                        runs[name].setdefault(key, []).append(value)
        lines = (
            ("put", "store alone: put, p50", "ms"),
            ("message", "store alone: put, lease, answered, done, p50", "ms"),
            ("puts/s", "store alone: puts/s, 50 callers", "/s"),
            ("messages/s", "store alone: whole messages/s", "/s"),
            ("cpu", "store alone: CPU a message", "ms"),
            ("commits", "store alone: commits a message, flat out", ""),
            ("server", "store alone: CPU a message, of the server", "ms"),
        )
        return [
            Figure(name, unit, runs[POSTGRES][key], SQLITE if other else "", other)
            for key, name, unit in lines
            for other in [runs[SQLITE].get(key, [])]
        ]

    async def _store(self, load: Load, store: Store, count: int, server: Server) -> dict[str, float]:
        values = await load.puts(100)
        await load.drain()
        values |= await load.one_by_one(100) | await load.puts_at_once(count)
        await load.drain()
        commits, server_s = store._engine.commits, _server_s(server)  # noqa: SLF001 - nobody else asks
        values |= await load.whole(count)
        values["commits"] = (store._engine.commits - commits) / count  # noqa: SLF001 - as above
        if isinstance(store, PostgresStore):
            values["server"] = (_server_s(server) - server_s) / count * 1000
        return values

    @asynccontextmanager
    async def _opened(self, server: Server) -> AsyncIterator[dict[str, Store]]:
        where = address(Secret(server.url), Secret(), "dingbridge_alone")
        folder = self._place()
        stores: dict[str, Store] = {
            SQLITE: SQLiteStore(folder / "alone.db", clock=time.time, limits=LIMITS),
            POSTGRES: PostgresStore(where, folder / "alone", clock=time.time, limits=LIMITS),
        }
        async with AsyncExitStack() as stack:
            for store in stores.values():
                await store.open()
                stack.push_async_callback(store.close)
            yield stores


def _server_s(server: Server) -> float:
    return sum(cpu_s(pid) for pid in server.processes)


def _many(name: str, count: int) -> str:
    return f"{name}, {count} daemon{'s' * (count > 1)}"


def _beside(runs: Runs, value: str, what: str, unit: str) -> list[Figure]:
    base = _many(SQLITE, 1)
    return [
        Figure(f"{what}: {name}", unit, runs[name][value], base, runs[base][value]) for name in runs if name != base
    ]
