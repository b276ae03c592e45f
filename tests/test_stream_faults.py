"""Whatever goes wrong on the way to DingTalk, or ends the link: it is told once, and the link comes back."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme

from dingbridge.dingtalk.stream import Backoff, Timing
from dingbridge.net import Network
from dingbridge.sim.gateway import Connection, Gateway, build_frame
from tests.blackhole import BlackHole
from tests.linked import QUICK, Bot, linked, names, next_connection, running, told

OUTAGE = ["stream.lost", "stream.connected"]


# ---- the open call and the handshake


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (403, "HTTP 403"),
        (429, "HTTP 429"),
        (500, "HTTP 500"),
        (503, "HTTP 503"),
        ("html", "without endpoint and ticket"),
        ("no_ticket", "without endpoint and ticket"),
        ("no_endpoint", "without endpoint and ticket"),
        ("empty", "without endpoint and ticket"),
        ("hang", "no answer in time"),
        ("reset", "broken off"),
    ],
)
async def test_a_failing_open_call(gateway: Gateway, fault: int | str, words: str) -> None:
    """It is told once, not each time, and the link comes up as soon as the call works again."""
    gateway.open_faults.extend([fault, fault, fault])
    with told(gateway.client_secret) as events:
        async with linked(gateway) as (bot, _):
            await bot.works()
            assert bot.stream.state.connected
    assert names(events) == OUTAGE
    assert words in events[0]["why"]
    assert events[0]["log_level"] == "warning"
    assert len(gateway.opens) == 4


@pytest.mark.parametrize("status", [400, 401])
async def test_refused_credentials(gateway: Gateway, status: int) -> None:
    """400 and 401 are told once, loudly, with what to check, and tried again slowly until they are right."""
    gateway.open_fault = status
    slow = replace(QUICK, backoff=Backoff(base_s=0.001, factor=1.0, rejected_s=0.25))
    with told(gateway.client_secret) as events:
        async with running(Bot(gateway, timing=slow)) as bot:
            await gateway.until(lambda: len(gateway.opens) == 4)
            gateway.open_fault = None
            assert not bot.stream.state.connected
            await gateway.connected()
            await bot.works()
    assert names(events) == ["stream.rejected", "stream.connected"]
    assert events[0]["log_level"] == "error"
    for check in ("Client ID and Client Secret", "robot capability", "published", "egress IP", f"HTTP {status}"):
        assert check in events[0]["why"]
    assert bot.counted["rejected"] == 4
    assert gateway.opens[3].at - gateway.opens[0].at >= 3 * 0.25


async def test_a_wrong_secret_is_refused_by_the_gateway_itself(gateway: Gateway) -> None:
    """What the stand-in checks by itself is told the same way, and without the secret that was tried."""
    with told("wrong-secret-7") as events:
        async with running(Bot(gateway, client_secret="wrong-secret-7")):
            await gateway.until(lambda: len(gateway.opens) == 3)
    assert {one.outcome for one in gateway.opens} == {"401"}
    assert names(events) == ["stream.rejected"]


async def test_trouble_between_refusals_is_told_once(gateway: Gateway) -> None:
    """A refusal is told even when the link was told lost before; neither is told again while it lasts."""
    gateway.open_faults.extend([500, 401, 500, 401, 500])
    with told() as events:
        async with linked(gateway):
            pass
    assert names(events) == ["stream.lost", "stream.rejected", "stream.connected"]


async def test_retry_after_is_honoured(house_port: Port) -> None:
    """The seconds a 429 names are waited for, though our own pause would be shorter."""
    async with house_port.answering(b"HTTP/1.1 429 Too Many\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n") as url:
        async with Gateway() as gateway, running(Bot(gateway, api_base=url)):
            async with asyncio.timeout(10):
                await house_port.asked(2)
    assert house_port.times[1] - house_port.times[0] >= 1.0


async def test_a_refused_port(gateway: Gateway) -> None:
    """A gateway that is down is told once with what to check, and found again when it is back on its port."""
    port, secret = gateway.port, gateway.client_secret
    await gateway.close()
    with told(secret) as events:
        async with running(Bot(gateway)) as bot:
            async with asyncio.timeout(10):
                while bot.counted["lost"] < 3:
                    await asyncio.sleep(0.01)
            async with Gateway(port=port) as back:
                await back.connected()
                sent = await back.say()
                assert (await back.acked(sent)).code == 200
    assert names(events)[:2] == OUTAGE
    assert "check route and firewall" in events[0]["why"]


@pytest.mark.parametrize("endpoint", ["wss://gateway.example/connect", "ws://api.dingtalk.com.example/connect"])
async def test_a_foreign_gateway_beside_dingtalk_is_refused(endpoint: str) -> None:
    """An answer in DingTalk's name that leads elsewhere is not followed."""
    assert not gateway_allowed(URL(endpoint), "https://api.dingtalk.com")
