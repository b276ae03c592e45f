"""What the stand-in gateway bills, and what happens once a month's units are used up."""

from __future__ import annotations

import json

import aiohttp

from dingbridge.sim.gateway import CARD_TOPIC, Gateway
from tests.gateway_client import BOT, connect, oto, post, text, token, webhook


async def test_each_frame_and_call_counts_in_its_pool(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """Deliveries and webhooks are one pool, calls the other; tokens, pings, QPS and network failures are free."""
    topics = [*BOT, {"type": "CALLBACK", "topic": CARD_TOPIC}, {"type": "EVENT", "topic": "*"}]
    ws, connection = await connect(gateway, http, subscriptions=topics)
    sent = await gateway.say()
    await gateway.redeliver(sent)
    await gateway.push_callback(CARD_TOPIC, {})
    await gateway.push_callback("*", {}, "EVENT")
    await connection.disconnect(close_after_s=0)
    await gateway.say("没有人")
    await post(http, webhook(sent), text("好"))
    assert (await post(http, webhook(sent), {"msgtype": "text"}))["errcode"] == 40035
    await post(http, gateway.custom_robot(), text("好"))
    headers, url = await token(gateway, http), f"{gateway.url}/v1.0/robot/oToMessages/batchSend"
    for fault in (None, "qps", 503, "http502", "http502_delivered"):
        gateway.plant("oto", fault)
        await http.post(url, json=oto(gateway, "042"), headers=headers)
    await http.post(url, json={"robotCode": "other"}, headers=headers)
    gateway.expire_tokens()
    await http.post(url, json=oto(gateway, "042"), headers=headers)
    told = gateway.meter.told()
    assert told["webhook_stream"]["kinds"] == {"message": 2, "card_callback": 1, "event": 1, "webhook": 1, "custom": 1}
    assert told["api"] == {"total": 4, "cap": None, "kinds": {"oto": 4}}
    assert told["free"] == {"webhook": 1, "token": 1, "oto": 3}
    gateway.meter.reset()
    assert gateway.meter.total("api") == gateway.meter.total("webhook_stream") == 0
    await ws.close()


async def test_a_month_that_is_used_up(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """Calls are refused for the organisation, webhooks with 90030, and a message comes as a notice without text."""
    ws, _ = await connect(gateway, http)
    gateway.meter.caps |= {"api": 1, "webhook_stream": 2}
    headers, url = await token(gateway, http), f"{gateway.url}/v1.0/robot/oToMessages/batchSend"
    await post(http, url, oto(gateway, "042"), headers=headers)
    async with http.post(url, json=oto(gateway, "042"), headers=headers) as response:
        refused = (response.status, (await response.json())["code"])
    assert refused == (403, "Forbidden.AccessDenied.ApiCountLimitForOrg")
    sent = await gateway.say()
    await post(http, webhook(sent), text("好"))
    assert await post(http, webhook(sent), text("好")) == {"errcode": 90030, "errmsg": "webhook over limit"}
    await gateway.say("还有吗")
    first, second = [json.loads((await ws.receive_json(timeout=10))["data"]) for _ in range(2)]
    assert ("errorCode" in first, second["errorCode"], second["senderStaffId"]) == (False, "20001", "042")
    assert not {"msgtype", "text", "content"} & set(second)
    assert (gateway.meter.total("api"), gateway.meter.total("webhook_stream")) == (1, 2)
    assert len(gateway.posts) == 2
    gateway.meter.caps["webhook_stream"] = None
    assert (await post(http, webhook(sent), text("好")))["errcode"] == 0
    await ws.close()


async def test_the_quota_by_the_control_api(http: aiohttp.ClientSession) -> None:
    """Caps are set and taken away, a new month begun, and all is told; nonsense is refused."""
    async with Gateway(control=True) as gateway:

        async def quota(**body: object) -> tuple[int, dict[str, dict[str, object]]]:
            async with http.post(f"{gateway.url}/_sim/quota", json=body) as response:
                return response.status, await response.json()

        await gateway.say()
        gateway.meter.count("api", "oto")
        status, told = await quota(api=5000)
        assert (status, told["api"]["cap"], told["api"]["total"]) == (200, 5000, 1)
        status, told = await quota(api=None, reset=True)
        assert (told["api"]["cap"], told["api"]["total"]) == (None, 0)
        for wrong in ({"api": -1}, {"api": True}, {"calls": 1}):
            assert (await quota(**wrong))[0] == 400
        async with http.get(f"{gateway.url}/_sim/quota") as response:
            assert await response.json() == told
