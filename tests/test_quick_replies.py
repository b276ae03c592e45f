"""Quick replies on their way: an action card by webhook and by OpenAPI, and plain markdown where DingTalk minds."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dingbridge.dingtalk.composing import Part
from dingbridge.dingtalk.replies import PLAIN_S
from dingbridge.errors import ReplyPaced, ReplyRejected, ReplyUnsafe
from dingbridge.model import Answer, Source
from dingbridge.sim.gateway import Gateway
from tests.replying import MARK, Chat, Clock, chatting

CODE = "0123ABCD"
PAGE = "https://kb.corp.example/a/token"
OFFERED: dict[str, Any] = {"code": CODE, "buttons": True, "deep": True, "page_url": PAGE}
TITLES = ["👍", "👎", "再深入", "查看全文（需公司网络/VPN）"]
SAY = "dtmd://dingtalkclient/sendMessage?content="
URLS = [f"{SAY}%2Fgood%20{CODE}", f"{SAY}%2Fbad%20{CODE}", f"{SAY}%2Fdeep%20{CODE}", PAGE]


@pytest.fixture
async def chat(gateway: Gateway) -> AsyncIterator[Chat]:
    async with chatting(gateway) as one:
        yield one


def kinds(chat: Chat) -> list[str]:
    return [post.body.get("msgtype") or post.body["msgKey"] for post in chat.gateway.posts]


async def part(chat: Chat, text: str = "答", **change: Any) -> Part:
    (one,) = await chat.compose(Answer(text, (Source("甲"),)), **(OFFERED | change))
    return one


@pytest.mark.parametrize("group", [False, True])
async def test_by_webhook(chat: Chat, group: bool) -> None:
    """An action card with its buttons below each other; in a group the asker is mentioned in it."""
    assert await chat.replies.send(await chat.hear(group=group), await part(chat))
    (post,) = chat.gateway.posts
    assert post.body["msgtype"] == "actionCard"
    card = post.body["actionCard"]
    assert card["btnOrientation"] == "0"
    assert card["btns"] == [{"title": title, "actionURL": url} for title, url in zip(TITLES, URLS, strict=True)]
    assert (card["title"], card["text"]) == ("答", "@042\n\n答\n\n来源：甲" if group else "答\n\n来源：甲")
    assert post.body.get("at") == ({"atUserIds": ["042"], "isAtAll": False} if group else None)


@pytest.mark.parametrize("group", [False, True])
@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({}, "sampleActionCard4"),
        ({"page_url": ""}, "sampleActionCard3"),
        ({"page_url": "", "deep": False}, "sampleActionCard2"),
    ],
)
async def test_by_openapi(chat: Chat, group: bool, change: dict[str, Any], kind: str) -> None:
    """The vertical action card of as many buttons, all of its fields text."""
    assert await chat.replies.send(await chat.hear(group=group, webhook_ttl_s=-100), await part(chat, **change))
    (post,) = chat.gateway.posts
    assert post.body["msgKey"] == kind
    param = json.loads(post.body["msgParam"])
    count = int(kind[-1])
    assert [param[f"actionTitle{at}"] for at in range(1, count + 1)] == TITLES[:count]
    assert [param[f"actionURL{at}"] for at in range(1, count + 1)] == URLS[:count]
    assert set(map(type, param.values())) == {str}


async def test_one_button_by_openapi(chat: Chat) -> None:
    """A card of one button has other names for it."""
    assert await chat.replies.send(await chat.hear(webhook_ttl_s=-100), await part(chat, code=""))
    (post,) = chat.gateway.posts
    assert post.body["msgKey"] == "sampleActionCard"
    assert json.loads(post.body["msgParam"])["singleURL"] == PAGE


@pytest.mark.parametrize("fault", [400105, 40035, 401102, 430101, 430104])
async def test_refused_buttons_become_words_and_are_not_tried_again_for_a_while(gateway: Gateway, fault: int) -> None:
    """The same answer in markdown with the commands named, by the same webhook; half an hour later buttons again."""
    clock = Clock(time.time())
    async with chatting(gateway, clock=clock) as chat:
        gateway.webhook_faults.append(fault)
        for _ in range(2):
            assert await chat.replies.send(await chat.hear(), await part(chat))
        assert kinds(chat) == ["markdown", "markdown"]
        assert chat.requests == 3
        for _, text in chat.shown:
            assert text.startswith("答\n\n来源：甲")
            assert text.endswith(chat.texts("commands_deep"))
            assert f"]({PAGE})" in text
        clock.now += PLAIN_S
        assert await chat.replies.send(await chat.hear(webhook_ttl_s=2 * PLAIN_S), await part(chat))
        assert kinds(chat)[-1] == "actionCard"


async def test_refused_by_openapi(chat: Chat) -> None:
    """A robot whose OpenAPI knows no such card writes markdown."""
    chat.gateway.openapi_faults.append((400, "invalidParameter.msgKey.invalid"))
    assert await chat.replies.send(await chat.hear(webhook_ttl_s=-100), await part(chat))
    assert kinds(chat) == ["sampleMarkdown"]


async def test_an_unsafe_text_stays_unsafe(chat: Chat) -> None:
    """Where the words are refused as well it was not the buttons: told as ever, and buttons go on."""
    chat.gateway.webhook_faults.extend([430104, 430104])
    assert type(await chat.outcome(chat.replies.send(await chat.hear(), await part(chat)))) is ReplyUnsafe
    assert await chat.replies.send(await chat.hear(), await part(chat))
    assert kinds(chat) == ["actionCard"]


@pytest.mark.parametrize(("fault", "told"), [(130101, ReplyPaced), (400013, None), (90030, None)])
async def test_what_is_not_the_buttons_fault_costs_no_second_try(chat: Chat, fault: int, told: type | None) -> None:
    """Too fast, a chat that is gone, an allowance that is spent: the next rung, or nothing."""
    chat.gateway.webhook_faults.append(fault)
    result = await chat.outcome(chat.replies.send(await chat.hear(), await part(chat)))
    assert type(result) is told if told else result is True
    assert kinds(chat) == ([] if told else ["sampleActionCard4"])


async def test_an_unknown_outcome_is_marked_in_the_card(chat: Chat) -> None:
    """A repetition begins with its mark, in a card too; nothing is sent twice without it."""
    chat.gateway.webhook_faults.append("reset_before")
    assert await chat.replies.send(await chat.hear(), await part(chat))
    (post,) = chat.gateway.posts
    assert post.text == f"{MARK}\n\n答\n\n来源：甲"


async def test_halves_name_the_commands(chat: Chat) -> None:
    """Too long for DingTalk: both halves are plain, and the commands stand at the end of the second."""
    long = await part(chat, "\n\n".join(f"第{at:04d}句，说明一件事情。" for at in range(60)))
    chat.gateway.webhook_faults.append(460101)
    assert await chat.replies.send(await chat.hear(), long)
    assert kinds(chat) == ["markdown", "markdown"]
    assert ["/good" in text for _, text in chat.shown] == [False, True]


@pytest.mark.parametrize("way", ["webhook", "openapi"])
@pytest.mark.parametrize("unit", ["字", '"'])
async def test_the_fullest_part_still_fits(chat: Chat, way: str, unit: str) -> None:
    """With mention, mark and buttons each part is taken whole, on both ways."""
    message = await chat.hear(group=True, webhook_ttl_s=5400 if way == "webhook" else -1)
    parts = await chat.compose(Answer(unit * 24_000), **OFFERED)
    for one in parts:
        assert await chat.replies.send(message, one, uncertain=True)
    assert len(chat.gateway.posts) == len(parts) == chat.requests
    assert SAY in json.dumps(chat.gateway.posts[-1].body)


async def test_a_refusal_of_everything_is_told(chat: Chat) -> None:
    """Neither form is taken anywhere: final, as without buttons."""
    chat.gateway.webhook_fault = 400105
    chat.gateway.openapi_fault = (400, "invalidParameter.msgParam.invalid")
    assert type(await chat.outcome(chat.replies.send(await chat.hear(), await part(chat)))) is ReplyRejected
