"""A link that is held: left in order, not opened again, and opened at once when it is released."""

from __future__ import annotations

import asyncio
from typing import Any

from dingbridge.errors import StoreUnavailable
from dingbridge.sim.gateway import Gateway
from tests.house import until
from tests.linked import linked, names, told


async def test_a_held_link_is_left_in_order_and_not_opened_again(gateway: Gateway) -> None:
    """Code 1000; what was kept is acknowledged, the state says why, and the release opens at once."""
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def accept(_data: dict[str, Any], _frame: str) -> None:
        if not entered.is_set():
            entered.set()
            await go_on.wait()

    with told(gateway.client_secret) as events:
        async with linked(gateway, accept=accept) as (bot, connection):
            sent = await gateway.say("一")
            await entered.wait()
            bot.stream.hold("the store is away", "store.unreachable")
            go_on.set()  # it is kept while the link is being left
            await connection.gone.wait()
            assert connection.closed_code == 1000
            assert [ack.code for ack in sent.acks] == [200]
            await until(lambda: not bot.stream.state.connected)
            assert (bot.stream.state.why, bot.stream.state.cause) == ("the store is away", "store.unreachable")
            opens = len(gateway.opens)
            await asyncio.sleep(0.5)  # many times the pause between two tries
            assert len(gateway.opens) == opens
            bot.stream.release()
            await bot.up()
            await bot.works()
    assert names(events) == ["stream.connected", "stream.lost", "stream.connected"]
    assert events[1]["why"] == "the store is away"


async def test_what_could_not_be_kept_is_not_acknowledged_by_a_held_link(gateway: Gateway) -> None:
    """It comes again, on whichever link there is then."""
    away = True
    gateway.redeliver_after_s = 0.3

    async def accept(_data: dict[str, Any], _frame: str) -> None:
        if away:
            raise StoreUnavailable("away")

    async with linked(gateway, accept=accept) as (bot, connection):
        sent = await gateway.say("一")
        await bot.count("unacked", 1)
        bot.stream.hold("away")
        await connection.gone.wait()
        assert sent.acks == []
        away = False
        bot.stream.release()
        assert (await gateway.acked(sent)).code == 200


async def test_a_hold_counts_for_a_link_that_is_being_opened(gateway: Gateway) -> None:
    """It is left as soon as it is up."""
    gateway.open_faults.append("hang")
    async with linked(gateway) as (bot, connection):
        gateway.handshake_faults.append("hang")
        connection.cut()
        await gateway.until(lambda: any(one["kind"] == "handshake" for one in gateway.traffic))
        bot.stream.hold("away")
        await asyncio.sleep(0.5)  # the hanging handshake is given up meanwhile
        assert not bot.stream.state.connected
        bot.stream.release()
        await bot.up()
        bot.stream.hold("away again")
        bot.stream.release()
        await bot.count("connected", 3)


async def test_a_held_stream_closes(gateway: Gateway) -> None:
    """A daemon that stops meanwhile is not kept waiting."""
    async with linked(gateway) as (bot, connection):
        bot.stream.hold("away")
        await connection.gone.wait()
    assert bot.running.done()
