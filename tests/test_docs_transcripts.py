"""What the READMEs show of a terminal is what the commands print, but for times and made-up numbers."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dingbridge.sim.gateway import Gateway
from tests.house import Daemon, House, until
from tests.pages import part

PAGES = {"README.md": "en", "README.zh-CN.md": "zh-CN"}
MSG_ID = "msgA1b2C3d4E5f6=="
VARIES = {
    r"\b\d\d:\d\d:\d\d\.\d{3}\b": "TIME",
    r"\b\d+(\.\d+)? (ms|s|min)\b": "SPAN",
    r"\b[0-9a-f]{8}(_[0-9a-f]+)+\b": "FRAME",
    r"\b[0-9a-f]{12}\b": "PSEUDONYM",
    r"\b[0-9a-f]{32}\b": "CONTEXT",
    r"http://127\.0\.0\.1:\d+": "ADDRESS",
}


def comparable(text: str) -> str:
    for pattern, name in VARIES.items():
        text = re.sub(pattern, name, text)
    return text.rstrip()


def transcript(page: str, name: str) -> list[tuple[str, str]]:
    """(command, what it prints) of one console block."""
    block = re.sub(r"^```\w*\n", "", part(page, name), flags=re.MULTILINE)
    return re.findall(r"^[#$] (.+)\n((?:(?![#$] ).*\n)*)", block, flags=re.MULTILINE)


async def printed(command: str, environ: dict[str, str] | None = None) -> str:
    """What a shell's line prints, on either stream, where `dingbridge` is this checkout's."""
    line = re.sub(r"(\.venv/bin/)?dingbridge ", f"{sys.executable} -m dingbridge ", f"{command} ", count=1)
    process = await asyncio.create_subprocess_shell(
        line,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **(environ or {})},
    )
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    return out.decode()


@pytest.fixture(params=PAGES)
def page(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    """Of the robot whose messages have the codes that the pages show."""
    async with Gateway(client_id="dingsimulated0001") as one:
        yield one


@pytest.fixture
async def night(house: House, page: str) -> AsyncIterator[tuple[House, Daemon]]:
    """A daemon with a typo in its route, and the question that failed of it."""
    house.configure(route=[{"workspace": "handbok"}], reply={"locale": PAGES[page]})
    daemon = await house.daemon()
    try:
        await house.gateway.connected()
        failed = await house.gateway.say("年假有几天？", user="042", msgId=MSG_ID)
        await house.gateway.next_post(failed)
        await until(lambda: "message.handled" in daemon.events())
        yield house, daemon
    finally:
        await daemon.stop()


def as_installed(house: House, text: str) -> str:
    """The output as it is where the files are in the service's places."""
    text = text.replace(str(house.folder / "dingbridge.toml"), "/etc/dingbridge/dingbridge.toml")
    return text.replace(house.tables["store"]["url"], "/var/lib/dingbridge/dingbridge.db")


async def test_the_night_goes_as_told(night: tuple[House, Daemon], page: str) -> None:
    """From the chat's code to the cause, to the typo, to the answer: each command prints what the README shows."""
    house, _ = night
    commands = [*transcript(page, "trace"), *transcript(page, "mending")]
    assert len(commands) == 5
    posts = len(house.gateway.posts)
    for command, shown in commands:
        if command.startswith("vi "):
            house.configure(route=[{"workspace": "handbook"}], reply={"locale": PAGES[page]})
            continue
        out = await printed(command, {"DINGBRIDGE_CONFIG": str(house.folder / "dingbridge.toml")})
        assert comparable(as_installed(house, out)) == comparable(shown), command
    await house.gateway.until(lambda: house.gateway.posts[posts:], 30)
    assert "累计工作年限" in house.gateway.posts[-1].text


async def test_the_demo_answers_as_shown(page: str, tmp_path: Path) -> None:
    """The questions on the README's first screen get the answers that stand there."""
    ((command, shown),) = transcript(page, "demo transcript")
    assert (await printed(command, {"TMPDIR": str(tmp_path)})).rstrip() == shown.rstrip()
