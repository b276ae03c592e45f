"""谁值班：answers from the small roster beside it, and hands everything else on to the next route."""

from __future__ import annotations

import asyncio
import re
import tomllib
from datetime import timedelta, timezone
from pathlib import Path

from dingbridge import Answer, Message, Reply, Source

ROSTER = Path(__file__).with_name("on_duty.toml")
CHINA = timezone(timedelta(hours=8))  # no daylight saving time, so no time zone database is needed
DAYS = ("星期一", "星期二", "星期三", "星期四", "星期五", "星期六", "星期日")
AHEAD = {"今天": 0, "今晚": 0, "明天": 1, "后天": 2}
_DAY = "(今天|今晚|明天|后天)"
# Whole messages only: 值班补贴怎么算 is a question for the documents.
ASKED = (
    re.compile(f"(?:请问)?{_DAY}?(?:是|由)?(?:谁|哪位)(?:在)?值班(?:呢|啊|呀)?"),
    re.compile(f"(?:请问)?(?:谁|哪位){_DAY}值班(?:呢|啊|呀)?"),
    re.compile(f"(?:请问)?{_DAY}?值班(?:的|人员)?是?(?:谁|哪位)(?:呢|啊|呀)?"),
)


async def handle(message: Message, reply: Reply) -> Answer:  # noqa: ARG001 - the shape of all handlers
    """Who is on duty; a refusal for any other question."""
    ahead = days_ahead(message.text)
    if ahead is None:
        return Answer(refused=True)
    # The day on which it was asked, also when it is answered after midnight or twice after a crash.
    day = message.sent_at.astimezone(CHINA) + timedelta(days=ahead)
    # Read for every question, so that an edited roster counts at once; in a thread, so that no other chat waits.
    roster = await asyncio.to_thread(read_roster, ROSTER)
    name = DAYS[day.weekday()]
    who = roster.get(name, "没有安排值班")
    return Answer(f"{day.month}月{day.day}日（{name}）：**{who}**", sources=(Source("值班表"),))


def days_ahead(question: str) -> int | None:
    """0 for today; None where this is no question about who is on duty."""
    said = re.sub(r"[\s，,。.？?！!]", "", question)
    found = next((match for pattern in ASKED if (match := pattern.fullmatch(said))), None)
    return None if found is None else AHEAD.get(found[1], 0)


def read_roster(path: Path) -> dict[str, str]:
    """Day to whoever is on duty; raises OSError or ValueError, which the chat is told as a failure."""
    return {str(day): str(who) for day, who in tomllib.loads(path.read_text("utf-8")).items()}
