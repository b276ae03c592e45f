"""Scripts of messages that pass every await of their way, and a daemon that dies at one of them and is started again.

What is asked is always the same: whoever was promised an answer has it, or was told; what is seen twice is marked.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import math
import os
import random
import re
import resource
import signal
import sqlite3
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dingbridge.model import card_track, trace_code
from dingbridge.sim.anythingllm import AnythingLLM, Workspace, handbook_folder
from dingbridge.sim.gateway import Gateway, Sent
from dingbridge.sim.gateway_card_records import Card
from dingbridge.texts import Texts
from tests.awaits import places
from tests.house import NOTICE, REPEAT, House, until

TEXTS = Texts("zh-CN")
TROUBLE = TEXTS("trouble")
FRONT = TEXTS("question_front", question="")
TEMPLATE = "crash.schema"
DEEP = "expert"
ROOT = Path(__file__).parents[1]
PATIENCE_S = 60.0
AT_ONCE = 6
TRIES = 4
MOST_TRIES = 60


# -- processes


class Nursery:
    """Daemons by number, forked from one process that has everything imported."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._daemons: list[Daemon] = []

    def start(self, folder: Path, **order: Any) -> Daemon:
        daemon = Daemon(len(self._daemons))
        self._daemons.append(daemon)
        order |= {"number": daemon.number, "config": str(folder / "dingbridge.toml"), "log": str(folder / "daemon.log")}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        return daemon

    async def listen(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            told = json.loads(line)
            daemon = self._daemons[told["number"]]
            if "pid" in told:
                daemon.pid = told["pid"]
                daemon.born.set()
            else:
                daemon.code = told["code"]
                daemon.ended.set()


@dataclass
class Daemon:
    number: int
    pid: int = 0
    code: int | None = None
    born: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def stop(self, number: int = signal.SIGTERM) -> int | None:
        await self.born.wait()
        if not self.ended.is_set():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)
        async with asyncio.timeout(PATIENCE_S):
            await self.ended.wait()
        return self.code


@asynccontextmanager
async def nursery(*arguments: str) -> AsyncIterator[Nursery]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", "tests.crash_child", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    one = Nursery(process)
    listening = asyncio.create_task(one.listen())
    try:
        yield one
    finally:
        assert process.stdin is not None
        process.stdin.close()  # and it ends
        await process.wait()
        await listening


# -- what is said


@dataclass
class Told:
    """A message, and what its asker may be told: one of these lists, each of it in some post."""

    sent: Sent
    either: tuple[tuple[str, ...], ...]


@dataclass
class Stage:
    """One chat with its two servers, and what was said in it. passed_on: what somebody else has to be told."""

    gateway: Gateway
    backend: AnythingLLM
    folder: Path
    told: list[Told] = field(default_factory=list)
    passed_on: list[str] = field(default_factory=list)
    pid: int = 0

    async def say(self, text: str | None, *either: tuple[str, ...], **how: Any) -> Sent:
        """Its code in some post will always do: the asker was told that it failed."""
        sent = await self.gateway.say(text, msg_id=f"m{len(self.told)}", **how)
        self.told.append(Told(sent, (*(either or ((f"答：{text}",),)), (f"编号 {self.code(sent)}",))))
        return sent

    def code(self, sent: Sent) -> str:
        return trace_code(self.gateway.client_id, sent.msg_id)

    def card(self, sent: Sent) -> Card | None:
        """None where the daemon died before there was one."""
        return self.gateway.cards.get(card_track(self.gateway.client_id, sent.msg_id))

    async def press(self, sent: Sent, action: str, *passed_on: str) -> None:
        """A press that dies with the daemon is the presser's to repeat."""
        if (card := self.card(sent)) is not None and card.state == "finished":
            press = await self.gateway.press(card, action)
            self.passed_on += passed_on if press.ok else ()

    @property
    def seen(self) -> list[tuple[str, str]]:
        """Conversation and text of all that stands in the chats for good, in order."""
        posts = [(post.at, post.conversation, post.text) for post in self.gateway.posts]
        cards = [
            (frame.at, card.conversation, frame.text)
            for card in self.gateway.cards_in()
            for frame in card.frames
            if frame.final
        ]
        return [(conversation, text) for _, conversation, text in sorted(posts + cards)]

    @property
    def over(self) -> bool:
        """All is accepted, all has ended, and no card says that something is to come."""
        rows, ended = self.rows(), {key for key, *_ in self.rows(ended=True)}
        kept = all(told.sent.acks and told.sent.msg_id in ended for told in self.told)
        return kept and len(ended) == len(rows) and all(card.ended for card in self.gateway.cards_in())

    async def ended(self, count: int) -> None:
        """So many messages have come to their end."""
        await until(lambda: len(self.rows(ended=True)) >= count, PATIENCE_S, f"{count} ended: {self.rows()}")

    def rows(self, *, ended: bool | None = None) -> list[tuple[str, str, str, bool]]:
        """Key, state, outcome, and whether it has an answer, in order of acceptance."""
        path = self.folder / "state" / "dingbridge.db"
        if not path.exists():
            return []
        where = {None: "1", True: "finished_at IS NOT NULL", False: "finished_at IS NULL"}[ended]
        try:
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
                return connection.execute(
                    f"SELECT key, state, outcome, answer IS NOT NULL FROM message WHERE {where} ORDER BY id"
                ).fetchall()
        except sqlite3.OperationalError:  # it is being made
            return []


