"""How connections to the stand-in gateway go wrong and end, and what each one suffers alone."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest

from dingbridge.sim.gateway import BOT_TOPIC, Connection, Gateway, build_frame
from tests.gateway_client import ack, connect, ticket


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


# ---- one connection alone


async def frames_of(ws: aiohttp.ClientWebSocketResponse, count: int) -> list[str]:
    """Topics of the next frames, or what they say."""
    frames = [await ws.receive_json(timeout=10) for _ in range(count)]
    return [json.loads(frame["data"]).get("text", {}).get("content", frame["headers"]["topic"]) for frame in frames]


async def test_a_fault_hits_the_chosen_connection_only(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """Of two connections one is half-open: the other gets everything."""
    ws, sick = await connect(gateway, http)
    other, well = await connect(gateway, http)
    await sick.suffer("half_open")
    sent = await gateway.burst(10)
    assert {push.connection_id for one in sent for push in one.pushes} == {well.id}
    assert await frames_of(other, 10) == [f"第{n}条" for n in range(1, 11)]
    with pytest.raises(TimeoutError):
        await ws.receive(0.1)
    assert [entry["fault"] for entry in gateway.traffic if entry["kind"] == "fault"] == ["half_open"]


async def test_two_connections_share_a_burst(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """500 messages of ten people come in order on each of two connections, and none is missing."""
    pair = [await connect(gateway, http) for _ in range(2)]
    sent = await gateway.burst(500, "{n}", users=10)
    shares = [len([one for one in sent if one.pushes[0].connection_id == link.id]) for _, link in pair]
    got = [await frames_of(ws, share) for (ws, _), share in zip(pair, shares, strict=True)]
    assert min(shares) > 0
    assert sorted(map(int, got[0] + got[1])) == list(range(1, 501))
    assert [sorted(map(int, part)) for part in got] == [list(map(int, part)) for part in got]
    assert len({one.user for one in sent}) == 10


async def test_a_message_for_one_connection(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """`to` chooses the connection; where that is gone another one takes it."""
    pair = [await connect(gateway, http) for _ in range(2)]
    for _ in range(5):
        assert (await gateway.say("你好", to=pair[0][1])).pushes[0].connection_id == pair[0][1].id
    pair[0][1].cut()
    assert (await gateway.say("你好", to=pair[0][1])).pushes[0].connection_id == pair[1][1].id


async def test_a_connection_whose_acks_are_ignored(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """Its message comes again until it is well, and then no more."""
    gateway.redeliver_after_s = 0.1
    ws, connection = await connect(gateway, http)
    await connection.suffer("ignore_acks")
    sent = await gateway.say("你好")
    for _ in range(2):
        await ack(ws, await ws.receive_json(timeout=10))
    await gateway.until(lambda: [entry for entry in gateway.traffic if entry["kind"] == "ack ignored"][1:])
    assert not sent.acks
    await connection.suffer("well")
    await ack(ws, await ws.receive_json(timeout=10))
    assert (await gateway.acked(sent)).push in sent.pushes


async def test_a_slow_connection_keeps_the_order(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """Each frame comes late, one after the other, also those that follow when it is well again."""
    ws, connection = await connect(gateway, http)
    await connection.suffer("slow0.2")
    said = [await gateway.say(str(n)) for n in range(2)]
    await connection.suffer("well")
    said.append(await gateway.say("2"))
    with pytest.raises(TimeoutError):
        await ws.receive(0.05)
    assert await frames_of(ws, 3) == ["0", "1", "2"]
    assert all(one.deliveries == 1 for one in said)


@pytest.mark.parametrize(
    ("fault", "kind", "code"),
    [("close", "CLOSE", 1000), ("close1001", "CLOSE", 1001), ("close1009", "CLOSE", 1009), ("hang_up", "CLOSED", None)],
)
async def test_the_next_connection_ends_at_once(
    gateway: Gateway, http: aiohttp.ClientSession, fault: str, kind: str, code: int | None
) -> None:
    """A queued fault is for one connection; nothing that is held is wasted on it."""
    held = await gateway.say("你好")
    gateway.connection_faults.append(fault)
    ws = await http.ws_connect(await ticket(gateway, http))
    message = await ws.receive(10)
    assert message.type.name == kind
    assert code in (None, message.data)
    await ws.close()
    again, _ = await connect(gateway, http)
    assert await frames_of(again, 1) == ["你好"]
    assert held.deliveries == 1


async def test_unreadable_frames(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """Half a JSON text, and bytes."""
    ws, connection = await connect(gateway, http)
    await connection.suffer("malformed")
    await connection.suffer("binary")
    with pytest.raises(json.JSONDecodeError):
        json.loads(await ws.receive_str())
    assert await ws.receive_bytes() == b"\x00\x01"


@pytest.mark.parametrize("fault", ["closed", "close99", "slow-1", "half_open1e9", ""])
async def test_a_fault_that_does_not_exist(gateway: Gateway, http: aiohttp.ClientSession, fault: str) -> None:
    """It is said, and changes nothing."""
    _, connection = await connect(gateway, http)
    with pytest.raises(ValueError, match="unknown fault"):
        await connection.suffer(fault)
    assert connection.state.value == "live"


async def test_an_oversized_frame_ends_a_client_that_takes_less(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """More than 1 MiB is sent as it is; a client of the SDK's limit leaves with 1009."""
    ws = await http.ws_connect(await ticket(gateway, http), max_msg_size=1024 * 1024)
    connection = await gateway.connected()
    await gateway.say("x" * 1_200_000, to=connection)
    assert (await ws.receive(10)).type is aiohttp.WSMsgType.ERROR
    await gateway.until(lambda: connection.closed_code)
    assert connection.closed_code == 1009


