"""What a card shows of an answer that is still growing, and whose turn it is; no network, no real time."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dingbridge.dingtalk import card_text
from dingbridge.dingtalk.card_calls import STREAM
from dingbridge.dingtalk.card_text import capped, final, fits, frame, whole_so_far
from dingbridge.dingtalk.cards import Card, Cards
from dingbridge.dingtalk.rate import PER_SECOND, Rate
from dingbridge.errors import ReplyPaced
from dingbridge.model import Conversation, ConversationKind, Message, MessageKind, Person, card_track, code_of_track
from tests.fuzz_loop import Loop

ANSWER = """# 年假 **规定**

员工满一年后有 **5 天**年假，*须提前* 申请，见 `hr.submit()` 与[手册](https://a.example/b)。

流程：
- 第一 **填 `表` 再交**
- 第二 ~~不用~~ 等

| 工龄 | 天数 |
| --- | --- |
| 1 年 | **5** |
| 10 年 | 10 |

```python
a = b ** c
x = "`"
```

第一行
第二行 **完**了。
"""
FENCED = re.compile(r"^(`{3,}|~{3,}).*?^\1$", re.MULTILINE | re.DOTALL)
PIECES = st.sampled_from(
    [
        "**",
        "*",
        "`",
        "```",
        "```py\n",
        "~~~",
        "~~",
        "__",
        "\n",
        "\n\n",
        "- ",
        "| a ",
        "|",
        "| --- |",
        "\\",
        "[x](h",
        ")",
    ]
)
TEXTS = st.lists(PIECES | st.sampled_from(["年假", " ", "a b", "# ", "> ", "1. "]), max_size=30).map("".join)


def tracked(sent: Message) -> tuple[str, str]:
    return card_track(sent.robot, sent.id), sent.code


@pytest.mark.parametrize("end", range(len(ANSWER) + 1))
def test_every_beginning_is_whole(end: int) -> None:
    """Wherever the backend has got to, a reader sees no half mark, no torn table and no piece of a link."""
    shown = frame(ANSWER[:end])
    prose = FENCED.sub("", shown)
    assert "```" not in prose
    assert "\\" not in prose
    for mark in ("**", "`", "~~"):
        assert prose.count(mark) % 2 == 0, prose
    assert "](" not in prose
    for line in prose.splitlines():
        assert line.startswith("|") == line.endswith("|")
    words = re.sub(r"[\W_]", "", prose.replace("<br>", ""))
    assert re.sub(r"[\W_]", "", final(ANSWER).replace("<br>", "")).startswith(words[:20])


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("", ""),
        ("年假**5 天", "年假**5 天**"),
        ("年假 **", "年假"),
        ("年假 **5 天*", "年假 **5 天**"),
        ("**a *b", "**a *b***"),
        ("2 * 3", "2 * 3"),
        ("用 `code", "用 `code`"),
        ("用 `a ** b", "用 `a ** b`"),
        ("见[手册](https://a.exa", "见手册"),
        ("见![图](https://a.exa", "见"),
        ("见[手册", "见[手册"),
        ("a\\", "a"),
        ("说明\n-", "说明"),
        ("说明\n``", "说明"),
        ("```py\nx = 1", "```py\nx = 1\n```"),
        ("```py\nx = 1\n``", "```py\nx = 1\n```"),
        ("````\n```\nx", "````\n```\nx\n````"),
        ("~~~\nx", "~~~\nx\n~~~"),
        ("```\nx\n```\n**后", "```\nx\n```\n**后**"),
        ("- a\n- **b", "- a\n- **b**"),
        ("- **a\n- b", "- **a\n- b"),
        ("| a | b", "| a | b |\n| --- | --- |"),
        ("| a | b |\n| -", "| a | b |\n| --- | --- |"),
        ("| a | b |\n| --- | --- |\n| **x", "| a | b |\n| --- | --- |\n| **x** |"),
    ],
)
def test_what_is_open_is_closed(text: str, whole: str) -> None:
    """Fences, tables, code, bold and italic that are open at the end are closed for the frame; nothing else changes."""
    assert whole_so_far(text) == whole


@given(TEXTS)
@settings(max_examples=150, deadline=None)
def test_only_the_tail_changes(text: str) -> None:
    """Fences are balanced whatever comes, earlier blocks stay as they are, and what is whole stays whole."""
    whole = whole_so_far(text)
    closed, _ = card_text._open_fence(whole)
    assert not closed
    gaps = list(re.finditer(r"\n{2,}", text.rstrip()))
    assert whole.startswith(text[: gaps[-2].start()].rstrip() if len(gaps) > 1 else "")
    assert len(whole) <= 2 * len(text) + 80
    assert frame(text)