Play = Callable[[Stage], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True, eq=False)
class Script:
    """lanes: how often one is filled; each time one notice and one word of trouble may be seen."""

    name: str
    play: Play
    lanes: int = 1
    tables: dict[str, Any] = field(default_factory=dict)
    before: Play | None = None
    """Played against a daemon that is killed before the one that is examined starts."""


async def _in_a_lane(stage: Stage) -> None:
    """One after the other, the first delivered twice."""
    first = await stage.say("一")
    await stage.say("二")
    await stage.say("三")
    await stage.gateway.redeliver(first)


async def _long(stage: Stage) -> None:
    """Four parts, composed in a thread, after a notice."""
    stage.backend.answer = lambda _: "甲乙丙丁\n\n" * 200 + "word " * 2300
    stage.backend.answer_delay_s = 0.1
    await stage.say("长", ("(1/4)", "(2/4)", "(3/4)", "(4/4)"), group=True)


async def _slow_notice(stage: Stage) -> None:
    """The answer is there while the notice is on its way."""
    stage.gateway.webhook_delay_s = 0.08
    stage.backend.answer_delay_s = 0.06
    await stage.say("慢")


async def _notice_unsent(stage: Stage) -> None:
    stage.backend.answer_delay_s = 0.6
    stage.gateway.webhook_fault = 300001
    await stage.say("慢")


async def _retried(stage: Stage) -> None:
    stage.backend.faults.extend(["http503", "http429_html"])
    await stage.say("再")


async def _later(stage: Stage) -> None:
    stage.backend.faults.extend(["down", "down"])
    await stage.say("后")


async def _rejected(stage: Stage) -> None:
    stage.backend.faults.extend(["bad_key"])
    await stage.say("拒")


async def _renamed(stage: Stage) -> None:
    """The workspace of that name is another one by the second question."""
    await stage.say("旧")
    await stage.ended(1)
    stage.backend.workspaces = {"another": next(iter(stage.backend.workspaces.values()))}
    await stage.say("新")


async def _ladder(stage: Stage) -> None:
    """Its own webhook is gone, the conversation's newest breaks off, and the OpenAPI has the last word."""
    stage.backend.answer_delay_s = 0.1
    stage.gateway.webhook_faults.extend([300001, "lost_response"])
    await stage.say("旧")
    await until(lambda: stage.backend.asked)
    await stage.say("/status", ("您",))


async def _to_one(stage: Stage) -> None:
    stage.gateway.webhook_fault = 300001
    await stage.say("甲")


async def _to_a_group(stage: Stage) -> None:
    stage.gateway.webhook_fault = 300001
    await stage.say("甲", group=True)


async def _too_fast(stage: Stage) -> None:
    stage.gateway.webhook_fault = 300001
    stage.gateway.openapi_faults.extend([(403, "Forbidden.AccessDenied.QpsLimitForApi")])
    await stage.say("甲")


async def _uncertain(stage: Stage) -> None:
    stage.gateway.webhook_faults.extend(["lost_response"])
    await stage.say("疑")


async def _sent_later(stage: Stage) -> None:
    stage.gateway.webhook_faults.extend(["http503"])
    stage.gateway.openapi_faults.extend([503])
    await stage.say("晚")


async def _in_halves(stage: Stage) -> None:
    stage.backend.answer = lambda _: "\n\n".join(f"{letter} 行" + letter * 600 for letter in "ABCDEFGH")
    stage.gateway.webhook_faults.extend([460101])
    await stage.say("半", ("AAAA", "HHHH"))


