"""What the tour plays, step by step: real questions through the real daemon, judged by what came back."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from dingbridge.demo.people import BARE, NOTICES
from dingbridge.demo.stage import START_S, Stage
from dingbridge.sim.anythingllm import AnythingLLM, Asked
from dingbridge.sim.gateway import Post, Sent
from dingbridge.texts import Texts

ANSWER_S: Final = 60.0
HOLD_S: Final = 120.0  # how long AnythingLLM would think, had nobody pulled the plug
SAID: Final = Texts("zh-CN")
CODE: Final = re.compile(r"编号 ([0-9A-Za-z-]+)")
BEFORE: Final = "年假有几天？"
AFTER: Final = "会议室怎么预订？"


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

    async def look(self) -> None:
        await asyncio.sleep(self.look_s)

    async def ask(self, chat: str, person: str, text: str) -> Post:
        """Say it and wait for its answer; a waiting notice is none."""
        _, sent = await self.stage.say(chat, person, text)
        return await self.answer(chat, sent)

    async def answer(self, chat: str, sent: Sent) -> Post:
        gateway = self.stage.room.gateways[BARE if chat == BARE else "ours"]
        answers = await gateway.until(lambda: _answers(gateway.posts_in(sent)), ANSWER_S)
        return answers[0]


def _answers(posts: list[Post]) -> list[Post]:
    return [post for post in posts if post.text not in NOTICES]


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
    sourced = all(SAID("sources") in post.text for post in (first, second))
    return Result(
        (
            ("zhangsan", "600" in first.text, "答出了北京的标准：普通员工 600 元/晚"),
            ("zhangsan", "美元" in second.text, "“那国外呢？”听懂了：答的是国外的住宿标准"),
            ("zhangsan", sourced, "两个回答都注明了来源"),
        ),
    )


async def _somebody_else(play: Play) -> Result:
    answer = await play.ask("lisi", "lisi", "那国外呢？")
    apart = "美元" not in answer.text
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
        posts = stage.room.gateways[BARE if chat == BARE else "ours"].posts_in(sent)
        texts = [post.text for post in _answers(posts)]
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


async def _no_answer_there(play: Play) -> Result:
    answer = await play.ask("wangwu", "wangwu", "董事长的生日是哪天？")
    honest = "没有找到" in answer.text and SAID("sources") not in answer.text
    return Result((("wangwu", honest, "没有编造答案，老实说没有找到"),))


async def _operator(play: Play) -> Result:
    play.backend.faults.append("bad_key")
    answer = await play.ask("wangwu", "wangwu", "年假有几天？")
    found = CODE.search(answer.text)
    code = found[1] if found else ""
    stage = play.stage
    command = f"dingbridge trace {code} --config {stage.config}"
    trace, status = await stage.watch.trace(code), await stage.watch.status()
    causes = trace["causes"] if trace is not None else ()
    lines = (
        ("wangwu", bool(code), f"聊天里的编号：{code}" if code else "聊天里没有编号"),
        *(("wangwu", True, f"原因：{cause['what']}") for cause in causes),
        ("wangwu", bool(trace), f"在另一个终端里：{command}"),
    )
    return Result(lines, {"code": code, "command": command, "trace": trace, "status": status})


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
