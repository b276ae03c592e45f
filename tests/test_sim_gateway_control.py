"""The HTTP control of the stand-in gateway: what it does, shows, and refuses."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from dingbridge.sim.gateway import Gateway
from tests.gateway_client import ack, connect, post, text, ticket, webhook


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with Gateway(control=True) as running:
        yield running


class Control:
    """Calls it."""

    def __init__(self, gateway: Gateway, http: aiohttp.ClientSession) -> None:
        self._base, self._http = f"{gateway.url}/_sim/", http

    async def __call__(self, verb: str, body: Any = None, **kwargs: Any) -> tuple[int, dict[str, Any]]:
        """POST; status and body."""
        data = body if isinstance(body, bytes | None) else json.dumps(body)
        async with self._http.post(self._base + verb, data=data, **kwargs) as response:
            return response.status, await response.json()

    async def done(self, verb: str, **body: Any) -> dict[str, Any]:
        status, answered = await self(verb, body)
        assert status == 200, answered
        return answered

    async def show(self, what: str, **kwargs: Any) -> str:
        async with self._http.get(self._base + what, **kwargs) as response:
            assert response.status == 200
            return await response.text()


@pytest.fixture
def control(gateway: Gateway, http: aiohttp.ClientSession) -> Control:
    return Control(gateway, http)


async def test_say_is_what_a_user_says(gateway: Gateway, http: aiohttp.ClientSession, control: Control) -> None:
    """Text, person, group or conversation, kind, number and length are as asked; without anything it is a greeting."""
    ws, connection = await connect(gateway, http)
    assert (await control("say"))[0] == 200
    await control.done("say", text="年假", user="u1", nick="李四", group=True)
    await control.done("say", text="年假", group="cid-own", connection="newest")
    await control.done("say", payload={"msgtype": "picture", "content": {"downloadCode": "d"}})
    told = await control.done("say", text="a", times=2, pad=1000, connection=connection.id[:8])
    said = [json.loads((await ws.receive_json(timeout=10))["data"]) for _ in range(6)]
    assert said[0]["text"]["content"] == "你好"
    assert (said[1]["senderStaffId"], said[1]["senderNick"], said[1]["conversationType"]) == ("u1", "李四", "2")
    assert said[2]["conversationId"] == "cid-own"
    assert said[3]["msgtype"] == "picture"
    assert [one["text"]["content"] for one in said[4:]] == ["a" + "x" * 1000] * 2
    assert told == {
        "msg_id": said[5]["msgId"],
        "conversation": "cid-042",
        "deliveries": 1,
        "acked": False,
        "connection": connection.id,
        "posts": [],
    }


async def test_say_can_wait_for_the_reply(gateway: Gateway, http: aiohttp.ClientSession, control: Control) -> None:
    """With `wait_s` the first reply comes back, or none after that time."""
    await connect(gateway, http)
    assert (await control.done("say", wait_s=0.1))["posts"] == []
    waiting = asyncio.create_task(control.done("say", user="u1", wait_s=30))
    sent = await gateway.until(lambda: next((one for one in gateway.sent if one.user == "u1"), None))
    await post(http, webhook(sent), text("好"))
    posts = (await waiting)["posts"]
    assert [(one["text"], one["user"], one["path"]) for one in posts] == [("好", "u1", "webhook")]


async def test_posts_can_be_waited_for(gateway: Gateway, http: aiohttp.ClientSession, control: Control) -> None:
    """`after` leaves out what is known, `wait_s` waits for more."""
    sent = await gateway.say("你好")
    assert json.loads(await control.show("posts")) == {"posts": []}
    waiting = asyncio.create_task(control.show("posts?wait_s=30"))
    await post(http, webhook(sent), text("甲"))
    first = json.loads(await waiting)["posts"]
    await post(http, webhook(sent), text("乙"))
    again = json.loads(await control.show(f"posts?after={first[-1]['number']}"))["posts"]
    assert [[one["text"] for one in some] for some in (first, again)] == [["甲"], ["乙"]]


async def test_push_and_redeliver(gateway: Gateway, http: aiohttp.ClientSession, control: Control) -> None:
    """Any topic; the last message again, with a new frame id or as a duplicate; one that does not exist is 400."""
    assert (await control("redeliver"))[0] == 400
    ws, _ = await connect(gateway, http, subscriptions=[{"type": "EVENT", "topic": "*"}])
    await control.done("push", type="EVENT", topic="*", data={"a": 1}, headers={"eventId": "e1"})
    assert (await control.done("redeliver"))["deliveries"] == 2
    assert (await control.done("redeliver", same_id=True))["deliveries"] == 3
    frames = [await ws.receive_json(timeout=10) for _ in range(3)]
    assert {frame["headers"]["eventId"] for frame in frames} == {"e1"}
    assert len({frame["headers"]["messageId"] for frame in frames}) == 2
    assert (await control("redeliver", {"msg_id": "no"}))[0] == 400


async def test_rotate(gateway: Gateway, http: aiohttp.ClientSession, control: Control) -> None:
    """Every connection is told, then ended; without one it is 400."""
    pair = [await connect(gateway, http) for _ in range(2)]
    told = await control.done("rotate", close_after_s=0.2, reason="bye", with_message_id=False)
    assert told == {"rotated": [link.id for _, link in pair]}
    for ws, _ in pair:
        frame = await ws.receive_json(timeout=10)
        assert json.loads(frame["data"]) == {"reason": "bye"}
        assert "messageId" not in frame["headers"]
        assert (await ws.receive(10)).type is aiohttp.WSMsgType.CLOSED
    await gateway.until(lambda: not gateway.connections)
    assert (await control("rotate"))[0] == 400


async def test_faults_are_planted_and_ended(gateway: Gateway, http: aiohttp.ClientSession, control: Control) -> None:
    """Always, so many times, on one connection, on the next one; null ends them; the answer is what is planted now."""
    planted = (await control.done("fault", at="open", fault=401))["faults"]
    assert planted["open"] == {"always": 401, "next": []}
    await control.done("fault", at="open", fault=None)
    await control.done("fault", at="webhook", fault="http503", times=2)
    await control.done("fault", at="openapi", fault=[403, "Forbidden.AccessDenied.QpsLimitForApi"], times=1)
    await control.done("fault", at="connection", fault="close1001", connection="next")
    assert gateway.open_fault is None
    assert list(gateway.webhook_faults) == ["http503", "http503"]
    assert list(gateway.openapi_faults) == [(403, "Forbidden.AccessDenied.QpsLimitForApi")]
    ws = await http.ws_connect(await ticket(gateway, http))
    assert (await ws.receive(10)).data == 1001
    await ws.close()
    await gateway.until(lambda: not gateway.connections)
    pair = [await connect(gateway, http) for _ in range(2)]
    await control.done("fault", at="connection", fault="ignore_acks", connection="oldest")
    assert [link.ignores_acks for _, link in pair] == [True, False]
    await control.done("fault", at="connection", fault="cut", connection="all")
    await gateway.until(lambda: not gateway.connections)
    assert (await control.done("fault", at="webhook", fault=None))["faults"]["webhook"] == {"always": None, "next": []}


async def test_knobs(gateway: Gateway, control: Control) -> None:
    """`set` turns them, and the state shows them."""
    await control.done("fault", set={"dead_channel": True, "redeliver_after_s": 16, "openapi_per_second": 20})
    state = json.loads(await control.show("state"))
    assert (gateway.dead_channel, gateway.redeliver_after_s, gateway.openapi_per_second) == (True, 16, 20)
    assert state["knobs"]["redeliver_after_s"] == 16
    await control.done("fault", set={"redeliver_after_s": None})
    assert gateway.redeliver_after_s is None


@pytest.mark.parametrize(
    ("verb", "body"),
    [
        ("say", b"{oops"),
        ("say", b"\xff"),
        ("say", ["你好"]),
        ("say", {"text": 5}),
        ("say", {"times": True}),
        ("say", {"times": 0}),
        ("say", {"pad": 10**9}),
        ("say", {"wait_s": float("nan")}),
        ("say", {"txet": "你好"}),
        ("say", {"connection": "newest"}),
        ("push", {"data": 5}),
        ("fault", {}),
        ("fault", {"at": "nowhere", "fault": "hang"}),
        ("fault", {"at": "open", "fault": "hung"}),
        ("fault", {"at": "open", "fault": 99}),
        ("fault", {"at": "handshake", "fault": True}),
        ("fault", {"at": "open", "fault": [403, "x"]}),
        ("fault", {"at": "openapi", "fault": [1, "x"]}),
        ("fault", {"at": "connection", "fault": "close99999", "connection": "next"}),
        ("fault", {"at": "connection", "fault": "cut"}),
        ("fault", {"at": "open", "fault": 401, "more": 1}),
        ("fault", {"set": {"client_secret": "x"}}),
        ("fault", {"set": {"dead_channel": None}}),
        ("fault", {"set": {"dead_channel": 1}}),
        ("fault", {"set": {"redeliver_after_s": 0}}),
        ("fault", {"set": {"ws_ping_every_s": True}}),
        ("fault", {"set": {"webhook_per_minute": 1.5}}),
        ("fault", {"set": {"ping_every_s": float("inf")}}),
        ("redeliver", {"msg_id": 5}),
    ],
)
async def test_nonsense_is_told_and_changes_nothing(gateway: Gateway, control: Control, verb: str, body: Any) -> None:
    """400 with a sentence; nothing is said, planted or set."""
    before = await control.show("state")
    status, answered = await control(verb, body)
    assert status == 400
    assert answered["error"]
    assert await control.show("state") == before


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "localhost@evil.example"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_another_origin_is_refused(
    gateway: Gateway, http: aiohttp.ClientSession, control: Control, headers: dict[str, str]
) -> None:
    """Neither a page elsewhere nor a name that leads here may say anything or look."""
    assert (await control("say", {}, headers=headers))[0] == 403
    async with http.get(f"{gateway.url}/_sim/traffic", headers=headers) as response:
        assert response.status == 403
    assert not gateway.sent


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST", "[::1]"])
async def test_this_machine_is_not_refused(gateway: Gateway, control: Control, host: str) -> None:
    """Under each of its names, with its own page as origin."""
    own = f"{host}:{gateway.port}"
    headers = {"Host": own, "Origin": f"http://{own}", "Sec-Fetch-Site": "same-origin"}
    assert (await control("say", {}, headers=headers))[0] == 200


async def test_another_machine_is_refused() -> None:
    """Also where the gateway listens on every address."""
    async with Gateway(control=True, host="0.0.0.0", public_host="127.0.0.1") as gateway:
        address = await asyncio.to_thread(own_address)
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(local_addr=(address, 0))) as outside,
            outside.get(f"http://{address}:{gateway.port}/_sim/state", headers={"Host": "127.0.0.1"}) as response,
        ):
            assert response.status == 403


def own_address() -> str:
    """An address of this machine that is no loopback one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        try:
            one.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no network")
        return str(one.getsockname()[0])


async def test_there_is_no_control_by_default(http: aiohttp.ClientSession) -> None:
    """A gateway in a test answers 404."""
    async with Gateway() as plain, http.get(f"{plain.url}/_sim/state") as response:
        assert response.status == 404


async def test_traffic_as_lines(gateway: Gateway, http: aiohttp.ClientSession, control: Control) -> None:
    """One JSON object a line, without secrets, from a number on."""
    ws, _ = await connect(gateway, http)
    sent = await gateway.say("你好")
    await ack(ws, await ws.receive_json())
    await gateway.acked(sent)
    written = await control.show("traffic")
    lines = [json.loads(line) for line in written.splitlines()]
    assert [line["kind"] for line in lines] == ["open", "connected", "live", "frame", "ack"]
    assert not [secret for secret in (*gateway.tickets, sent.session, gateway.client_secret) if secret in written]
    last = await control.show(f"traffic?after={lines[-2]['number']}")
    assert [json.loads(line)["kind"] for line in last.splitlines()] == ["ack"]
    async with http.get(f"{gateway.url}/_sim/traffic?after=x") as response:
        assert response.status == 400