async def _unsafe(stage: Stage) -> None:
    stage.gateway.webhook_faults.extend([430104])
    await stage.say("险")


async def _unsafe_whatever(stage: Stage) -> None:
    stage.gateway.webhook_fault = 430104
    await stage.say("险", ())


async def _undeliverable(stage: Stage) -> None:
    stage.gateway.webhook_fault = 400106
    stage.gateway.openapi_fault = 403
    await stage.say("失", ())


async def _commands(stage: Stage) -> None:
    stage.backend.answer_delay_s = 0.3
    await stage.say("甲")
    await until(lambda: stage.backend.asked)
    await stage.say("乙")
    await stage.say("/new", (TEXTS("new"),))
    await stage.say("丙")
    await stage.say("/status", ("您",))
    await stage.say("/help", ("/whoami",))


async def _cancelled(stage: Stage) -> None:
    """One runs, one waits; neither is answered any more, unless the answer was quicker."""
    stage.backend.answer_delay_s = 0.3
    await stage.say("甲", ("答：甲",), ())
    await stage.say("乙", ("答：乙",), ())
    await until(lambda: stage.backend.asked)
    await stage.say("/cancel", ("已为您取消",), (TEXTS("nothing_to_cancel"),))


async def _cancelled_with_a_notice(stage: Stage) -> None:
    stage.gateway.webhook_delay_s = 0.1
    stage.backend.answer_delay_s = 0.5
    await stage.say("甲", ("答：甲",), ())
    await asyncio.sleep(0.08)
    await stage.say("/cancel", ("已为您取消",), (TEXTS("nothing_to_cancel"),))


async def _handler(stage: Stage) -> None:
    await stage.say("手")


async def _handler_by_itself(stage: Stage) -> None:
    """What it shows on the way is not an answer: a card that was not made before the death shows nothing."""
    await stage.say("手", ("答：手",), ())


async def _handler_raises(stage: Stage) -> None:
    await stage.say("raise")


async def _turned_away(stage: Stage) -> None:
    """Busy, and a message that cannot be read."""
    stage.backend.answer_delay_s = 0.2
    await stage.say("甲")
    await stage.say("乙", ("答：乙",), ("排队",))
    await stage.say("丙", ("答：丙",), ("排队",))
    await stage.say(None, (TEXTS("unreadable"),), payload={"msgtype": "video", "content": {"downloadCode": "x"}})


