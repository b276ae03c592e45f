"""The Stream connection while it is up: what is answered to which frame, when, on which socket; and how it is left."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from dingbridge.dingtalk.stream import BOT_TOPIC, FRAME_LIMIT
from dingbridge.errors import PayloadError, StoreUnavailable
from dingbridge.sim.gateway import Gateway, build_frame
from tests.house import until
from tests.linked import QUICK, Bot, linked, names, next_connection, running, told

EMPTY = {"response": None}


def bot_frame(**changes: Any) -> dict[str, Any]:
    """A bot message's frame; `changes` replace whole parts of it, `headers` single headers (None: left out)."""
    frame = build_frame("CALLBACK", BOT_TOPIC, {"msgId": "m-1", "text": {"content": "你好"}})
    headers = frame["headers"] | changes.pop("headers", {})
    return frame | {"headers": {key: value for key, value in headers.items() if value is not None}} | changes


# ---- what is subscribed and sent


async def test_what_is_asked_for(gateway: Gateway) -> None:
    """The open call subscribes to the bot topic alone, wants JSON, and says who calls."""
    async with linked(gateway) as (_, connection):
        opened = gateway.opens[0]
        assert opened.body["subscriptions"] == [{"type": "CALLBACK", "topic": BOT_TOPIC}]
        assert (opened.body["clientId"], opened.body["clientSecret"]) == (gateway.client_id, gateway.client_secret)
        assert opened.body["ua"].startswith("dingtalk-sdk-python/v")
        assert opened.headers["Accept"] == "application/json"
        assert not connection.pings


async def test_a_message_is_acknowledged(gateway: Gateway) -> None:
    """Its data is handed over parsed, with the frame's id; the ack says 200 and carries the empty response."""
    taken: list[dict[str, Any]] = []

    async def accept(data: dict[str, Any], _: str) -> None:
        taken.append(data)

    async with linked(gateway, accept=accept) as (bot, connection):
        sent = await gateway.say("年假有几天？")
        ack = await gateway.acked(sent)
        assert taken == [sent.data]
        assert bot.frames == [sent.pushes[0].message_id]
        assert (ack.code, ack.message, json.loads(ack.data)) == (200, "OK", EMPTY)
        assert (ack.connection_id, ack.message_id) == (connection.id, sent.pushes[0].message_id)
        assert bot.counted["frame"] == 1


# ---- frames of every shape

ANSWERED: dict[str, tuple[dict[str, Any], int]] = {
    "another topic": (bot_frame(headers={"topic": "/v1.0/card/instances/callback"}), 404),
    "no topic": (bot_frame(headers={"topic": None}), 404),
    "a topic that is no text": (bot_frame(headers={"topic": {"a": []}}), 404),
    "an event": (build_frame("EVENT", "*", {"timeStamp": 1}, headers={"eventType": "user_add_org"}), 404),
    "an odd event": (build_frame("EVENT", "*", "{", headers={"eventBornTime": "soon"}), 404),
    "an unknown type": (bot_frame(type="GREETING"), 400),
    "no type": (bot_frame(type=None), 400),
    "a type that is no text": (bot_frame(type=["CALLBACK"]), 400),
    "data that is no JSON": (bot_frame(data="{"), 400),
    "data that is an array": (bot_frame(data="[1, 2]"), 400),
    "data that is null": (bot_frame(data="null"), 400),
    "data that is no text": (bot_frame(data={"msgId": "m-1"}), 400),
    "data nested too deep": (bot_frame(data="[" * 100_000), 400),
    "a number with too many digits": (bot_frame(data='{"createAt": ' + "9" * 5_000 + "}"), 400),
    "a time that is no number": (bot_frame(headers={"time": "soon"}), 400),
    "a time without end": (bot_frame(headers={"time": float("inf")}), 400),
    "a time that is a list": (bot_frame(headers={"time": []}), 400),
    "half a character in the id": (bot_frame(type="GREETING", headers={"messageId": "half-\ud83d"}), 400),
    "half a character in a good one's id": (bot_frame(headers={"messageId": "half-\ud83d"}), 200),
    "`header` for headers": ({("header" if k == "headers" else k): v for k, v in bot_frame().items()}, 200),
    "unknown keys": (bot_frame(more={"a": 1}, headers={"more": "x", "traceId": 7}), 200),
    "a ping": (build_frame("SYSTEM", "ping", {"opaque": "123-dsfs"}), 200),
    "an unknown system topic": (build_frame("SYSTEM", "KEEPALIVE", {}), 200),
    "a ping nested too deep": (build_frame("SYSTEM", "ping", '{"opaque": ' + "[" * 100_000), 400),
    "a megabyte": (bot_frame(data=json.dumps({"msgId": "m-1", "text": {"content": "x" * FRAME_LIMIT}})), 400),
}


