"""What the tour plays, step by step: real questions through the real daemon, judged by what came back."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from dingbridge.demo.acts import Acts
from dingbridge.demo.bubbles import card_id
from dingbridge.demo.people import BARE, NOTICES
from dingbridge.demo.room import Watched
from dingbridge.demo.setting import CARD_KEY, CONTACT
from dingbridge.demo.stage import START_S, Stage
from dingbridge.sim.anythingllm import AnythingLLM, Asked
from dingbridge.sim.gateway import Post, Sent
from dingbridge.sim.gateway_card_records import FINISHED
from dingbridge.texts import Texts

ANSWER_S: Final = 60.0
HOLD_S: Final = 120.0  # how long AnythingLLM would think, had nobody pulled the plug
SAID: Final = Texts("zh-CN")
CODE: Final = re.compile(r"编号 ([0-9A-Za-z-]+)")
BEFORE: Final = "年假有几天？"
AFTER: Final = "会议室怎么预订？"
TRACES: Final = 100  # looks at a trace until it is whole
TRACE_S: Final = 0.1
CARD_CHAT: Final = "zhangsan"
CARD_QUESTION: Final = "国内出差住宿标准是怎么规定的？"
REPLY: Final = "遇上旅游旺季可以上浮两成，先找我登记一下。"


@dataclass(frozen=True, slots=True)
class Result:
    """Lines are (chat, went well, sentence); `facts` are for machines."""

    lines: tuple[tuple[str, bool, str], ...]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {"lines": [{"chat": chat, "ok": ok, "text": text} for chat, ok, text in self.lines], **self.facts}


@dataclass(frozen=True, slots=True)
class Play:
    """A scene's means: the stage, its stand-in for AnythingLLM, and seconds for a reader to look."""

    stage: Stage
    backend: AnythingLLM
    look_s: float
    doing: Callable[[str], None] = lambda _: None

    async def look(self) -> None:
        await asyncio.sleep(self.look_s)

    async def ask(self, chat: str, person: str, text: str) -> str:
        """Say it and wait for its answer; a waiting notice is none."""
        _, sent = await self.stage.say(chat, person, text)
        return await self.answer(chat, sent)

    async def answer(self, chat: str, sent: Sent) -> str:
        """As a message, or on a card that is finished."""
        gateway = self.stage.room.gateways[BARE if chat == BARE else "ours"]
        answers = await gateway.until(lambda: _answers(gateway, sent), ANSWER_S)
        return answers[0]


def _answers(gateway: Watched, sent: Sent) -> list[str]:
    posts = [post.text for post in gateway.posts_in(sent) if post.text not in NOTICES]
    return posts + [card.view()[CARD_KEY] for card in gateway.cards_in(sent) if card.state == FINISHED]


@dataclass(frozen=True, slots=True)
class Scene:
    """A step of the tour. `panel` is what to show beside the chats: chat, wire or operator."""

    title: str
    text: str
    chats: tuple[str, ...]
    panel: str
    play: Callable[[Play], Awaitable[Result]]


async def _question_and_source(play: Play) -> Result:
    first = await play.ask("zhangsan", "zhangsan", "北京出差住宿标准是多少？")
    await play.look()
    second = await play.ask("zhangsan", "zhangsan", "那国外呢？")
    sourced = all(SAID("sources") in text for text in (first, second))
    return Result(
        (
            ("zhangsan", "600" in first, "答出了北京的标准：普通员工 600 元/晚"),
            ("zhangsan", "美元" in second, "“那国外呢？”听懂了：答的是国外的住宿标准"),
            ("zhangsan", sourced, "两个回答都注明了来源"),
        ),
    )


async def _somebody_else(play: Play) -> Result:
    answer = await play.ask("lisi", "lisi", "那国外呢？")
    apart = "美元" not in answer
    return Result((("lisi", apart, "李四没有前文，机器人不会把张三的话题当成他的"),))


async def _side_by_side(play: Play) -> Result:
    stage = play.stage
    await stage.start_bare()
    await stage.connected(stage.room.gateways[BARE], _bare_of(stage))
    play.backend.answer_delay_s = HOLD_S
    try:
        before = await _ask_both(play, BEFORE)
        await _until_both_ask(play.backend)
        await play.look()
        await stage.kill_both()
    finally:
        play.backend.answer_delay_s = None
    await play.look()
    await stage.start_both()
    await asyncio.gather(*(stage.room.gateways[bot].connected(timeout_s=START_S) for bot in ("ours", BARE)))
    await play.answer("zhangsan", before["zhangsan"])
    after = await _ask_both(play, AFTER)
    await asyncio.gather(*(play.answer(chat, sent) for chat, sent in after.items()))
    return _count(stage, before)


