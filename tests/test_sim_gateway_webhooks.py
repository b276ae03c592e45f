"""The stand-in gateway's webhooks accept, refuse and fail as DingTalk's do."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest

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
