"""Several daemons on one PostgreSQL, on this machine."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from dingbridge import config
from dingbridge.verbs import reach
from tests.house import Daemon, House, until
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
    logs = [house.folder / f"daemon{number + 1}.log" for number in range(count)]
    daemons = await asyncio.gather(*(house.daemon(environ=environ(house), log=log) for log in logs))
    await until(lambda: all("stream.connected" in one.events() for one in daemons), what="every daemon has its link")
    return daemons


async def status_of(house: House, live: int) -> dict[str, Any]:
    """What `dingbridge status --json` prints, when so many live daemons have told that they are ready."""
    located = config.locate(house.folder / "dingbridge.toml", os.environ)
    async with asyncio.timeout(60):
        while True:
            told: dict[str, Any] = await reach.ask(located, "status")
            if sum(bool(one["live"] and one["ready"]) for one in told["daemons"]) == live:
                return told
            await asyncio.sleep(0.05)
