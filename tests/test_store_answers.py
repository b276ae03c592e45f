"""Answers that were given, on both databases: turns, newcomers, judgements, colleagues, cards left open."""

from __future__ import annotations

from dataclasses import replace

from dingbridge.model import Answer, CardState, Outcome, Source, Task, Turn, Verdict
from dingbridge.store.answers import Handover
from dingbridge.store.intake import Limits
from dingbridge.store.store import Store
from tests.places import Place
from tests.stores import UNLIMITED, Clock, head, message

ANSWER = Answer("七天", (Source("假期"),), origin="handbook", first=True)


async def answered(store: Store, key: str, answer: Answer = ANSWER, outcome: Outcome = Outcome.ANSWERED) -> None:
    await store.put(message(key), Task.QUESTION, fresh=False)
    delivery = await head(store)
    await store.answered(delivery, answer, outcome, route="kb", sending=True)
    await store.done(delivery, outcome)


async def test_turns_are_those_before_in_the_same_context(place: Place) -> None:
    """The last three that were answered, oldest first; asked again it stays the same; whoever was answered is known."""
    clock = Clock()
    async with place.opened(clock) as store:
        for number in range(5):
            outcome = Outcome.FAILED if number == 3 else Outcome.ANSWERED
            await answered(store, f"m{number}", replace(ANSWER, text=f"答{number}"), outcome)
        placed = await store.put(message("m9"), Task.QUESTION, fresh=False)
        known = await store.answers.background(placed.lane, placed.row, message("m9"))
        assert known.turns == tuple(Turn(f"问题 m{n}", f"答{n}", "handbook") for n in (1, 2, 4))
        assert not known.first
        assert (await store.answers.background(placed.lane, placed.row, message("x", person="u2"))).first
        fresh = await store.put(message("m10"), Task.COMMAND, fresh=True)
        assert not fresh.duplicate
        after = await store.put(message("m11"), Task.QUESTION, fresh=False)
        assert (await store.answers.background(after.lane, after.row, message("m11"))).turns == ()


async def test_contexts_of_a_group_and_pauses(place: Place) -> None:
    """With one context a group has one lane; after the pause another one begins."""
    clock = Clock()
    async with place.opened(clock, replace(UNLIMITED, by_group=True, idle_s=60.0)) as store:
        assert isinstance(store.limits, Limits)
        lanes = []
        for key, person, wait_s in (("a", "u1", 0.0), ("b", "u2", 59.0), ("c", "u1", 59.0), ("d", "u1", 61.0)):
            clock.tick(wait_s)
            lanes.append((await store.put(message(key, person=person), Task.QUESTION, fresh=False)).lane)
    assert lanes[0] == lanes[1] == lanes[2] != lanes[3]


async def test_one_judgement_a_person_and_answer(place: Place) -> None:
    """The last one counts, its reason stays until there is another; question, answer and route are kept with it."""
    async with place.opened(Clock()) as store:
        await answered(store, "m1")
        told = await store.answers.find("ding1", message("m1").code)
        assert told is not None
        vote = store.answers.vote
        assert await vote(told, "u1", Verdict.BAD, "太短") is None
        assert await vote(told, "u1", Verdict.GOOD) is Verdict.BAD
        assert await vote(told, "u2", Verdict.BAD) is None
        assert place.rows("person, verdict, comment, route, question", "vote") == [
            ("u1", "good", "太短", "kb", "问题 m1"),
            ("u2", "bad", "", "kb", "问题 m1"),
        ]


async def test_handed_over_once_and_closed_once_with_what_is_to_be_said(place: Place) -> None:
    """Each is one transaction with the message that tells of it, which waits to be sent over a restart."""
    clock = Clock()
    async with place.opened(clock) as store:
        await answered(store, "m1")
        told = await store.answers.last(message("x"))
        assert told is not None
        contact = replace(message("m1:contact", person="boss", conversation="person:boss"), text="")
        for first in (True, False):
            assert await store.answers.hand_over(told, message("x"), contact, Answer("请处理")) is first
    async with place.opened(clock) as store:
        (delivery,) = (await store.lease(9, express=True)).deliveries
        assert (delivery.task, delivery.answer, delivery.message.sender.id) == (Task.TELL, Answer("请处理"), "boss")
        await store.sending(delivery, 1)
        await store.done(delivery, Outcome.COMMAND)
        handover = await store.answers.handed_over("ding1", message("m1").code)
        assert isinstance(handover, Handover)
        assert (handover.asked.text, handover.contact, handover.closed) == ("问题 m1", "boss", False)
        to = replace(handover.asked, id="m1:closed", text="")
        for first in (True, False):
            assert await store.answers.close_handover(handover, "十天", to, Answer("有答复")) is first
        (delivery,) = (await store.lease(9, express=True)).deliveries
        assert (delivery.message.conversation.id, delivery.answer) == ("c1", Answer("有答复"))
        assert (await store.answers.handed_over("ding1", message("m1").code)).closed  # type: ignore[union-attr]


async def test_a_notice_is_looked_for_once_its_question_has_ended(place: Place) -> None:
    """Who has shown one may be another daemon: the row says so, and of who was told nothing that there was none."""
    async with place.opened(Clock()) as store:
        for key in ("m1", "m2"):
            await store.put(message(key, person=key))
        told, untold = (await store.lease(9)).deliveries
        assert await store.claim_notice(told.row)
        assert not await store.answers.noticed(told.row)
        for delivery in (told, untold):
            await store.done(delivery, Outcome.FAILED)
        assert [await store.answers.noticed(one.row) for one in (told, untold)] == [True, False]


async def test_cards_that_were_left_open(place: Place) -> None:
    """Those of ended messages only; and who has a card that says so gets no notice."""
    async with place.opened(Clock()) as store:
        placed = await store.put(message("m1"), Task.QUESTION, fresh=False)
        delivery = await head(store)
        await store.card(delivery, CardState.OPEN)
        assert await store.claim_notice(placed.row) is None
        assert await store.answers.open_cards(9) == []
        await store.cancel(message("x"), before=99)
        (left,) = await store.answers.open_cards(9)
        assert (left.row, left.robot, left.key, left.outcome) == (placed.row, "ding1", "m1", Outcome.CANCELLED)
        await store.answers.card(placed.row, CardState.CLOSED)
        assert await store.answers.open_cards(9) == []
