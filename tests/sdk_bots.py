"""Bots on the official SDKs, each a process of its own; the Node SDK is installed from the registry on first use."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from dingbridge.demo.gateway_only import HINTS
from dingbridge.sim.gateway import Gateway

BOTS = Path(__file__).parent / "bots"
POINTED = "// (where it is pointed to)"


@asynccontextmanager
async def python_bot(
    url: str, *, client_id: str, client_secret: str, script: str = "sdk_echo.py", **settings: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The Python SDK's bot, pointed at `url` by its environment."""
    settings |= {"DINGTALK_OPENAPI_ENDPOINT": url, "CLIENT_ID": client_id, "CLIENT_SECRET": client_secret}
    async with _bot(sys.executable, BOTS / script, settings) as bot:
        yield bot


@asynccontextmanager
async def node_bot(
    lines: str, folder: Path, *, client_id: str, client_secret: str, **settings: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The Node SDK's bot with these lines in it; `folder` is where its script is put."""
    script = folder / "bot.mjs"
    script.write_text((BOTS / "sdk_echo.mjs").read_text("utf-8").replace(POINTED, lines), "utf-8")
    if not (folder / "node_modules").exists():
        (folder / "node_modules").symlink_to(BOTS / "node_modules")
    settings |= {"CLIENT_ID": client_id, "CLIENT_SECRET": client_secret}
    async with _bot("node", script, settings) as bot:
        yield bot


@asynccontextmanager
async def _bot(program: str, script: Path, settings: Mapping[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    clean = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    bot = await asyncio.create_subprocess_exec(
        *(program, str(script)),
        env={**clean, "NO_PROXY": "127.0.0.1", **settings},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield bot
    finally:
        if bot.returncode is None:
            bot.kill()
        await bot.wait()


def hints(gateway: Gateway) -> str:
    """What the command prints for this gateway."""
    return HINTS.format(url=gateway.url, client_id=gateway.client_id, client_secret=gateway.client_secret)


def interceptor(printed: str) -> str:
    """The lines for a bot that has axios, out of what the command prints."""
    return _between(printed, r"^  import axios", r"^\S")


def endpoint(printed: str) -> str:
    """The lines for a bot that has not."""
    return _between(printed, r"^  client\.getEndpoint", r"^$")


def _between(printed: str, first: str, after: str) -> str:
    found = re.search(f"{first}.*?(?={after})", printed, flags=re.MULTILINE | re.DOTALL)
    assert found, printed
    return found[0]


def install_node_sdk() -> None:
    """Into a folder that git ignores. Without node, npm or a registry the tests are skipped, on CI they fail."""
    missing = [program for program in ("node", "npm") if shutil.which(program) is None]
    if missing:
        _cannot(f"not installed: {' and '.join(missing)}")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, timeout=30, check=False).stdout
    if int(version.strip().removeprefix("v").partition(".")[0] or 0) < 18:
        _cannot(f"node 18 or newer is needed, here is {version.strip() or 'none that runs'}")
    wanted = (BOTS / "package.json").read_text("utf-8")
    stamp = BOTS / "node_modules" / ".for"
    if stamp.exists() and stamp.read_text("utf-8") == wanted:
        return
    flags = ("--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
    try:
        done = subprocess.run(
            ["npm", "install", *flags],
            cwd=BOTS,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=100,
            check=False,
        )
    except subprocess.TimeoutExpired:
        _cannot("npm install took more than 100 s")
    if done.returncode:
        _cannot(f"npm install failed with {done.returncode}")
    stamp.write_text(wanted, "utf-8")


def _cannot(why: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)
