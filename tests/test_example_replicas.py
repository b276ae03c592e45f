"""The example of three daemons and one PostgreSQL, run by its one command; its manual and its plan hold true."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from psycopg.conninfo import conninfo_to_dict

from dingbridge.app import Timings
from dingbridge.bucket import PER_MINUTE
from dingbridge.config import SCHEMA
from dingbridge.dingtalk.rate import PER_SECOND
from dingbridge.model import Secret
from dingbridge.store.postgres import Rhythm
from dingbridge.store.postgres_engine import THREADS, address
from tests.pages import ROOT, chapters, read
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
    def folder(self) -> Path | None:
        found = re.search(r"log (/.+)/1\.log$", "\n".join(self.lines), re.MULTILINE)
        return Path(found[1]) if found else None

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
        if one.folder is not None:
            shutil.rmtree(one.folder, ignore_errors=True)


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


def listens(port: int) -> bool:
    with suppress(OSError):
        socket.create_connection(("127.0.0.1", port)).close()
        return True
    return False


async def test_the_example_runs_as_its_manual_says(running: Running, http: aiohttp.ClientSession) -> None:
    """Answers come with three daemons, with one of them killed, and with it back; Ctrl-C ends everything in order."""
    first = running.pids
    assert sorted(first) == ["1", "2", "3"]
    folder = running.folder
    assert folder is not None
    assert folder.is_dir()
    (watch,) = [line for line in running.lines if "To watch" in line]
    assert f"STATE_DIRECTORY={folder}/state /" in watch
    assert await answered(http, running, "before")
    os.kill(first["2"], signal.SIGKILL)
    await running.heard("2 is gone")
    assert all(await asyncio.gather(*(answered(http, running, f"meanwhile-{number}") for number in range(6))))
    running.type("2")
    await running.heard("  2  pid ")
    assert running.pids["2"] != first["2"]
    running.type("9")
    await running.heard("There is no 9")
    running.type("1")
    await running.heard("1 is gone")
    assert not lives(first["1"])
    assert await answered(http, running, "after")
    running.process.send_signal(signal.SIGINT)
    await running.heard("All has ended", within_s=STOP_S)
    assert await running.process.wait() == 0
    assert [pid for pid in {*first.values(), *running.pids.values()} if lives(pid)] == []
    assert not folder.exists()
    assert [offset for offset in OFFSETS if listens(running.port + offset)] == []


async def test_nothing_outlives_the_script(running: Running) -> None:
    """Where the script itself is killed, daemons, stand-ins and PostgreSQL end, too."""
    ports = [running.port + offset for offset in OFFSETS]
    running.process.kill()
    await running.process.wait()
    async with asyncio.timeout(STOP_S):
        while any(lives(pid) for pid in running.pids.values()) or any(listens(port) for port in ports):
            await asyncio.sleep(0.1)


def manual(page: str) -> dict[str, str]:
    """The text of each chapter."""
    return {one.title: one.text for one in chapters(f"examples/replicas/{page}")}


def test_the_manual_has_the_figures_of_the_code() -> None:
    """Lease, renewal, look, the pause after an outage, connections and DingTalk's rate are those that are built."""
    told, rhythm = manual("README.md"), Rhythm()
    ends = told["What an end costs"]
    assert f"leases what it works on for {rhythm.lease_s:.0f} s and renews that every {rhythm.renew_s:.0f} s" in ends
    assert f"up to {rhythm.lease_s:.0f} s, and another daemon looks every {rhythm.look_s:.0f} s" in ends
    assert f"for {rhythm.steady_s:.0f} s after that nobody is taken for dead" in ends
    assert f"without it for {Timings().yield_s:.0f} s closes its connection" in ends
    assert f"A daemon holds {THREADS + 1} connections: {THREADS} for its work" in told["The database"]
    assert f"DingTalk's {PER_SECOND} calls a second" in told["What is shared"]
    short = next(one.text for one in chapters("README.md") if one.title == "Several machines")
    assert f"waits up to {rhythm.lease_s:.0f} s" in short
    assert (
        f"| DingTalk | {PER_MINUTE:.0f}, which dingbridge keeps to |" in manual("PLAN.md")["What binds, in this order"]
    )


