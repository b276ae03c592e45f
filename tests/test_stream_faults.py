"""Whatever goes wrong on the way to DingTalk, or ends the link: it is told once, and the link comes back."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

import pytest

from dingbridge.dingtalk.stream import Backoff, Timing
from dingbridge.sim.gateway import Connection, Gateway, build_frame
from tests.anythingllm_peer import Act, Peer, Request, Script, answer
from tests.faultproxy import BLACK_HOLE, FaultProxy, Way
from tests.house import until
from tests.linked import QUICK, Bot, linked, names, next_connection, running, told

OUTAGE = ["stream.connected", "stream.lost", "stream.connected"]


class Always(Peer):
    """Answers everything with one script."""

    def _script(self, _request: Request) -> Script:
        return self.scripts[0]


# ---- the open call and the handshake


@pytest.mark.parametrize(
    ("fault", "words", "cause"),
    [
        (403, "HTTP 403", "link.blocked"),
        (429, "HTTP 429", "link.unavailable"),
        (500, "HTTP 500", "link.unavailable"),
        (503, "HTTP 503", "link.unavailable"),
        ("html", "without endpoint and ticket", "network.intercepted"),
        ("no_ticket", "without endpoint and ticket", "network.intercepted"),
        ("no_endpoint", "without endpoint and ticket", "network.intercepted"),
        ("empty", "without endpoint and ticket", "network.intercepted"),
        ("hang", "no answer in time", "network.timeout"),
        ("reset", "broken off", "network.cut"),
    ],
)
async def test_a_failing_open_call(gateway: Gateway, fault: int | str, words: str, cause: str) -> None:
    """It is told once, not each time, and the link comes up as soon as the call works again."""
    gateway.open_faults.extend([fault, fault])
    with told(gateway.client_secret) as events:
        async with linked(gateway) as (bot, _):
            await bot.works()
            assert bot.stream.state.connected
    assert names(events) == ["stream.lost", "stream.connected"]
    assert words in events[0]["why"]
    assert events[0]["cause"] == cause
    assert events[0]["log_level"] == "warning"
    assert len(gateway.opens) == 3


@pytest.mark.parametrize("fault", [400, 503, "hang", "reset"])
async def test_a_failing_handshake(gateway: Gateway, fault: int | str) -> None:
    """It is told once, and every attempt fetches a new ticket; a 400 here says nothing of credentials."""
    gateway.handshake_faults.extend([fault, fault, fault, fault])  # the library repeats a reset one by itself, once
    with told(gateway.client_secret) as events:
        async with linked(gateway) as (bot, _):
            await bot.works()
    assert names(events) == ["stream.lost", "stream.connected"]
    assert "the WebSocket to 127.0.0.1" in events[0]["why"]
    causes = {"hang": "network.timeout", "reset": "network.cut"}
    assert events[0]["cause"] == causes.get(str(fault), "link.handshake")
    assert len(gateway.opens) == bot.counted["lost"] + 1 >= 3


@pytest.mark.parametrize("status", [400, 401])
async def test_refused_credentials(gateway: Gateway, status: int) -> None:
    """400 and 401 are told once, loudly, with what to check, and tried again slowly until they are right."""
    gateway.open_fault = status
    slow = replace(QUICK, backoff=Backoff(base_s=0.001, factor=1.0, rejected_s=0.15))
    with told(gateway.client_secret) as events:
        async with running(Bot(gateway, timing=slow)) as bot:
            await gateway.until(lambda: len(gateway.opens) == 4)
            gateway.open_fault = None
            assert not bot.stream.state.connected
            await bot.up()
            await bot.works()
    assert names(events) == ["stream.rejected", "stream.connected"]
    assert events[0]["log_level"] == "error"
    assert events[0]["cause"] == "link.rejected"
    for check in ("Client ID and Client Secret", "robot capability", "published", "egress IP", f"HTTP {status}"):
        assert check in events[0]["why"]
    assert bot.counted["rejected"] == 4
    assert gateway.opens[3].at - gateway.opens[0].at >= 3 * 0.15


async def test_a_wrong_secret_is_never_shown(gateway: Gateway) -> None:
    """What DingTalk refuses is told without the secret that was tried."""
    with told("wrong-secret-7", gateway.client_secret) as events:
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


async def test_an_outage_tells_its_length_when_it_ends(gateway: Gateway) -> None:
    """Refused, then unreachable, then back: each is told once, and the end with all the seconds since the first."""
    gateway.open_fault = 401
    slow = replace(QUICK, backoff=Backoff(base_s=0.02, factor=1.0, rejected_s=0.1))
    with told() as events:
        started = time.monotonic()
        async with running(Bot(gateway, timing=slow)) as bot:
            await bot.count("rejected", 6)
            gateway.open_fault = 503
            await bot.count("lost", 2)
            gateway.open_fault = None
            first = await bot.up()
            lasted = time.monotonic() - started
            started = time.monotonic()
            first.cut()
            await next_connection(gateway, first)
            await bot.works()
            again = time.monotonic() - started
    assert names(events) == ["stream.rejected", *OUTAGE]
    assert 0.4 < events[1]["down_s"] <= lasted + 0.1
    assert events[3]["down_s"] <= again + 0.1


async def test_a_first_connection_was_not_away(gateway: Gateway) -> None:
    """Where nothing was lost, nothing is told of its length."""
    with told() as events:
        async with linked(gateway):
            pass
    assert [event["down_s"] for event in events if event["event"] == "stream.connected"] == [None]


@pytest.mark.parametrize("step", ["open", "handshake"])
async def test_retry_after_is_honoured(gateway: Gateway, step: str) -> None:
    """The seconds that a 429 names are waited for, though our own pause would be shorter."""
    async with Always(answer(429, Retry_After="1")) as busy:
        gateway.endpoint = busy.url.replace("http", "ws")
        async with running(Bot(gateway, api_base=busy.url if step == "open" else None)) as bot:
            await bot.count("lost", 2)
    first, second = bot.times("lost")[:2]
    assert second - first >= 1.0


async def test_a_refused_port(gateway: Gateway) -> None:
    """A gateway that is down is told once with what to check, and found again when it is back."""
    port, secret = gateway.port, gateway.client_secret
    await gateway.close()
    with told(secret) as events:
        async with running(Bot(gateway)) as bot:
            await bot.count("lost", 3)
            async with Gateway(port=port) as back:
                await back.connected()
                assert (await back.acked(await back.say())).code == 200
                assert names(events) == ["stream.lost", "stream.connected"]
    assert "check route and firewall" in events[0]["why"]
    assert events[0]["cause"] == "network.refused"


async def test_a_redirected_handshake_is_not_followed(gateway: Gateway) -> None:
    """The gateway was checked by its name; whoever answers there cannot send us on to another one."""
    home = gateway.endpoint
    async with Always(answer(302, Location=f"{gateway.url}/connect")) as elsewhere:
        gateway.endpoint = elsewhere.url.replace("http", "ws")
        with told(gateway.client_secret) as events:
            async with running(Bot(gateway)) as bot:
                await bot.count("lost", 2)
                assert not [note for note in gateway.traffic if note["kind"] == "handshake"]
                gateway.endpoint = home
                await bot.up()
    assert names(events) == ["stream.lost", "stream.connected"]
    assert "redirected" in events[0]["why"]
    assert events[0]["cause"] == "network.intercepted"


@pytest.mark.parametrize(
    "script",
    [
        answer(200, b"\0" * 100_000),
        answer(200, "[" * 60_000),
        answer(200, '{"endpoint": 7, "ticket": []}'),
        [Act.CLOSE],
    ],
    ids=["endless", "deep", "types", "nothing"],
)
async def test_an_odd_answer_to_the_open_call(gateway: Gateway, script: Script) -> None:
    """However odd the answer is, it is a failure like any other."""
    async with Always(script) as odd:
        with told(gateway.client_secret) as events:
            async with running(Bot(gateway, api_base=odd.url)) as bot:
                await bot.count("lost", 2)
    assert names(events) == ["stream.lost"]


# ---- the link itself

Ending = Callable[[Connection], Awaitable[None]]


async def cut(connection: Connection) -> None:
    connection.cut()


async def fin(connection: Connection) -> None:
    connection._close_in(0)


def code(number: int) -> Ending:
    return lambda connection: connection.close(number)


ENDINGS = [cut, code(1000), code(1001), fin]
ENDING_IDS = ["RST", "1000", "1001", "1006"]


@pytest.mark.parametrize("ending", ENDINGS, ids=ENDING_IDS)
async def test_an_ended_link_is_replaced(gateway: Gateway, ending: Ending) -> None:
    """However the server ends a link, one outage and one return are told, and messages go on."""
    with told(gateway.client_secret) as events:
        async with linked(gateway) as (bot, first):
            await bot.works()
            await ending(first)
            await next_connection(gateway, first)
            await bot.works()
    assert names(events) == OUTAGE
    assert events[1]["cause"] == "link.lost"
    assert bot.counted["lost"] == 1


def first_minute(backoff: Backoff, draws: Callable[[], float]) -> int:
    """How often the link is opened in 60 s when each one ends at once."""
    at, opens = 0.0, 0
    while at < 60.0:
        opens += 1
        at += backoff.delay_s(opens, draws())
    return opens


def test_few_opens_in_the_first_minute_by_the_book() -> None:
    """A server that accepts and closes at once sees at most six opens in the first minute, whatever is drawn."""
    dice = random.Random(7)
    assert {first_minute(Backoff(), dice.random) for _ in range(10_000)} <= {4, 5, 6}
    assert first_minute(Backoff(), lambda: 0.0) <= 6
    assert max(Backoff().delay_s(failures, 1.0) for failures in (10, 1_000, 10**9)) <= 60.0


@pytest.mark.parametrize("frame_first", [False, True], ids=["at once", "after a frame"])
@pytest.mark.parametrize("ending", ENDINGS, ids=ENDING_IDS)
async def test_few_opens_in_the_first_minute(gateway: Gateway, ending: Ending, frame_first: bool) -> None:
    """The same over sockets, a minute being 0.3 s; a frame before the end buys nothing."""

    async def greet(connection: Connection) -> None:
        if frame_first:
            await connection.ping_opaque()
        await ending(connection)

    scale, book = 200.0, Backoff()
    scaled = Backoff(
        base_s=book.base_s / scale, factor=book.factor, cap_s=book.cap_s / scale, steady_s=book.steady_s / scale
    )
    gateway.after_accept = greet
    async with running(Bot(gateway, timing=replace(QUICK, backoff=scaled))) as bot:
        minute = 60.0 / scale
        await gateway.until(lambda: gateway.opens and gateway.opens[-1].at - gateway.opens[0].at > minute)
        opens = [one for one in gateway.opens if one.at - gateway.opens[0].at <= minute]
        assert 2 <= len(opens) <= 6
        gateway.after_accept = None
        await bot.up()
        await bot.works()


async def test_a_steady_link_is_reopened_at_once(gateway: Gateway) -> None:
    """A link that lasted is replaced without a pause, once; if the next one ends young, the pauses begin."""
    timing = replace(QUICK, backoff=Backoff(base_s=0.5, factor=1.0, steady_s=0.2))
    async with linked(gateway, timing=timing) as (_, first):
        await gateway.pause(0.25)
        ended = time.monotonic()
        await first.close(1001)
        second = await next_connection(gateway, first)
        at_once = second.opened_at - ended
        await second.close(1001)
        third = await next_connection(gateway, second)
    assert third.opened_at - second.opened_at >= 0.25
    assert at_once < third.opened_at - second.opened_at


async def test_a_half_open_link_is_noticed(gateway: Gateway) -> None:
    """Without pongs the link is given up after one and a half heartbeats, and replaced."""
    with told() as events:
        async with linked(gateway, timing=replace(QUICK, heartbeat_s=0.5)) as (bot, first):
            first.half_open()
            began = time.monotonic()
            await next_connection(gateway, first)
            await bot.works()
    assert bot.times("lost")[0] - began <= 7.5
    assert names(events) == OUTAGE
    assert "no pong" in events[1]["why"]
    assert events[1]["cause"] == "link.silent"


async def test_a_link_that_only_listens(gateway: Gateway) -> None:
    """Where acks and pings vanish, frames that still come in do not hide it."""
    async with FaultProxy(gateway.port) as path:
        gateway.endpoint = f"ws://127.0.0.1:{path.port}/connect"
        with told() as events:
            async with linked(gateway, timing=replace(QUICK, heartbeat_s=0.5)) as (bot, first):
                await bot.works()
                path.set(up=BLACK_HOLE)
                gateway.redeliver_after_s = 0.1
                sent = await gateway.say()
                await bot.count("lost", 1)
                path.heal()
                first.cut()
                await gateway.acked(sent)
        assert sent.deliveries > 2
    assert names(events) == OUTAGE
    assert "no pong" in events[1]["why"]


@pytest.mark.slow
async def test_a_black_hole_is_noticed_within_fifteen_seconds(gateway: Gateway) -> None:
    """With the heartbeat that ships, a path that swallows everything costs at most 15 s."""
    async with FaultProxy(gateway.port) as path:
        gateway.endpoint = f"ws://127.0.0.1:{path.port}/connect"
        async with linked(gateway, timing=Timing()) as (bot, _):
            await bot.works()
            path.both(Way(hold=True))
            began = time.monotonic()
            await bot.count("lost", 1, 30)
            assert bot.times("lost")[0] - began <= 15.0
            print(f"noticed after {bot.times('lost')[0] - began:.1f} s")
            gateway.endpoint = f"ws://127.0.0.1:{gateway.port}/connect"
            path.heal()
            await bot.up()
            await bot.works()


async def test_a_swallowed_handshake_is_given_up(gateway: Gateway) -> None:
    """A path that swallows the handshake too costs one time limit per attempt, and no connection is left over."""
    async with FaultProxy(gateway.port) as path:
        path.both(BLACK_HOLE)
        gateway.endpoint = f"ws://127.0.0.1:{path.port}/connect"
        async with running(Bot(gateway)) as bot:
            await bot.count("lost", 2)
            path.heal()
            await bot.up()
            await bot.works()


async def test_a_frame_beyond_the_sockets_limit(gateway: Gateway) -> None:
    """More than 4 MiB ends this link, for the library must not read it, and the next one comes up."""
    with told() as events:
        async with linked(gateway) as (bot, first):
            with suppress(ConnectionError):  # left in the middle
                await first.send_raw("x" * (4 * 1024 * 1024 + 1))
            await next_connection(gateway, first)
            await bot.works()
    assert names(events) == OUTAGE
    assert "1009" in events[1]["why"]


async def test_text_that_is_no_utf8_ends_the_link_only(gateway: Gateway) -> None:
    """A frame that breaks the WebSocket protocol itself costs the link, not the daemon."""
    async with linked(gateway) as (bot, first):
        await first._ws.send_frame(b"\xff\xfe", 1)  # type: ignore[arg-type] # opcode 1 is text
        await next_connection(gateway, first)
        await bot.works()


async def test_an_outage_in_readiness(gateway: Gateway) -> None:
    """While no link is up the state says so and why; afterwards it says nothing."""
    async with linked(gateway) as (bot, first):
        gateway.open_fault = 503
        first.cut()
        await bot.count("lost", 2)
        state = bot.stream.state
        assert (state.connected, "503" in state.why, state.cause) == (False, True, "link.unavailable")
        gateway.open_fault = None
        await until(lambda: state.connected)
        assert (state.why, state.cause) == ("", "")


async def test_a_link_that_is_used_up_while_another_runs(gateway: Gateway) -> None:
    """A late frame on a link the server has announced to close is still acknowledged there."""
    timing = replace(QUICK, leave_s=5.0)
    async with linked(gateway, timing=timing) as (bot, first):
        await first.disconnect(close_after_s=5.0)
        await next_connection(gateway, first)
        data = {"msgId": "late"}
        push = await first.push(build_frame("CALLBACK", "/v1.0/im/bot/messages/get", data))
        ack = await gateway.until(lambda: push.ack)
        assert (ack.code, ack.connection_id) == (200, first.id)
        assert bot.messages == ["late"]
