"""Answers that were given: what a context has said, whom one has met, what is thought of it, and who takes over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dingbridge.model import Answer, CardState, Message, Outcome, State, Task, Told, Turn, Verdict
from dingbridge.store import intake, work
from dingbridge.store.codec import decode_answer, decode_message, encode_answer, encode_message
from dingbridge.store.engine import Connection, Engine

TURNS = 3
COLUMNS = "id, robot, key, body, answer, outcome, route, answered_at"
GIVEN = "outcome IN ('answered', 'partial', 'refused') AND body <> '' AND answer IS NOT NULL"
_NOTICED = "SELECT 1 FROM message WHERE id = ? AND finished_at IS NOT NULL AND trail LIKE ?"
_CARD = "UPDATE message SET card = ? WHERE id = ? AND finished_at IS NOT NULL"


@dataclass(frozen=True, slots=True)
class Background:
    """turns: the last ones of the context, oldest first. first: the asker has had no answer before but refusals."""

    turns: tuple[Turn, ...] = ()
    first: bool = False


@dataclass(frozen=True, slots=True)
class OpenCard:
    """An ended message's card that still says that something is to come. key: its msgId. ended_at: store's clock."""

    row: int
    robot: str
    key: str
    outcome: Outcome
    card: CardState
    ended_at: float


@dataclass(frozen=True, slots=True)
class Handover:
    """A question that went to a colleague. asked: by whom and where. reply: empty while it is open."""

    asked: Message
    contact: str
    answer: Answer | None
    route: str
    closed: bool
    reply: str = ""

    @property
    def code(self) -> str:
        return self.asked.code


class Answers:
    """clock: the store's, in seconds. Every method is one durable transaction and raises StoreError."""

    def __init__(self, engine: Engine, clock: Callable[[], float]) -> None:
        self._engine = engine
        self._clock = clock

    async def background(self, lane: str, row: int, message: Message) -> Background:
        """What is known before a question is asked. lane, row: of the question; what came after it does not count."""
        return await self._engine.run(lambda c: _background(c, lane, row, message))

    async def last(self, message: Message) -> Told | None:
        """The newest answer to the message's sender in its conversation."""
        return await self._engine.run(lambda c: _last(c, message))

    async def find(self, robot: str, code: str) -> Told | None:
        """The answer with that code."""
        return await self._engine.run(lambda c: _find(c, robot, code))

    async def vote(self, told: Told, person: str, verdict: Verdict, comment: str = "") -> Verdict | None:
        """One vote a person and answer; what it was before. A comment stays until there is another one."""
        return await self._engine.run(lambda c: judge(c, told, person, verdict, comment, now=self._clock()))

    async def card(self, row: int, state: str) -> None:
        """Said outside of a lease: the message has ended, and not been brought back."""
        await self._engine.run(lambda c: c.execute(_CARD, (state, row)))

    async def open_cards(self, count: int) -> list[OpenCard]:
        rows = await self._engine.run(
            lambda c: c.execute(
                "SELECT id, robot, key, outcome, card, finished_at FROM message WHERE card IN ('open', 'left')"
                " AND finished_at IS NOT NULL ORDER BY id LIMIT ?",
                (count,),
            ).fetchall()
        )
        return [
            OpenCard(row, robot, key, Outcome(outcome), CardState(card), at)
            for row, robot, key, outcome, card, at in rows
        ]

    async def hand_over(self, told: Told, by: Message, contact: Message, said: Answer) -> bool:
        """Keep it, and what is to be said to the contact; False where it has been handed over before.

        by: who asks for it, and where to answer.
        """
        return await self._engine.run(lambda c: _hand_over(c, told, by, contact, said, self._clock()))

    async def handed_over(self, robot: str, code: str) -> Handover | None:
        return await self._engine.run(lambda c: _handed_over(c, robot, code))

    async def tell(self, to: Message, said: Answer) -> None:
        """A message of our own, kept to be sent as an answer is; once for each id."""
        await self._engine.run(lambda c: tell(c, to, said, self._clock()))

    async def close_handover(self, handover: Handover, reply: str, asker: Message, said: Answer) -> bool:
        """Keep how it ended, and what is to be said to the asker; False where it has ended before."""
        return await self._engine.run(lambda c: _close(c, handover, reply, asker, said, self._clock()))

    async def noticed(self, row: int) -> bool:
        """Whether a message that has ended was given the waiting notice, by whichever daemon."""
        found = await self._engine.run(lambda c: c.execute(_NOTICED, (row, '%"name": "notice"%')).fetchone())
        return found is not None


def _background(c: Connection, lane: str, row: int, message: Message) -> Background:
    met = c.execute("SELECT 1 FROM person WHERE robot = ? AND person = ?", (message.robot, message.sender.id))
    found = c.execute(
        f"SELECT {COLUMNS} FROM message WHERE lane = ? AND id < ? AND outcome IN ('answered', 'partial')"
        " AND finished_at IS NOT NULL ORDER BY id DESC LIMIT ?",
        (lane, row, TURNS),
    ).fetchall()
    turns = [
        Turn(told.question, told.answer.text, told.answer.origin)
        for told in map(read, reversed(found))
        if told is not None
    ]
    return Background(tuple(turns), first=met.fetchone() is None)