@pytest.mark.parametrize("url", re.findall(r'(?m)^url = "(.+)"$', read("examples/replicas/README.md")))
def test_the_manuals_addresses_are_understood(url: str) -> None:
    """The client takes them; the password is checked for, and of several hosts the one that leads is wanted."""
    settings = conninfo_to_dict(address(Secret(url), Secret("word"), "dingbridge_robot").conninfo.reveal())
    assert settings["sslmode"] == "verify-full"
    assert settings["target_session_attrs"] == "read-write"
    assert settings["password"] == "word"
    assert "synchronous_commit=on" in str(settings["options"])


def test_the_manuals_configuration_has_known_keys() -> None:
    """Keys in the manual's TOML are keys of their section."""
    for block in re.findall(r"```toml\n(.*?)```", read("examples/replicas/README.md"), re.DOTALL):
        for section, table in tomllib.loads(block).items():
            assert set(table) <= {field.name for field in SCHEMA[section]}


def test_the_plans_figures_follow_from_what_it_assumes() -> None:
    """Questions, units and answers at once are computed from the assumptions on the page."""
    rows = [
        row[1:] for row in next(one for one in chapters("examples/replicas/PLAN.md") if one.title == "Assumed").rows
    ]
    found = [[float(re.sub(r"[^\d.]", "", cell)) for cell in row] for row in (rows[0], *rows[2:])]
    for people, day, month, minute, at_once, two, three in zip(*found, strict=True):
        assert day == people * 0.5
        assert month == day * 22
        assert minute == day / 5 / 60 * 3
        assert at_once == pytest.approx(minute / 60 * 10, abs=0.5)
        assert (two, three) == (month * 2, month * 3)


@pytest.mark.parametrize("page", ["PLAN.md", "PLAN.zh-CN.md"])
def test_the_plans_limits_and_costs_follow_from_its_units(page: str) -> None:
    """People per allowance with the notice and without it, and packs with what they cost a year."""
    text = re.sub(r"(?<=\d) (?=\d{3}\b)", "", read(f"examples/replicas/{page}"))
    (row,) = re.findall(r"(?m)^\| Webhook & Stream allowance.*$|^\| 整个组织每月的.*$", text)
    reached = [int(number) for number in re.findall(r"\d+", row.split("|")[4])]
    allowances = [int(number) for number in re.findall(r"\d+", row.split("|")[3])]
    assert allowances == [3000, 50000, 500000]
    wanted = [float(f"{allowance / (0.5 * 22 * units):.2g}") for units in (3, 2) for allowance in allowances]
    assert reached == wanted
    for units, spare in ((3_300_000, "138600"), (2_200_000, "99000")):
        assert str(units) in text
        assert spare == str(-(-units // 500_000) * 19_800)
        assert spare in text


@pytest.mark.parametrize("arguments", [("--port",), ("--demo", "--slow"), ("--demo", "--port", "x")], ids=str)
def test_an_option_without_its_value_shows_the_help(arguments: tuple[str, ...]) -> None:
    """Not bash's own words of an unbound variable."""
    shown = subprocess.run([START, *arguments], capture_output=True, text=True, timeout=30, check=False)
    assert (shown.returncode, shown.stderr) == (2, "")
    assert "--port N" in shown.stdout


def test_a_missing_configuration_is_told_before_anything_is_made(tmp_path: Path) -> None:
    """With its path; no folder, no database."""
    folder, config = tmp_path / "made", tmp_path / "missing.toml"
    told = subprocess.run(
        [START, "--folder", folder, config.name],  # as seen from where it is typed
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, "PYTHON": sys.executable, "LC_ALL": "C"},
    )
    assert (told.returncode, told.stderr) == (1, f"{config}: no such file, or not to be read.\n")
    assert not folder.exists()


def test_the_scripts_help_names_its_options() -> None:
    """Whoever types nonsense is shown the head of the script, which has every option that it takes."""
    shown = subprocess.run([START, "--nonsense"], capture_output=True, text=True, timeout=30, check=False)
    taken = re.findall(r"(?m)^    (--[a-z]+)\)", START.read_text("utf-8"))
    assert (shown.returncode, [option for option in taken if option not in shown.stdout]) == (2, [])
    assert "PGBIN" in shown.stdout
