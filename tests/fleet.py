"""Several daemons of one robot on one PostgreSQL, each a process of its own with its own log."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from dingbridge import config
from dingbridge.building import postgres_address
from dingbridge.sim.anythingllm import AnythingLLM
from dingbridge.sim.gateway import Gateway
from tests.house import Daemon, House

_HELD = (
    "SELECT count(*), count(CASE WHEN m.state = 'sending' THEN 1 END) FROM lane l JOIN message m ON m.id = l.head"
    " JOIN replica r ON r.id = l.owner WHERE l.token IS NOT NULL AND r.pid = ANY(%s)"
)


@dataclass
class Member:
    """One of them, through all its lives. state: its STATE_DIRECTORY."""

    number: int
    house: House
    state: Path
    kills: int = 0
    daemon: Daemon | None = None
    frozen: bool = False
    _began: int = field(default=0, repr=False)

    @property
    def log(self) -> Path:
        return self.house.folder / "daemon.log"

    @property
    def pid(self) -> int:
        assert self.daemon is not None
        return self.daemon.process.pid

    @property
    def is_up(self) -> bool:
        """It runs, and has had its link since it was started."""
        alive = self.daemon is not None and self.daemon.process.returncode is None and not self.frozen
        return alive and b'"stream.connected"' in self._log()[self._began :]

    async def start(self) -> None:
        self._began = len(self._log())
        self.daemon = await self.house.daemon(environ={"STATE_DIRECTORY": str(self.state)})

    async def kill(self) -> None:
        assert self.daemon is not None
        self.kills += 1
        self.frozen = False
        await self.daemon.kill()

    async def stop(self) -> int:
        assert self.daemon is not None
        ended = self.daemon.process.returncode
        return await self.daemon.stop(timeout_s=60.0) if ended is None else ended

    def freeze(self) -> None:
        """SIGSTOP: to everybody else it is a dead line that is still open."""
        self.frozen = True
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        self.frozen = False
        os.kill(self.pid, signal.SIGCONT)

    def events(self, name: str = "") -> list[dict[str, Any]]:
        """What it logged in all its lives; a line that a kill has cut off is left out."""
        found = []
        for line in self._log().decode("utf-8", "replace").splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and name in ("", event.get("event")):
                found.append(event)
        return found

    def _log(self) -> bytes:
        return self.log.read_bytes() if self.log.exists() else b""


class Fleet:
    """url: of the database; urls: of single members instead. together: they share one STATE_DIRECTORY."""

    def __init__(
        self,
        gateway: Gateway,
        backend: AnythingLLM,
        folder: Path,
        url: str,
        *,
        count: int = 3,
        urls: Mapping[int, str] | None = None,
        together: bool = True,
        **tables: Any,
    ) -> None:
        self.gateway = gateway
        self.url = url
        self.schema = ""
        self.members: list[Member] = []
        for number in range(count):
            own = folder / f"daemon{number}"
            own.mkdir(parents=True)
            house = House(gateway, backend, own)
            store = {"url": (urls or {}).get(number, url)}
            path = house.configure(**{"web": {"listen": ""}, "reply": {"notice": "off"}, "store": store, **tables})
            self.members.append(Member(number, house, (folder if together else own) / "state"))
            self.schema = postgres_address(config.load(path, {}).store, gateway.client_id).schema

    @property
    def up(self) -> list[Member]:
        return [member for member in self.members if member.is_up]

    async def start(self) -> None:
        """All, until each has its link."""
        for member in self.members:
            await member.start()
        await self.gateway.connected(len(self.members), timeout_s=60)

    async def stop(self) -> list[int]:
        """SIGTERM to all at once; their exit codes, also of those that have ended by themselves."""
        return list(await asyncio.gather(*(member.stop() for member in self.members)))

    def end(self) -> None:
        """Whatever happened, nothing is left running."""
        for member in self.members:
            if member.daemon is not None and member.daemon.process.returncode is None:
                member.daemon.process.kill()

    def query(self, statement: str, *values: Any) -> list[Any]:
        """On a connection of its own, as an onlooker."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(psycopg.sql.SQL("SET search_path = {}").format(psycopg.sql.Identifier(self.schema)))
            return connection.execute(statement.encode(), values).fetchall()

    async def held(self, *pids: int) -> tuple[int, int]:
        """How many messages these processes work on, and how many of those go out just now."""
        ((held, sending),) = await asyncio.to_thread(self.query, _HELD, list(pids))
        return held, sending


@asynccontextmanager
async def fleet(gateway: Gateway, backend: AnythingLLM, folder: Path, url: str, **how: Any) -> AsyncIterator[Fleet]:
    """Started; killed at the end where the test has not stopped them."""
    one = Fleet(gateway, backend, folder, url, **how)
    try:
        await one.start()
        yield one
    finally:
        one.end()
        for member in one.members:
            if member.daemon is not None:
                await member.daemon.process.wait()
