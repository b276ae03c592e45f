"""Fixtures every scenario shares."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
import structlog

from dingbridge import log
from dingbridge.sim.anythingllm import AnythingLLM
from dingbridge.sim.gateway import Gateway
from tests.house import House

for name in [name for name in os.environ if name.startswith(("DINGBRIDGE_", "NOTIFY_", "WATCHDOG_"))]:
    del os.environ[name]


@pytest.fixture(autouse=True)
def log_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What this process logs goes into a file, as a service's log would, and is looked through by `house`."""
    path = tmp_path_factory.mktemp("log") / "process.log"
    with path.open("w", encoding="utf-8") as stream:
        log.configure(log.Redactor(), stream=stream, cache=False)
        yield path
        structlog.reset_defaults()
        logging.getLogger().handlers.clear()


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    """DingTalk's stand-in."""
    async with Gateway() as one:
        yield one


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A client for the stand-ins' HTTP."""
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def backend() -> AsyncIterator[AnythingLLM]:
    """AnythingLLM's stand-in, with the handbook."""
    async with AnythingLLM() as one:
        yield one


def _read(log_file: Path, folder: Path) -> str:
    return "".join(path.read_text(encoding="utf-8") for path in (log_file, *folder.glob("*.log")))


@pytest.fixture
async def house(gateway: Gateway, backend: AnythingLLM, tmp_path: Path, log_file: Path) -> AsyncIterator[House]:
    """Both, and a folder for dingbridge's own files; no log may hold a secret, a ticket or a session webhook."""
    yield House(gateway, backend, tmp_path)
    written = _read(log_file, tmp_path)
    assert gateway.tickets or not gateway.accepted  # or this would look for nothing
    secrets = {gateway.client_secret, backend.api_key, *gateway.sessions, *gateway.tickets}
    assert not [secret for secret in secrets if secret and secret in written]
