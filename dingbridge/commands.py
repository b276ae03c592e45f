"""What a chat user can tell the robot itself. The table is all there is: help is made from it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol
from unicodedata import category

from dingbridge.markup import phrase
from dingbridge.model import CROCKFORD, Answer, Message, Told, Verdict, typed_code
from dingbridge.texts import Texts

MOST_COMMENT = 500
SHOWN = 80  # characters of a question that is named


@dataclass(frozen=True, slots=True)
class Place:
    """A question that waits. ahead: how many are answered before it. running: it is being answered just now."""

    waited_s: float
    ahead: int
    running: bool


class Desk(Protocol):
    """What commands may ask of the rest: given by the bridge."""

    def offers(self, message: Message) -> frozenset[str]:
        """What its sender can have here: deep, page, contact, and handed: may end what was handed over."""

    def examples(self, message: Message) -> tuple[str, ...]:
        """Questions that its sender may ask here."""

    async def cancel(self, message: Message, *, before: int) -> int:
        """Drop the sender's unanswered questions older than row `before`; how many."""

    async def waiting(self, message: Message) -> list[Place]:
        """The sender's unanswered questions, oldest first."""

    async def told(self, message: Message, code: str) -> Told | None:
        """The answer with that code, if it was given where its sender may read it; without a code the newest here."""

    async def judge(self, message: Message, told: Told, verdict: Verdict, comment: str) -> None: ...

    def passage(self, told: Told, number: int) -> Answer:
        """What stands in source `number`, from 1."""

    def has_page(self, told: Told) -> bool:
        """Whether the answer may be read whole on a page."""

    async def hand_over(self, message: Message, told: Told) -> str:
        """Give it to a colleague; the key of the text for what came of it."""

    async def close(self, message: Message, code: str, reply: str) -> str:
        """A colleague ends what was handed over; the key of the text for what came of it."""


@dataclass(frozen=True, slots=True)
class Request:
    """argument: what stands behind the command's name. texts: in its sender's language."""

    message: Message
    row: int
    argument: str
    texts: Texts


Run = Callable[[Request, Desk], Awaitable[str | Answer]]


@dataclass(frozen=True, slots=True)
class Command:
    """chinese: its name in Chinese help. aliases: whole messages that mean the same, in any language, without a slash.

    fresh: starts a new generation of the sender's context, in the transaction that stores it.
    asks: is a question, and waits its turn as one. needs: what help names it for, see `Desk.offers`.
    """

    name: str
    run: Run
    aliases: tuple[str, ...] = ()
    chinese: str = ""
    fresh: bool = False
    asks: bool = False
    needs: str = ""

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.name, self.chinese, *self.aliases)))


async def _help(request: Request, desk: Desk) -> str:
    texts, zh, offers = request.texts, request.texts.chinese, desk.offers(request.message)
    lines = [
        texts("help_line", name=f"/{(zh and c.chinese) or c.name}", about=texts(f"about_{c.name}"))
        for c in COMMANDS
        if not c.needs or c.needs in offers
    ]
    said = texts("help", commands="\n".join(lines))
    examples = desk.examples(request.message)
    return "\n\n".join([said, texts.listed("examples", examples)]) if examples else said


async def _new(request: Request, desk: Desk) -> str:  # noqa: ARG001 - the shape of all commands
    return request.texts("new")


async def _cancel(request: Request, desk: Desk) -> str:
    count = await desk.cancel(request.message, before=request.row)
    return request.texts("cancelled", count=count) if count else request.texts("nothing_to_cancel")


async def _status(request: Request, desk: Desk) -> str:
    waiting, texts = await desk.waiting(request.message), request.texts
    if not waiting:
        return texts("status_idle")
    said = [texts("status_waiting", count=len(waiting), seconds=round(waiting[0].waited_s))]
    if waiting[0].running:
        said.append(texts("status_running"))
    elif waiting[0].ahead:
        said.append(texts("status_ahead", count=waiting[0].ahead))
    return ("" if texts.chinese else " ").join(said)


async def _whoami(request: Request, desk: Desk) -> str:  # noqa: ARG001 - the shape of all commands
    message = request.message
    if message.conversation.is_group:
        return request.texts("whoami_group", conversation=message.conversation.id, person=message.sender.id)
    return request.texts("whoami_single", person=message.sender.id)


async def _sources(request: Request, desk: Desk) -> str | Answer:
    number, rest = _number(request.argument)
    told, _ = await _meant(request.message, rest, desk)
    return desk.passage(told, number) if told else request.texts("nothing_told")


async def _good(request: Request, desk: Desk) -> str:
    return await _judged(request, desk, Verdict.GOOD)


async def _bad(request: Request, desk: Desk) -> str:
    return await _judged(request, desk, Verdict.BAD)


async def _judged(request: Request, desk: Desk, verdict: Verdict) -> str:
    told, comment = await _meant(request.message, request.argument, desk)
    if told is None:
        return request.texts("nothing_told")
    comment = comment[:MOST_COMMENT]
    await desk.judge(request.message, told, verdict, comment)
    if verdict is Verdict.GOOD:
        return request.texts("thanks_good")
    return request.texts("thanks_reason" if comment else "thanks_bad")


