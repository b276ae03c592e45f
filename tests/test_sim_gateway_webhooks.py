"""The stand-in gateway's webhooks accept, refuse and fail as DingTalk's do."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import urllib.parse
from typing import Any

import aiohttp
import pytest
import yarl

from dingbridge.sim.gateway import Gateway
from tests.gateway_client import post, text, webhook


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


# ---- custom robots


async def test_a_custom_robot_is_banned_for_sending_too_fast(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """Beyond its messages per minute it is refused with 130101, and then for ten minutes whatever it sends."""
    gateway.custom_per_minute = 2
    busy, quiet = gateway.custom_robot(), gateway.custom_robot()
    codes = [(await post(http, busy, text(str(n))))["errcode"] for n in range(3)]
    assert codes == [0, 0, 130101]
    gateway.custom_per_minute = None
    assert (await post(http, busy, text("x")))["errcode"] == 130101
    assert (await post(http, quiet, text("x")))["errcode"] == 0
    assert [(p.path, p.text) for p in gateway.posts] == [("custom", "0"), ("custom", "1"), ("custom", "x")]


async def test_a_custom_robot_checks_what_dingtalk_checks(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """Token, keyword, timestamp and signature; each refusal has DingTalk's code, and nothing is delivered."""
    url = gateway.custom_robot(secret="SEC1", keyword="告警")
    now = str(round(time.time() * 1000))
    mac = hmac.new(b"SEC1", f"{now}\nSEC1".encode(), hashlib.sha256).digest()
    signed = f"{url}&timestamp={now}&sign={urllib.parse.quote_plus(base64.b64encode(mac))}"
    wrong = {
        f"{gateway.url}/robot/send?access_token=no": (300001, "token is not exist"),
        url: (310000, "invalid timestamp"),
        f"{url}&timestamp=1&sign=x": (310000, "invalid timestamp"),
        f"{url}&timestamp={now}&sign=x": (310000, "sign not match"),
    }
    for address, (code, why) in wrong.items():
        assert await post(http, yarl.URL(address, encoded=True), text("告警")) == {"errcode": code, "errmsg": why}
    encoded = yarl.URL(signed, encoded=True)
    assert (await post(http, encoded, text("平安")))["errmsg"] == "keywords not in content"
    assert (await post(http, encoded, text("告警：磁盘")))["errcode"] == 0
    assert [p.text for p in gateway.posts] == ["告警：磁盘"]