# ---- the server's own signs of life


async def test_dead_channel_until_the_server_notices(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """A half-open connection swallows messages until the server misses its pong; then another one gets them."""
    gateway.ws_ping_every_s, gateway.dead_channel = 0.3, True
    _, dead = await connect(gateway, http)
    dead.half_open()
    assert (await gateway.say("没了")).pushes[0].connection_id == dead.id
    await gateway.until(lambda: dead not in gateway.connections)
    assert [entry["connection"] for entry in gateway.traffic if entry["kind"] == "no pong"] == [dead.id]
    ws, _ = await connect(gateway, http)
    await gateway.say("到了")
    while (message := await ws.receive(10)).type is aiohttp.WSMsgType.PING:
        await ws.pong(message.data)
    assert "到了" in message.data


async def test_a_client_that_pongs_stays(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """Pings that are answered end nothing."""
    gateway.ws_ping_every_s = 0.1
    ws, connection = await connect(gateway, http)
    for _ in range(5):
        message = await ws.receive(10)
        assert message.type is aiohttp.WSMsgType.PING
        await ws.pong(message.data)
    assert connection in gateway.connections


async def test_a_half_open_connection_that_is_noticed_after_a_time(
    gateway: Gateway, http: aiohttp.ClientSession
) -> None:
    """`half_open<seconds>` ends by itself."""
    ws, connection = await connect(gateway, http)
    await connection.suffer("half_open0.2")
    assert (await ws.receive(10)).type in {aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}
    await gateway.until(lambda: connection not in gateway.connections)


async def test_optional_system_frames(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """CONNECTED and REGISTERED greet, pings and KEEPALIVEs come in between, and none of them by default."""
    plain, _ = await connect(gateway, http)
    gateway.greets, gateway.ping_every_s, gateway.keepalive_every_s = True, 0.1, 0.15
    ws = await http.ws_connect(await ticket(gateway, http))
    topics = [(await ws.receive_json(timeout=10))["headers"]["topic"] for _ in range(6)]
    assert topics[:2] == ["CONNECTED", "REGISTERED"]
    assert set(topics[2:]) == {"ping", "KEEPALIVE"}
    with pytest.raises(TimeoutError):
        await plain.receive(0.2)
