"""The stand-in gateway keeps DingTalk's protocol: the official SDK runs on it, and its faults are what they say."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import ssl
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme

from dingbridge.sim.gateway import BOT_TOPIC, MISSING, Connection, Gateway, Sent, build_frame

OPEN = "/v1.0/gateway/connections/open"
JSON = {"Accept": "application/json"}
BOT = [{"type": "CALLBACK", "topic": BOT_TOPIC}]


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with Gateway() as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def opening(gateway: Gateway, **changes: Any) -> dict[str, Any]:
    asked = {"clientId": gateway.client_id, "clientSecret": gateway.client_secret, "subscriptions": BOT}
    return asked | changes


async def ticket(gateway: Gateway, http: aiohttp.ClientSession, **changes: Any) -> str:
    async with http.post(gateway.url + OPEN, json=opening(gateway, **changes), headers=JSON) as response:
        parts = await response.json()
        return f"{parts['endpoint']}?ticket={parts['ticket']}"


async def connect(
    gateway: Gateway, http: aiohttp.ClientSession, **changes: Any
) -> tuple[aiohttp.ClientWebSocketResponse, Connection]:
    """A client socket and the gateway's view of it."""
    known = {connection.id for connection in gateway.accepted}
    ws = await http.ws_connect(await ticket(gateway, http, **changes), autoping=False)
    fresh = await gateway.until(lambda: [c for c in gateway.connections if c.id not in known])
    with contextlib.suppress(TimeoutError):
        await gateway.until(lambda: fresh[0].state.value != "greeting", 1)
    return ws, fresh[0]


async def ack(ws: aiohttp.ClientWebSocketResponse, frame: dict[str, Any], data: str = "{}") -> None:
    headers = {"messageId": frame["headers"]["messageId"], "contentType": "application/json"}
    await ws.send_json({"code": 200, "message": "OK", "headers": headers, "data": data})


async def post(http: aiohttp.ClientSession, url: str, body: Any, **kwargs: Any) -> dict[str, Any]:
    async with http.post(url, json=body, **kwargs) as response:
        assert response.status == 200
        return dict(await response.json())


def webhook(sent: Sent) -> str:
    return str(sent.data["sessionWebhook"])


def text(content: str) -> dict[str, Any]:
    return {"msgtype": "text", "text": {"content": content}}


# ---- the unmodified SDK


@contextlib.asynccontextmanager
async def sdk_bot(gateway: Gateway) -> AsyncIterator[asyncio.subprocess.Process]:
    settings = {
        "DINGTALK_OPENAPI_ENDPOINT": gateway.url,
        "NO_PROXY": "127.0.0.1",
        "CLIENT_ID": gateway.client_id,
        "CLIENT_SECRET": gateway.client_secret,
    }
    bot = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).parent / "bots" / "sdk_echo.py"),
        env=os.environ | settings,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield bot
    finally:
        bot.kill()
        await bot.wait()


async def test_official_sdk_answers_and_survives_a_rotation(gateway: Gateway) -> None:
    """The unmodified SDK connects, acks, answers a system ping, replies, and goes on after `disconnect`."""
    async with sdk_bot(gateway):
        first = await gateway.connected(timeout_s=60)
        sent = await gateway.say("年假有几天？", user="042", nick="张三")
        posts = await gateway.wait_posts(sent, 2, timeout_s=30)
        assert [p.text for p in posts] == ["echo: 年假有几天？", "**张三**"]
        assert posts[0].body["at"] == {"atUserIds": ["042"]}
        assert (await gateway.acked(sent)).code == 200
        pong = await first.ping_opaque("123-dsfs")
        assert json.loads(pong.data) == {"opaque": "123-dsfs"}

        await first.disconnect(with_message_id=False)
        second = await gateway.until(lambda: [c for c in gateway.accepted if c is not first], 30)
        await gateway.until(lambda: first.closed_code)
        again = await gateway.say("还在吗", group=True, user="043")
        assert (await gateway.next_post(again, timeout_s=30)).text == "echo: 还在吗"
        assert (await gateway.acked(again)).connection_id == second[0].id
    assert first.closed_code == 1000
    assert not gateway.wrong_socket_acks
    assert gateway.opens[0].body["ua"].startswith("dingtalk-sdk-python/v0.24.3")
    assert [o.outcome for o in gateway.opens] == ["ticket", "ticket"]


