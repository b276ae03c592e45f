"""What only a connection that stays can hold: a daemon's name, the chores of all, and an ear for the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing, suppress
from typing import Any

import psycopg
import structlog

from dingbridge.store.postgres_engine import Address
from dingbridge.store.postgres_wire import lock_number

log = structlog.get_logger("dingbridge.store")

AGAIN_S = 1.0
HEAR_S = 5.0
CONNECT_S = 30.0  # longer than the server lets a statement wait


class Session:
    """`run()` listens for ever, and connects again where the connection was lost.

    hear: told each note of the others, and "" after a time without an ear.
    """

    def __init__(self, where: Address, *, hear: Callable[[str], None]) -> None:
        self._where = where
        self._hear = hear
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self.name = ""
        self._named = False
        self.on_duty = False

    async def open(self, name: str) -> bool:
        """Connect, and take the name; False where a living daemon has it. Raises psycopg.Error."""
        await self._connect()
        self.name = name
        self._named = await self._take("name", name)
        return self._named

    async def close(self) -> None:
        self.on_duty = False
        if self._connection is not None:
            await self._connection.close()

    async def run(self) -> None:
        listening = asyncio.create_task(self._keep_listening())
        try:
            await asyncio.wait({listening})
            listening.result()
        finally:
            # Hung up before it is cancelled: the library would ask a server that hangs to give up, for ten seconds.
            if self._connection is not None:
                self._connection.pgconn.finish()
            listening.cancel()
            await asyncio.wait({listening})

    async def _keep_listening(self) -> None:
        while True:
            try:
                if self._connection is None or self._connection.closed:
                    async with asyncio.timeout(CONNECT_S):
                        await self._connect()
                    self._hear("")
                await self._listen()
            except (psycopg.Error, TimeoutError):  # the store tells of its trouble
                self._named = self.on_duty = False
                await self._drop()
                await asyncio.sleep(AGAIN_S)

    async def _connect(self) -> None:
        self._connection = await psycopg.AsyncConnection.connect(self._where.conninfo.reveal(), autocommit=True)
        # Daemons share it; who changes the whole store wants it alone.
        await self._connection.execute("SELECT pg_advisory_lock_shared(%s)", (lock_number(self._where.schema, "use"),))
        await self._connection.execute(f'LISTEN "{self._where.schema}"')

    async def _drop(self) -> None:
        if self._connection is not None:
            with suppress(psycopg.Error):
                await self._connection.close()
            self._connection = None

    async def _take(self, *names: str) -> bool:
        assert self._connection is not None
        found = await self._connection.execute(
            "SELECT pg_try_advisory_lock(%s)", (lock_number(self._where.schema, *names),)
        )
        row = await found.fetchone()
        return bool(row and row[0])

    async def _listen(self) -> None:
        """A lock that another session has is asked for now and then: who held it may have died.

        The name's may be held by this daemon's own session before, of which the server has not seen the end.
        """
        assert self._connection is not None
        while True:
            async with asyncio.timeout(4 * HEAR_S):
                self._named = self._named or await self._take("name", self.name)
                self.on_duty = self.on_duty or await self._take("duty")
                async with aclosing(self._connection.notifies(timeout=HEAR_S)) as notes:
                    async for note in notes:
                        self._hear(note.payload)
                await self._connection.execute("SELECT 1")  # a dead line shows only when it is used
