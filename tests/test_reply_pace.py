"""Not too much into one conversation, and the waiting notice, which is the first to be dropped."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from dingbridge.dingtalk.pace import Pace
from dingbridge.errors import ReplyPaced
from dingbridge.sim.gateway import Gateway
from tests.replying import Chat, Clock, chatting


@pytest.fixture
async def chat(gateway: Gateway) -> AsyncIterator[Chat]:
    async with chatting(gateway) as one:
        yield one


# -- pace


async def test_too_fast_pauses_the_conversation(gateway: Gateway) -> None:
    """After 130101 nothing is posted there for a minute; other conversations go on, and later this one too."""
    clock = Clock()
    async with chatting(gateway, pace=Pace(clock)) as chat:
        message, other = await chat.hear(), await chat.hear(user="043")
        gateway.webhook_faults.append(130101)
        assert (await chat.send(message)).retry_after == 60.0
        before = chat.requests
        clock.now += 20.0
        error = await chat.send(message)
        assert type(error) is ReplyPaced
        assert error.retry_after == pytest.approx(40.0)
        assert await chat.replies.notice(message) is False
        assert chat.requests == before
        assert await chat.send(other)
        clock.now += 40.0
        assert await chat.send(message)


async def test_twenty_a_minute_then_the_caller_waits(gateway: Gateway) -> None:
    """The 21st message of a minute is not posted but handed back with the seconds to wait."""
    clock = Clock()
    async with chatting(gateway, pace=Pace(clock)) as chat:
        message = await chat.hear()
        results = [await chat.send(message) for _ in range(21)]
        assert results[:20] == [True] * 20
        assert type(results[20]) is ReplyPaced
        assert results[20].retry_after == pytest.approx(3.0)
        assert len(chat.shown) == 20


# -- the waiting notice


@pytest.mark.parametrize(("locale", "text"), [("zh-CN", "正在查询，请稍候…"), ("en", "Looking it up, one moment…")])
async def test_the_notice_is_exactly_the_catalogue_text(gateway: Gateway, locale: str, text: str) -> None:
    """The notice is plain text without a mention, in groups too."""
    async with chatting(gateway, locale=locale) as chat:
        assert await chat.replies.notice(await chat.hear(group=True))
        (post,) = gateway.posts
        assert post.body == {"msgtype": "text", "text": {"content": text}}


async def test_a_notice_of_a_handler_cannot_act(chat: Chat) -> None:
    """Progress a handler shows is a stranger's text as well: no mention, one line, bounded; empty is the notice."""
    message = await chat.hear()
    said = "第 1 步\n@all **很快**\u202e " + "长" * 5000
    assert await chat.replies.notice(message, said)
    assert await chat.replies.notice(message, " \u200b")
    first, second = (text for _, text in chat.shown)
    assert first.startswith("第 1 步 ＠all 很快")
    assert "\u202e" not in first
    assert len(first) <= 500
    assert second == "正在查询，请稍候…"


async def test_a_notice_goes_to_the_newest_webhook_when_the_own_is_gone(chat: Chat) -> None:
    """Expired by the clock or by DingTalk's word, the newest webhook takes the notice; the OpenAPI never does."""
    await chat.hear(remember=True)
    for message in (await chat.hear(webhook_ttl_s=-1), await chat.hear(webhook_ttl_s=5400)):
        chat.gateway.sessions[chat.gateway.sent[-1].session].expires_at = 0.0
        assert await chat.replies.notice(message)
    assert [post.session for post in chat.gateway.posts] == [chat.gateway.sent[0].session] * 2
    chat.gateway.expire_webhooks()
    assert await chat.replies.notice(message) is False
    assert len(chat.gateway.posts) == 2
    assert chat.gateway.token_calls == 0


@pytest.mark.parametrize("fault", ["hang", "lost_response", "http504", 130101, 430104])
async def test_rather_no_notice_than_two(gateway: Gateway, fault: Any) -> None:
    """A notice that may have arrived, is too fast or unsafe is not tried on another webhook."""
    async with chatting(gateway, timeout_s=0.3 if fault == "hang" else 5.0) as chat:
        message = await chat.hear()
        await chat.hear(remember=True)
        gateway.webhook_faults.append(fault)
        assert await chat.replies.notice(message) is False
        assert len(chat.shown) == (fault == "lost_response")


async def test_notices_are_dropped_first(gateway: Gateway) -> None:
    """When a conversation has few messages left in its minute, they are kept for answers."""
    async with chatting(gateway, pace=Pace(Clock())) as chat:
        message = await chat.hear()
        results = [await chat.replies.notice(message) for _ in range(20)]
        assert results == [True] * 15 + [False] * 5
        assert [await chat.send(message) for _ in range(5)] == [True] * 5
