"""The ladder into the chat: every fault with what the chat shows in the end, and what the caller is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from dingbridge.errors import (
    ReplyError,
    ReplyPaced,
    ReplyRejected,
    ReplyUnavailable,
    ReplyUncertain,
    ReplyUnsafe,
    StoreUnavailable,
)
from dingbridge.model import Answer
from dingbridge.sim.gateway import MISSING, Gateway
from dingbridge.trail import Trail, follow
from tests.replying import MARK, Chat, chatting

GONE = (400, "group.disbanded")
UNPERMITTED = (403, "Forbidden.AccessDenied.AccessTokenPermissionDenied")
MARKED = f"{MARK}\n\n答"


@pytest.fixture
async def chat(gateway: Gateway) -> AsyncIterator[Chat]:
    async with chatting(gateway) as one:
        yield one


# -- which rung


@pytest.mark.parametrize("group", [False, True])
async def test_the_own_webhook_comes_first(chat: Chat, group: bool) -> None:
    """A live session webhook takes the answer; the newest one and the OpenAPI are not asked."""
    message = await chat.hear(group=group)
    await chat.hear(group=group, remember=True)
    chat.newest_fails = AssertionError("nobody needs it")
    assert await chat.send(message)
    (post,) = chat.gateway.posts
    assert (post.path, post.session) == ("webhook", chat.gateway.sent[0].session)
    assert post.body["msgtype"] == "markdown"
    assert chat.gateway.token_calls == 0


@pytest.mark.parametrize("ttl_s", [-100, 10])
async def test_an_expired_webhook_is_not_even_tried(chat: Chat, ttl_s: float) -> None:
    """Past its expiry, or about to be, the conversation's newest live webhook is used instead."""
    message = await chat.hear(webhook_ttl_s=ttl_s)
    await chat.hear(remember=True)
    assert await chat.send(message)
    assert [post.session for post in chat.gateway.posts] == [chat.gateway.sent[1].session]
    assert chat.requests == 1


@pytest.mark.parametrize(("group", "path"), [(False, "oto"), (True, "group")])
async def test_without_a_live_webhook_the_openapi_is_used(chat: Chat, group: bool, path: str) -> None:
    """All webhooks expired: one to one by the staff id, in a group by the conversation's id, and no mention."""
    message = await chat.hear(group=group, webhook_ttl_s=-100, remember=True)
    assert await chat.send(message)
    (post,) = chat.gateway.posts
    assert (post.path, post.conversation, post.text) == (path, message.conversation.id, "答")
    assert "042" not in post.body["msgParam"]
    assert chat.requests == 1


async def test_no_expiry_means_until_dingtalk_says_so(chat: Chat) -> None:
    """A webhook whose expiry is unknown is tried; the errcode then sends the answer on."""
    message = await chat.hear(sessionWebhookExpiredTime=MISSING)
    chat.gateway.expire_webhooks()
    assert await chat.send(message)
    assert [path for path, _ in chat.shown] == ["oto"]


async def test_a_foreign_webhook_is_never_posted_to(chat: Chat) -> None:
    """A session webhook on another origin is left out when the message is read: the OpenAPI answers."""
    message = await chat.hear(sessionWebhook="https://oapi.dingtalk.com.evil.example/robot/sendBySession?session=1")
    assert await chat.send(message)
    assert [path for path, _ in chat.shown] == ["oto"]


async def test_the_openapi_needs_no_store(chat: Chat) -> None:
    """A store that cannot say the newest webhook costs only that rung."""
    message = await chat.hear(webhook_ttl_s=-100)
    chat.newest_fails = StoreUnavailable("disk full")
    assert await chat.send(message)
    assert [path for path, _ in chat.shown] == ["oto"]


async def test_without_staff_id_only_webhooks_reach_a_person(chat: Chat) -> None:
    """One to one without a staff id and without a live webhook nothing is left: told as final."""
    message = await chat.hear(senderStaffId=MISSING, webhook_ttl_s=-100)
    error = await chat.send(message)
    assert type(error) is ReplyRejected
    assert error.cause == "chat.no_staff_id"
    assert "staff id" in error.detail
    assert chat.requests == 0
    group = await chat.hear(senderStaffId="", webhook_ttl_s=-100, group=True)
    assert await chat.send(group)


