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