# ---- opening


async def test_a_ticket_opens_one_connection_once(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """A used, an unknown and an outdated ticket are refused with 4xx on the handshake."""
    url = await ticket(gateway, http)
    ws = await http.ws_connect(url)
    gateway.ticket_ttl_s = 0
    for bad in (url, f"{gateway.endpoint}?ticket=unknown", await ticket(gateway, http)):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(bad)
        assert refused.value.status == 400
    await ws.close()


async def test_open_checks_what_dingtalk_checks(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """A wrong secret is 401 authFailed, a missing part 400, and without an Accept for JSON the answer is XML."""
    url = gateway.url + OPEN
    async with http.post(url, json=opening(gateway, clientSecret="wrong"), headers=JSON) as response:
        assert response.status == 401
        assert (await response.json())["code"] == "authFailed"
    for broken in (opening(gateway, clientId=""), {"clientId": "x"}, ["x"]):
        async with http.post(url, json=broken, headers=JSON) as response:
            assert response.status == 400
    async with http.post(url, json=opening(gateway)) as response:
        assert response.content_type == "text/xml"
    assert [o.outcome for o in gateway.opens] == ["401", "400", "400", "400", "ticket"]


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500, 503])
async def test_open_faults_are_used_up_in_order(gateway: Gateway, http: aiohttp.ClientSession, status: int) -> None:
    """A queued status answers one open with an OpenAPI error body; the next one goes well."""
    gateway.open_faults.append(status)
    async with http.post(gateway.url + OPEN, json=opening(gateway), headers=JSON) as response:
        assert response.status == status
        assert {"code", "requestid", "message"} <= set(await response.json())
    assert "ticket=" in await ticket(gateway, http)


