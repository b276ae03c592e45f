"""What the stand-in gateway remembers and writes down."""

from __future__ import annotations

import time

import aiohttp

from dingbridge.sim.gateway import Gateway
from tests.gateway_client import ack, connect, post, text, webhook


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
