"""Fixtures every scenario shares."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from dingbridge.sim.gateway import Gateway

from dingbridge.sim.anythingllm import AnythingLLM
from tests.house import House

for name in [name for name in os.environ if name.startswith(("DINGBRIDGE_", "NOTIFY_", "WATCHDOG_"))]:
    del os.environ[name]


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    """DingTalk's stand-in."""
    async with Gateway() as one:
        yield one


@pytest.fixture
async def backend() -> AsyncIterator[AnythingLLM]:
    """AnythingLLM's stand-in, with the handbook."""
    async with AnythingLLM() as one:
        yield one


@pytest.fixture
async def house(gateway: Gateway, backend: AnythingLLM, tmp_path: Path) -> House:
    """Both, and a folder for dingbridge's own files."""
    return House(gateway, backend, tmp_path)