async def test_open_answers_nobody_can_use(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """The faults html, empty, no_ticket and no_endpoint are 200 with a body that lacks what is needed."""
    bodies = []
    gateway.open_faults.extend(["html", "empty", "no_ticket", "no_endpoint"])
    for _ in range(4):
        async with http.post(gateway.url + OPEN, json=opening(gateway), headers=JSON) as response:
            assert response.status == 200
            bodies.append(await response.text())
    assert bodies[0].startswith("<!DOCTYPE html>")
    assert bodies[1] == ""
    assert list(json.loads(bodies[2])) == ["endpoint"]
    assert list(json.loads(bodies[3])) == ["ticket"]


async def test_hang_and_reset_on_open_and_handshake(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """`reset` ends TCP without an answer, `hang` never answers, an int is the handshake's status."""
    url = gateway.url + OPEN
    gateway.open_faults.extend(["reset", "hang"])
    with pytest.raises(aiohttp.ClientOSError) as lost:
        await http.post(url, json=opening(gateway), headers=JSON)
    assert lost.value.errno == errno.ECONNRESET
    with pytest.raises(TimeoutError):
        await http.post(url, json=opening(gateway), headers=JSON, timeout=aiohttp.ClientTimeout(0.2))
    gateway.handshake_faults.append(400)
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await http.ws_connect(await ticket(gateway, http))
    gateway.handshake_fault = "reset"  # sticky: aiohttp repeats a GET once by itself after a reset
    with pytest.raises(aiohttp.ClientOSError):
        await http.ws_connect(await ticket(gateway, http))
    gateway.handshake_fault = "hang"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await http.ws_connect(await ticket(gateway, http))


# ---- messages, acks, redelivery


async def test_message_has_the_documented_shape(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """Data is a JSON string, time a decimal string, group keys come in groups only, overrides and MISSING work."""
    ws, _ = await connect(gateway, http)
    await gateway.say("你好", user="042", nick="李四")
    await gateway.say("你好", group=True, senderStaffId=MISSING, msgId="msg1==")
    await gateway.say(payload={"msgtype": "picture", "content": {"downloadCode": "mIof"}})
    await gateway.say(None)
    frames = [await ws.receive_json() for _ in range(4)]
    single, group, picture, bare = (json.loads(frame["data"]) for frame in frames)
    assert frames[0]["headers"]["time"].isdecimal()
    assert frames[0]["headers"]["topic"] == BOT_TOPIC
    assert single["conversationType"] == "1"
    assert "conversationTitle" not in single
    assert single["text"] == {"content": "你好"}
    assert single["sessionWebhookExpiredTime"] - single["createAt"] == 5_400_000
    assert (group["conversationType"], group["msgId"], group["isInAtList"]) == ("2", "msg1==", True)
    assert group["text"]["content"] == " 你好"
    assert "senderStaffId" not in group
    assert "text" not in picture
    assert picture["msgtype"] == "picture"
    assert "msgtype" not in bare
    await ws.close()


async def test_redelivery_until_acked(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """An unacked message comes again with a new messageId and the same msgId, also on another connection."""
    gateway.redeliver_after_s = 0.05
    first, connection = await connect(gateway, http)
    sent = await gateway.say("你好")
    frames = [await first.receive_json(), await first.receive_json()]
    connection.cut()
    second, _ = await connect(gateway, http)
    frames.append(await second.receive_json())
    await ack(second, frames[-1])
    answer = await gateway.acked(sent)
    settled = sent.deliveries
    assert len({frame["headers"]["messageId"] for frame in frames}) == 3
    assert {json.loads(frame["data"])["msgId"] for frame in frames} == {sent.msg_id}
    assert answer.push is not None
    assert answer.push.connection_id == answer.connection_id
    assert answer.latency_s is not None
    with pytest.raises(TimeoutError):
        await gateway.until(lambda: sent.deliveries > settled, 0.3)
    await gateway.redeliver(sent)
    assert sent.deliveries == settled + 1
    await second.close()


async def test_ack_on_another_connection_is_noticed(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """An ack counts, and is listed as wrong, when it comes on a connection that did not carry the frame."""
    first, connection = await connect(gateway, http)
    sent = await gateway.say("你好")
    frame = await first.receive_json()
    second, other = await connect(gateway, http)
    await ack(second, frame, '{"response":null}')
    answer = await gateway.acked(sent)
    assert gateway.wrong_socket_acks == [answer]
    assert answer.push is not None
    assert (answer.connection_id, answer.push.connection_id) == (other.id, connection.id)
    assert (answer.code, answer.data) == (200, '{"response":null}')
    await first.close()
    await second.close()


async def test_messages_wait_for_a_connection(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """Held messages come in order with the first connection; with hold=False they are lost."""
    lost = await gateway.say("丢", hold=False)
    held = [await gateway.say(f"第{n}条") for n in range(3)]
    assert lost.lost
    assert list(gateway.held) == held
    ws, _ = await connect(gateway, http)
    got = [json.loads((await ws.receive_json())["data"])["text"]["content"] for _ in range(3)]
    assert got == ["第0条", "第1条", "第2条"]
    assert lost.deliveries == 0
    await ws.close()


async def test_only_subscribed_topics_are_pushed(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """A card callback waits for a connection that subscribed to it; EVENT needs `EVENT *`."""
    card = "/v1.0/card/instances/callback"
    plain, first = await connect(gateway, http)
    wide, second = await connect(
        gateway,
        http,
        subscriptions=[{"type": "CALLBACK", "topic": card}, {"type": "EVENT", "topic": "*"}],
    )
    for _ in range(5):
        sent = await gateway.push_callback(card, {"outTrackId": "card-1"})
        assert sent.pushes[0].connection_id == second.id
    event = await gateway.push_callback("*", "{no json", type="EVENT", headers={"eventId": "e1"})
    assert event.pushes[0].frame["data"] == "{no json"
    assert event.pushes[0].frame["headers"]["eventId"] == "e1"
    assert (await gateway.say("你好")).pushes[0].connection_id == first.id
    await plain.close()
    await wide.close()


# ---- how connections end


async def test_disconnect_is_silent_then_closes_tcp(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """After `disconnect` nothing more is pushed on that connection, and TCP ends without a close frame."""
    ws, connection = await connect(gateway, http)
    await connection.disconnect("persistent connection is timeout", close_after_s=0.2, with_message_id=False)
    frame = await ws.receive_json()
    sent = await gateway.say("你好")
    assert "messageId" not in frame["headers"]
    assert json.loads(frame["data"]) == {"reason": "persistent connection is timeout"}
    assert sent.deliveries == 0
    assert (await ws.receive()).type is aiohttp.WSMsgType.CLOSED
    await gateway.until(lambda: not gateway.connections)
    assert connection.closed_code == 1006


async def test_half_open_neither_reads_nor_pongs(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """Before: pong. Half-open: no pong, acks unread, pushes vanish, even the end unseen; `dead_channel` chooses it."""
    ws, connection = await connect(gateway, http)
    await ws.ping(b"1")
    assert (await ws.receive()).data == b"1"
    connection.half_open()
    await ws.ping(b"2")
    assert (await gateway.say("等")).deliveries == 0
    gateway.dead_channel = True
    assert (await gateway.say("没了")).deliveries == 1
    with pytest.raises(TimeoutError):
        await ws.receive(0.3)
    assert not ws.closed
    assert connection in gateway.connections
    ws._response.connection.transport.abort()  # type: ignore[union-attr]  # a client that gives up
    with pytest.raises(TimeoutError):
        await gateway.until(lambda: connection not in gateway.connections, 0.2)


async def test_half_open_may_still_deliver(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """With deliver=True frames arrive, but their acks are never read."""
    gateway.dead_channel = True
    ws, connection = await connect(gateway, http)
    connection.half_open(deliver=True)
    sent = await gateway.say("你好")
    await ack(ws, await ws.receive_json())
    with pytest.raises(TimeoutError):
        await gateway.acked(sent, 0.2)
    connection.cut()
    await ws.close()


async def test_cut_is_a_reset(gateway: Gateway) -> None:
    """`cut` ends TCP with RST: the peer's next read fails instead of seeing an end."""
    async with aiohttp.ClientSession() as http:
        url = (await ticket(gateway, http)).split("/", 3)[3]
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(
        f"GET /{url} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    await reader.readuntil(b"\r\n\r\n")
    (await gateway.connected()).cut()
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    with pytest.raises(ConnectionResetError):
        await writer.wait_closed()


@pytest.mark.parametrize("code", [1000, 1001, 1009])
async def test_close_codes_both_ways(gateway: Gateway, http: aiohttp.ClientSession, code: int) -> None:
    """The gateway's code reaches the client, and the client's code is recorded."""
    ws, _ = await connect(gateway, http)
    other, theirs = await connect(gateway, http)
    for connection in gateway.connections:
        if connection is not theirs:
            await connection.close(code)
    message = await ws.receive()
    assert (message.type, ws.close_code) == (aiohttp.WSMsgType.CLOSE, code)
    await other.close(code=code)
    await gateway.until(lambda: theirs.closed_code)
    assert (theirs.closed_code, other.close_code) == (code, code)


async def test_after_accept_scripts(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """A connection can be greeted with a frame and a close; held messages are not wasted on it."""

    async def greet(connection: Connection) -> None:
        await connection.push(build_frame("CALLBACK", BOT_TOPIC, {"msgId": "m1"}))
        await connection.close(1000)

    held = await gateway.say("你好")
    gateway.after_accept = greet
    ws = await http.ws_connect(await ticket(gateway, http))
    assert (await ws.receive_json())["type"] == "CALLBACK"
    assert (await ws.receive()).type is aiohttp.WSMsgType.CLOSE
    assert held.deliveries == 0
    gateway.after_accept = None
    again, _ = await connect(gateway, http)
    await again.receive_json()
    assert held.deliveries == 1
    await again.close()


async def test_raw_frames_and_garbage(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """send_raw writes any text or bytes; what the client sends and nobody can read is noted."""
    ws, connection = await connect(gateway, http)
    await connection.send_raw("{oops")
    await connection.send_raw(b"\x00")
    assert await ws.receive_str() == "{oops"
    assert await ws.receive_bytes() == b"\x00"
    await ws.send_str("not json")
    await gateway.until(lambda: [t for t in gateway.traffic if t["kind"] == "garbage"])
    await ws.close()
    await gateway.until(lambda: connection.closed_code)
    with pytest.raises(ConnectionResetError):
        await connection.send_raw("late")


# ---- session webhooks


async def test_webhook_posts_are_recorded(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """An accepted post is kept with its conversation, user and text, and handed out once each."""
    sent = await gateway.say("你好", user="042")
    other = await gateway.say("你好", group=True)
    assert await post(http, webhook(sent), text("甲")) == {"errcode": 0, "errmsg": "ok"}
    await post(http, webhook(other), {"msgtype": "markdown", "markdown": {"title": "t", "text": "乙"}})
    await post(http, webhook(sent), text("丙"))
    assert [(await gateway.next_post(sent)).text for _ in range(2)] == ["甲", "丙"]
    assert [p.text for p in await gateway.wait_posts("cid-group")] == ["乙"]
    assert [p.text for p in await gateway.wait_posts(None, 3)] == ["甲", "乙", "丙"]
    assert {p.path for p in gateway.posts} == {"webhook"}
    assert gateway.posts[0].user == "042"


async def test_expired_webhook_is_an_errcode(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """An unknown, an outdated and a withdrawn session answer 200 with errcode 300001 and record nothing."""
    gone = {"errcode": 300001, "errmsg": "session 不存在"}
    unknown = f"{gateway.url}/robot/sendBySession?session=00"
    outdated = await gateway.say("你好", webhook_ttl_s=-1)
    withdrawn = await gateway.say("你好")
    gateway.expire_webhooks(withdrawn.conversation)
    for url in (unknown, webhook(outdated), webhook(withdrawn)):
        assert await post(http, url, text("甲")) == gone
    assert gateway.posts == []


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        (text("汉" * 6700), 460101),
        ({"msgtype": "image", "image": {"picURL": "x"}}, 400105),
        ({"msgtype": "markdown", "markdown": {"title": "", "text": "x"}}, 40035),
        ({"msgtype": "text"}, 40035),
        ([], 40035),
    ],
)
async def test_webhook_checks_the_body(gateway: Gateway, http: aiohttp.ClientSession, body: Any, errcode: int) -> None:
    """A body over 20000 bytes, an unknown kind or a missing part is refused with DingTalk's errcode."""
    sent = await gateway.say("你好")
    raw = json.dumps(body, ensure_ascii=False).encode()
    headers = {"Content-Type": "application/json; charset=utf-8"}
    async with http.post(webhook(sent), data=raw, headers=headers) as response:
        assert (response.status, (await response.json())["errcode"]) == (200, errcode)
    async with http.post(webhook(sent), data=raw, headers={"Content-Type": "text/plain"}) as response:
        assert (await response.json())["errcode"] == 43004
    assert gateway.posts == []


async def test_webhook_rate_limit(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """`webhook_per_minute` refuses with 130101, per conversation."""
    gateway.webhook_per_minute = 2
    busy = await gateway.say("你好", user="042")
    quiet = await gateway.say("你好", user="043")
    codes = [(await post(http, webhook(busy), text(str(n))))["errcode"] for n in range(3)]
    assert codes == [0, 0, 130101]
    assert (await post(http, webhook(quiet), text("x")))["errcode"] == 0


async def test_webhook_faults(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """Errcodes, statuses, resets: the message is there only where the fault says it was delivered."""
    url = webhook(await gateway.say("你好"))
    gateway.webhook_faults.extend([130101, None, "http503", "http500_delivered"])
    assert (await post(http, url, text("a")))["errcode"] == 130101
    assert (await post(http, url, text("b")))["errcode"] == 0
    for status, content in ((503, "c"), (500, "d")):
        async with http.post(url, json=text(content)) as response:
            assert response.status == status
    gateway.webhook_faults.extend(["reset_before", "lost_response"])
    for content in "ef":
        with pytest.raises(aiohttp.ClientConnectionError):
            await http.post(url, json=text(content))
    gateway.webhook_fault = "html"
    async with http.post(url, json=text("g")) as response:
        assert response.content_type == "text/html"
    assert [p.text for p in gateway.posts] == ["b", "d", "f"]


async def test_a_slow_webhook_delivers_although_the_sender_gave_up(
    gateway: Gateway, http: aiohttp.ClientSession
) -> None:
    """`webhook_delay_s` delays the acceptance, and a sender's timeout does not undo it."""
    sent = await gateway.say("你好")
    gateway.webhook_delay_s = 0.3
    with pytest.raises(TimeoutError):
        await http.post(webhook(sent), json=text("晚"), timeout=aiohttp.ClientTimeout(0.1))
    assert (await gateway.next_post(sent)).text == "晚"


# ---- OpenAPI


async def token(gateway: Gateway, http: aiohttp.ClientSession) -> dict[str, str]:
    asked = {"appKey": gateway.client_id, "appSecret": gateway.client_secret}
    body = await post(http, f"{gateway.url}/v1.0/oauth2/accessToken", asked)
    return {"x-acs-dingtalk-access-token": body["accessToken"]}


def oto(gateway: Gateway, *users: str, content: str = "hi") -> dict[str, Any]:
    param = json.dumps({"content": content}, ensure_ascii=False)
    return {
        "robotCode": gateway.client_id,
        "userIds": list(users),
        "msgKey": "sampleText",
        "msgParam": param,
    }


async def test_tokens_are_kept_until_they_expire(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """The same token is given again; after `expire_tokens` it is 400 InvalidAuthentication; bad secrets are 400."""
    url = f"{gateway.url}/v1.0/robot/oToMessages/batchSend"
    old = await token(gateway, http)
    assert await token(gateway, http) == old
    gateway.expire_tokens()
    async with http.post(url, json=oto(gateway, "042"), headers=old) as response:
        assert (response.status, (await response.json())["code"]) == (400, "InvalidAuthentication")
    fresh = await token(gateway, http)
    assert fresh != old
    await post(http, url, oto(gateway, "042"), headers=fresh)
    wrong = {"appKey": gateway.client_id, "appSecret": "x"}
    async with http.post(f"{gateway.url}/v1.0/oauth2/accessToken", json=wrong) as response:
        assert (response.status, (await response.json())["code"]) == (400, "invalidClientIdOrSecret")
    assert gateway.token_calls == 4


async def test_one_to_one_and_group_messages(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """Both sends become posts in the right conversation; invalid and throttled users are only listed."""
    headers = await token(gateway, http)
    await gateway.say("你好", user="042", conversation="cid-own")
    gateway.invalid_staff, gateway.flow_controlled = {"bad"}, {"slow"}
    url = f"{gateway.url}/v1.0/robot/"
    body = await post(http, url + "oToMessages/batchSend", oto(gateway, "042", "bad", "slow"), headers=headers)
    assert body["processQueryKey"]
    assert (body["invalidStaffIdList"], body["flowControlledStaffIdList"]) == (["bad"], ["slow"])
    group = oto(gateway) | {
        "openConversationId": "cid-group",
        "msgKey": "sampleMarkdown",
        "msgParam": json.dumps({"title": "t", "text": "组"}),
    }
    await post(http, url + "groupMessages/send", group, headers=headers)
    got = [(p.path, p.conversation, p.user, p.text) for p in gateway.posts]
    assert got == [("oto", "cid-own", "042", "hi"), ("group", "cid-group", "", "组")]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"robotCode": "other"}, "invalidParameter.robotCode.auth"),
        ({"msgKey": "nope"}, "invalidParameter.msgKey.invalid"),
        ({"msgParam": {"content": "x"}}, "invalidParameter.msgParam.invalid"),
        ({"msgParam": json.dumps({"content": "x" * 15_000})}, "invalidParameter.msgParam.tooLong"),
        ({"msgParam": "{}"}, "miss.param.content"),
        ({"userIds": [str(n) for n in range(21)]}, "receivers.exceed"),
    ],
)
async def test_openapi_checks_the_body(
    gateway: Gateway, http: aiohttp.ClientSession, change: dict[str, Any], code: str
) -> None:
    """A wrong robot, key, parameter or number of receivers is 400 with DingTalk's code."""
    headers = await token(gateway, http)
    url = f"{gateway.url}/v1.0/robot/oToMessages/batchSend"
    async with http.post(url, json=oto(gateway, "042") | change, headers=headers) as response:
        assert (response.status, (await response.json())["code"]) == (400, code)
    assert gateway.posts == []


async def test_openapi_faults(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """(status, code) pairs, bare statuses and lost responses; a missing scope is named."""
    headers = await token(gateway, http)
    url = f"{gateway.url}/v1.0/robot/oToMessages/batchSend"
    denied = "Forbidden.AccessDenied.AccessTokenPermissionDenied"
    gateway.openapi_faults.extend([(403, denied), 504, "lost_response"])
    async with http.post(url, json=oto(gateway, "042"), headers=headers) as response:
        body = await response.json()
        assert (response.status, body["code"]) == (403, denied)
        assert body["accessdenieddetail"] == {"requiredScopes": ["qyapi_robot_sendmsg"]}
    async with http.post(url, json=oto(gateway, "042"), headers=headers) as response:
        assert response.status == 504
    with pytest.raises(aiohttp.ClientConnectionError):
        await http.post(url, json=oto(gateway, "042", content="到了"), headers=headers)
    assert [p.text for p in gateway.posts] == ["到了"]


# ---- the whole


async def test_tls_end_to_end(tmp_path: Path) -> None:
    """With an ssl_context everything is https and wss under the public host, and a cut still works."""
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    async with (
        Gateway(ssl_context=server, public_host="localhost") as gateway,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=client)) as http,
    ):
        ws, connection = await connect(gateway, http)
        assert gateway.endpoint.startswith("wss://localhost:")
        sent = await gateway.say("你好")
        assert webhook(sent).startswith("https://localhost:")
        await ws.receive_json()
        assert (await post(http, webhook(sent), text("安全")))["errcode"] == 0
        connection.cut()
        assert (await ws.receive()).type in {aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}


async def test_close_ends_hanging_handlers_and_leaves_no_task() -> None:
    """Closing ends hanging opens, webhooks, half-open connections and redeliveries, and no task stays behind."""
    before = asyncio.all_tasks()
    async with aiohttp.ClientSession() as http:
        gateway = await Gateway().__aenter__()
        gateway.redeliver_after_s = 0.05
        _, connection = await connect(gateway, http)
        sent = await gateway.say("你好")
        connection.half_open()
        gateway.open_fault = gateway.webhook_fault = "hang"
        hanging = [
            asyncio.ensure_future(http.post(gateway.url + OPEN, json=opening(gateway), headers=JSON)),
            asyncio.ensure_future(http.post(webhook(sent), json=text("x"))),
        ]
        await gateway.until(lambda: [t for t in gateway.traffic if t.get("outcome") == "hang"][1:])
        async with asyncio.timeout(5):
            await gateway.close()
        results = await asyncio.gather(*hanging, return_exceptions=True)
        assert all(isinstance(result, aiohttp.ClientConnectionError) for result in results)
    await gateway.close()
    assert asyncio.all_tasks() == before
    assert not gateway.connections


async def test_traffic_tells_everything_in_order(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """One list has opens, connections, frames, acks and posts, with monotonic times."""
    started = time.monotonic()
    ws, _ = await connect(gateway, http)
    sent = await gateway.say("你好")
    await ack(ws, await ws.receive_json())
    await gateway.acked(sent)
    await post(http, webhook(sent), text("好"))
    await ws.close()
    await gateway.until(lambda: not gateway.connections)
    kinds = [entry["kind"] for entry in gateway.traffic]
    assert kinds == ["open", "connected", "live", "frame", "ack", "post", "closed"]
    times = [entry["at"] for entry in gateway.traffic]
    assert times == sorted(times)
    assert times[0] >= started
