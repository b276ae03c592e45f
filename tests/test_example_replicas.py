"""The example of three daemons and one PostgreSQL, run by its one command, as its manual says."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from tests.pages import ROOT
from tests.postgres import Unavailable, find_binaries

START = ROOT / "examples" / "replicas" / "start"
OFFSETS = (0, 1, 2, 3, 11, 12, 13)
ANSWER = "累计工作年限"
STOP_S = 60.0


def free_ports() -> int:
    """The first of a row of ports that nobody has, below those that Linux lends."""
    for first in range(21_000 + os.getpid() % 500 * 20, 32_000, 20):
        with suppress(OSError):
            for offset in OFFSETS:
                socket.create_server(("127.0.0.1", first + offset)).close()
            return first
    raise AssertionError


@dataclass
class Running:
    """The script as a child, and what it has said so far."""

    process: asyncio.subprocess.Process
    port: int
    lines: list[str] = field(default_factory=list)

    async def heard(self, words: str, within_s: float = 60.0) -> str:
        """The next line with these words."""
        assert self.process.stdout is not None
        async with asyncio.timeout(within_s):
            while line := (await self.process.stdout.readline()).decode():
                self.lines.append(line.rstrip())
                if words in line:
                    return line
        raise AssertionError(f"it ended without {words!r}: {self.lines}")

    def type(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())

    @property
    def pids(self) -> dict[str, int]:
        """Of the daemons, the newest of each number."""
        return {
            found[1]: int(found[2]) for line in self.lines if (found := re.match(r"  (\d)  pid (\d+)  http://", line))
        }


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    """`start --demo`, up, and killed with everything of it if the test did not end it."""
    try:
        find_binaries()
    except Unavailable as reason:
        pytest.skip(str(reason))
    port = free_ports()
    process = await asyncio.create_subprocess_exec(
        *(START, "--demo", "--slow", "0.5", "--port", str(port)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PYTHON": sys.executable, "LC_ALL": "C"},
    )
    one = Running(process, port)
    try:
        await one.heard("Ctrl-C", within_s=100.0)
        yield one
    finally:
        if process.returncode is None:
            process.kill()  # its children end with it
        await process.wait()


async def answered(http: aiohttp.ClientSession, running: Running, person: str) -> bool:
    """Say a question; whether its answer comes within a minute."""
    sim = f"http://127.0.0.1:{running.port}/_sim"
    async with http.post(f"{sim}/say", json={"text": "年假有几天？", "user": person}) as response:
        assert response.status == 200, await response.text()
    async with asyncio.timeout(60):
        while True:
            async with http.get(f"{sim}/posts", params={"after": "0"}) as response:
                told = await response.json()
            if any(post["user"] == person and ANSWER in post["text"] for post in told["posts"]):
                return True
            await asyncio.sleep(0.1)


def lives(pid: int) -> bool:
    with suppress(OSError):
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text("utf-8")
    return False


async def test_the_example_runs_as_its_manual_says(running: Running, http: aiohttp.ClientSession) -> None:
    """Answers come with three daemons, with one of them killed, and with it back; Ctrl-C ends everything in order."""
    first = running.pids
    assert sorted(first) == ["1", "2", "3"]
    folder = next(Path(found[1]) for line in running.lines if (found := re.search(r"log (/.+)/1\.log$", line)))
    assert folder.is_dir()
    assert await answered(http, running, "before")
    os.kill(first["2"], signal.SIGKILL)
    await running.heard("2 is gone")
    assert all(await asyncio.gather(*(answered(http, running, f"meanwhile-{number}") for number in range(6))))
    running.type("2")
    await running.heard("  2  pid ")
    assert running.pids["2"] != first["2"]
    running.type("1")
    await running.heard("1 is gone")
    assert not lives(first["1"])
    assert await answered(http, running, "after")
    running.process.send_signal(signal.SIGINT)
    await running.heard("All has ended", within_s=STOP_S)
    assert await running.process.wait() == 0
    assert [pid for pid in {*first.values(), *running.pids.values()} if lives(pid)] == []
    assert not folder.exists()
    for offset in OFFSETS:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", running.port + offset)).close()