@pytest.mark.parametrize("shape", ANSWERED)
async def test_a_frame_is_answered(gateway: Gateway, shape: str) -> None:
    """Every frame with an id gets its answer, is never an error of ours, and the link stays as it is."""
    frame, code = ANSWERED[shape]
    message_id = (frame.get("headers") or frame["header"])["messageId"]
    with told("你好", "xxx") as events:
        async with linked(gateway) as (bot, connection):
            await connection.send_raw(json.dumps(frame))
            ack = await gateway.until(lambda: next((one for one in gateway.acks if one.message_id == message_id), None))
            assert ack.code == code
            await bot.works()
        assert gateway.accepted == [connection]
    # Each frame is counted once, by what became of it; the second is the message that showed the link at work.
    assert bot.counted["bad_frame"] + bot.counted["unknown_topic"] == (code != 200)
    assert bot.counted["frame"] == 1 + (code == 200)
    assert not [event for event in events if event["log_level"] == "error"]


UNANSWERED: dict[str, str | bytes] = {
    "garbage": "这不是 JSON",
    "nothing": "",
    "bytes": b"\x00\x01\x02",
    "an array": "[]",
    "a number": "7",
    "100 000 brackets": "[" * 100_000,
    "objects nested too deep": '{"a":' * 100_000,
    "a number with too many digits": '{"type": ' + "9" * 5_000 + "}",
    "an empty object": "{}",
    "no headers": json.dumps({"type": "CALLBACK", "data": "{}"}),
    "headers that are a list": json.dumps({"type": "CALLBACK", "headers": [], "data": "{}"}),
    "headers that are null": json.dumps({"type": "SYSTEM", "headers": None, "data": "{}"}),
    "an id that is a number": json.dumps(bot_frame(type="GREETING", headers={"messageId": 7})),
    "no id, unreadable": json.dumps(bot_frame(data="{", headers={"messageId": None})),
    "no id, another topic": json.dumps(bot_frame(headers={"messageId": None, "topic": "/other"})),
}


@pytest.mark.parametrize("shape", UNANSWERED)
async def test_a_frame_without_an_answer(gateway: Gateway, shape: str) -> None:
    """What has no id is counted and survived: the next message comes through on the same link."""
    with told() as events:
        async with linked(gateway) as (bot, connection):
            await connection.send_raw(UNANSWERED[shape])
            await bot.works()
            assert [ack for ack in gateway.acks if ack.push is None and ack.code != 200] == []
        assert gateway.accepted == [connection]
    assert not [event for event in events if event["log_level"] == "error"]


async def test_a_message_without_an_id_of_its_frame(gateway: Gateway) -> None:
    """It is handed over all the same, for its data may name it."""
    async with linked(gateway) as (bot, connection):
        await connection.send_raw(json.dumps(bot_frame(headers={"messageId": None})))
        await bot.works()
        assert (bot.messages[0], bot.frames[0]) == ("m-1", "")


async def test_pings_are_echoed(gateway: Gateway) -> None:
    """Each SYSTEM ping is answered with its own opaque, also while messages are in work."""
    gate = asyncio.Event()

    async def accept(_data: dict[str, Any], _frame: str) -> None:
        await gate.wait()

    async with linked(gateway, accept=accept) as (_, connection):
        sent = await gateway.say()
        for opaque in ("123-dsfs", "不透明", "x" * 10_000):
            ack = await connection.ping_opaque(opaque)
            assert (ack.code, json.loads(ack.data)) == (200, {"opaque": opaque})
        assert not sent.acks
        gate.set()
        await gateway.acked(sent)


@pytest.mark.parametrize("with_message_id", [True, False])
async def test_disconnect_is_not_acknowledged(gateway: Gateway, with_message_id: bool) -> None:
    """Neither with an id nor without; the next link comes up."""
    async with linked(gateway) as (bot, first):
        push = await first.disconnect(with_message_id=with_message_id)
        await next_connection(gateway, first)
        await bot.works()
        await gateway.until(lambda: first.closed_code)
    assert push.ack is None
    assert not first.acks
    assert first.closed_code == 1000


# ---- acks


async def test_an_ack_waits_for_the_commit_alone(gateway: Gateway) -> None:
    """Nothing is acknowledged before it is kept, and everything as soon as it is."""
    kept = asyncio.Event()

    async def accept(_data: dict[str, Any], _frame: str) -> None:
        await kept.wait()

    async with linked(gateway, accept=accept) as (_, connection):
        sent = await gateway.say()
        await connection.ping_opaque()  # a round trip later
        assert not sent.acks
        kept.set()
        assert (await gateway.acked(sent)).code == 200