def meet(c: Connection, message: Message, now: float) -> None:
    """Its sender gets an answer: not a stranger any more."""
    c.execute("INSERT INTO person VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (message.robot, message.sender.id, now))


def _last(c: Connection, message: Message) -> Told | None:
    found = c.execute(
        f"SELECT {COLUMNS} FROM message WHERE person = ? AND robot = ? AND conversation = ? AND task = 'question'"
        f" AND {GIVEN} ORDER BY received_at DESC LIMIT 1",
        (message.sender.id, message.robot, message.conversation.id),
    ).fetchone()
    return read(found) if found else None


def _find(c: Connection, robot: str, code: str) -> Told | None:
    found = c.execute(
        f"SELECT {COLUMNS} FROM message WHERE code = ? AND robot = ? AND task = 'question' AND {GIVEN} LIMIT 1",
        (code, robot),
    ).fetchone()
    return read(found) if found else None


def read(found: tuple[Any, ...]) -> Told | None:
    """None where it cannot be read: of a later version, or damaged."""
    row, robot, key, body, answer, outcome, route, at = found
    try:
        message = decode_message(robot=robot, key=key, body=body, webhook="", webhook_expires=None)
        return Told(row, message, decode_answer(answer), Outcome(outcome), route or "", at or 0.0)
    except work.UNREADABLE:
        return None


def judge(
    c: Connection, told: Told, person: str, verdict: Verdict, comment: str, *, now: float, whole: bool = False
) -> Verdict | None:
    """whole: the comment counts where it is empty, too."""
    message = told.message
    before = c.execute(
        "SELECT verdict FROM vote WHERE robot = ? AND key = ? AND person = ?", (message.robot, message.id, person)
    ).fetchone()
    c.execute(
        "INSERT INTO vote (robot, key, person, code, verdict, comment, voted_at, route, question, answer)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (robot, key, person) DO UPDATE SET"
        " verdict = excluded.verdict, voted_at = excluded.voted_at,"
        " comment = CASE WHEN excluded.comment = '' AND NOT ? THEN vote.comment ELSE excluded.comment END",
        (
            *(message.robot, message.id, person, told.code, verdict, comment, now, told.route),
            *(told.question, encode_answer(told.answer), whole),
        ),
    )
    return Verdict(before[0]) if before else None


# -- to a colleague


def tell(c: Connection, to: Message, said: Answer, now: float) -> None:
    """A message of our own, kept to be sent as an answer is."""
    if c.execute("SELECT 1 FROM message WHERE robot = ? AND key = ?", (to.robot, to.id)).fetchone():
        return
    (row,) = c.execute(
        "INSERT INTO message (robot, key, lane, conversation, person, task, state, body, webhook, received_at, code,"
        " answer, outcome, answered_at) VALUES (?, ?, '', ?, ?, ?, ?, ?, '', ?, ?, ?, ?, ?) RETURNING id",
        (
            *(to.robot, to.id, to.conversation.id, to.sender.id, Task.TELL, State.ANSWERED, encode_message(to), now),
            *(to.code, encode_answer(said), Outcome.COMMAND, now),
        ),
    ).fetchone()
    intake.open_express(c, row, now)


def _hand_over(c: Connection, told: Told, by: Message, contact: Message, said: Answer, now: float) -> bool:
    """Once, but again where what was sent to the contact is known to have failed."""
    where = (told.message.robot, told.message.id)
    kept = c.execute(
        "INSERT INTO handover (robot, key, code, contact, opened_at, reply, route, body, answer, sent)"
        " VALUES (?, ?, ?, ?, ?, '', ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (
            *(*where, told.code, contact.sender.id, now, told.route),
            *(encode_message(_asked(told, by)), encode_answer(told.answer), contact.id),
        ),
    )
    if kept.rowcount != 1:
        again = c.execute(
            "UPDATE handover SET sent = ?, contact = ? WHERE robot = ? AND key = ? AND closed_at IS NULL AND sent IN"
            " (SELECT key FROM message WHERE robot = handover.robot AND key = handover.sent AND state = 'dead')",
            (contact.id, contact.sender.id, *where),
        )
        if again.rowcount != 1:
            return False
    tell(c, contact, said, now)
    return True


def _asked(told: Told, by: Message) -> Message:
    """What was asked, by who wants it handed over."""
    message = told.message
    return Message(message.id, message.robot, by.conversation, by.sender, message.kind, told.question, message.sent_at)


def _handed_over(c: Connection, robot: str, code: str) -> Handover | None:
    found = c.execute(
        "SELECT key, contact, route, body, answer, closed_at, reply FROM handover WHERE code = ? AND robot = ? LIMIT 1",
        (code, robot),
    ).fetchone()
    if found is None:
        return None
    key, contact, route, body, answer, closed_at, reply = found
    try:
        asked = decode_message(robot=robot, key=key, body=body, webhook="", webhook_expires=None)
        return Handover(asked, contact, decode_answer(answer), route, closed_at is not None, reply)
    except work.UNREADABLE:
        return None


def _close(c: Connection, handover: Handover, reply: str, asker: Message, said: Answer, now: float) -> bool:
    closed = c.execute(
        "UPDATE handover SET closed_at = ?, reply = ? WHERE robot = ? AND key = ? AND closed_at IS NULL",
        (now, reply, handover.asked.robot, handover.asked.id),
    )
    if closed.rowcount != 1:
        return False
    tell(c, asker, said, now)
    return True