# -- what each fault becomes


@dataclass(frozen=True)
class Row:
    """`faults` one per webhook request, then none; the own and the newest webhook live. `posts`: path, and text."""

    faults: list[Any]
    posts: list[tuple[str, str]]
    result: bool | type[ReplyError] = True
    retry_after: float | None = None


PLAIN = [("webhook", "答")]
REPEATED = [("webhook", MARKED)]
TABLE = {
    "fine": Row([], PLAIN),
    "expired": Row([300001], PLAIN),
    "both expired": Row([300001, 300001], [("oto", "答")]),
    "busy": Row([-1], PLAIN),
    "busy twice": Row([-1, -1], [("oto", "答")]),
    "too fast": Row([130101], [], ReplyPaced, 60.0),
    "too fast, other wording": Row([410100], [], ReplyPaced, 60.0),
    "app too fast": Row([90018], [], ReplyPaced, 1.0),
    "everybody too fast": Row([90002], [], ReplyPaced, 1.0),
    "unsafe link": Row([430101], [], ReplyUnsafe),
    "improper text": Row([430102], [], ReplyUnsafe),
    "unsafe picture": Row([430103], [], ReplyUnsafe),
    "unsafe content": Row([430104], [], ReplyUnsafe),
    "allowance spent": Row([90030, 90030], [("oto", "答")]),
    "api allowance spent": Row([90020], PLAIN),
    "group disbanded": Row([400013], PLAIN),
    "robot stopped": Row([400102, 400102], [("oto", "答")]),
    "robot not in group": Row([400106], PLAIN),
    "unknown errcode": Row([987654], PLAIN),
    "a page": Row(["html"], PLAIN),
    "hang": Row(["hang"], REPEATED),
    "reset before": Row(["reset_before"], REPEATED),
    "500": Row(["http500"], REPEATED),
    "502": Row(["http502"], REPEATED),
    "504": Row(["http504"], REPEATED),
    "503": Row(["http503"], PLAIN),
    "407": Row(["http407"], PLAIN),
    "403 of a firewall": Row(["http403"], PLAIN),
    "404": Row(["http404"], PLAIN),
    "302 of a portal": Row(["http302"], PLAIN),
    "429": Row(["http429"], [], ReplyPaced, 5.0),
    "lost response": Row(["lost_response"], [*PLAIN, *REPEATED]),
    "504 that was delivered": Row(["http504_delivered"], [*PLAIN, *REPEATED]),
    "unknown, then certain": Row(["reset_before", -1], [("oto", MARKED)]),
    "certain, then unknown": Row([-1, "reset_before"], [("oto", MARKED)]),
    "unknown twice": Row(["reset_before", "hang"], [], False),
    "unknown, then unsafe": Row(["reset_before", 430104], [], ReplyUnsafe),
    "unknown, then too fast": Row(["reset_before", 130101], [], ReplyUncertain, 60.0),
    "busy, then too fast": Row([-1, 130101], [], ReplyPaced, 60.0),
}


# What the trail says of each fault, and so the operator.
CAUSES: dict[Any, str] = {
    300001: "webhook.expired",
    -1: "chat.busy",
    **dict.fromkeys((130101, 410100, 90018, 90002, "http429"), "chat.paced"),
    **dict.fromkeys((430101, 430102, 430103, 430104), "chat.unsafe"),
    **dict.fromkeys((90030, 90020), "chat.quota"),
    **dict.fromkeys((400013, 400102, 400106), "chat.gone"),
    987654: "chat.refused",
    **dict.fromkeys(("html", "http403", "http404", "http302"), "network.intercepted"),
    "hang": "network.timeout",
    **dict.fromkeys(("reset_before", "lost_response"), "network.cut"),
    **dict.fromkeys(("http500", "http502", "http504", "http504_delivered"), "chat.unknown_outcome"),
    "http503": "chat.busy",
    "http407": "proxy.auth",
}


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
async def test_webhook_faults(gateway: Gateway, row: Row) -> None:
    """Each fault of the session webhook: what the chat shows in the end, what the caller is told, what is noted."""
    slow = "hang" in row.faults
    async with chatting(gateway, timeout_s=0.3 if slow else 5.0) as chat:
        message = await chat.hear()
        await chat.hear(remember=True)
        gateway.webhook_faults.extend(row.faults)
        with follow(Trail()) as trail:
            result = await chat.send(message)
        tried = [step.facts for step in trail.take() if step.name == "send.tried"]
        assert [facts["rung"] for facts in tried] == ["webhook", "newest_webhook", "openapi"][: len(tried)]
        assert [facts["cause"] for facts in tried if not facts["ok"]] == [CAUSES[fault] for fault in row.faults]
        assert chat.shown == row.posts
        if isinstance(row.result, bool):
            assert result is row.result
        else:
            assert type(result) is row.result
            assert result.cause in {CAUSES[fault] for fault in row.faults}
            assert result.retry_after == row.retry_after
        assert len(gateway.webhook_faults) == 0


