"""The stage: stand-ins for both servers in this process, and each process under test alone in its own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dingbridge.sim.anythingllm import AnythingLLM
from dingbridge.sim.gateway import Gateway, Sent

MIB = 1024 * 1024
CHUNKS = 10
ANSWER = (
    "根据《差旅管理办法》第三条，国内出差的住宿标准按城市分为三档：\n\n"
    "- **一线城市**：每晚不超过 600 元\n- **省会城市**：每晚不超过 450 元\n- 其他城市：每晚不超过 350 元\n\n"
    "超出标准的部分需要部门负责人在出差前批准，并在报销单里附上说明。发票抬头请写公司全称，"
    "并在返回后的十个工作日内提交。如果行程由主办方安排住宿，请在申请里注明，不再重复报销。"
)


@dataclass
class Subject:
    """One process under test with a DingTalk of its own; they share the AnythingLLM."""

    name: str
    gateway: Gateway
    backend: AnythingLLM
    processes: Sequence[asyncio.subprocess.Process]
    started_s: float
    """From spawning the processes until the WebSockets were up."""

    async def push(self, user: str, text: str = "出差住酒店能报多少？") -> Sent:
        return await self.gateway.say(text, user=user)

    async def answered(self, count: int, timeout_s: float = 60.0) -> None:
        """Returns when there are `count` answers since `forget()`; anything else in the chat is an error."""
        posts = self.gateway.posts
        await self.gateway.until(lambda: len(posts) >= count, timeout_s)
        if odd := [post.text for post in posts if ANSWER[:20] not in post.text]:
            raise RuntimeError(f"{self.name}: not an answer: {odd[0]}")

    def latencies(self) -> list[float]:
        """Seconds from pushing a frame until its answer was posted, for everything since `forget()`."""
        pushed = {sent.session: sent.pushes[0].at for sent in self.gateway.sent}
        return [post.at - pushed[post.session] for post in self.gateway.posts]

    def ack_latencies(self) -> list[float]:
        return [sent.acks[0].at - sent.pushes[0].at for sent in self.gateway.sent]

    def forget(self) -> None:
        """The stand-ins remember everything, and search it."""
        gateway, backend = self.gateway, self.backend
        for connection in gateway.connections:
            connection.acks.clear()
        for asked in backend.asked:
            backend.history(asked.workspace, asked.session).clear()
        backend.asked.clear()
        gateway.pushes.clear()
        gateway.sessions.clear()
        for record in (gateway.posts, gateway.sent, gateway.acks, gateway.traffic):
            record.clear()

    def rss(self) -> float:
        return sum(_status(one.pid, "VmRSS") for one in self.processes)

    def peak_rss(self) -> float:
        return sum(_status(one.pid, "VmHWM") for one in self.processes)

    def cpu_s(self) -> float:
        return sum(cpu_s(one.pid) for one in self.processes)


def cpu_s(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _status(pid: int, key: str) -> float:
    """A size from the kernel, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024.0 for line in lines if line.startswith(f"{key}:"))


@asynccontextmanager
async def backend() -> AsyncIterator[AnythingLLM]:
    async with AnythingLLM(chunk_chars=-(-len(ANSWER) // CHUNKS)) as server:
        server.answer = lambda _: ANSWER
        server.answer_delay_s = 0.0
        yield server


@asynccontextmanager
async def dingbridge(
    server: AnythingLLM, folder: Path, *, workers: int = 64, name: str = "dingbridge", store: str = "", daemons: int = 1
) -> AsyncIterator[Subject]:
    """The daemon as an operator runs it, with limits out of the way and its web port open.

    store: a URL; an SQLite file in the folder where none is given.
    """
    async with Gateway() as gateway:
        config = folder / "dingbridge.toml"
        tables: dict[str, dict[str, Any]] = {
            "dingtalk": {
                "client_id": gateway.client_id,
                "client_secret": gateway.client_secret,
                "api_base": gateway.url,
                "oapi_base": gateway.url,
            },
            "anythingllm": {"base_url": server.url, "api_key": server.api_key},
            "reply": {"notice": "off"},
            "limits": {"workers": workers, "per_user_per_minute": 0, "waiting_per_lane": 0},
            "store": {"url": store or str(folder / "dingbridge.db")},
            "web": {"listen": "127.0.0.1:0"},
        }
        lines = ["[[route]]", 'workspace = "handbook"']
        for section, table in tables.items():
            # A JSON text or number is one of TOML's, too.
            lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
        config.write_text("\n".join(lines), encoding="utf-8")
        command = (sys.executable, "-m", "dingbridge", "run", "--config", str(config))
        async with _running(name, command, gateway, server, folder, daemons) as subject:
            yield subject


@asynccontextmanager
async def relay(name: str, server: AnythingLLM, folder: Path, *, store: bool) -> AsyncIterator[Subject]:
    async with Gateway() as gateway:
        command = [sys.executable, "-m", "benchmarks.relay", "--gateway", gateway.url, "--backend", server.url]
        command += ["--client-id", gateway.client_id, "--client-secret", gateway.client_secret]
        command += ["--api-key", server.api_key, *(("--store", str(folder / "relay.db")) if store else ())]
        async with _running(name, command, gateway, server, folder) as subject:
            yield subject


@asynccontextmanager
async def _running(
    name: str, command: Sequence[str], gateway: Gateway, server: AnythingLLM, folder: Path, count: int = 1
) -> AsyncIterator[Subject]:
    spawned = time.monotonic()
    logs = [folder / f"log{number}" for number in range(count)]
    processes = [await _spawned(command, log) for log in logs]
    try:
        async with asyncio.TaskGroup() as group:
            watches = [
                group.create_task(_until_it_dies(name, process, log))
                for process, log in zip(processes, logs, strict=True)
            ]
            connection = await gateway.connected(count, timeout_s=60)
            yield Subject(name, gateway, server, processes, connection.opened_at - spawned)
            for watch in watches:
                watch.cancel()
    finally:
        for process in processes:
            if process.returncode is None:
                process.terminate()
                await process.wait()


async def _spawned(command: Sequence[str], log: Path) -> asyncio.subprocess.Process:
    """The log's folder is where it keeps what is its own."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("DINGBRIDGE_", "NOTIFY_"))}
    clean["STATE_DIRECTORY"] = str(log.parent)
    with log.open("wb") as stderr:
        return await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=stderr, env=clean
        )


async def _until_it_dies(name: str, process: asyncio.subprocess.Process, log: Path) -> None:
    """A subject that ends by itself ends the measuring: its answers would be waited for in vain."""
    status = await process.wait()
    said = await asyncio.to_thread(log.read_text, encoding="utf-8")
    raise RuntimeError(f"{name} ended with {status}:\n{said[-2000:]}")
