"""Answers as cards, over sockets, on DingTalk's stand-in: opened once, growing, always closed, refusals told apart."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from structlog.testing import capture_logs

from dingbridge import setup, trail
from dingbridge.dingtalk.cards import Card, Cards
from dingbridge.errors import ReplyError, ReplyPaced, ReplyRejected, ReplyTooLong, ReplyUncertain, ReplyUnsafe
from dingbridge.model import Message, card_track
from dingbridge.sim.gateway import MISSING, Gateway
from dingbridge.sim.gateway_card_records import Card as Shown
from tests.replying import Chat, Clock, chatting

TEMPLATE = "answer.schema"
CREATE, STREAM, UPDATE = "card.create_and_deliver", "card.stream", "card.update"
PARAMS = {"sources": "", "page_url": "", "code": "ABCD1234"}
PERMISSION = "Forbidden.AccessDenied.AccessTokenPermissionDenied"
QUOTA = "Forbidden.AccessDenied.ApiCountLimitForOrg"


def tracked(sent: Message) -> tuple[str, str]:
    return card_track(sent.robot, sent.id), sent.code


@dataclass
class Frugal:
    """A budget that a test turns; what was counted."""

    interval: float | None = 0.0
    allowed: bool = True
    counted: Counter[str] = field(default_factory=Counter)

    def frame_interval_s(self) -> float | None:
        return self.interval

    def cards_allowed(self) -> bool:
        return self.allowed

    def reply_path(self, one_to_one: bool) -> Any:
        return "webhook"

    def notice_allowed(self, pool: str = "") -> bool:
        return True

    def refused(self, pool: str) -> None:
        """DingTalk says it; nothing is counted."""

    def count(self, pool: str, kind: str) -> None:
        self.counted[f"{pool} {kind}"] += 1


@dataclass
class Desk:
    """A robot that answers by cards."""

    gateway: Gateway
    chat: Chat
    cards: Cards
    budget: Frugal
    clock: Clock

    async def open(self, text: str = "正在查找…", *, forward: bool = False, **say: Any) -> tuple[Message, Card]:
        message = await self.chat.hear(**say)
        card = await self.cards.open(message, text, forward=forward, params=PARAMS)
        assert card is not None
        return message, card

    def shown(self, message: Message) -> Shown:
        return self.gateway.cards[card_track(message.robot, message.id)]

    async def grown(self, message: Message, text: str) -> None:
        """Until the card shows this."""
        await self.gateway.until(lambda: self.shown(message).data["content"] == text)


async def gave_up(card: Card) -> None:
    async with asyncio.timeout(10):
        while not card.broken:
            await asyncio.sleep(0.002)


class Drifting(Clock):
    """The machine's clock, and as much more as a test adds."""

    def __call__(self) -> float:
        return asyncio.get_running_loop().time() + self.now


@asynccontextmanager
async def desk_at(gateway: Gateway, chat: Chat, **settings: Any) -> AsyncIterator[Desk]:
    gateway.add_template(TEMPLATE, {"content", *PARAMS})
    budget, clock = Frugal(), Drifting()
    given: dict[str, Any] = {"robot": gateway.client_id, "template_id": TEMPLATE, "interval_s": 0.02} | settings
    cards = Cards(chat.openapi, budget=budget, clock=clock, **{"first_s": 0.0, **given})
    _: setup.Cards = cards  # what the centre asks for
    try:
        yield Desk(gateway, chat, cards, budget, clock)
    finally:
        await cards.close()


@pytest.fixture
async def desk(gateway: Gateway) -> AsyncIterator[Desk]:
    async with chatting(gateway) as chat, desk_at(gateway, chat) as one:
        yield one


# -- the way of a card


