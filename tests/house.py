"""What scenarios are played on: stand-ins for both servers, and dingbridge in this process or as a real daemon."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dingbridge import config
from dingbridge.app import App, Timings
from dingbridge.dingtalk.stream import Backoff, Timing
from dingbridge.dispatch import Pauses
from dingbridge.sim.anythingllm import AnythingLLM
from dingbridge.sim.gateway import Gateway

NOTICE = "正在查询，请稍候…"
REPEAT = "（可能重复）"

# Minutes become seconds: the same code, shorter waits.
QUICK = Timings(
    stream=Timing(
        open_s=1.0,
        heartbeat_s=0.5,
        leave_s=0.5,
        close_s=0.5,
        backoff=Backoff(base_s=0.05, factor=1.5, cap_s=0.3, rejected_s=0.4, steady_s=0.01),
    ),
    pauses=Pauses(first_s=0.1, most_s=0.3, send_s=20.0, store_s=0.1, beat_s=0.5),
    reply_s=1.0,
    beat_s=0.1,
)


def settings(gateway: Gateway, backend: AnythingLLM, folder: Path, **tables: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as tables; a table given here is merged into the default one."""
    merged: dict[str, Any] = {
        "dingtalk": {
            "client_id": gateway.client_id,
            "client_secret": gateway.client_secret,
            "api_base": gateway.url,
            "oapi_base": gateway.url,
        },
        "anythingllm": {"base_url": backend.url, "api_key": backend.api_key, "attempts": 1},
        "route": [{"workspace": "handbook"}],
        "reply": {},
        "limits": {"per_user_per_minute": 0, "drain_s": 5},
        "store": {"url": str(folder / "state" / "dingbridge.db")},
        "web": {"listen": "127.0.0.1:0"},
    }
    for name, table in tables.items():
        if isinstance(table, list):
            merged[name] = table
        else:
            merged.setdefault(name, {}).update(table)
    return merged


def write(path: Path, tables: Mapping[str, Any]) -> Path:
    """The tables as TOML: strings, numbers, booleans and lists of strings are all that is needed."""
    lines: list[str] = []
    for name, table in tables.items():
        for one in table if isinstance(table, list) else [table]:
            lines.append(f"[[{name}]]" if isinstance(table, list) else f"[{name}]")
            lines += [f"{key} = {_toml(value)}" for key, value in one.items()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(one) for one in value) + "]"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


@dataclass
class House:
    """Everything that one scenario needs."""

    gateway: Gateway
    backend: AnythingLLM
    folder: Path
    tables: dict[str, Any] = field(default_factory=dict)
    daemons: list[Daemon] = field(default_factory=list)

    def configure(self, **tables: Any) -> Path:
        """Write the configuration, with these tables merged in; its path."""
        self.tables = settings(self.gateway, self.backend, self.folder, **tables)
        return write(self.folder / "dingbridge.toml", self.tables)

    @asynccontextmanager
    async def app(self, *, timings: Timings = QUICK, connected: bool = True, **tables: Any) -> AsyncIterator[App]:
        """The daemon inside this process; stopped in order at the end."""
        loaded = config.load(self.configure(**tables), {})
        app = App(loaded, timings=timings, environ={})
        running = asyncio.create_task(app.run())
        try:
            async with asyncio.timeout(20):
                started = asyncio.create_task(app.started.wait())
                await asyncio.wait({running, started}, return_when=asyncio.FIRST_COMPLETED)
                started.cancel()
                if running.done():
                    running.result()
                if connected:
                    await self.gateway.connected()
            yield app
        finally:
            app.stop()
            async with asyncio.timeout(30):
                await running

    async def daemon(self, *, environ: Mapping[str, str] | None = None, log: Path | None = None) -> Daemon:
        """`dingbridge run` as a process of its own, with the configuration last written."""
        path = log or self.folder / "daemon.log"
        with path.open("ab") as stderr:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-X", "dev", "-W", "error", "-m", "dingbridge", "run"),
                *("--config", str(self.folder / "dingbridge.toml")),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=stderr,
                env={**_clean_environment(), **(environ or {})},
            )
        self.daemons.append(Daemon(process, path))
        return self.daemons[-1]


def leaked(house: House, *logs: Path) -> list[str]:
    """Secrets, tickets and session webhooks that stand in these logs, or in those in the house's folder."""
    gateway, backend = house.gateway, house.backend
    assert gateway.tickets or not gateway.accepted  # or this would look for nothing
    written = "".join(path.read_text(encoding="utf-8") for path in (*logs, *house.folder.glob("*.log")))
    secrets = {gateway.client_secret, backend.api_key, *gateway.sessions, *gateway.tickets}
    return [secret for secret in secrets if secret and secret in written]


@dataclass
class Daemon:
    """A running `dingbridge run`."""

    process: asyncio.subprocess.Process
    log: Path

    async def kill(self) -> None:
        """SIGKILL, as at a power cut or from the kernel's out-of-memory killer."""
        self.process.kill()
        await self.process.wait()

    async def stop(self, number: int = signal.SIGTERM, timeout_s: float = 30.0) -> int:
        self.process.send_signal(number)
        async with asyncio.timeout(timeout_s):
            return await self.process.wait()

    def events(self) -> str:
        return self.log.read_text(encoding="utf-8")


def _clean_environment() -> dict[str, str]:
    return {
        key: value for key, value in os.environ.items() if not key.startswith(("DINGBRIDGE_", "NOTIFY_", "WATCHDOG_"))
    }


async def until(holds: Callable[[], object], timeout_s: float = 20.0, what: str = "") -> None:
    """Wait for something that has no event of its own; the bound is for a hang, not for speed."""
    try:
        async with asyncio.timeout(timeout_s):
            while not holds():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"not within {timeout_s:g} s: {what or holds}") from None
