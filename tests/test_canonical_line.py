"""Each message leaves one line in the log that tells its whole way; read here from the log of a real scenario."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import structlog

from dingbridge import log
from dingbridge.log import pseudonym
from dingbridge.model import trace_code
from dingbridge.sim.gateway import Sent
from tests.house import House, until

Line = dict[str, Any]
Holds = Callable[[Any, str, Sent], bool]  # a field's value, how the message ended, what was said
ASKED = {"answered", "failed", "refused"}  # these went to the backend
ENDS = {*ASKED, "cancelled", "busy", "command", "duplicate"}


class Played:
    """What was said, by how it ended, and the line that was written of it."""

    def __init__(self, said: dict[str, Sent], lines: list[Line], posted: list[str]) -> None:
        self.said = said
        self.posted = posted
        self.lines = {
            end: [one for one in lines if one["message"] == sent.msg_id and one["outcome"] == end]
            for end, sent in said.items()
        }

    def line(self, end: str) -> Line:
        assert len(self.lines[end]) == 1, f"{end}: {len(self.lines[end])} lines"
        return self.lines[end][0]


@pytest.fixture
async def played(house: House, log_file: Path) -> AsyncIterator[Played]:
    """A message for each end, through a real gateway, a real store and a real log."""
    gateway, backend, said = house.gateway, house.backend, dict[str, Sent]()
    with log_file.open("a", encoding="utf-8") as stream:
        log.configure(log.Redactor(), stream=stream, cache=False, level=logging.DEBUG)
        async with house.app(limits={"waiting_per_lane": 1}):
            said["answered"] = await gateway.say("北京出差住宿标准是多少？", user="u-answered", group=True)
            await gateway.wait_posts(said["answered"])
            said["duplicate"] = said["answered"]
            await gateway.redeliver(said["answered"])
            said["refused"] = await gateway.say("火星上的天气怎么样？", user="u-refused")
            await gateway.wait_posts(said["refused"])
            backend.faults.append("bad_key")
            said["failed"] = await gateway.say("年假有几天？", user="u-failed")
            await gateway.wait_posts(said["failed"])
            said["command"] = await gateway.say("/help", user="u-command")
            await gateway.wait_posts(said["command"])
            backend.answer_delay_s = 5.0
            said["cancelled"] = await gateway.say("年假有几天？", user="u-busy")
            await until(lambda: backend.running)
            await gateway.say("病假有几天？", user="u-busy")
            said["busy"] = await gateway.say("婚假有几天？", user="u-busy")
            await gateway.wait_posts(said["busy"])
            await gateway.say("/cancel", user="u-busy")
            await gateway.wait_posts(said["busy"], 2)
            await until(lambda: len(handled(log_file)) >= 9, what="a line for each message")
        yield Played(said, handled(log_file), [post.text for post in gateway.posts])


def handled(path: Path) -> list[Line]:
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return [line for line in lines if line["event"] == "message.handled"]


def is_ms(*ends: str) -> Holds:
    """Milliseconds, of a scenario that takes seconds; where a message ended otherwise there may be none."""
    return lambda value, end, _: end not in ends or (isinstance(value, int | float) and 0 <= value < 60_000)


def is_hashed(value: Any, _: str, sent: Sent) -> bool:
    return re.fullmatch(r"[0-9a-f]{12}", str(value)) is not None and sent.user not in value


def robot(sent: Sent) -> str:
    return str(sent.data["robotCode"])


SENT = (*ASKED, "busy", "command")
FIELDS: dict[str, Holds] = {
    "code": lambda value, _, sent: value == trace_code(robot(sent), sent.msg_id),
    "frame": lambda value, end, sent: value == sent.pushes[end == "duplicate"].message_id,
    "lane": lambda value, _, sent: isinstance(value, str) and bool(value) and sent.user not in value,
    "person": lambda value, _, sent: value == pseudonym(robot(sent), sent.user),
    "conversation": is_hashed,
    "kind": lambda value, _, sent: value == ("group" if sent.conversation == "cid-group" else "single"),
    "route": lambda value, end, _: value == ("handbook" if end in ASKED else ""),
    "workspace": lambda value, end, _: value == ("handbook" if end in ASKED else ""),
    "tries": lambda value, end, _: value == 1 if end in SENT else value in (0, 1),
    "parts": lambda value, end, _: value == (1 if end in SENT else 0),
    "cause": lambda value, end, _: bool(value) == (end == "failed"),
    "reason": lambda value, end, _: bool(value) == (end in ("failed", "cancelled")),
    "queue_ms": is_ms(*SENT),
    "first_token_ms": is_ms("answered", "refused"),
    "handler_ms": is_ms(*ASKED),
    "reply_ms": is_ms(*SENT),
    "total_ms": is_ms(*SENT),
}


def check(played: Played, field: str) -> None:
    for end in ENDS:
        line = played.line(end)
        assert field in line, f"{end}: {field} is missing"
        assert FIELDS[field](line[field], end, played.said[end]), f"{end}: {field} is {line[field]!r}"


async def test_the_line_of_each_end_has_every_field(played: Played) -> None:
    """Answered, failed, refused, cancelled, busy, a command, a duplicate: each field is there and is plausible."""
    assert set(played.said) == ENDS
    for field in FIELDS:
        check(played, field)


async def test_questions_of_one_context_have_one_lane(played: Played) -> None:
    """A duplicate is of the lane of its first, a cancelled question of its asker's, and a command of its own."""
    lanes = {end: played.line(end)["lane"] for end in ENDS}
    assert lanes["duplicate"] == lanes["answered"]
    assert lanes["cancelled"].startswith("dingbridge-")
    assert len({lanes[end] for end in ENDS - {"duplicate"}}) == len(ENDS) - 1


async def test_the_parts_of_a_duration_make_up_its_whole(played: Played) -> None:
    """Waiting, answering and sending take as long as all of it, and the first token comes before the last."""
    line = played.line("answered")
    parts = line["queue_ms"] + line["handler_ms"] + line["reply_ms"]
    assert parts <= line["total_ms"] + 50  # two clocks
    assert line["first_token_ms"] <= line["handler_ms"] + 1


def test_the_line_names_nobody_and_quotes_nothing(played: Played, log_file: Path) -> None:
    """Whoever reads the log learns neither who asked nor what was asked or answered."""
    written = log_file.read_text("utf-8")
    for sent in played.said.values():
        for private in (sent.user, sent.text, sent.conversation, "张三"):
            assert private not in written
    assert len(played.posted) >= 6
    assert not [text for text in played.posted if text[:8] in written]


async def test_loudness_follows_the_end(played: Played) -> None:
    """A failure is a warning, a duplicate is for those who look for it, all else is told plainly."""
    levels = {end: played.line(end)["level"] for end in ENDS}
    assert levels.pop("failed") == "warning"
    assert levels.pop("duplicate") == "debug"
    assert set(levels.values()) == {"info"}


# -- where lines go


def test_a_log_that_nobody_reads_drops_whole_lines_and_blocks_nobody() -> None:
    """Past its bound a line is dropped and counted, its end with it; what was written comes out line by line."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as full, os.fdopen(reading) as reader:
        sink = log.Sink(full, lines=3)
        logger = structlog.WriteLogger(sink)  # type: ignore[arg-type] # as much of a file as it needs
        for _ in range(20):
            logger.info("x" * 70_000)  # more than a pipe holds: the first one waits for a reader
        assert sink.dropped >= 16
        assert {len(line) for line in sink.recent()} == {log.RECENT_CHARACTERS + 1}
        for _ in range(20 - sink.dropped):
            assert reader.readline() == "x" * 70_000 + "\n"