async def test_a_card_grows_and_is_closed(desk: Desk) -> None:
    """Created and delivered once in one call, frames with whole texts, one last frame, then the other variables."""
    with trail.follow(trail.Trail()) as steps:
        message, card = await desk.open()
        shown = desk.shown(message)
        assert shown.data == PARAMS | {"content": "正在查找…"}
        assert shown.last_message == "正在查找…"
        assert not shown.support_forward
        for text in ("年假有 **5", "年假有 **5 天**，见 `x"):
            card.update(text)
            await desk.grown(message, text + ("**" if text.endswith("5") else "`"))
        await card.finish("年假有 **5 天**。\n| a | b |\n|---|---|\n| 1 | 2 |", params=PARAMS | {"sources": "- 手册"})
    assert shown.state == "finished"
    assert [change.kind for change in shown.history] == ["create", "deliver", "stream", "stream", "stream", "update"]
    assert all(change.full and change.key == "content" for change in shown.frames)
    assert [change.final for change in shown.frames] == [False, False, True]
    assert shown.data["content"] == "年假有 **5 天**。\n\n| a | b |\n| --- | --- |\n| 1 | 2 |"
    assert shown.data["sources"] == "- 手册"
    assert shown.data["code"] == "ABCD1234"
    assert desk.budget.counted == {"api card.create": 1, "api card.frame": 2, "api card.final": 1, "api card.update": 1}
    assert desk.gateway.meter.total("api") == 5
    names = [step.name for step in steps.steps]
    assert names == ["token.fetched", "card.opened", "card.frame", "card.finished", "card.variables"]
    assert steps.steps[3].facts["frames"] == 2


async def test_in_a_group_everybody_sees_it_and_the_asker_is_told(desk: Desk) -> None:
    """A group's card goes to the group, notifies the asker, hides from nobody; forwarding is off unless allowed."""
    message, _ = await desk.open(group=True)
    shown = desk.shown(message)
    assert [(space.type, space.id) for space in shown.spaces] == [("IM_GROUP", message.conversation.id)]
    assert shown.at_users == {"042": "张三"}
    assert shown.recipients == ()
    assert shown.alert == "正在查找…"
    assert not shown.support_forward
    message, _ = await desk.open(group=True, forward=True, senderStaffId=MISSING)
    assert desk.shown(message).support_forward
    assert desk.shown(message).at_users == {}


async def test_variables_that_have_not_changed_cost_no_call(desk: Desk) -> None:
    """The other variables are sent only where they differ from those at the opening."""
    _, card = await desk.open()
    await card.finish("答", params=dict(PARAMS))
    assert desk.budget.counted["api card.update"] == 0


async def test_without_a_way_there_is_no_card(desk: Desk) -> None:
    """No template, no budget, or nobody to show it to one to one: answered by markdown, before any call."""
    stranger = await desk.chat.hear(senderStaffId=MISSING)
    assert await desk.cards.open(stranger, "…", forward=False, params={}) is None
    known = await desk.chat.hear()
    desk.budget.allowed = False
    assert await desk.cards.open(known, "…", forward=False, params={}) is None
    async with desk_at(desk.gateway, desk.chat, template_id="") as other:
        assert not other.cards.available
        assert await other.cards.open(known, "…", forward=False, params={}) is None
    assert desk.gateway.cards == {}
    assert desk.budget.counted.total() == 0


async def test_where_the_budget_leaves_only_the_last_frame(desk: Desk) -> None:
    """No frame goes out in between; the answer does."""
    desk.budget.interval = None
    message, card = await desk.open()
    for text in ("一", "一二"):
        card.update(text)
        await asyncio.sleep(0)
    await card.finish("一二三", params=PARAMS)
    assert [change.text for change in desk.shown(message).frames] == ["一二三"]
    assert not card.broken


async def test_a_stranger_cannot_act_through_a_card(desk: Desk) -> None:
    """Mentions, foreign links and tags are as inert as in a message; links to what was found work at the end."""
    message, card = await desk.open()
    card.update("@所有人 <b> [x](https://kb.example/a)")
    await desk.grown(message, "＠所有人 ＜b> x（kb．example/a）")
    hosts = frozenset({"kb.example"})
    await card.finish("[x](https://kb.example/a) [y](https://evil.example)", params=PARAMS, link_hosts=hosts)
    assert desk.shown(message).data["content"] == "[x](https://kb.example/a) y（evil．example）"


# -- restarts


