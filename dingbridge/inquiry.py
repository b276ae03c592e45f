"""A question on its way to an answer: its card, what was said before, what was sent along, the routes."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace

from dingbridge import commands
from dingbridge.answerer import Ask, Found
from dingbridge.desk import Desk
from dingbridge.lease import Lease
from dingbridge.model import Answer, Attachment, CardState, Message, Outcome, code_of_track
from dingbridge.notices import Notices, Progress
from dingbridge.setup import Setup
from dingbridge.store.store import Store
from dingbridge.texts import NOTICE, UNSAID


class Inquiry:
    """What has to be known before the routes are asked."""

    def __init__(self, store: Store, desk: Desk, notices: Notices) -> None:
        self._store = store
        self._desk = desk
        self._notices = notices

    async def open_card(self, lease: Lease) -> None:
        """Kept before it is made, so that whatever becomes of us it will not wait for ever."""
        delivery, setup = lease.delivery, lease.setup
        if setup.cards is None:
            return
        if delivery.card is CardState.OPEN:
            lease.card = setup.cards.resume(lease.track, lease.code)
        elif delivery.card is CardState.NONE and setup.cards.available:
            routes = setup.answerer.matching(delivery.message)
            everyone = all(not route.users and not route.conversations for route in routes)
            await lease.card_is(CardState.OPEN)
            lease.card = await setup.cards.open(
                delivery.message, setup.texts(NOTICE), forward=everyone, params=lease.card_params()
            )
            if lease.card is None:
                await lease.card_is(CardState.CLOSED)  # nor will one be tried again, which would seem to be there
        if lease.card is not None:  # which is the sign of life
            await self._notices.settle(delivery.row)

    async def answer(self, lease: Lease) -> Found:
        """Raises BridgeError with the route that it happened on."""
        delivery, setup, message = lease.delivery, lease.setup, lease.delivery.message
        known = await self._store.answers.background(delivery.lane, delivery.row, message)
        command = commands.of(message)
        deep = command is not None and command[0].asks
        if command is not None and deep:
            message = await self._deeper(message, command[1])
            if not message.text:
                return Found(Answer(setup.texts("nothing_told")), Outcome.COMMAND)
        show = lease.card.update if lease.card is not None else None
        async with AsyncExitStack() as stack:
            files: tuple[Attachment, ...] = ()
            if message.files and setup.files is not None:
                files = await stack.enter_async_context(setup.files.hold(message))
            ask = Ask(message, delivery.lane, setup.texts, known.turns, files, deep=deep, on_text=show)
            found = await setup.answerer.answer(ask, Progress(self._notices, delivery.row, show))
        if deep and found.outcome is Outcome.UNROUTED:
            return Found(Answer(setup.texts("deep_none")), Outcome.COMMAND)
        if found.answer is None:
            return found
        asked = message.text if deep else ""
        return replace(found, answer=replace(found.answer, first=known.first, question=asked))

    async def _deeper(self, message: Message, argument: str) -> Message:
        """With the question that is to be asked deeper: a new one, one that is named, or the last one; or none."""
        code, rest = commands.coded(argument)
        told = await self._desk.told(message, code) if code or not argument else None
        if told is None:  # what looks like a code may be a word, but not where a button has said it
            return replace(message, text="" if code and code_of_track(message.id.partition(":")[0]) else argument)
        return replace(message, text="\n".join(filter(None, (told.question, rest))))


def worded(found: Found, setup: Setup) -> Found:
    """Nobody is left without words: not without a route, and not by a refusal that has none, or a foreign one."""
    texts = setup.texts_of(found.route)
    if found.outcome is Outcome.UNROUTED:
        return replace(found, answer=Answer(texts("unrouted")))
    answer = found.answer
    if answer is not None and (not answer.text.strip() or (answer.refused and answer.text.strip() == UNSAID)):
        return replace(found, answer=replace(answer, text=texts("refused")))
    return found
