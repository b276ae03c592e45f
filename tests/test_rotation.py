"""DingTalk closes every connection now and then: the next one is up before, and nobody notices."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from dingbridge.sim.gateway import Connection, Gateway, Sent
from tests.house import QUICK as QUICK_HOUSE
from tests.house import House, until
from tests.linked import QUICK, Bot, linked, names, next_connection, running, told

# Long beside the few milliseconds an opening takes, also on a busy machine: that the next link is up first is no race.
ROTATING = replace(QUICK, leave_s=1.0, backoff=replace(QUICK.backoff, steady_s=0.0))


@asynccontextmanager
async def load(gateway: Gateway, bot: Bot) -> AsyncIterator[list[bool]]:
    """Messages without a pause; the list says, at each one, whether the link was shown as up."""
    up: list[bool] = []
    stop = asyncio.Event()

    async def talk() -> None:
        while not stop.is_set():
            up.append(bot.stream.state.connected)
            sent = await gateway.say(user=f"u{len(up) % 7}")
            if len(up) % 20 == 0:
                await gateway.acked(sent)
            await asyncio.sleep(0)

    talking = asyncio.create_task(talk())
    try:
        yield up
    finally:
        stop.set()
        await talking


async def rotate(gateway: Gateway, times: int, *, close_after_s: float) -> list[Connection]:
    """All connections in order, the last one still alive."""
    connection = await gateway.connected()
    for _ in range(times):
        sent = await gateway.say()
        await connection.disconnect(close_after_s=close_after_s)
        connection = await next_connection(gateway, connection)
        await gateway.acked(sent)
    return gateway.accepted


def overlapped(gateway: Gateway, connections: list[Connection]) -> bool:
    """Whether each was connected before the one before it was closed."""
    at = {(note["kind"], note.get("connection")): index for index, note in enumerate(gateway.traffic)}
    return all(at["connected", after.id] < at["closed", before.id] for before, after in pairwise(connections))


async def rotations_under_load(gateway: Gateway, times: int) -> None:
    with told(gateway.client_secret) as events:
        async with linked(gateway, timing=ROTATING) as (bot, _):
            async with load(gateway, bot) as up:
                connections = list(await rotate(gateway, times, close_after_s=10.0))
            await until(lambda: all(sent.acks for sent in gateway.sent), what="every message acknowledged")
            await until(lambda: all(c.closed_code for c in connections[:-1]), what="every old link left")
            assert all(up)
    assert len(connections) == times + 1
    assert Counter(bot.messages) == Counter(sent.msg_id for sent in gateway.sent)
    assert {ack.code for ack in gateway.acks} == {200}
    assert not gateway.wrong_socket_acks
    assert overlapped(gateway, connections)
    assert {c.closed_code for c in connections} == {1000}
    assert names(events) == ["stream.connected"]
    assert (bot.counted["rotated"], bot.counted["lost"]) == (times, 0)


async def test_a_hundred_rotations_under_load(gateway: Gateway) -> None:
    """Every message is kept once and acknowledged on its own socket, old links are left late and with 1000."""
    await rotations_under_load(gateway, 100)


@pytest.mark.slow
async def test_a_thousand_rotations_under_load(gateway: Gateway) -> None:
    """The same, ten times as often."""
    await rotations_under_load(gateway, 1_000)


async def test_a_server_that_closes_first(gateway: Gateway) -> None:
    """When the server ends the old link before our patience does, that is no outage either."""
    with told() as events:
        async with linked(gateway, timing=replace(ROTATING, leave_s=10.0)) as (bot, _):
            async with load(gateway, bot):
                connections = list(await rotate(gateway, 10, close_after_s=0.05))
                await until(lambda: all(c.closed_code for c in connections[:-1]))
            await until(lambda: all(sent.acks for sent in gateway.sent))
    assert names(events) == ["stream.connected"]
    assert Counter(bot.messages) == Counter(sent.msg_id for sent in gateway.sent)
    assert not gateway.wrong_socket_acks


@pytest.mark.parametrize("code", [1000, 1001])
async def test_an_announcement_and_a_close_in_one_breath(gateway: Gateway, code: int) -> None:
    """A close that follows the announcement at once still counts as the rotation it is."""
    with told() as events:
        async with linked(gateway, timing=ROTATING) as (bot, first):
            await first.disconnect()
            await first.close(code)
            await next_connection(gateway, first)
            await bot.works()
    assert names(events) == ["stream.connected"]
    assert bot.counted["lost"] == 0


async def test_slow_commits_across_a_rotation(gateway: Gateway) -> None:
    """What was read before the announcement is acknowledged on its own socket, however late, while that lives."""
    kept = asyncio.Event()

    async def accept(data: dict[str, Any], _frame: str) -> None:
        if data["text"]["content"] == "慢":
            await kept.wait()

    async with linked(gateway, timing=replace(ROTATING, leave_s=5.0), accept=accept) as (bot, first):
        slow = [await gateway.say("慢") for _ in range(20)]
        await first.disconnect(close_after_s=5.0)
        second = await next_connection(gateway, first)
        await bot.works(text="快")
        kept.set()
        for sent in slow:
            ack = await gateway.acked(sent)
            assert (ack.code, ack.connection_id) == (200, first.id)
        assert second.id != first.id
    assert not gateway.wrong_socket_acks


async def test_leaving_waits_for_a_commit(gateway: Gateway) -> None:
    """When the time of an old link is up, what is just being kept is still acknowledged before the close."""
    kept = asyncio.Event()

    async def accept(_data: dict[str, Any], _frame: str) -> None:
        await kept.wait()

    async with linked(gateway, timing=replace(ROTATING, close_s=5.0), accept=accept) as (_, first):
        sent = await gateway.say()
        await first.disconnect(close_after_s=10.0)
        await next_connection(gateway, first)
        await gateway.pause(0.1)  # past leave_s
        assert first.closed_code is None
        kept.set()
        assert (await gateway.acked(sent)).connection_id == first.id
        assert await gateway.until(lambda: first.closed_code) == 1000


async def test_a_young_rotation_backs_off(gateway: Gateway) -> None:
    """A server that announces the end of every link right after accepting it causes no storm."""

    async def greet(connection: Connection) -> None:
        await connection.disconnect(close_after_s=0.05)

    gateway.after_accept = greet
    timing = replace(QUICK, backoff=replace(QUICK.backoff, base_s=0.05, factor=2.0, cap_s=0.4))
    async with running(Bot(gateway, timing=timing)) as bot:
        await gateway.until(lambda: len(gateway.opens) == 5)
        # 0.025 + 0.05 + 0.1 + 0.2 are the shortest pauses
        assert gateway.opens[4].at - gateway.opens[0].at >= 0.37
        gateway.after_accept = None
        await bot.up()
        await bot.works()


async def test_readiness_through_a_failed_reopen(gateway: Gateway) -> None:
    """A rotation is shown as an outage as soon as the next link does not come up, and only then."""
    with told() as events:
        async with linked(gateway, timing=ROTATING) as (bot, first):
            gateway.open_faults.extend([500, 500])
            await first.disconnect()
            await bot.count("lost", 1)
            assert not bot.stream.state.connected
            assert "500" in bot.stream.state.why
            await next_connection(gateway, first)
            await bot.works()
    assert names(events) == ["stream.connected", "stream.lost", "stream.connected"]


async def test_answers_in_progress_are_not_disturbed(house: House) -> None:
    """Questions asked before ten rotations are answered after them, once each, by the one ask they began with."""
    house.backend.answer_delay_s = 0.6
    timings = replace(QUICK_HOUSE, stream=replace(ROTATING, heartbeat_s=5.0))
    async with house.app(timings=timings, limits={"per_user_per_minute": 0}, reply={"notice": "off"}):
        asked: list[Sent] = [await house.gateway.say("年假有几天？", user=f"u{number}") for number in range(8)]
        await until(lambda: len(house.backend.asked) == 8)
        await rotate_quietly(house.gateway, 10)
        assert not any(post.text.startswith("来源") for post in house.gateway.posts)
        for sent in asked:
            await house.gateway.wait_posts(sent, 1)
    assert Counter(post.user for post in house.gateway.posts) == {f"u{number}": 1 for number in range(8)}
    assert len(house.backend.asked) == 8
    assert not any(asked.cancelled for asked in house.backend.asked)
    assert not house.gateway.wrong_socket_acks


async def rotate_quietly(gateway: Gateway, times: int) -> None:
    connection = await gateway.connected()
    for _ in range(times):
        await connection.disconnect()
        connection = await next_connection(gateway, connection)