def _bare_of(stage: Stage) -> Any:
    if stage.bare is None:
        raise RuntimeError("this stage has no bot beside ours")
    return stage.bare


async def _ask_both(play: Play, text: str) -> dict[str, Sent]:
    asked = await asyncio.gather(*(play.stage.say(chat, "zhangsan", text) for chat in ("zhangsan", BARE)))
    return dict(zip(("zhangsan", BARE), (sent for _, sent in asked), strict=True))


async def _until_both_ask(backend: AnythingLLM) -> None:
    """Both processes have the question and wait for AnythingLLM's answer."""

    def both() -> bool:
        return {_is_bare(asked) for asked in backend.asked if _is_waiting(asked)} == {True, False}

    async with asyncio.timeout(START_S):
        await backend.until(both)


def _is_waiting(asked: Asked) -> bool:
    return asked.message == BEFORE and not asked.finished and not asked.cancelled


def _is_bare(asked: Asked) -> bool:
    return asked.session.startswith(BARE)


def _count(stage: Stage, before: Mapping[str, Sent]) -> Result:
    """What each of them answered; an answer belongs to the question whose document it quotes."""
    answered: dict[str, list[str]] = {}
    for chat, sent in before.items():
        texts = _answers(stage.room.gateways[BARE if chat == BARE else "ours"], sent)
        found = {BEFORE: any("年假" in text for text in texts), AFTER: any("会议室" in text for text in texts)}
        answered[chat] = [question for question, there in found.items() if there]
    lines = []
    for chat in (BARE, "zhangsan"):
        lost = [question for question in (BEFORE, AFTER) if question not in answered[chat]]
        if lost:
            stage.room.board.change(before[chat].msg_id, state="lost", note="进程被杀，没有人再回答")
        words = f"问了 2 个，答上 {len(answered[chat])} 个" + "".join(f"；丢了：{question}" for question in lost)
        lines.append((chat, not lost, words))
    return Result(tuple(lines), {"asked": 2, "bare": len(answered[BARE]), "ours": len(answered["zhangsan"])})


async def _card(play: Play) -> Result:
    stage = play.stage
    play.doing("正在打开 AI 卡片，守护进程要重新启动…")
    await stage.choose(replace(stage.look, cards=True))
    play.doing("卡片正在写…")
    _, sent = await stage.say(CARD_CHAT, CARD_CHAT, CARD_QUESTION)
    gateway = stage.gateway
    card = await gateway.next_card(sent, ANSWER_S)
    await gateway.until(lambda: card.ended, ANSWER_S)
    await play.look()
    play.doing("张三点赞…")
    await Acts(stage.room).press(card_id(card.out_track_id), "good", CARD_CHAT)
    user = stage.room.cast.person(CARD_CHAT)
    kept = user is not None and card.view(user.user).get("vote") == "good"
    text = card.view()[CARD_KEY]
    lines = (
        (CARD_CHAT, len(card.frames) > 1 and card.state == FINISHED, f"分 {len(card.frames)} 次写完，只占一条消息"),
        (CARD_CHAT, SAID("sources").rstrip("：:") in text, "来源写在卡片里"),
        (CARD_CHAT, kept, "赞记下了，只有点的人自己看得到"),
    )
    return Result(lines)


async def _passage(play: Play) -> Result:
    answer = await play.ask(CARD_CHAT, CARD_CHAT, "/出处 1")
    return Result(((CARD_CHAT, "600" in answer, "原文发到了聊天里，答案里的数字在原文里查得到"),))