async def _disk_full(stage: Stage) -> None:
    """The store refuses while the answer comes; it is kept and tried again."""
    stage.backend.answer_delay_s = 0.15
    await stage.say("满")
    await until(lambda: stage.backend.asked)
    for limit in (0, resource.RLIM_INFINITY):
        with suppress(ProcessLookupError):
            resource.prlimit(stage.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        await asyncio.sleep(0.3)


async def _left_over(stage: Stage) -> None:
    stage.backend.answer_delay_s = 0.0


async def _left_in_work(stage: Stage) -> None:
    stage.backend.answer_delay_s = 30.0
    await stage.say("留")
    await stage.say("余")
    await until(lambda: stage.backend.asked)


# -- cards


async def _card(stage: Stage) -> None:
    """It grows while the answer is written."""
    stage.backend.answer, stage.backend.token_delay_s = (lambda _: "答：卡" + "一段说明。" * 30), 0.01
    await stage.say("卡", ("答：卡一段说明。",))


async def _card_in_a_group(stage: Stage) -> None:
    """Some in a lane, the first with parts below the card."""
    stage.backend.answer = lambda _: "答：甲乙丙丁\n\n" * 200 + "word " * 5000
    await stage.say("长", ("答：甲乙丙丁", "(8/8)"), group=True)


async def _long_frames(stage: Stage) -> None:
    await stage.say("长")


async def _card_refused(stage: Stage) -> None:
    stage.gateway.plant("card.create_and_deliver", (400, "invalidParameter"))
    await stage.say("卡")


async def _card_perhaps(stage: Stage) -> None:
    """Nobody knows whether it was made; it was."""
    stage.gateway.plant("card.create_and_deliver", "lost_response", times=2)
    await stage.say("卡")


async def _card_left(stage: Stage) -> None:
    """It does not take the answer, which stands below it."""
    stage.gateway.plant("card.stream", (400, "invalidParameter"))
    await stage.say("卡")


async def _card_shown_unheard(stage: Stage) -> None:
    """It shows the answer, but nobody is told."""
    stage.gateway.plant("card.stream", "lost_response", times=3)
    await stage.say("卡")


async def _card_silent(stage: Stage) -> None:
    """Neither the answer nor anything else gets through, for a while."""
    stage.gateway.plant("card.stream", "http503", times=6)
    await stage.say("卡")


async def _card_too_fast(stage: Stage) -> None:
    stage.gateway.plant("card.stream", "qps", times=1)
    await stage.say("卡")


async def _card_unsafe(stage: Stage) -> None:
    stage.gateway.plant("card.stream", (400, "param.contentUnsafe"))
    await stage.say("险")


async def _card_cancelled(stage: Stage) -> None:
    stage.backend.answer_delay_s = 0.3
    await stage.say("甲", ("答：甲",), ())
    await until(lambda: stage.backend.asked)
    await stage.say("/cancel", ("已为您取消",), (TEXTS("nothing_to_cancel"),))


async def _pressed(stage: Stage) -> None:
    """Judged, handed over and asked deeper from a card."""
    stage.backend.answer = lambda question: "深：按" if FRONT in question else "答：按"
    sent = await stage.say("按")
    await stage.ended(1)
    await stage.press(sent, "good")
    await stage.press(sent, "human", f"/已解决 {stage.code(sent)}")
    await stage.press(sent, "deep")
    await asyncio.sleep(0.1)


# -- what comes after an answer, and along with a question


async def _spoken_of(stage: Stage) -> None:
    """Sources, judgement, depth, the whole answer: of the last one, or of one by its code."""
    sent = await stage.say("甲")
    await stage.ended(1)
    await stage.say("/出处 1", ("甲",), (TEXTS("nothing_told"),))
    await stage.say(f"/bad {stage.code(sent)} 太旧", (TEXTS("thanks_reason"),), (TEXTS("nothing_told"),))
    await stage.say("/good", (TEXTS("thanks_good"),), (TEXTS("nothing_told"),))
    await stage.say("/full", ("甲",), (TEXTS("nothing_told"),))
    await stage.say("/deep 乙", ("答：乙",))


async def _handed_over(stage: Stage, end: str = "/回复 {} 请看附件", told: str = "请看附件") -> None:
    """To a colleague, who answers."""
    sent = await stage.say("甲")
    await stage.ended(1)
    await stage.say(f"/human {stage.code(sent)}", (TEXTS("hand_over_done"),), (TEXTS("hand_over_before"),))
    stage.passed_on.append(f"/已解决 {stage.code(sent)}")
    await stage.ended(3)
    closed = (TEXTS("handover_closed"),), (TEXTS("handover_closed_before"),)
    await stage.say(end.format(stage.code(sent)), *closed, user="boss")
    stage.passed_on.append(told)


async def _unreached(stage: Stage) -> None:
    """To a colleague whom DingTalk does not know."""
    stage.gateway.invalid_staff = {"boss"}
    sent = await stage.say("甲")
    await stage.ended(1)
    await stage.say(f"/human {stage.code(sent)}", (TEXTS("hand_over_done"),), (TEXTS("hand_over_before"),))
    stage.passed_on.append("没有送到")
    await stage.ended(4)


async def _solved(stage: Stage) -> None:
    await _handed_over(stage, "/已解决 {}", "解决")


async def _buttons(stage: Stage) -> None:
    """With the second one's buttons DingTalk does not take it."""
    await stage.say("甲")
    await stage.ended(1)
    stage.gateway.webhook_faults.extend([400002])
    await stage.say("乙")


async def _picture(stage: Stage) -> None:
    stage.backend.answer = lambda _: "答：图"
    await stage.say("图", ("答：图",), payload=_rich(stage, "图"))


def _rich(stage: Stage, text: str) -> dict[str, Any]:
    codes = stage.gateway._picture(PNG, "image/png")
    return {"msgtype": "richText", "content": {"richText": [{"text": text}, {"type": "picture"} | codes]}}


async def _document_gone(stage: Stage) -> None:
    stage.gateway.plant("download", "http503")
    stage.backend.answer = lambda _: "答：图"
    await stage.say("图", ("答：图",), payload=_rich(stage, "图"))


async def _document(stage: Stage) -> None:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name in ("[Content_Types].xml", "word/document.xml"):
            archive.writestr(name, random.Random(1).randbytes(300_000))
    code = stage.gateway.add_file(written.getvalue(), name="制度.docx")
    stage.backend.answer = lambda _: "答：文件"
    payload = {
        "msgtype": "file",
        "content": {"spaceId": "1", "fileId": "2", "fileName": "制度.docx", "downloadCode": code},
    }
    await stage.say(None, ("答：文件",), payload=payload)


async def _paged(stage: Stage) -> None:
    await _long(stage)


async def _face(stage: Stage) -> None:
    stage.backend.answer_delay_s = 0.15
    await stage.say("面")


async def _face_refused(stage: Stage) -> None:
    stage.gateway.plant("emotion.reply", "http503", times=2)
    stage.gateway.plant("emotion.recall", "http503")
    stage.backend.answer_delay_s = 0.6
    await stage.say("面")


async def _face_cancelled(stage: Stage) -> None:
    """Taken back while the face is shown."""
    stage.backend.answer_delay_s = 0.6
    sent = await stage.say("面", ("答：面",), ())
    with suppress(TimeoutError):  # the daemon may be dead
        async with asyncio.timeout(5):
            await until(lambda: stage.gateway.emotions_on(sent.msg_id))
    await stage.say("/cancel", ("已为您取消",), (TEXTS("nothing_to_cancel"),))


PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 60
CARD = {"dingtalk": {"card_template_id": TEMPLATE}}
PAGES = {"pages": {"listen": "127.0.0.1:0", "public_url": "http://127.0.0.1:9"}}
FACE = {"reply": {"notice": "emotion", "notice_after_s": 0.04}}
BUTTONS = {"reply": {"notice": "off", "quick_replies": "buttons"}}
ROUTED = {"route": [{"workspace": "handbook", "deep_workspace": DEEP, "contact": "boss"}]}
# A notice would use up what goes wrong with the answer.
QUIET = {"reply": {"notice": "off"}}
HANDLER = """
import asyncio
from dingbridge import Answer

async def handle(message, reply):
    await reply.update("…")
    if message.text == "raise":
        raise RuntimeError(message.text)
    return "答：" + message.text

async def growing(message, reply):
    await reply.update("word " * 2000)
    await asyncio.sleep(0.5)
    return "答：" + message.text

async def at_once(message, reply):
    return "答：" + message.text

async def by_itself(message, reply):
    await reply.update("答：" + message.text)
"""
OWN_BY_ITSELF = {"route": [{"handler": "crash_handler:by_itself"}], "handlers": {"path": ["."]}}
OWN_GROWING = {"route": [{"handler": "crash_handler:growing"}], "handlers": {"path": ["."]}}
OWN_AT_ONCE = {"route": [{"handler": "crash_handler:at_once"}], "handlers": {"path": ["."]}}
OWN = {"route": [{"handler": "crash_handler:handle"}], "handlers": {"path": ["."]}}
NAMED = {"route": [{"workspace": "员工手册"}]}
ONE_TRY = {"anythingllm": {"attempts": 1}}
SCRIPTS = (
    Script("in a lane", _in_a_lane),
    Script("long", _long),
    Script("slow notice", _slow_notice),
    Script("notice unsent", _notice_unsent),
    Script("retried", _retried, tables={"anythingllm": {"attempts": 3}}),
    Script("later", _later, tables=ONE_TRY),
    Script("rejected", _rejected),
    Script("renamed", _renamed, lanes=2, tables=NAMED),
    Script("ladder", _ladder, tables=QUIET),
    Script("to one", _to_one, tables=QUIET),
    Script("to a group", _to_a_group, tables=QUIET),
    Script("too fast", _too_fast, tables=QUIET),
    Script("uncertain", _uncertain, tables=QUIET),
    Script("sent later", _sent_later, tables=QUIET),
    Script("in halves", _in_halves, tables=QUIET),
    Script("unsafe", _unsafe, tables=QUIET),
    Script("unsafe whatever", _unsafe_whatever, tables=QUIET),
    Script("undeliverable", _undeliverable, tables=QUIET),
    Script("commands", _commands, lanes=2),
    Script("cancelled", _cancelled),
    Script("cancelled with a notice", _cancelled_with_a_notice),
    Script("handler", _handler, tables=OWN),
    Script("handler raises", _handler_raises, tables=OWN),
    Script("turned away", _turned_away, tables={"limits": {"waiting_per_lane": 1}}),
    Script("disk full", _disk_full),
    Script("left over", _left_over, before=_left_in_work),
    Script("card", _card, tables=CARD),
    Script("card in a group", _card_in_a_group, tables=CARD),
    Script("long frames", _long_frames, tables=CARD | OWN_GROWING),
    Script("card refused", _card_refused, tables=CARD),
    Script("card perhaps", _card_perhaps, tables=CARD),
    Script("card left", _card_left, tables=CARD | OWN_AT_ONCE),
    Script("card shown unheard", _card_shown_unheard, tables=CARD | OWN_AT_ONCE),
    Script("card silent", _card_silent, tables=CARD | OWN_AT_ONCE),
    Script("card too fast", _card_too_fast, tables=CARD),
    Script("card unsafe", _card_unsafe, tables=CARD | OWN_AT_ONCE),
    Script("card later", _later, tables=ONE_TRY | CARD),
    Script("card cancelled", _card_cancelled, tables=CARD),
    Script("card left over", _left_over, tables=CARD, before=_left_in_work),
    Script("pressed", _pressed, lanes=2, tables=CARD | ROUTED | PAGES),
    Script("spoken of", _spoken_of, lanes=2, tables=ROUTED | PAGES),
    Script("handed over", _handed_over, tables=ROUTED),
    Script("solved", _solved, tables=ROUTED),
    Script("unreached", _unreached, tables=ROUTED),
    Script("buttons", _buttons, tables=BUTTONS),
    Script("document", _document),
    Script("picture", _picture),
    Script("picture gone", _document_gone),
    Script("paged", _paged, tables=PAGES),
    Script("face", _face, tables=FACE),
    Script("face refused", _face_refused, tables=FACE),
    Script("face cancelled", _face_cancelled, tables=FACE),
    Script("handler by itself", _handler_by_itself, tables=CARD | OWN_BY_ITSELF),
)


# -- one run


@dataclass(frozen=True, slots=True)
class Point:
    """Where a daemon dies: at the `nth` time of a moment of a script."""

    script: Script
    moment: str
    nth: int

    def __str__(self) -> str:
        return f"[{self.script.name}] {self.moment} (no. {self.nth})"


@dataclass
class Run:
    """died: it came to its point. wrong: promises that were broken."""

    died: bool
    wrong: list[str]


class Theatre:
    """Plays scripts: once through to see what is passed, and then with a death at one point."""

    def __init__(self, watched: Nursery, plain: Nursery, folder: Path) -> None:
        self._watched = watched
        self._plain = plain
        self._folder = folder
        self._runs = 0

    async def record(self, script: Script) -> Counter[str]:
        moments: Counter[str] = Counter()
        async with self._stage(script) as stage:
            path = stage.folder / "moments.json"
            run = await self._play(script, stage, record=str(path))
            assert not run.wrong, f"{script.name}, without a crash: {run.wrong}"
            moments.update(json.loads(path.read_text("utf-8")))
        return moments

    async def die(self, point: Point) -> Run:
        async with self._stage(point.script) as stage:
            return await self._play(point.script, stage, deadly=[point.moment, point.nth])

    @asynccontextmanager
    async def _stage(self, script: Script) -> AsyncIterator[Stage]:
        self._runs += 1
        folder = self._folder / str(self._runs)
        folder.mkdir()
        async with Gateway() as gateway, AnythingLLM() as backend:
            gateway.redeliver_after_s = 0.3
            gateway.add_template(TEMPLATE)
            backend.workspaces[DEEP] = Workspace("专家", handbook_folder())
            backend.answer, backend.answer_delay_s = (lambda question: f"答：{question.rpartition(FRONT)[2]}"), 0.0
            tables = {
                "anythingllm": {"attempts": 1},
                "reply": {"notice_after_s": 0.04},
                "web": {"listen": ""},
                **script.tables,
            }
            House(gateway, backend, folder).configure(**tables)
            (folder / "crash_handler.py").write_text(HANDLER, "utf-8")
            yield Stage(gateway, backend, folder)

    async def _play(self, script: Script, stage: Stage, **order: Any) -> Run:
        if script.before is not None:
            first = self._plain.start(stage.folder)
            await stage.gateway.connected(timeout_s=PATIENCE_S)
            await script.before(stage)
            await first.stop(signal.SIGKILL)
        daemon = self._watched.start(stage.folder, armed=script.before is not None, **order)
        await daemon.born.wait()
        stage.pid = daemon.pid
        if script.before is None:
            connected = asyncio.create_task(stage.gateway.connected(timeout_s=PATIENCE_S))
            dead = asyncio.create_task(daemon.ended.wait())
            await asyncio.wait({connected, dead}, return_when=asyncio.FIRST_COMPLETED)
            dead.cancel()
            connected.result()
        playing = asyncio.create_task(script.play(stage))
        quiet = asyncio.create_task(_quiet(stage, playing))
        dead = asyncio.create_task(daemon.ended.wait())
        await asyncio.wait({quiet, dead}, return_when=asyncio.FIRST_COMPLETED)
        dead.cancel()
        known, died_at = Counter[str](), math.inf
        died = (await daemon.stop() if quiet.done() else daemon.code) == -signal.SIGKILL  # at the very end, perhaps
        if died:
            known, died_at = _answered(stage), time.monotonic()
            daemon = self._plain.start(stage.folder)
        wrong = []
        try:
            await quiet
            await _quiet(stage, playing)
        except AssertionError as error:
            wrong.append(str(error))
        code = await daemon.stop()
        wrong += [] if code == 0 else [f"exit code {code}"]
        # What comes after the death may find its lane empty, and fill it once more.
        fillings = script.lanes + sum(ack.at > died_at for told in stage.told for ack in told.sent.acks[:1])
        return Run(died, [*wrong, *_broken(stage, known, fillings)])


async def _quiet(stage: Stage, playing: asyncio.Task[None]) -> None:
    """Everything has been said, accepted, and has come to its end."""
    await playing
    try:
        await until(lambda: stage.over, PATIENCE_S)
    except AssertionError:
        cards = [(card.out_track_id, card.state) for card in stage.gateway.cards_in()]
        raise AssertionError(f"not all was accepted and has come to its end: {stage.rows()}, {cards}") from None


def _answered(stage: Stage) -> Counter[str]:
    """How often those were asked whose answer is stored already."""
    kept = {key for key, _, _, answered in stage.rows(ended=False) if answered}
    texts = {told.sent.text for told in stage.told if told.sent.msg_id in kept}
    return Counter(question for question in _asked(stage) if question in texts)


def _asked(stage: Stage) -> list[str]:
    """What the backend was asked, without what was said before, and without what was asked deeper."""
    return [asked.message.rpartition(FRONT)[2] for asked in stage.backend.asked if asked.workspace != DEEP]


def _broken(stage: Stage, known: Counter[str], fillings: int) -> Iterator[str]:
    posts = stage.seen
    firsts: dict[str, int] = {}
    for told in stage.told:
        seen = [(n, text) for n, (where, text) in enumerate(posts) if where == told.sent.conversation]
        for wanted in told.either:
            at = [
                next((n for n, text in seen if part in text and not text.startswith(TROUBLE)), None) for part in wanted
            ]
            if None not in at:
                firsts[told.sent.msg_id] = at[0] if at and at[0] is not None else -1
                break
        else:
            yield f"{told.sent.text} was not told: {[text[:60] for _, text in seen]}"
    yield from (f"{text} was not passed on" for text in stage.passed_on if not any(text in seen for _, seen in posts))
    yield from _broken_cards(stage)
    unmarked = Counter(
        (where, _plain(text)) for where, text in posts if REPEAT not in text and not text.startswith((NOTICE, TROUBLE))
    )
    yield from (f"{text[:60]} was repeated without a mark" for (_, text), count in unmarked.items() if count > 1)
    for what in (NOTICE, TROUBLE):
        if (count := sum(text.startswith(what) for _, text in posts)) > fillings:
            yield f"{count} times {what}"
    yield from _out_of_order(stage, firsts)
    asked = Counter(_asked(stage))
    yield from (f"{text} was asked again though its answer was kept" for text in known if asked[text] > known[text])


def _broken_cards(stage: Stage) -> Iterator[str]:
    """One a message at most, and what it shows whole is in no message, unless that is marked."""
    cards = {card.out_track_id: card for card in stage.gateway.cards_in()}
    for told in stage.told:
        card = cards.pop(card_track(stage.gateway.client_id, told.sent.msg_id), None)
        if card is None or card.state != "finished":
            continue
        for wanted in {part for parts in told.either for part in parts if part in card.data["content"]}:
            again = [
                post.text
                for post in stage.gateway.posts
                if post.conversation == card.conversation and wanted in post.text and REPEAT not in post.text
            ]
            if again and told.sent.text in wanted:  # not what each card may say
                yield f"{told.sent.text} was answered on its card and again: {again}"
    extra = [track for track, card in cards.items() if not any(told.sent.msg_id in track for told in stage.told)]
    pressed = {card_track(stage.gateway.client_id, key) for key, *_ in stage.rows()}
    yield from (f"a card of nobody: {track}" for track in extra if track not in pressed)


def _plain(text: str) -> str:
    return re.sub(r"^@\S+|\s", "", text)


def _out_of_order(stage: Stage, firsts: dict[str, int]) -> Iterator[str]:
    """Questions of one lane, by the order in which they were accepted; a /new begins another lane."""
    told = {one.sent.msg_id: one.sent for one in stage.told}
    lanes: dict[tuple[str, int], list[int]] = {}
    topic = 0
    answered = set(_asked(stage))
    for key, *_ in stage.rows():
        if key not in told:  # nobody has said it
            continue
        sent = told[key]
        topic += sent.text == "/new"
        if sent.text in answered and firsts.get(key, -1) >= 0:
            lanes.setdefault((sent.conversation, topic), []).append(firsts[key])
    yield from (f"out of order: {lane}" for lane in lanes.values() if lane != sorted(lane))


# -- all of them


@dataclass(frozen=True, slots=True)
class Points:
    """The same moment in some scripts: a death in any of them will do.

    Not each script comes to it each time: what a daemon does at its start is passed by a message only if that is quick.
    """

    moment: str
    points: tuple[Point, ...]

    def __str__(self) -> str:
        scripts = ", ".join(point.script.name for point in self.points)
        return f"{self.moment}: not passed in {TRIES} tries of each of [{scripts}]"


@dataclass
class Findings:
    """reached: the ids of awaits that some script passes. missed: what no try came to."""

    reached: set[str] = field(default_factory=set)
    died: list[Point] = field(default_factory=list)
    missed: list[Points] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{len(self.died)} deaths at {len({point.moment for point in self.died})} moments of "
            f"{len(self.reached)} awaits, {len(self.missed)} missed, {len(self.wrong)} promises broken"
        )