async def _full(request: Request, desk: Desk) -> str | Answer:
    told, _ = await _meant(request.message, request.argument, desk)
    if told is None:
        return request.texts("nothing_told")
    if not desk.has_page(told):
        return request.texts("no_page")
    return Answer(request.texts("page_here", question=phrase(told.question, SHOWN)), page_of=told.row)


async def _human(request: Request, desk: Desk) -> str:
    told, _ = await _meant(request.message, request.argument, desk)
    if told is None:
        return request.texts("nothing_told")
    return request.texts(await desk.hand_over(request.message, told))


async def _reply(request: Request, desk: Desk) -> str:
    code, reply = coded(request.argument)
    if not code or not reply:
        return request.texts("reply_how")
    return request.texts(await desk.close(request.message, code, reply))


async def _solved(request: Request, desk: Desk) -> str:
    code, reply = coded(request.argument)
    return request.texts(await desk.close(request.message, code, reply)) if code else request.texts("solved_how")


async def _meant(message: Message, argument: str, desk: Desk) -> tuple[Told | None, str]:
    """The answer that is spoken of, and what else was said: a word may look like a code."""
    code, rest = coded(argument)
    if code and (told := await desk.told(message, code)):
        return told, rest
    return await desk.told(message, ""), argument.strip()


COMMANDS: tuple[Command, ...] = (
    Command("help", _help, ("帮助", "?", "？")),
    Command("new", _new, ("新对话", "新话题", "重新开始"), fresh=True),
    Command("deep", _full, ("深入回答", "再深入", "深入"), asks=True, needs="deep"),
    Command("sources", _sources, ("来源", "原文"), "出处"),
    Command("full", _full, ("查看全文",), "全文", needs="page"),
    Command("human", _human, ("人工", "找人工"), "转人工", needs="contact"),
    Command("good", _good, ("有用", "👍", "赞")),
    Command("bad", _bad, ("没用", "👎", "踩")),
    Command("cancel", _cancel, ("取消", "取消提问")),
    Command("status", _status, ("状态", "进度")),
    Command("whoami", _whoami, ("我是谁",)),
    Command("reply", _reply, ("回复",), needs="handed"),
    Command("solved", _solved, ("已解决",), needs="handed"),
)
# A Chinese keyboard gives these for the key with the slash.
_SLASHES = "/／、"
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
_BY_WORD = {word.lower(): command for command in COMMANDS for word in command.words}
# A bare English word may be a question, and so may some Chinese ones.
_WITH_SLASH = frozenset({"回复", "赞", "踩", "深入", "来源", "原文", "人工"})
_BARE = {
    word: command
    for word, command in _BY_WORD.items()
    if (not word.isascii() or word in ("help", "?")) and word not in _WITH_SLASH
}
_HELP = COMMANDS[0]
_SPLIT = re.compile(r"([^\s\d:：]+)[\s:：]*(.*)", re.DOTALL)
_CODE = re.compile(rf"[{CROCKFORD}]{{8}}")
# What a contact is told begins with it; further in, it may be anybody's words.
_HANDED_OVER = re.compile(
    r"\W*(?:(?:可能重复|possibly repeated)\W+)?(?:转人工|Handed over)\W*(?:编号|Code)\s*([0-9A-Za-z]{8})(?![0-9A-Za-z])"
)


def match(text: str) -> Command | None:
    """The command a message is, or None for a question. A message without a visible character asks for help."""
    found = read(text)
    return found[0] if found else None


def read(text: str) -> tuple[Command, str] | None:
    """The command and what stands behind its name."""
    said = "".join(c for c in text if category(c) not in _INVISIBLE or c == "\n").strip()
    if not said:
        return _HELP, ""
    if said[0] in _SLASHES:
        split = _SPLIT.match(said[1:].lstrip())
        command = _BY_WORD.get(split[1].lower().rstrip("。.!！")) if split else None
        return (command, split[2].strip()) if split and command else None
    if command := _BARE.get(said.lower().rstrip("。.!！")):
        return command, ""
    return _solving(said)


def _solving(said: str) -> tuple[Command, str] | None:
    """A colleague ends what was handed over: 已解决, with its code."""
    word, _, rest = said.partition(" ")
    return (_BY_WORD[word], rest.strip()) if word == "已解决" and coded(rest)[0] else None


def of(message: Message) -> tuple[Command, str] | None:
    """As `read`; an answer to what was handed over to its sender ends that."""
    found = read(message.text)
    if found and found[0] is not _HELP and not (found[0].name == "solved" and not found[1]):
        return found
    handed = _HANDED_OVER.match(message.quoted) if message.quoted else None
    if handed and not message.conversation.is_group and message.text.strip():
        code = typed_code(handed[1])
        solved = found is not None and found[0].name == "solved"
        return (_BY_WORD["已解决"], code) if solved else (_BY_WORD["回复"], f"{code} {message.text.strip()}")
    return found


def coded(argument: str) -> tuple[str, str]:
    """A code that stands first, and the rest; no code where none does."""
    first, *rest = argument.split(maxsplit=1) or [""]
    code = typed_code(first)
    return (code, rest[0].strip() if rest else "") if _CODE.fullmatch(code) else ("", argument.strip())


def _number(argument: str) -> tuple[int, str]:
    """The number that stands first, 1 where none does, and the rest."""
    first, *rest = argument.split(maxsplit=1) or [""]
    if first.isdecimal() and len(first) < 4:
        return int(first), rest[0] if rest else ""
    return 1, argument