async def test_what_cannot_be_kept_is_not_acknowledged(gateway: Gateway) -> None:
    """A store that refuses costs the ack, not the link; the redelivery under a new id is kept and acknowledged."""
    refusals = 2

    async def accept(_data: dict[str, Any], _frame: str) -> None:
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise StoreUnavailable("the disk is full")

    gateway.redeliver_after_s = 0.2
    with told("你好") as events:
        async with linked(gateway, accept=accept) as (bot, connection):
            sent = await gateway.say()
            ack = await gateway.acked(sent)
            assert (ack.code, sent.deliveries) == (200, 3)
            assert ack.push is sent.pushes[2]
            assert len({push.message_id for push in sent.pushes}) == 3
            assert gateway.accepted == [connection]
    assert names(events) == ["stream.connected", "stream.not_kept", "stream.not_kept"]
    assert events[1]["why"] == "the disk is full"
    assert bot.counted["unacked"] == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [(PayloadError("nobody to answer"), 400), (KeyError("a bug"), None), (RuntimeError("a bug"), None)],
)
async def test_what_goes_wrong_while_keeping(gateway: Gateway, error: Exception, code: int | None) -> None:
    """A message nobody can read is refused; a bug of ours is told, costs the ack, and nobody else anything."""
    errors = [error]

    async def accept(_data: dict[str, Any], _frame: str) -> None:
        if errors:
            raise errors.pop()

    with told("你好") as events:
        async with linked(gateway, accept=accept) as (bot, connection):
            sent = await gateway.say()
            await until(lambda: not errors)
            await bot.works()
            assert [ack.code for ack in sent.acks] == ([code] if code else [])
            assert gateway.accepted == [connection]
    failed = [event for event in events if event["event"] == "stream.frame_failed"]
    assert len(failed) == (code is None)


async def test_the_order_of_commits_is_the_order_of_reading(gateway: Gateway) -> None:
    """A burst beyond what may be in flight is handed over in its order, and all of it is acknowledged."""
    running_now = most = 0

    async def accept(_data: dict[str, Any], _frame: str) -> None:
        nonlocal running_now, most
        running_now += 1
        most = max(most, running_now)
        await asyncio.sleep(0)
        running_now -= 1

    async with linked(gateway, accept=accept) as (bot, _):
        burst = [await gateway.say(hold=False) for _ in range(700)]
        for sent in burst:
            assert (await gateway.acked(sent)).code == 200
    assert bot.messages == [sent.msg_id for sent in burst]
    assert most <= 256


async def test_an_ack_that_finds_its_socket_gone(gateway: Gateway) -> None:
    """It is dropped, never sent elsewhere; the message comes again on the new link and is acknowledged there."""
    kept = asyncio.Event()

    async def accept(_data: dict[str, Any], _frame: str) -> None:
        await kept.wait()

    async with linked(gateway, accept=accept) as (bot, first):
        sent = await gateway.say()
        await first.ping_opaque()
        first.cut()
        second = await next_connection(gateway, first)  # the commit that hangs does not delay the next link
        kept.set()
        await until(lambda: bot.messages)
        assert not sent.acks
        await gateway.redeliver(sent)
        assert (await gateway.acked(sent)).connection_id == second.id
    assert not gateway.wrong_socket_acks


# ---- leaving


async def test_close_leaves_in_order(gateway: Gateway) -> None:
    """What was read is kept and acknowledged, then the link is left with code 1000 and `run()` returns."""
    reading, kept = asyncio.Event(), asyncio.Event()

    async def accept(_data: dict[str, Any], _frame: str) -> None:
        reading.set()
        await kept.wait()

    async with linked(gateway, accept=accept) as (bot, connection):
        sent = await gateway.say()
        await reading.wait()
        closing = asyncio.create_task(bot.stream.close())
        await connection.ping_opaque()  # the frame that was being waited for
        late = [await gateway.say(hold=False) for _ in range(5)]
        assert not closing.done()
        kept.set()
        async with asyncio.timeout(10):
            await closing
            await bot.running
        assert (await gateway.acked(sent)).code == 200
        assert bot.messages == [sent.msg_id]
        assert not any(one.acks for one in late)  # not read any more: they come again
        assert not bot.stream.state.connected
    assert (await gateway.until(lambda: connection.closed_code)) == 1000
    assert len(gateway.opens) == 1


async def test_close_under_load(gateway: Gateway) -> None:
    """While messages keep coming, closing ends, and every message is acknowledged or was never handed over twice."""
    stop = asyncio.Event()

    async def flood() -> None:
        while not stop.is_set():
            with suppress(ConnectionError):
                await gateway.say(hold=False)
            await asyncio.sleep(0)

    async with linked(gateway) as (bot, connection):
        flooding = asyncio.create_task(flood())
        await until(lambda: len(bot.messages) > 50)
        async with asyncio.timeout(10):
            await bot.stream.close()
            await bot.running
        stop.set()
        await flooding
    assert (await gateway.until(lambda: connection.closed_code)) == 1000
    acked = [sent.msg_id for sent in gateway.sent if sent.acks]
    assert bot.messages[: len(acked)] == acked
    assert len(bot.messages) - len(acked) <= 1  # read in the very moment of leaving: it comes again


