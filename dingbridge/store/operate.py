"""What an operator sees of the inbox and may change in it. Statements only; who may is asked elsewhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from dingbridge.model import Answer, Message, Outcome, State, Task
from dingbridge.store import intake, work
from dingbridge.store.codec import APPEND_TRAIL, decode_answer, decode_steps, encode_answer
from dingbridge.store.engine import Connection
from dingbridge.trail import Step

Which = Literal["open", "failed", "all"]
# As written here the partial index message_failed serves it.
_FAILED = "outcome IN ('failed', 'dead', 'undeliverable', 'partial')"
_WHERE: dict[Which, str] = {
    "open": "finished_at IS NULL",
    "failed": f"{_FAILED} AND finished_at IS NOT NULL",
    "all": "TRUE",
}
_ORDER: dict[Which, str] = {"open": "+id", "failed": "finished_at DESC", "all": "id DESC"}
_NAMES = (
    *("row", "code", "id", "robot", "person", "conversation", "lane", "task", "state", "outcome", "reason", "cause"),
    *("route", "tries", "crashes", "part", "uncertain", "received_at", "deadline_at", "answered_at", "finished_at"),
    *("text_kept", "due_at", "owner"),
)
_WRITTEN = {
    "row": "id",
    "id": "key",
    "text_kept": "body <> ''",
    "due_at": "(SELECT due FROM lane WHERE key = message.lane AND head = message.id AND token IS NULL)",
    "owner": "(SELECT owner FROM lane WHERE key = message.lane AND head = message.id AND token IS NOT NULL)",
}
_COLUMNS = ", ".join(_WRITTEN.get(name, name) for name in _NAMES)


@dataclass(frozen=True, slots=True)
class Row:
    """A stored message as an operator looks at it. Times are seconds since the epoch.

    question, answer, steps: only of one message that is looked at; the texts are empty where they are forgotten.
    due_at: when it is worked on next, None where it runs or waits for an earlier one. owner: the daemon that works on
    it, where there are several. retryable: whether `retry` can bring it back.
    """

    row: int
    code: str
    id: str
    robot: str
    person: str
    conversation: str
    lane: str
    task: str
    state: str
    outcome: str
    reason: str
    cause: str
    route: str
    tries: int
    crashes: int
    part: int
    uncertain: bool
    received_at: float
    deadline_at: float | None
    answered_at: float | None
    finished_at: float | None
    text_kept: bool
    question: str = ""
    answer: str = ""
    steps: tuple[Step, ...] = ()
    due_at: float | None = None
    owner: str = ""

    @property
    def retryable(self) -> bool:
        return self.finished_at is not None and self.outcome in work.RETRYABLE and self.text_kept


@dataclass(frozen=True, slots=True)
class LaneSeen:
    """A context with unfinished messages; `code` and `state` are of its head."""

    lane: str
    robot: str
    person: str
    conversation: str
    code: str
    state: str
    tries: int
    waiting: int
    received_at: float
    due_at: float


@dataclass(frozen=True, slots=True)
class Waiting:
    """An unanswered question. running: it is being answered. ahead: how many of all wait longer."""

    row: int
    lane: str
    received_at: float
    running: bool = False
    ahead: int = 0


@dataclass(frozen=True, slots=True)
class Depth:
    """How much is unfinished, by state, the age of the oldest in seconds, and how many were given up."""

    by_state: dict[str, int]
    oldest_age_s: float
    dead: int = 0


def waiting(c: Connection, message: Message | None) -> list[Waiting]:
    """Unanswered questions in order; of one person in one conversation where a message is given."""
    where = ""
    who: tuple[str, ...] = ()
    if message is not None:
        where = " AND robot = ? AND conversation = ? AND person = ?"
        who = (message.robot, message.conversation.id, message.sender.id)
    rows = c.execute(
        "SELECT id, lane, received_at, state FROM message WHERE finished_at IS NULL AND state IN ('ready', 'leased')"
        f" AND task = 'question'{where} ORDER BY +id",  # by id itself, SQLite reads the finished ones too
        who,
    ).fetchall()
    found = [Waiting(row, lane, at, state == State.LEASED) for row, lane, at, state in rows]
    if message is not None and found and not found[0].running:
        (ahead,) = c.execute(
            "SELECT count(*) FROM message WHERE finished_at IS NULL AND state = 'ready' AND received_at < ?"
            " AND task = 'question'",
            (found[0].received_at,),
        ).fetchone()
        found[0] = replace(found[0], ahead=ahead)
    return found


def depth(c: Connection, *, now: float) -> Depth:
    rows = c.execute(
        "SELECT state, count(*), min(received_at) FROM message WHERE finished_at IS NULL GROUP BY state"
    ).fetchall()
    (dead,) = c.execute("SELECT count(*) FROM message WHERE state = 'dead'").fetchone()
    oldest = min((at for _, _, at in rows), default=now)
    return Depth({state: count for state, count, _ in rows}, max(0.0, now - oldest), dead)


def find(c: Connection, robot: str, wanted: str, code: str) -> Row | None:
    """By code or by DingTalk's msgId; the newest where two messages share a code."""
    found = c.execute(
        f"SELECT {_COLUMNS}, body, answer, trail FROM message WHERE code = ? OR (robot = ? AND key = ?)"
        " ORDER BY id DESC LIMIT 1",
        (code, robot, wanted),
    ).fetchone()
    if found is None:
        return None
    *values, body, answer, trail = found
    return replace(_row(values), question=_question(body), answer=_answer(answer), steps=tuple(decode_steps(trail)))


