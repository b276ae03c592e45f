"""What people may do with answers that were given: see passages, judge, ask deeper, hand over; and what waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from dingbridge import markup, passages
from dingbridge.commands import Place
from dingbridge.errors import StoreError
from dingbridge.lease import keep
from dingbridge.model import (
    Answer,
    CardState,
    Conversation,
    ConversationKind,
    Message,
    MessageKind,
    Outcome,
    Person,
    Press,
    Told,
    Verdict,
    card_track,
    code_of_track,
    trace_code,
)
from dingbridge.router import judge
from dingbridge.setup import Setup
from dingbridge.store.store import Store
from dingbridge.texts import Texts

SUGGESTED = 5
NAME_CHARS = 60
ASKED_CHARS = 2_000  # of a question, where it is told to somebody
ANSWER_CHARS = 20_000
TO_CONTACT = ":contact"  # behind the msgId of what is handed over
CARDS = 20  # closed in one go
# Buttons that stand for a command of that name, and what is said where there is nothing behind one.
_STANDS_FOR = {"deep": "deep_none", "full": "no_page", "human": "no_contact"}
CARD_MADE_S = 15.0  # a card that is not there may still be on its way
CARD_TRIED_S = 300.0
_LAST_WORDS = {
    Outcome.CANCELLED: "card_cancelled",
    Outcome.FAILED: "card_ended",
    Outcome.DEAD: "card_ended",
    Outcome.UNDELIVERABLE: "card_ended",
}


class Desk:
    """setup: the one in force. cancelled: told of each question that its asker took back. counted: of what happened.

    card_ended: set where a message has ended that may have an open card.
    """

    def __init__(
        self,
        store: Store,
        *,
        setup: Callable[[], Setup],
        clock: Callable[[], float],
        pause_s: float,
        cancelled: Callable[[dict[int, Message | None], Message], Awaitable[None]],
        wake: Callable[[], None],
        counted: Callable[[str, str], None],
    ) -> None:
        self._store = store
        self._setup = setup
        self._clock = clock
        self._pause_s = pause_s
        self._cancelled = cancelled
        self._wake = wake
        self._counted = counted
        self.card_ended = asyncio.Event()

    def _texts(self, route: str) -> Texts:
        setup = self._setup()
        return setup.texts_of(setup.answerer.named(route))

    def offers(self, message: Message) -> frozenset[str]:
        setup = self._setup()
        routes, every = setup.answerer.matching(message), setup.answerer.routes
        alone = not message.conversation.is_group
        found = {
            "deep": any(route.deep_workspace for route in routes),
            "page": setup.pages is not None and any(route.answer_page for route in routes),
            "contact": any(route.contact for route in routes),
            "handed": alone and any(route.contact == message.sender.id for route in every),
        }
        return frozenset(name for name, offered in found.items() if offered)

    def examples(self, message: Message) -> tuple[str, ...]:
        routes = self._setup().answerer.matching(message)
        return tuple(dict.fromkeys(one for route in routes for one in route.examples))[:SUGGESTED]

    async def cancel(self, message: Message, *, before: int) -> int:
        cancelled = await keep(self._pause_s, self._store.cancel, message, before=before)
        await self._cancelled(cancelled, message)
        return len(cancelled)

    async def waiting(self, message: Message) -> list[Place]:
        now = self._clock()
        waiting = await keep(self._pause_s, self._store.waiting, message)
        return [Place(max(0.0, now - one.received_at), one.ahead, one.running) for one in waiting]

    async def calm(self, row: int, message: Message, setup: Setup | None = None) -> None:
        """No face on a question that has ended, whoever has shown it. setup: that it was answered by."""
        emotions = (setup or self._setup()).emotions
        with suppress(StoreError):
            if emotions is not None and await self._store.answers.noticed(row):
                await emotions.recall(message)

    async def close_cards(self) -> None:
        """Those of messages that have ended without their last word on them. Raises StoreError."""
        answers = self._store.answers
        for one in await answers.open_cards(CARDS):
            says, age_s = CardState.CLOSED, self._clock() - one.ended_at
            if (cards := self._setup().cards) is not None:  # another one after a reload
                card = cards.resume(card_track(one.robot, one.key), trace_code(one.robot, one.key))
                says = await card.fail(self._setup().texts(_LAST_WORDS.get(one.outcome, "card_below")))
            if says is CardState.OPEN and age_s < CARD_TRIED_S:
                return  # in the next go; the others would fare no better now
            if says is not CardState.NONE or age_s >= CARD_MADE_S:
                await answers.card(one.row, CardState.CLOSED)

    # -- answers that were given

    async def told(self, message: Message, code: str) -> Told | None:
        answers = self._store.answers
        if not code:
            return await keep(self._pause_s, answers.last, message)
        told = await keep(self._pause_s, answers.find, message.robot, code)
        return told if told is not None and self._may_read(told, message) else None

    def _may_read(self, told: Told, message: Message) -> bool:
        """Where it was given; to others only in a group, and only as long as its route is open there."""
        where = told.message.conversation
        if where.id != message.conversation.id:
            return False
        if told.message.sender.id == message.sender.id:
            return True
        route = self._setup().answerer.named(told.route)
        return where.is_group and route is not None and judge(route, replace(message, conversation=where)).matches

    async def judge(self, message: Message, told: Told, verdict: Verdict, comment: str) -> None:
        await keep(self._pause_s, self._store.answers.vote, told, message.sender.id, verdict, comment)
        self._counted("feedback", verdict)

    def passage(self, told: Told, number: int) -> Answer:
        said = passages.passage(told.answer, number, self._texts(told.route))
        return replace(said, question=told.question)

    def has_page(self, told: Told) -> bool:
        return not self._lacking("full", told)

    def _lacking(self, action: str, told: Told) -> str:
        """The text's key for who presses a button with nothing behind it: a template has one set for all routes."""
        setup = self._setup()
        route = setup.answerer.named(told.route)
        there = {
            "deep": bool(route and route.deep_workspace),
            "full": bool(route and route.answer_page) and setup.pages is not None,
            "human": bool(route and route.contact),
        }
        return "" if there[action] else _STANDS_FOR[action]

    # -- to a colleague and back

    async def hand_over(self, message: Message, told: Told) -> str:
        setup = self._setup()
        route = setup.answerer.named(told.route)
        if route is None or not route.contact:
            return "no_contact"
        texts = setup.texts_of(route)
        where = message.conversation.title if message.conversation.is_group else ""
        said = texts(
            "handed_over",
            who=_named(message.sender),
            where=markup.phrase(where, NAME_CHARS) or texts("one_to_one"),
            question=markup.said(told.question, ASKED_CHARS),
            answer=markup.quote_of(told.answer.text or texts("refused"), ANSWER_CHARS),
            code=told.code,
        )
        contact = _to_person(message, route.contact, f"{told.message.id}{TO_CONTACT}:{message.id}")
        opened = await keep(self._pause_s, self._store.answers.hand_over, told, message, contact, Answer(said))
        self._wake()
        if opened:
            self._counted("handover", "opened")
        return "hand_over_done" if opened else "hand_over_before"

    async def close(self, message: Message, code: str, reply: str) -> str:
        handover = await keep(self._pause_s, self._store.answers.handed_over, message.robot, code)
        if handover is None or handover.contact != message.sender.id:
            return "handover_unknown"
        if handover.closed:
            return "handover_closed_before"
        asked, texts = handover.asked, self._texts(handover.route)
        key = "handover_reply" if reply else "handover_solved"
        said = texts(key, question=markup.said(asked.text, ASKED_CHARS), reply=reply, who=_named(message.sender))
        to = replace(asked, id=f"{asked.id}:closed", text="", files=())
        closed = await keep(self._pause_s, self._store.answers.close_handover, handover, reply, to, Answer(said))
        self._wake()
        if closed:
            self._counted("handover", "closed")
        return "handover_closed" if closed else "handover_closed_before"

    async def unreached(self, message: Message) -> None:
        """A message of ours will never arrive: who waits for a colleague behind it is told, and may try again."""
        key, found, _ = message.id.partition(TO_CONTACT)
        handover = await keep(
            self._pause_s, self._store.answers.handed_over, message.robot, trace_code(message.robot, key)
        )
        if not found or handover is None or handover.closed:
            return
        texts, asked = self._texts(handover.route), handover.asked
        said = texts.failure("handover_unreached", message.code, question=markup.said(asked.text, ASKED_CHARS))
        await keep(
            self._pause_s,
            self._store.answers.tell,
            replace(asked, id=f"{message.id}:unreached", text="", files=()),
            Answer(said),
        )
        self._counted("handover", "unreached")
        self._wake()

    # -- a button was pressed

    async def press(self, press: Press) -> tuple[dict[str, str], Message | None]:
        """What the presser's card shows from now on; and a message in their name, where the button stands for one.

        Raises StoreError: then nothing was kept.
        """
        code, answers = code_of_track(press.track), self._store.answers
        told = await answers.find(self._setup().robot, code) if code else None
        if told is None or card_track(told.message.robot, told.message.id) != press.track:
            return {"note": self._setup().texts("press_gone")}, None
        texts = self._texts(told.route)
        presser = replace(told.message, sender=_presser(told, press.person), quoted="", files=())
        where = told.message.conversation
        elsewhere = where.is_group and press.chat not in ("", where.id)  # a card may have been forwarded
        if elsewhere or not self._may_read(told, presser):
            return {"note": texts("press_not_yours")}, None
        if press.action in tuple(Verdict):
            verdict = Verdict(press.action)
            await answers.vote(told, press.person, verdict)
            self._counted("feedback", verdict)
            return {"vote": verdict.value, "note": texts(f"thanks_{verdict}")}, None
        if press.action not in _STANDS_FOR:
            return {}, None
        if lacking := self._lacking(press.action, told):
            return {"note": texts(lacking)}, None
        key = f"{press.track}:{press.action}:{press.person}"  # pressed twice it is asked once
        said = replace(presser, id=key, text=f"/{press.action} {code}", sent_at=datetime.now(UTC))
        return {"note": texts(f"press_{press.action}")}, said


def _named(person: Person) -> str:
    return markup.phrase(person.nick, NAME_CHARS) or markup.phrase(person.id, NAME_CHARS)


def _presser(told: Told, person: str) -> Person:
    return told.message.sender if person == told.message.sender.id else Person(person, person)


def _to_person(by: Message, staff_id: str, key: str) -> Message:
    """A message of our own to somebody, one to one."""
    return Message(
        id=key,
        robot=by.robot,
        conversation=Conversation(f"person:{staff_id}", ConversationKind.SINGLE),
        sender=Person(staff_id, staff_id),
        kind=MessageKind.TEXT,
        text="",
        sent_at=by.sent_at,
    )