def test_a_card_is_never_too_large() -> None:
    """However long an answer grows, a frame fits and says that there is more; the whole of it is known not to fit."""
    long = ("年假有 **5 天**。\n第二行\n\n| a | b |\n|---|---|\n" + "| x | y |\n" * 20 + "\n") * 80
    assert not fits(final(long))
    assert fits(frame(long))
    assert fits(frame("字" * 40_000))
    assert capped(final(long)).endswith("…")
    assert frame("```\n" + "字\n" * 20_000).count("```") == 2
    assert final("") == frame("** ") == "…"


def test_a_line_break_is_one_in_a_card() -> None:
    """A single line feed breaks no line in a card: `<br>` does, but not in code."""
    assert final("一\n二\n\n- 三\n  四") == "一<br>二\n\n- 三<br>四"
    assert final("```\n一  \n二\n```") == "```\n一  \n二\n```"
    assert final("一<b>\n二") == "一＜b><br>二"
    assert final("@张三 [x](https://kb.example/a)", link_hosts=frozenset({"kb.example"})).endswith(
        "[x](https://kb.example/a)"
    )


def message(number: int = 0, *, group: bool = False) -> Message:
    kind = ConversationKind.GROUP if group else ConversationKind.SINGLE
    return Message(
        id=f"msg{number}",
        robot="ding1",
        conversation=Conversation(f"cid{number}", kind),
        sender=Person("042", "042", "张三"),
        kind=MessageKind.TEXT,
        text="问",
        sent_at=datetime.now(UTC),
    )


def test_a_cards_id_is_its_messages() -> None:
    """The id is the same after a restart, short enough for DingTalk, and leads back to the message's code."""
    track = card_track((message()).robot, (message()).id)
    assert track == card_track((message()).robot, (message()).id)
    assert len(track) <= 100
    assert track != card_track((message(1)).robot, (message(1)).id)
    assert code_of_track(track) == message().code
    for strange in ("", "dingbridge-", track + "0", track.upper(), track.replace("dingbridge", "other"), track + "\n"):
        assert code_of_track(strange) == ""