@pytest.mark.parametrize(
    ("webhook", "openapi", "told", "cause"),
    [
        (400013, GONE, ReplyRejected, "chat.gone"),
        (300001, GONE, ReplyRejected, "chat.gone"),
        (300001, UNPERMITTED, ReplyRejected, "chat.permission"),
        (-1, GONE, ReplyUnavailable, "chat.busy"),
        (400013, "http503", ReplyUnavailable, "chat.busy"),
        (400013, (500, "system.error"), ReplyUncertain, "chat.unknown_outcome"),
        ("http404", GONE, ReplyUnavailable, "network.intercepted"),
        ("html", "html", ReplyUnavailable, "network.intercepted"),
        (400013, (403, "Forbidden.AccessDenied.QpsLimitForApi"), ReplyPaced, "chat.paced"),
        (400013, (400, "contain.notAllowed.text"), ReplyUnsafe, "chat.unsafe"),
    ],
)
async def test_when_all_rungs_fail(chat: Chat, webhook: Any, openapi: Any, told: type[ReplyError], cause: str) -> None:
    """What may work later outlives what never will; only what no rung will ever take is final. So do the causes."""
    message = await chat.hear(remember=True)
    chat.gateway.webhook_fault, chat.gateway.openapi_fault = webhook, openapi
    error = await chat.send(message)
    assert type(error) is told
    assert error.cause == cause
    assert error.retryable is (told not in (ReplyRejected, ReplyUnsafe))
    assert chat.shown == []


async def test_an_unknown_outcome_outlives_refusals(chat: Chat) -> None:
    """Refused by every later rung, the part is still one that may have arrived."""
    message = await chat.hear(remember=True)
    chat.gateway.webhook_fault, chat.gateway.openapi_fault = "reset_before", GONE
    error = await chat.send(message)
    assert type(error) is ReplyUncertain
    assert not error.certain
    assert error.cause == "network.cut"


# -- repeating what may have arrived


async def test_a_second_try_is_marked_and_the_last(chat: Chat) -> None:
    """Asked to repeat, each rung is tried once more with the mark; another unknown outcome ends it."""
    message = await chat.hear()
    assert await chat.send(message, uncertain=True)
    assert chat.shown == REPEATED
    chat.gateway.webhook_faults.append("reset_before")
    assert await chat.send(message, uncertain=True) is False
    assert chat.shown == REPEATED
    assert chat.requests == 2  # no further rung


async def test_a_repetition_that_is_certainly_refused_goes_on(chat: Chat) -> None:
    """A certain failure of the repetition lets the next rung try, still marked."""
    message = await chat.hear()
    chat.gateway.webhook_faults.append(300001)
    assert await chat.send(message, uncertain=True)
    assert chat.shown == [("oto", MARKED)]


@pytest.mark.parametrize("fault", ["hang", "reset_before", "http502", "lost_response"])
async def test_drop_never_repeats(gateway: Gateway, fault: str) -> None:
    """With uncertain = "drop" an unknown outcome is the end: at most one message, none marked, no error."""
    async with chatting(gateway, timeout_s=0.3 if fault == "hang" else 5.0, uncertain="drop") as chat:
        message = await chat.hear(remember=True)
        gateway.webhook_faults.append(fault)
        assert await chat.send(message) is False
        assert chat.shown == (PLAIN if fault == "lost_response" else [])
        before = chat.requests
        assert await chat.send(message, uncertain=True) is False
        assert chat.requests == before