async def explore(
    folder: Path, *, everything: bool = False, last: int | None = None, at_once: int = AT_ONCE
) -> Findings:
    """Each moment once, in one of the scripts that come to it; `everything`: in each, and at its second time, too.

    last: so many awaits of a way are looked at, so that two that end alike count as one.
    """
    findings = Findings()
    async with nursery("watched") as watched, nursery() as plain:
        theatre = Theatre(watched, plain, folder)
        recorded = {script: await theatre.record(script) for script in SCRIPTS}
        for moments in recorded.values():
            findings.reached.update(place for moment in moments for place in places(moment))
        slots = asyncio.Semaphore(at_once)
        async with asyncio.TaskGroup() as group:
            for points in _each(recorded) if everything else _one_of_each(recorded, last):
                group.create_task(_examine(theatre, points, findings, slots))
    return findings


def _each(recorded: Mapping[Script, Counter[str]]) -> Iterator[Points]:
    for script, moments in recorded.items():
        for moment, count in moments.items():
            yield from (Points(moment, (Point(script, moment, nth),)) for nth in range(1, min(count, 2) + 1))


def _one_of_each(recorded: Mapping[Script, Counter[str]], last: int | None) -> Iterator[Points]:
    """Spread over the scripts, so that each common moment is met under another circumstance."""
    alike: dict[tuple[str, ...], list[Point]] = {}
    for script, moments in recorded.items():
        for moment in moments:
            way, _, phase = moment.partition(" | ")
            end = way.split(" > ")[-last:] if last else way.split(" > ")
            alike.setdefault((*end, phase), []).append(Point(script, moment, 1))
    for number, key in enumerate(sorted(alike)):
        points = alike[key]
        first = number % len(points)
        yield Points(points[first].moment, tuple(points[first:] + points[:first]))


async def _examine(theatre: Theatre, points: Points, findings: Findings, slots: asyncio.Semaphore) -> None:
    async with slots:
        for point in (points.points * TRIES)[:MOST_TRIES]:  # chunks and timers fall differently each time
            run = await theatre.die(point)
            findings.wrong += [f"{point}: {wrong}" for wrong in run.wrong]
            if run.died:
                findings.died.append(point)
            if run.died or run.wrong:
                return
        findings.missed.append(points)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--everything", action="store_true", help="each moment in each script, and at its second time")
    parser.add_argument("--at-once", type=int, default=AT_ONCE)
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        findings = asyncio.run(explore(Path(folder), everything=options.everything, at_once=options.at_once))
    print(f"{findings} in {time.monotonic() - started:.0f} s")
    for line in [*findings.wrong, *(f"missed: {points}" for points in findings.missed)][:40]:
        print(line)
    return 1 if findings.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