class Api:
    """DingTalk as it stands in the loop's time: takes what comes, and notes when."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.rate = Rate(clock=loop.time)
        self.taken: list[tuple[float, dict[str, Any]]] = []
        self.refusals: list[Exception] = []
        self.answer_s = 0.05

    async def call(self, method: str, path: str, body: dict[str, Any], *, has_turn: bool = False) -> dict[str, Any]:
        if not has_turn:
            await self.rate.turn(path, 10.0)
        if path == STREAM:
            self.taken.append((self.loop.time(), body))
            if self.refusals:
                raise self.refusals.pop(0)
        await asyncio.sleep(self.answer_s)
        return {"success": True, "result": {"deliverResults": [{"success": True}]}}


class Frugal:
    """A budget that a test turns."""

    def __init__(self) -> None:
        self.interval: float | None = 0.0
        self.counted: Counter[str] = Counter()

    def frame_interval_s(self) -> float | None:
        return self.interval

    def cards_allowed(self) -> bool:
        return True

    def reply_path(self, one_to_one: bool) -> Any:
        return "webhook"

    def notice_allowed(self, pool: str = "") -> bool:
        return True

    def refused(self, pool: str) -> None:
        self.counted[f"{pool} refused"] += 1

    def count(self, pool: str, kind: str) -> None:
        self.counted[kind] += 1


@contextmanager
def still() -> Iterator[tuple[Loop, Api, Cards, Frugal]]:
    """Cards in a loop whose clock a test moves."""
    loop = Loop()
    api, budget = Api(loop), Frugal()
    cards = Cards(api, robot="ding1", template_id="t.schema", budget=budget, clock=loop.time, first_s=0.0)
    try:
        yield loop, api, cards, budget
    finally:
        closing = loop.create_task(cards.close())
        loop.advance(20.0)
        assert closing.done()
        assert not cards._running
        loop.close()


def opened(cards: Cards, number: int) -> Card:
    return cards.resume(*tracked(message(number)))


def updated(loop: Loop, card: Card, text: str) -> None:
    """As from inside of a task of the loop."""

    async def update() -> None:
        card.update(text)

    loop.finish(update())


def test_frames_of_one_card_keep_their_distance() -> None:
    """A backend that writes twenty times a second costs one call a second, and each shows the newest text."""
    with still() as (loop, api, cards, budget):
        card = opened(cards, 0)
        for step in range(100):
            updated(loop, card, f"答{step}")
            loop.advance(0.05)
        times = [at for at, _ in api.taken]
        assert len(times) in (5, 6)
        assert min(later - at for at, later in pairwise(times)) > 0.999
        assert api.taken[0][1]["content"] == "答0"
        assert api.taken[-1][1]["content"] == f"答{round(times[-1] / 0.05)}"
        assert budget.counted == {"card.frame": len(times)}
        assert len({body["guid"] for _, body in api.taken}) == len(times)


def test_the_budget_thins_frames_out() -> None:
    """Frames come as seldom as the budget says, and not at all where it leaves only the last one."""
    with still() as (loop, api, cards, budget):
        card = opened(cards, 0)
        budget.interval = 5.0
        for step in range(20):
            updated(loop, card, f"答{step}")
            loop.advance(1.0)
        assert [at for at, _ in api.taken[:4]] == pytest.approx([0.0, 5.0, 10.0, 15.0])
        del api.taken[:]
        budget.interval = None
        for step in range(20):
            updated(loop, card, f"再答{step}")
            loop.advance(1.0)
        assert len(api.taken) <= 1


def test_fifty_cards_share_twenty_calls_a_second() -> None:
    """Many cards at once keep DingTalk's limit, each gets its turn as often as any other, and a last frame passes."""
    with still() as (loop, api, cards, _):
        many = [opened(cards, number) for number in range(50)]
        for step in range(40):
            for card in many:
                updated(loop, card, f"答{step}")
            loop.advance(0.5)
        times = [at for at, _ in api.taken]
        assert max(sum(at <= one < at + 1.0 for one in times) for at in times) <= PER_SECOND
        assert len(times) >= 18 * 20 * 0.8
        shown = Counter(body["outTrackId"] for _, body in api.taken)
        assert len(shown) == 50
        for track in shown:
            own = [at for at, body in api.taken if body["outTrackId"] == track]
            assert max(later - at for at, later in pairwise(own)) <= 2 * 50 / PER_SECOND
        began = loop.time()
        ending = loop.create_task(many[7].finish("完", params={}))
        loop.advance(2.5)
        assert ending.done()
        at = next(at for at, body in api.taken if body["isFinalize"])
        assert at - began <= 1.3


def test_too_fast_pauses_all_cards_and_goes_on_with_the_newest() -> None:
    """Where DingTalk finds it too fast no card sends for two seconds; then each shows its newest text."""
    with still() as (loop, api, cards, budget):
        refusal = ReplyPaced("OpenAPI: HTTP 403 QpsLimit", retry_after=1.0)
        refusal.status = 403
        api.refusals.append(refusal)
        first, second = opened(cards, 0), opened(cards, 1)
        updated(loop, first, "旧")
        updated(loop, second, "乙")
        updated(loop, first, "新")
        loop.advance(5.0)
        times = [at for at, _ in api.taken]
        assert not any(0.1 < at < 2.0 for at in times)
        assert api.taken[-1][0] >= 2.0
        contents = [body["content"] for at, body in api.taken if at >= 2.0]
        assert "新" in contents
        assert not first.broken
        assert budget.counted["card.frame"] == len(api.taken) - 1


def test_a_card_that_was_given_up_runs_no_task() -> None:
    """Whoever turns away from a card leaves nothing running; with the next text it goes on, at its distance."""
    with still() as (loop, api, cards, _):
        card = opened(cards, 0)
        updated(loop, card, "一")
        loop.advance(61.0)
        assert not cards._running
        updated(loop, card, "二")
        loop.advance(0.1)
        updated(loop, card, "三")
        loop.advance(2.0)
        assert [body["content"] for _, body in api.taken] == ["一", "二", "三"]
        assert api.taken[2][0] - api.taken[1][0] > 0.999


def test_no_frame_comes_after_settling() -> None:
    """Settling waits for the frame on its way, drops the one that waits for its turn, and lets none begin."""
    with still() as (loop, api, cards, _):
        card = opened(cards, 0)
        api.answer_s = 3.0
        updated(loop, card, "一")
        updated(loop, card, "二")
        settling = loop.create_task(card.settle())
        loop.settle()
        assert not settling.done()
        loop.advance(3.1)
        assert settling.done()
        updated(loop, card, "三")
        loop.advance(10.0)
        assert [body["content"] for _, body in api.taken] == ["一"]