async def test_drop_still_climbs_down_after_certain_failures(gateway: Gateway) -> None:
    """With uncertain = "drop" a certain failure goes on to the next rung as always."""
    async with chatting(gateway, uncertain="drop") as chat:
        message = await chat.hear(remember=True)
        gateway.webhook_fault = 300001
        assert await chat.send(message)
        assert chat.shown == [("oto", "答")]


# -- too long


def numbered(count: int) -> str:
    return "\n\n".join(f"第{at:04d}句，说明一件事情，不多也不少。" for at in range(count))


async def test_too_long_is_split_smaller_and_nothing_is_lost(chat: Chat) -> None:
    """460101 sends the part in halves on the same ladder, in order, the mention on the first alone."""
    message = await chat.hear(group=True)
    (part,) = await chat.compose(Answer(numbered(100)))
    chat.gateway.webhook_faults.extend([460101, 101002])
    assert await chat.replies.send(message, part)
    texts = [text for _, text in chat.shown]
    assert len(texts) == 3
    assert "".join(texts).count("@042") == 1
    assert texts[0].startswith("@042\n\n")
    together = "\n\n".join(texts)
    places = [together.index(f"第{at:04d}句") for at in range(100)]
    assert places == sorted(places)


async def test_413_is_too_long_too(chat: Chat) -> None:
    """A front that refuses the size by status is told from a refusal of the message."""
    message = await chat.hear()
    (part,) = await chat.compose(Answer(numbered(20)))
    chat.gateway.webhook_faults.append("http413")
    assert await chat.replies.send(message, part)
    assert len(chat.shown) == 2


async def test_what_is_always_too_long_ends(chat: Chat) -> None:
    """A DingTalk that finds everything too long gets a handful of requests, then a final refusal."""
    message = await chat.hear()
    (part,) = await chat.compose(Answer(numbered(100)))
    chat.gateway.webhook_fault = 460101
    error = await chat.outcome(chat.replies.send(message, part))
    assert type(error) is ReplyRejected
    assert error.cause == "chat.too_long"
    assert chat.requests < 12


async def test_half_a_part_in_the_chat_is_an_unknown_outcome(chat: Chat) -> None:
    """When the second half cannot be sent, the first is there already: the next try will be marked."""
    message = await chat.hear()
    (part,) = await chat.compose(Answer(numbered(20)))
    chat.gateway.webhook_faults.extend([460101, None, 130101])
    error = await chat.outcome(chat.replies.send(message, part))
    assert type(error) is ReplyUncertain
    assert error.retry_after == 60.0
    assert error.cause == "chat.paced"
    assert len(chat.shown) == 1


async def test_halves_remember_that_the_whole_may_have_arrived(chat: Chat) -> None:
    """Unknown on one rung, too long on the next, refused as halves: still unknown, and the halves marked."""
    message = await chat.hear()
    await chat.hear(remember=True)
    (part,) = await chat.compose(Answer(numbered(20)))
    chat.gateway.webhook_faults.extend(["reset_before", 460101, 130101])
    error = await chat.outcome(chat.replies.send(message, part))
    assert type(error) is ReplyUncertain
    again = await chat.hear(conversation="cid-other", user="043")
    chat.gateway.webhook_faults.extend([460101])
    assert await chat.replies.send(again, part, uncertain=True)
    assert [text.startswith(MARK) for _, text in chat.shown] == [True, True]


async def test_an_unsafe_half_is_unsafe(chat: Chat) -> None:
    """The content check's word about a half reaches the caller: repeating would never help."""
    message = await chat.hear()
    (part,) = await chat.compose(Answer(numbered(20)))
    chat.gateway.webhook_faults.extend([460101, None, 430104])
    assert type(await chat.outcome(chat.replies.send(message, part))) is ReplyUnsafe


# -- cancelled


async def test_cancelling_a_send_ends_it(gateway: Gateway) -> None:
    """A send that hangs can be cancelled: nothing swallows it, nothing is tried afterwards."""
    async with chatting(gateway) as chat:
        message = await chat.hear(remember=True)
        gateway.webhook_fault = "hang"
        sending = asyncio.create_task(chat.send(message))
        await gateway.until(lambda: [note for note in gateway.traffic if note["kind"] == "webhook"])
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert chat.requests == 1
