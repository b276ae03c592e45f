"""A client of the stand-in gateway, by hand: what any SDK does, one step at a time."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import aiohttp
import yarl

from dingbridge.sim.gateway import BOT_TOPIC, Connection, Gateway, Sent

OPEN = "/v1.0/gateway/connections/open"
JSON = {"Accept": "application/json"}
BOT = [{"type": "CALLBACK", "topic": BOT_TOPIC}]


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


async def post(http: aiohttp.ClientSession, url: str | yarl.URL, body: Any, **kwargs: Any) -> dict[str, Any]:
    async with http.post(url, json=body, **kwargs) as response:
        assert response.status == 200
        return dict(await response.json())


def webhook(sent: Sent) -> str:
    return str(sent.data["sessionWebhook"])


def text(content: str) -> dict[str, Any]:
    return {"msgtype": "text", "text": {"content": content}}


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