async def test_after_a_restart_the_same_card_is_finished(desk: Desk) -> None:
    """Opened in one life, finished in the next: there is exactly one card, and a repeated end changes nothing."""
    message, card = await desk.open()
    card.update("年假")
    await desk.grown(message, "年假")
    await desk.cards.close()
    async with desk_at(desk.gateway, desk.chat) as later:
        again = await later.cards.open(message, "…", forward=False, params=PARAMS)
        assert again is not None
        assert again.track == card.track
        await later.cards.resume(*tracked(message)).finish("年假 5 天", params={"sources": "- 手册"})
    async with desk_at(desk.gateway, desk.chat) as third:
        await third.cards.resume(*tracked(message)).finish("年假 5 天", params={"sources": "- 手册"})
        await third.cards.resume(*tracked(message)).finish("年假 6 天", params={})
    assert len(desk.gateway.cards) == 1
    shown = desk.shown(message)
    assert shown.data["content"] == "年假 5 天"
    assert shown.data["code"] == "ABCD1234"
    assert shown.state == "finished"
    assert [change.kind for change in shown.history if change.final or change.code] == ["stream", "repeat", "refused"]


async def test_nothing_is_on_its_way_after_closing(desk: Desk) -> None:
    """What closes waits for the frame that was sent and lets no other begin."""
    message, card = await desk.open()
    card.update("一")
    await desk.cards.close()
    frames = len(desk.shown(message).frames)
    card.update("二")
    await asyncio.sleep(0.05)
    assert len(desk.shown(message).frames) == frames
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("card")]


# -- refusals

# fault, whether there is a card all the same, cause in the log, whether cards rest afterwards
OPENINGS: list[tuple[Any, bool, str, bool]] = [
    ((400, "param.templateNotExist"), False, "card.template", True),
    ((400, "param.templateUnpublished"), False, "card.template", True),
    ((403, PERMISSION), False, "card.permission", True),
    ((403, QUOTA), False, "chat.quota", True),
    ((403, "Forbidden.AccessDenied.IpNotInWhiteList"), False, "chat.ip_list", True),
    ((400, "param.openSpaceIdInvalid"), False, "card.undelivered", False),
    ((400, "param.openDeliverModelError"), False, "card.undelivered", False),
    ((400, "param.openDeliverModelEmpty"), False, "card.undelivered", False),
    ((400, "param.userIdNotExist"), False, "chat.person", False),
    ((400, "param.contentUnsafe"), False, "chat.unsafe", False),
    ((400, "param.empty"), False, "chat.refused", False),
    ((503, "system.busy"), False, "card.busy", True),
    ((500, "system.busy"), True, "card.busy", True),  # nobody knows: it may be there, and can be finished then
    ("reset", True, "network.cut", False),
]


