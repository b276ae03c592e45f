"""What was found goes into the chat: part by part, on the card or below it; or later, or never, and that is kept."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import structlog

from dingbridge.answerer import Found
from dingbridge.dispatch import Pauses
from dingbridge.errors import BridgeError, ReplyError, ReplyPaced, ReplyUnsafe, StoreError
from dingbridge.lease import Lease, keep
from dingbridge.model import Answer, CardState, Message, Outcome, State, Task
from dingbridge.setup import Card
from dingbridge.shape import Shape

log = structlog.get_logger("dingbridge.bridge")

_JUDGED = (Outcome.ANSWERED, Outcome.PARTIAL)


class Sending:
    """ended: told of each message that was given back or closed here. left: of what is left behind of those closed.

    unreached: told of messages of our own that nobody will read.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        pauses: Pauses,
        ended: Callable[[Lease], None],
        left: Callable[[Lease, Found], None],
        unreached: Callable[[Message], Awaitable[None]],
    ) -> None:
        self._clock = clock
        self._pauses = pauses
        self._ended = ended
        self._left = left
        self._unreached = unreached

    async def send(self, lease: Lease, found: Found, *, doubt: bool = False) -> int | None:
        """Send what has not been sent; the number of parts, or None where it was given back or given up.

        doubt: the first part may stand on the card.
        """
        if found.answer is None:
            await self._end_card(lease, found)
            return 0
        delivery, replies = lease.delivery, lease.setup.replies
        parts = await self._composed(lease, found)
        first = delivery.part if delivery.state is State.SENDING else delivery.part + 1
        for part in parts[first - 1 :]:
            uncertain = (delivery.uncertain or doubt) and part.number == first
            if part.number > 1 or delivery.answer is not None:  # a new answer was kept as sending its first part
                await lease.sending(part.number, uncertain=uncertain)
            try:
                if part.number == 1 and lease.card_state is CardState.SHOWN:
                    pass  # before a restart
                elif part.number == 1 and lease.card is not None:
                    if (shown := await self._on_card(lease, found, part)) is not CardState.SHOWN:
                        return await self.send(lease, found, doubt=shown is CardState.OPEN)
                elif not await replies.send(delivery.message, part, uncertain=uncertain):
                    log.warning("reply.outcome_unknown", code=lease.code, part=part.number)
            except ReplyUnsafe as error:
                await self.replace(lease, error, found)
                return None
            except ReplyError as error:
                await self._unsent(lease, found, error, sent=part.number - 1, uncertain=uncertain)
                return None
        return len(parts)

    async def _composed(self, lease: Lease, found: Found) -> list[Any]:
        replies, answer = lease.setup.replies, found.answer or Answer("")
        shape = self._shape(lease, found)
        if answer.page_of and lease.setup.pages is not None:
            url = await keep(self._pauses.store_s, lease.setup.pages.link, answer.page_of)
            shape = replace(shape, page_url=url)
        parts = await replies.compose(answer, shape)
        if lease.setup.pages is None or found.route is None or not found.route.answer_page:
            return parts
        if not replies.wants_page(answer, parts) or lease.delivery.task is not Task.QUESTION:
            return parts
        try:
            url = await lease.setup.pages.link(lease.delivery.row)
        except StoreError as error:
            log.warning("page.none", code=lease.code, why=error.detail, cause=error.cause)
            return parts
        lease.page_url = url
        return await replies.compose(answer, replace(shape, page_url=url))

    def _shape(self, lease: Lease, found: Found) -> Shape:
        """What is offered with an answer depends on who asks where, and on what may come of it."""
        setup, delivery, route = lease.setup, lease.delivery, found.route
        texts, answer = setup.texts_of(route), found.answer or Answer("")
        if delivery.task is not Task.QUESTION:
            return Shape(texts, question=answer.question)
        judged = found.outcome in _JUDGED and setup.quick_replies != "off"
        buttons = (judged or found.outcome is Outcome.REFUSED) and setup.quick_replies == "buttons"
        group = delivery.message.conversation.is_group
        return Shape(
            texts,
            question=answer.question or delivery.message.text,
            code=lease.code,
            card=lease.card_state in (CardState.OPEN, CardState.SHOWN),
            buttons=buttons and not group,
            commands=judged and (group or setup.quick_replies == "commands"),
            deep=_deeper(found),
            human=bool(route and route.contact),
            hint=answer.first,
            examples=route.examples if route else (),
        )

    async def _on_card(self, lease: Lease, found: Found, part: Any) -> CardState:
        """The first part ends the card. Where it is not SHOWN the chat has to show it; OPEN: perhaps again."""
        card = lease.card
        assert card is not None
        try:
            await card.finish(part.text, params=lease.card_params(deep=_deeper(found)), link_hosts=part.link_hosts)
        except ReplyPaced:
            raise
        except ReplyUnsafe:
            await self._leave_card(lease, card, lease.setup.texts_of(found.route)("unsafe"))
            raise
        except ReplyError as error:
            log.warning("card.left", code=lease.code, why=error.detail, cause=error.cause)
            says = await self._leave_card(lease, card, lease.setup.texts_of(found.route)("card_below"))
            if error.certain or says is CardState.CLOSED:
                return CardState.CLOSED
            if says is not CardState.SHOWN:
                return CardState.OPEN
        await lease.card_is(CardState.SHOWN)
        return CardState.SHOWN

    async def _leave_card(self, lease: Lease, card: Card, text: str) -> CardState:
        """What it says then. Kept before it is said: who found it said after a crash would take it for the answer."""
        await lease.card_is(CardState.LEFT)
        says = await card.fail(text)
        if says in (CardState.CLOSED, CardState.SHOWN):
            await lease.card_is(CardState.CLOSED)
        return says

    async def _end_card(self, lease: Lease, found: Found) -> None:
        """A handler has answered by itself: what it showed last stays."""
        if lease.card is None:
            return
        text = lease.card.newest or lease.setup.texts_of(found.route)("card_below")
        try:
            await lease.card.finish(text, params=lease.card_params(), link_hosts=frozenset())
        except ReplyError as error:
            log.warning("card.left", code=lease.code, why=error.detail, cause=error.cause)
            return  # it is tried again when its message has ended
        await lease.card_is(CardState.SHOWN)

    async def _unsent(self, lease: Lease, found: Found, error: ReplyError, *, sent: int, uncertain: bool) -> None:
        """Try to send later; past its time, or where no rung will ever take it, the message is undeliverable."""
        delivery = lease.delivery
        now = self._clock()
        until = max(delivery.deadline_at or 0.0, (delivery.answered_at or now) + self._pauses.send_s)
        if error.retryable and now < until:
            delay_s = error.retry_after or self._pauses.delay_s(delivery.tries)
            log.info("reply.later", code=lease.code, why=error.detail, cause=error.cause, delay_s=delay_s)
            unknown = uncertain or not error.certain
            await self.give_back(lease, delay_s, error, sent=sent, uncertain=unknown)
            return
        await self._bury(lease, error, found, uncertain=uncertain or not error.certain)

    async def replace(self, lease: Lease, error: BridgeError, found: Found | None = None) -> None:
        """The answer cannot be sent as it is: a failure text takes its place, once.

        Not that of a drop: a failure text may have gone out before it, and would come again unmarked.
        """
        if lease.delivery.outcome in (Outcome.FAILED, Outcome.CANCELLED):
            await self._bury(lease, error, found)
            return
        answer = Answer(lease.texts.failure(error.public, lease.code))
        route = found.route if found else None
        await lease.answered(answer, Found(answer, Outcome.FAILED, route, error.detail, error.cause))
        await self.give_back(lease, 0.0, error)

    async def _bury(self, lease: Lease, error: BridgeError, found: Found | None, *, uncertain: bool = False) -> None:
        if lease.delivery.task is Task.TELL:
            await self._unreached(lease.delivery.message)
        route, handler_s = (found.route, found.handler_s) if found else (None, None)
        given_up = Found(None, Outcome.UNDELIVERABLE, route, error.detail, error.cause, handler_s)
        if await lease.bury(given_up, uncertain=uncertain):
            self._ended(lease)
        self._left(lease, given_up)

    async def give_back(
        self, lease: Lease, delay_s: float, error: BridgeError, *, sent: int = 0, uncertain: bool = False
    ) -> None:
        await lease.later(delay_s, error, sent=sent, uncertain=uncertain)
        self._ended(lease)


def _deeper(found: Found) -> bool:
    """Whether there is a deeper answer than this one."""
    route, answer = found.route, found.answer
    return bool(route and route.deep_workspace and answer and answer.origin != route.deep_workspace)
