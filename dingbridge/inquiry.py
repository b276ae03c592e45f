"""A question on its way to an answer: its card, what was said before, what was sent along, the routes."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace

from dingbridge import commands, questions
from dingbridge.answerer import Ask, Found
from dingbridge.desk import Desk
from dingbridge.lease import Lease
from dingbridge.model import Answer, Attachment, CardState, Message, Outcome
from dingbridge.notices import Notices, Progress
from dingbridge.setup import Setup
from dingbridge.texts import NOTICE, UNSAID


class Inquiry:
    """What has to be known before the routes are asked."""

    def __init__(self, desk: Desk, notices: Notices) -> None:
        self._desk = desk
        self._notices = notices

    async def open_card(self, lease: Lease, *, anew: bool = True) -> None:
        """Kept before it is made, so that whatever becomes of us it will not wait for ever.

        anew: also where there is none yet.
        """
        delivery, setup = lease.delivery, lease.setup
        if setup.cards is None:
            return
        if delivery.card is CardState.OPEN:
            lease.card = setup.cards.resume(lease.track, lease.code)
        elif anew and delivery.card is CardState.NONE and setup.cards.wanted(delivery.message):
            routes = setup.answerer.matching(delivery.message)
            everyone = all(not route.users and not route.conversations for route in routes)
            await lease.card_is(CardState.OPEN)
            lease.card = await setup.cards.open(
                delivery.message, lease.texts(NOTICE), forward=everyone, params=lease.card_params()
            )
            if lease.card is None:
                await lease.card_is(CardState.CLOSED)  # nor will one be tried again, which would seem to be there
        if lease.card is not None:  # which is the sign of life
            await self._notices.settle(delivery.row)

    async def answer(self, lease: Lease) -> Found:
        """Raises BridgeError with the route that it happened on."""
        delivery, setup, message = lease.delivery, lease.setup, lease.delivery.message
        known = await lease.background()
        command = commands.of(message)
        deep = command is not None and command[0].asks
        if command is not None and deep:
            message = await self._deeper(message, command[1])
            if not questions.is_question(message):
                return Found(Answer(lease.texts("nothing_told")), Outcome.COMMAND)
        show = lease.card.update if lease.card is not None else None
        async with AsyncExitStack() as stack:
            files: tuple[Attachment, ...] = ()
            if message.files and setup.files is not None:
                files = await stack.enter_async_context(setup.files.hold(message))
            ask = Ask(message, delivery.lane, lease.texts, known.turns, files, deep=deep, on_text=show)
            found = await setup.answerer.answer(ask, Progress(self._notices, delivery.row, show))
        if deep and found.outcome is Outcome.UNROUTED:
            return Found(Answer(lease.texts("deep_none")), Outcome.COMMAND)
        if found.answer is None:
            return found
        asked = message.text if deep else ""
        first = known.first and not found.answer.refused  # a refusal says what else can be done by itself
        return replace(found, answer=replace(found.answer, first=first, question=asked))

    async def _deeper(self, message: Message, argument: str) -> Message:
        """With the question that is to be asked deeper: a new one, one that is named, or the last one; or none."""
        code, rest = commands.coded(argument)
        told = await self._desk.told(message, code) if code or not argument else None
        if told is not None:
            said = "\n".join(filter(None, (told.question, rest)))
            return replace(message, text=said, quoted=told.message.quoted, files=told.message.files)
        # A word may look like a code; an answer's that may not be read here, or is gone, is no question.
        a_code = code and not rest and any(map(str.isdigit, argument))
        return replace(message, text="" if a_code else argument)


def worded(found: Found, setup: Setup) -> Found:
    """Nobody is left without words: not without a route, and not by a refusal that has none, or a foreign one."""
    texts = setup.texts_of(found.route)
    if found.outcome is Outcome.UNROUTED:
        return replace(found, answer=Answer(texts("unrouted")))
    answer = found.answer
    if answer is not None and (not answer.text.strip() or (answer.refused and answer.text.strip() == UNSAID)):
        return replace(found, answer=replace(answer, text=texts("refused")))
    return found