@pytest.mark.parametrize(("fault", "is_card", "cause", "rests"), OPENINGS, ids=lambda value: str(value)[:60])
async def test_a_refused_opening_is_answered_by_markdown(
    desk: Desk, fault: Any, is_card: bool, cause: str, rests: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No refusal is raised; what lasts stops cards for half an hour and is told once, with its remedy."""
    monkeypatch.setattr("dingbridge.dingtalk.cards.RETRY_S", 0.01)
    with capture_logs() as events:
        for _ in range(2):
            desk.gateway.plant(CREATE, fault, times=2)
            card = await desk.cards.open(await desk.chat.hear(), "…", forward=False, params={})
            assert (card is not None) is is_card
            assert card is None or card.broken == cause
            assert desk.cards.available is not rests
            assert fault == "reset" or desk.budget.counted.total() == desk.gateway.meter.total("api")
            desk.gateway.faults_of.clear()
            desk.clock.now += 31 * 60
            assert desk.cards.available
    told = [event for event in events if event["event"] == "card.unavailable"]
    assert [event["cause"] for event in told] == [cause] * rests
    assert all(event["remedy"] for event in told)
    assert {event["cause"] for event in events if event["event"] == "card.degraded"} == {cause}


async def test_while_cards_rest_nobody_asks(desk: Desk) -> None:
    """In the half hour after a refusal no card is tried; afterwards one is, and a later trouble is told again."""
    desk.gateway.templates.clear()
    message = await desk.chat.hear()
    with capture_logs() as events:
        assert await desk.cards.open(message, "…", forward=False, params={}) is None
        desk.gateway.add_template(TEMPLATE)
        assert await desk.cards.open(message, "…", forward=False, params={}) is None
        assert desk.budget.counted["api card.create"] == 1
        desk.clock.now += 30 * 60
        assert await desk.cards.open(message, "…", forward=False, params={}) is not None
        desk.gateway.templates.clear()
        assert await desk.cards.open(await desk.chat.hear(), "…", forward=False, params={}) is None
    assert [event["event"] for event in events].count("card.unavailable") == 2


async def test_a_delivery_that_failed_is_no_card(desk: Desk) -> None:
    """HTTP 200 may hide a card that nobody sees: each place's result counts."""
    desk.gateway.card_delivery_fault = "robot is not in the group"
    with capture_logs() as events:
        assert await desk.cards.open(await desk.chat.hear(group=True), "…", forward=False, params={}) is None
    (event,) = [event for event in events if event["event"] == "card.degraded"]
    assert event["cause"] == "card.undelivered"
    assert "robot is not in the group" in event["why"]


async def test_a_lost_answer_makes_no_second_card(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the answer to the opening is lost, the same id is asked again, and the card is ours."""
    monkeypatch.setattr("dingbridge.dingtalk.cards.RETRY_S", 0.01)
    desk.gateway.plant(CREATE, "lost_response")
    message, card = await desk.open()
    assert not card.broken
    assert len(desk.gateway.cards) == 1
    desk.gateway.plant(STREAM, "lost_response")
    await card.finish("答", params=PARAMS)
    assert [change.kind for change in desk.shown(message).history][-2:] == ["stream", "repeat"]


async def test_too_fast_is_waited_for(desk: Desk) -> None:
    """DingTalk's limit costs a pause, not the card: neither at the opening nor in between nor at the end."""
    message, card = await desk.open()
    other, ending = await desk.open(user="043")
    desk.gateway.plant(CREATE, "qps")
    desk.gateway.plant(STREAM, "qps", times=2)
    card.update("一")
    (third, opened), _, _ = await asyncio.gather(
        desk.open(user="044"), desk.grown(message, "一"), ending.finish("完", params=PARAMS)
    )
    assert (card.broken, opened.broken) == ("", "")
    assert desk.cards.available
    assert desk.shown(other).state == "finished"
    assert desk.shown(third).conversation
    assert desk.budget.counted == {"api card.create": 3, "api card.frame": 1, "api card.final": 1}


ENDINGS: list[tuple[Any, type[ReplyError], str, bool]] = [
    ((400, "param.stream.content"), ReplyTooLong, "card.too_large", True),
    ((413, ""), ReplyTooLong, "card.too_large", True),
    ((400, "param.contentUnsafe"), ReplyUnsafe, "chat.unsafe", True),
    ((400, "param.stream.outTrackId"), ReplyRejected, "card.gone", True),
    ((400, "param.stream.keyEmpty"), ReplyRejected, "card.key", False),
    ((400, "invalid.content"), ReplyRejected, "card.key", False),
    ((500, "unknownError"), ReplyRejected, "card.key", False),
    ((400, "param.stream.contentEmpty"), ReplyRejected, "chat.refused", True),
    ((400, "param.stream.guidEmpty"), ReplyRejected, "chat.refused", True),
    ((400, "param.stream.isFull"), ReplyRejected, "chat.refused", True),
    ((403, PERMISSION), ReplyRejected, "card.permission", False),
    ((403, QUOTA), ReplyRejected, "chat.quota", False),
    ((403, "Forbidden.AccessDenied.QpmLimitForAppkeyAndApi"), ReplyPaced, "chat.paced", True),
    ((500, "system.error"), ReplyUncertain, "card.busy", False),
    ("reset", ReplyUncertain, "network.cut", True),
]


@pytest.mark.parametrize(("fault", "kind", "cause", "available"), ENDINGS, ids=lambda value: str(value)[:60])
async def test_a_refused_end_is_told_apart(
    desk: Desk, fault: Any, kind: type[ReplyError], cause: str, available: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who finishes hears what became of it, to go on by markdown; and the same card can be tried again."""
    monkeypatch.setattr("dingbridge.dingtalk.cards.RETRY_S", 0.01)
    message, card = await desk.open()
    desk.gateway.plant(STREAM, fault, times=9)  # aiohttp repeats a PUT, too
    error = await desk.chat.outcome(card.finish("整个回答", params=PARAMS))
    assert type(error) is kind
    assert error.cause == cause
    assert error.certain is (kind is not ReplyUncertain)
    assert (error.retry_after or 0) == (60.0 if kind is ReplyPaced else 0)
    assert desk.cards.available is available
    if kind not in (ReplyPaced, ReplyUncertain):
        assert desk.budget.counted.total() == desk.gateway.meter.total("api")
    if kind is not ReplyPaced:
        desk.gateway.faults_of.clear()
        await card.finish("整个回答", params=PARAMS)
        assert desk.shown(message).data["content"] == "整个回答"


async def test_a_failing_frame_loses_no_text(desk: Desk) -> None:
    """Halfway refused, the card shows no more frames and says so; its end shows the whole answer."""
    message, card = await desk.open()
    card.update("年假")
    await desk.grown(message, "年假")
    desk.gateway.plant(STREAM, (500, "system.error"))
    with trail.follow(trail.Trail()) as steps:
        card.update("年假有")
        await gave_up(card)
        card.update("年假有 5")
        await card.finish("年假有 5 天", params=PARAMS)
    assert desk.shown(message).data["content"] == "年假有 5 天"
    assert steps.steps[-1].facts["broken"] == "card.busy"
    assert desk.cards.available
    assert desk.budget.counted["api card.frame"] == 2


async def test_the_wrong_variable_stops_cards(desk: Desk) -> None:
    """A content key that the template does not have is told as that, by the first frame."""
    async with desk_at(desk.gateway, desk.chat, content_key="text") as wrong:
        with capture_logs() as events:
            _, card = await wrong.open()
            card.update("年假")
            await gave_up(card)
        assert card.broken == "card.key"
        assert not wrong.cards.available
        (told,) = [event for event in events if event["event"] == "card.unavailable"]
        assert "card_content_key" in told["remedy"]


async def test_an_answer_too_large_for_a_card(desk: Desk) -> None:
    """Too long is seen before any call, and a short text can close the card instead."""
    message, card = await desk.open()
    card.update("长" * 50_000)
    await desk.gateway.until(lambda: len(desk.shown(message).frames) == 1)
    assert desk.shown(message).data["content"].endswith("…")
    error = await desk.chat.outcome(card.finish("长" * 50_000, params=PARAMS))
    assert type(error) is ReplyTooLong
    assert error.cause == "card.too_large"
    assert not desk.shown(message).ended
    await card.finish("回答见下面的消息", params=PARAMS)
    assert desk.shown(message).data["content"] == "回答见下面的消息"


async def test_variables_that_are_refused_do_not_undo_the_answer(desk: Desk) -> None:
    """When only the other variables fail the answer has arrived: noted, not raised."""
    message, card = await desk.open()
    desk.gateway.plant(UPDATE, (400, "param.contentUnsafe"))
    with capture_logs() as events:
        await card.finish("答", params={"sources": "x"})
    assert desk.shown(message).state == "finished"
    assert "card.variables_failed" in [event["event"] for event in events]


async def test_a_failed_card_says_so(desk: Desk) -> None:
    """Marked as failed with a text, never empty; where that fails too, it is noted and not raised."""
    message, card = await desk.open()
    await card.fail("")
    assert desk.shown(message).state == "failed"
    assert desk.shown(message).data["content"] == "…"
    assert type(await desk.chat.outcome(card.finish("答", params=PARAMS))) is ReplyRejected
    _, other = await desk.open()
    desk.gateway.plant(STREAM, (400, "param.stream.outTrackId"))
    with capture_logs() as events:
        await other.fail("没有成功")
    assert "card.left_open" in [event["event"] for event in events]


async def test_an_end_that_is_cancelled_is_cancelled(desk: Desk) -> None:
    """A stop while DingTalk does not answer ends at once, and the next life closes the card."""
    message, card = await desk.open()
    desk.gateway.plant(STREAM, "hang")
    ending = asyncio.create_task(card.finish("答", params=PARAMS))
    await desk.gateway.until(lambda: desk.gateway.traffic[-1].get("outcome") == "hang")
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    await desk.cards.resume(*tracked(message)).finish("答", params={})
    assert desk.shown(message).state == "finished"