async def _hand_over(play: Play) -> Result:
    stage, gateway = play.stage, play.stage.gateway
    contact = stage.room.cast.person(CONTACT)
    before = {post.number for post in gateway.posts}
    await play.ask(CARD_CHAT, CARD_CHAT, "/转人工")
    play.doing("问题和回答正在转给李四…")

    def arrived(user: str, word: str) -> Callable[[], Post | None]:
        return lambda: next(
            (one for one in gateway.posts if one.number not in before and one.user == user and word in one.text), None
        )

    handed = await gateway.until(arrived(contact.user if contact else CONTACT, "转人工"), ANSWER_S)
    await play.look()
    play.doing("李四引用这条消息，写下答复…")
    message_id = stage.room.bubble_of(handed)
    await Acts(stage.room).quote(CONTACT, CONTACT, REPLY, message_id)
    told = await gateway.until(arrived(CARD_CHAT, REPLY), ANSWER_S)
    return Result(
        (
            (CONTACT, CARD_QUESTION in handed.text, "李四收到了问题、机器人的回答和一个编号"),
            (CARD_CHAT, REPLY in told.text, "张三收到了李四的答复"),
        )
    )


async def _no_answer_there(play: Play) -> Result:
    answer = await play.ask("wangwu", "wangwu", "董事长的生日是哪天？")
    honest = "没有找到" in answer and SAID("sources") not in answer
    return Result((("wangwu", honest, "没有编造答案，老实说没有找到"),))


async def _operator(play: Play) -> Result:
    play.backend.faults.append("bad_key")
    answer = await play.ask("wangwu", "wangwu", "年假有几天？")
    found = CODE.search(answer)
    code = found[1] if found else ""
    stage = play.stage
    command = f"dingbridge trace {code} --config {stage.config}"
    trace, status = await _closed(stage, code), await stage.watch.status()
    causes = trace["causes"] if trace is not None else ()
    lines = (
        ("wangwu", bool(code), f"聊天里的编号：{code}" if code else "聊天里没有编号"),
        *(("wangwu", True, f"原因：{cause['what']}") for cause in causes),
        ("wangwu", bool(trace), f"在另一个终端里：{command}"),
    )
    return Result(lines, {"code": code, "command": command, "trace": trace, "status": status})


async def _closed(stage: Stage, code: str) -> dict[str, Any] | None:
    """The trace of a message whose answer is in the chat, as soon as that is kept, too."""
    trace = None
    for _ in range(TRACES):
        trace = await stage.watch.trace(code)
        if trace is None or trace.get("state") == "done":
            break
        await asyncio.sleep(TRACE_S)
    return trace


SCENES: Final = (
    Scene(
        "问一句，答案带来源",
        "张三问出差标准，接着只说“那国外呢？”。机器人记得前文，答案摘自员工手册，并写明出自哪份文件。",
        ("zhangsan",),
        "chat",
        _question_and_source,
    ),
    Scene(
        "换一个人，前文不串",
        "李四也说“那国外呢？”，但他之前什么都没问过。每个人、每个群的上下文各自独立。",
        ("zhangsan", "lisi"),
        "chat",
        _somebody_else,
    ),
    Scene(
        "回答到一半，进程被杀",
        "一个是照官方 SDK 示例写的普通机器人，一个是 dingbridge，收到同一个问题，都正在问 AnythingLLM。"
        "这时两个进程同时被 SIGKILL，再同时启动。按钉钉文档，机器人消息只推送一次：看看谁还记得这个问题。",
        (BARE, "zhangsan"),
        "wire",
        _side_by_side,
    ),
    Scene(
        "卡片：看着答案写出来",
        "机器人换成 AI 卡片作答：文字一段段长出来，写完停住，按钮就在下面。张三点了赞。",
        (CARD_CHAT,),
        "chat",
        _card,
    ),
    Scene(
        "不信？看原文",
        "张三发“/出处 1”，第一篇来源的原文发到聊天里：不用连公司网络，在手机上也看得到。",
        (CARD_CHAT,),
        "chat",
        _passage,
    ),
    Scene(
        "答得不够，转给同事",
        "张三发“/转人工”，问题和回答转给负责的李四。李四引用那条消息写下答复，机器人转告张三。",
        (CARD_CHAT, CONTACT),
        "chat",
        _hand_over,
    ),
    Scene(
        "手册里没有的，就说没有",
        "王五问了一个手册里没有的问题。机器人不编造，老实说没有找到，也就没有来源可写。",
        ("wangwu",),
        "chat",
        _no_answer_there,
    ),
    Scene(
        "出错时，值班的人看到什么",
        "AnythingLLM 的密钥被换掉了，王五的问题没能答上来，聊天里出现一个编号。"
        "值班的人凭这个编号查到这条消息的全程和原因。",
        ("wangwu",),
        "operator",
        _operator,
    ),
)
