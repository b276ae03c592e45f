"""Several daemons on one PostgreSQL, on this machine."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.house import Daemon, House, until
from tests.operating import as_json
from tests.postgres import Server


def configuration(house: House) -> tuple[str, str]:
    return "--config", str(house.folder / "dingbridge.toml")


def environ(house: House) -> dict[str, str]:
    """Locks and sockets of this test's daemons stand in its folder."""
    return {"STATE_DIRECTORY": str(house.folder)}


async def configured(house: House, postgres: Server, monkeypatch: Any, **tables: Any) -> str:
    """A new database for the house; its URL. The verbs find the daemons."""
    monkeypatch.setenv("STATE_DIRECTORY", str(house.folder))
    url = await asyncio.to_thread(postgres.create_database)
    house.configure(**{**tables, "store": {"url": url, **tables.get("store", {})}})
    return url


async def started(house: House, count: int) -> list[Daemon]:
    """As many daemons, each connected to DingTalk."""
    daemons = []
    for number in range(count):
        daemons.append(await house.daemon(environ=environ(house), log=house.folder / f"daemon{number + 1}.log"))
        await until(lambda: connected_to(house) == len(daemons), what="every daemon has its link")
    return daemons


def connected_to(house: House) -> int:
    return sum("stream.connected" in daemon.events() for daemon in house.daemons)


async def status_of(house: House, live: int) -> dict[str, Any]:
    """`dingbridge status --json`, when so many live daemons have told that they are ready."""
    async with asyncio.timeout(60):
        while True:
            told: dict[str, Any] = await as_json("status", *configuration(house))
            if sum(bool(one["live"] and one["ready"]) for one in told["daemons"]) == live:
                return told
            await asyncio.sleep(0.2)