async def test_close_with_a_commit_that_hangs(gateway: Gateway) -> None:
    """It is waited for as long as leaving may take, and given up; the link is left with 1000 all the same."""
    begun: list[str] = []

    async def accept(_data: dict[str, Any], frame: str) -> None:
        begun.append(frame)
        await asyncio.Event().wait()

    timing = replace(QUICK, close_s=0.2)
    async with linked(gateway, accept=accept, timing=timing) as (bot, connection):
        burst = [await gateway.say(hold=False) for _ in range(300)]  # more than may be in flight
        await until(lambda: len(begun) == 256)
        async with asyncio.timeout(10):
            await bot.stream.close()
            await bot.running
        assert not any(sent.acks for sent in burst)
    assert (await gateway.until(lambda: connection.closed_code)) == 1000


@pytest.mark.parametrize("moment", ["open", "handshake", "pause"])
async def test_close_while_there_is_no_link(gateway: Gateway, moment: str) -> None:
    """Closing waits for nothing: not for the open call, the handshake or the pause before the next attempt."""
    timing = replace(QUICK, open_s=60.0, backoff=replace(QUICK.backoff, base_s=60.0, cap_s=60.0))
    async with running(Bot(gateway, timing=timing)) as bot:
        await reach(bot, gateway, moment)
        async with asyncio.timeout(10):
            await bot.stream.close()
            await bot.running
    assert len(gateway.opens) == 1


async def test_close_before_run(gateway: Gateway) -> None:
    """A Stream that never ran is closed at once, and opens nothing afterwards."""
    bot = Bot(gateway)
    async with asyncio.timeout(10):
        await bot.stream.close()
        await bot.stream.run()
        await bot.stream.close()
    assert not gateway.opens


async def reach(bot: Bot, gateway: Gateway, moment: str) -> None:
    """Bring the Stream into the open call, the handshake, a pause, or reading."""
    gateway.open_fault = "hang" if moment == "open" else 500 if moment == "pause" else None
    gateway.handshake_fault = "hang" if moment == "handshake" else None
    seen: dict[str, Callable[[], object]] = {
        "open": lambda: gateway.opens,
        "handshake": lambda: [note for note in gateway.traffic if note["kind"] == "handshake"],
        "pause": lambda: bot.counted["lost"],
        "reading": lambda: gateway.acks,
        "leaving": lambda: len(gateway.accepted) > 1,
    }
    if moment in ("reading", "leaving"):
        connection = await gateway.connected()
        await bot.works()
        if moment == "leaving":
            await connection.disconnect()
    await until(seen[moment], what=moment)


@pytest.mark.parametrize("moment", ["open", "handshake", "pause", "reading", "leaving"])
async def test_cancellation_is_never_swallowed(gateway: Gateway, moment: str) -> None:
    """Wherever `run()` is cancelled it ends at once, and leaves no task, no socket and no session behind."""
    timing = replace(QUICK, open_s=60.0, leave_s=60.0, backoff=replace(QUICK.backoff, base_s=60.0, cap_s=60.0))
    if moment == "leaving":
        timing = replace(timing, backoff=QUICK.backoff)
    bot = Bot(gateway, timing=timing)
    before = asyncio.all_tasks()
    run = asyncio.create_task(bot.stream.run(), name="stream")
    await reach(bot, gateway, moment)
    ours = [task for task in asyncio.all_tasks() - before if "Stream" in repr(task) or "Link" in repr(task)]
    assert run in ours
    run.cancel()
    async with asyncio.timeout(10):
        with pytest.raises(asyncio.CancelledError):
            await run
    assert all(task.done() for task in ours)
    for connection in gateway.accepted:
        assert (await gateway.until(lambda c=connection: c.closed_code)) == 1000  # type: ignore[misc] # bound now
    gc.collect()  # an unclosed session or transport warns here, and a warning is an error


async def test_a_cancelled_commit_sees_it(gateway: Gateway) -> None:
    """Cancelling `run()` cancels what is being kept, too: nothing goes on in the dark."""
    state: list[str] = []

    async def accept(_data: dict[str, Any], _frame: str) -> None:
        state.append("begun")
        try:
            await asyncio.Event().wait()
        finally:
            state.append("ended")

    bot = Bot(gateway, accept=accept)
    run = asyncio.create_task(bot.stream.run())
    await gateway.connected()
    await gateway.say()
    await until(lambda: state)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert state == ["begun", "ended"]