def listed(c: Connection, which: Which, limit: int) -> list[Row]:
    """Open ones in order, the others newest first."""
    rows = c.execute(
        f"SELECT {_COLUMNS} FROM message WHERE {_WHERE[which]} ORDER BY {_ORDER[which]} LIMIT ?", (limit,)
    ).fetchall()
    return [_row(row) for row in rows]


def lanes(c: Connection, limit: int) -> list[LaneSeen]:
    """Those with the oldest heads."""
    rows = c.execute(
        "SELECT l.key, m.robot, m.person, m.conversation, m.code, m.state, m.tries,"
        " (SELECT count(*) FROM message w WHERE w.lane = l.key AND w.finished_at IS NULL), m.received_at, l.due"
        " FROM (SELECT key, head, due FROM lane ORDER BY head LIMIT ?) l JOIN message m ON m.id = l.head"
        " ORDER BY l.head",
        (limit,),
    ).fetchall()
    return [LaneSeen(*row) for row in rows]


def retry(c: Connection, row: int, *, now: float, deadline: float | None, trail: str) -> bool:
    """Back into its lane; an answer that could not be delivered is sent from the part that failed.

    That part is marked where it may have arrived. tries goes on counting. False where it is not ended, or its text
    is forgotten.
    """
    _lock(c, row)
    found = c.execute(
        "SELECT lane, answer, task, part, uncertain FROM message WHERE id = ? AND finished_at IS NOT NULL"
        f" AND body <> '' AND outcome IN ({', '.join('?' * len(work.RETRYABLE))}) FOR UPDATE",
        (row, *work.RETRYABLE),
    ).fetchone()
    if found is None:
        return False
    lane, answer, task, part, uncertain = found
    again = answer is not None
    c.execute(
        "UPDATE message SET state = ?, outcome = ?, reason = NULL, cause = NULL, finished_at = NULL, crashes = 0,"
        f" tries = tries + 1, answered_at = ?, uncertain = ?, part = ?, deadline_at = ?, {APPEND_TRAIL},"
        " card = CASE WHEN card = 'open' THEN 'left' WHEN card = 'shown' AND NOT ? THEN 'closed' ELSE card END"
        " WHERE id = ?",
        (
            *((State.ANSWERED, _outcome(task, answer), now) if again else (State.READY, None, None)),
            *((bool(uncertain), max(0, part - 1)) if again else (False, 0)),
            *(deadline, trail, again, row),
        ),
    )
    intake.open_lane(c, lane, row, due=now, express=task != Task.QUESTION)
    return True


def _lock(c: Connection, row: int) -> None:
    """Its lane first, as everybody does."""
    if found := c.execute("SELECT lane FROM message WHERE id = ?", (row,)).fetchone():
        work.lock_lane(c, found[0])


def _outcome(task: str, answer: str) -> Outcome:
    """What the message was to end as, before its answer could not be delivered."""
    if task in (Task.COMMAND, Task.BUSY, Task.LIMITED):
        return Outcome(task)
    try:
        kept = decode_answer(answer)
    except work.UNREADABLE:
        return Outcome.ANSWERED
    return Outcome.REFUSED if kept.refused else Outcome.PARTIAL if kept.partial else Outcome.ANSWERED


def drop(c: Connection, row: int, *, now: float, wipe: bool, tell: bool, trail: str) -> Message | None:
    """End it; with `tell` its asker hears of it first. Whoever works on it loses the lease, and sends nothing more.

    The message, where it has ended by this.
    """
    _lock(c, row)
    found = c.execute("SELECT lane, state, finished_at FROM message WHERE id = ? FOR UPDATE", (row,)).fetchone()
    if found is None:
        return None
    lane, state, finished_at = found
    if finished_at is not None:
        c.execute(
            f"UPDATE message SET state = 'done', body = '', answer = NULL, {APPEND_TRAIL} WHERE id = ?", (trail, row)
        )
        return None
    reason = "dropped by an operator"
    if not tell or state == State.SENDING:
        message = work.message(c, row)
        work.end(c, row, State.DONE, Outcome.CANCELLED, reason, now=now, wipe=wipe, trail=trail)
        work.advance(c, lane, row, now=now)
        return message
    c.execute(
        # Dropped before, its asker may have been told already: that is not forgotten.
        "UPDATE message SET state = 'answered', outcome = 'cancelled', answer = ?, answered_at = ?, part = 0,"
        f" uncertain = uncertain AND coalesce(outcome, '') = 'cancelled', reason = ?, {work.UNSHOWN}, {APPEND_TRAIL}"
        " WHERE id = ?",
        (encode_answer(Answer("")), now, reason, trail, row),
    )
    c.execute(f"UPDATE lane SET {work.FREE}, due = ? WHERE key = ? AND head = ?", (now, lane, row))
    return None


def _row(values: Sequence[Any]) -> Row:
    named = dict(zip(_NAMES, values, strict=True))
    texts = {name: named[name] or "" for name in ("outcome", "reason", "cause", "route", "owner")}
    return Row(**named | texts | {name: bool(named[name]) for name in ("uncertain", "text_kept")})


def _question(body: str) -> str:
    try:
        return str(json.loads(body)["text"]) if body else ""
    except work.UNREADABLE:
        return "?"


def _answer(answer: str | None) -> str:
    try:
        return decode_answer(answer).text if answer else ""
    except work.UNREADABLE:
        return "?"
