"""Fixtures every scenario shares."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
import structlog

from dingbridge import log
from dingbridge.sim.anythingllm import AnythingLLM
from dingbridge.sim.gateway import Gateway
from tests.house import House, leaked
from tests.places import Place, PostgresPlace, SQLitePlace, serving
from tests.postgres import Server

for name in [name for name in os.environ if name.startswith(("DINGBRIDGE_", "NOTIFY_", "WATCHDOG_"))]:
    del os.environ[name]


# A shell starts what runs in its background deaf to SIGINT, and so would be every process that is started here.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    # Daemons of one robot see one another on a machine; those of another worker's tests are not meant.
    defaults = Gateway.__init__.__kwdefaults__
    assert defaults is not None
    defaults["client_id"] += worker


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


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """One PostgreSQL for all tests of this process that ask for it; each makes a database of its own in it."""
    with serving(fast=True) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """On each database in turn."""
    one = SQLitePlace(tmp_path) if request.param == "sqlite" else request.getfixturevalue("postgres_place")
    yield one
    one.close()


@pytest.fixture
def postgres_place(postgres: Server, tmp_path: Path) -> Iterator[PostgresPlace]:
    """For several daemons of one store."""
    one = PostgresPlace(postgres, tmp_path)
    yield one
    one.close()


@pytest.fixture
async def house(gateway: Gateway, backend: AnythingLLM, tmp_path: Path, log_file: Path) -> AsyncIterator[House]:
    """Both, and a folder for dingbridge's own files; no log may hold a secret, a ticket or a session webhook."""
    one = House(gateway, backend, tmp_path)
    yield one
    for daemon in one.daemons:  # of a test that failed
        if daemon.process.returncode is None:
            await daemon.kill()
    assert not leaked(one, log_file)
