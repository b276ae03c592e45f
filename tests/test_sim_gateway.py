"""The stand-in gateway keeps DingTalk's protocol: tickets, messages, acks, redelivery; the official SDK runs on it."""

from __future__ import annotations

import asyncio
import errno
import json
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme

from dingbridge.sim.gateway import BOT_TOPIC, MISSING, Gateway
from tests.gateway_client import BOT, JSON, OPEN, ack, connect, opening, post, text, ticket, webhook
from tests.sdk_bots import python_bot


async def test_official_sdk_answers_and_survives_a_rotation(gateway: Gateway) -> None:
    """The unmodified SDK connects, acks, answers a system ping, replies, and goes on after `disconnect`."""
    async with python_bot(gateway.url, client_id=gateway.client_id, client_secret=gateway.client_secret):
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


async def test_what_the_official_sdk_does_not_ack_comes_once_more(gateway: Gateway) -> None:
    """With a new messageId and the same msgId, and after the ack not again."""
    gateway.redeliver_after_s, gateway.redeliver_at_most = 0.5, 1
    who = {"client_id": gateway.client_id, "client_secret": gateway.client_secret}
    async with python_bot(gateway.url, **who, FORGETS="1"):
        await gateway.connected(timeout_s=60)
        sent = await gateway.say("你好")
        ack = await gateway.acked(sent, timeout_s=30)
        with pytest.raises(TimeoutError):
            await gateway.until(lambda: sent.deliveries > 2, 1.2)
    assert ack.push is sent.pushes[1]
    assert len({push.message_id for push in sent.pushes}) == 2
    assert {json.loads(push.frame["data"])["msgId"] for push in sent.pushes} == {sent.msg_id}


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


@pytest.mark.parametrize(
    "shape",
    [
        {"ua": "", "subscriptions": [{"type": "EVENT", "topic": "*"}, *BOT]},
        {"ua": "dingtalk-sdk-go/v0.9.1", "extras": None, "subscriptions": [{"type": "SYSTEM", "topic": "ping"}, *BOT]},
        {"ua": "x", "localIp": "10.0.0.1,10.0.0.2", "extras": {"a": "b"}, "subscriptions": list(reversed(BOT))},
    ],
)
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
async def test_open_takes_what_the_sdks_send(
    gateway: Gateway, http: aiohttp.ClientSession, shape: dict[str, Any], separators: tuple[str, str]
) -> None:
    """Any order of keys, spaced or compact, with and without what is optional: a ticket, and then the messages."""
    asked = opening(gateway, **shape)
    for body in (asked, dict(reversed(asked.items()))):
        raw = json.dumps(body, separators=separators)
        headers = JSON | {"Content-Type": "application/json"}
        async with http.post(gateway.url + OPEN, data=raw, headers=headers) as response:
            parts = await response.json()
        ws = await http.ws_connect(f"{parts['endpoint']}?ticket={parts['ticket']}")
        await gateway.connected()
        await gateway.say("你好")
        assert (await ws.receive_json(timeout=10))["type"] == "CALLBACK"
        await ws.close()
        await gateway.until(lambda: not gateway.connections)


async def test_an_endpoint_at_which_nobody_listens(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """The fault refused is a ticket for a port that refuses; the next one is good."""
    gateway.open_faults.append("refused")
    with pytest.raises(aiohttp.ClientConnectorError):
        await http.ws_connect(await ticket(gateway, http))
    await (await http.ws_connect(await ticket(gateway, http))).close()


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


async def test_a_robot_message_comes_again_as_often_as_said(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """`redeliver_at_most` once: the field's picture of DingTalk, in less than its 60 s."""
    gateway.redeliver_after_s, gateway.redeliver_at_most = 0.05, 1
    ws, _ = await connect(gateway, http)
    sent = await gateway.say("你好")
    frames = [await ws.receive_json() for _ in range(2)]
    with pytest.raises(TimeoutError):
        await ws.receive(0.3)
    assert sent.deliveries == 2
    assert frames[0]["headers"]["messageId"] != frames[1]["headers"]["messageId"]
    assert frames[0]["data"] == frames[1]["data"]


@pytest.mark.parametrize("first", [None, '{"status":"LATER","message":"busy"}'])
async def test_an_event_comes_again_until_it_is_acked(
    gateway: Gateway, http: aiohttp.ClientSession, first: str | None
) -> None:
    """However often robot messages come; LATER asks for it once more, and an ack without a status ends it."""
    gateway.event_redeliver_after_s, gateway.redeliver_at_most = 0.05, 0
    ws, _ = await connect(gateway, http, subscriptions=[{"type": "EVENT", "topic": "*"}])
    event = await gateway.push_callback("*", {"userId": ["015"]}, "EVENT", headers={"eventId": "e1"})
    for _ in range(3):
        frame = await ws.receive_json(timeout=10)
        assert frame["headers"]["eventId"] == "e1"
        if first is not None:
            await ack(ws, frame, first)
    await ack(ws, await ws.receive_json(timeout=10), '{"userId": ["015"]}')
    await asyncio.wait_for(event.acknowledged.wait(), 10)
    settled = event.deliveries
    with pytest.raises(TimeoutError):
        await gateway.until(lambda: event.deliveries > settled, 0.3)


async def test_the_same_frame_twice(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """A duplicate has the same messageId, on the same connection; without that connection it cannot be."""
    ws, connection = await connect(gateway, http)
    sent = await gateway.say("你好")
    await gateway.duplicate(sent)
    assert await ws.receive_str() == await ws.receive_str()
    assert sent.deliveries == 2
    connection.cut()
    await gateway.until(lambda: not gateway.connections)
    with pytest.raises(ConnectionResetError):
        await gateway.duplicate(sent)


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
