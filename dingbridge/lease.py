"""A message in hand. What is known of it must not be lost to a full disk: each write is tried until it is taken."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from dingbridge import trail
from dingbridge.answerer import Found
from dingbridge.errors import BridgeError, StoreError
from dingbridge.model import Answer, CardState, Delivery, Entry, Task, card_track
from dingbridge.setup import Card, Setup
from dingbridge.store.answers import Background
from dingbridge.store.store import Store
from dingbridge.texts import Texts
from dingbridge.trail import Trail

T = TypeVar("T")
K = ParamSpec("K")


async def keep(pause_s: float, write: Callable[K, Awaitable[T]], *args: K.args, **kwargs: K.kwargs) -> T:
    """Write until the store takes it. Raises StoreError where it never will: closed, or the lease is lost."""
    noted = False
    while True:
        try:
            return await write(*args, **kwargs)
        except StoreError as error:
            if not error.retryable:
                raise
            if not noted:
                trail.note("store.failed", why=error.detail, cause=error.cause)
                noted = True
            await asyncio.sleep(pause_s)


class Lease:
    """A delivery, the setup it is worked on by, and its steps since the last write; every write takes them along.

    card: the open one, where there is one. page_url: where the answer can be read whole, "" where that is not offered.
    """

    def __init__(self, store: Store, delivery: Delivery, setup: Setup, *, pause_s: float) -> None:
        self.delivery = delivery
        self.setup = setup
        self.trail = Trail()
        self.card: Card | None = None
        self.card_state = delivery.card
        self.page_url = ""
        self._store = store
        self._pause_s = pause_s

    @property
    def texts(self) -> Texts:
        """Until a route has answered."""
        return self.setup.texts_for(self.delivery.message)

    @property
    def code(self) -> str:
        return self.delivery.message.code

    @property
    def track(self) -> str:
        message = self.delivery.message
        return card_track(message.robot, message.id)

    def late(self, now: float) -> bool:
        """Whether the chat has gone on so long that an answer has to say what it answers."""
        expires = self.delivery.message.webhook_expires
        return self.delivery.task is Task.QUESTION and expires is not None and now >= expires.timestamp()

    async def background(self) -> Background:
        """What is known before it is asked."""
        delivery = self.delivery
        return await self._keep(self._store.answers.background, delivery.lane, delivery.row, delivery.message)

    async def answered(self, answer: Answer, found: Found, *, sending: bool = False) -> None:
        """The answer is found; `sending`: its first part goes out at once."""
        await self._keep(
            self._store.answered,
            self.delivery,
            answer,
            found.outcome,
            reason=found.reason,
            cause=found.cause,
            route=found.route.name if found.route else "",
            sending=sending,
            steps=self.trail.take(),
        )
        if self.card_state is CardState.SHOWN:  # another answer than the one on it
            self.card_state = CardState.CLOSED

    async def sending(self, part: int, *, uncertain: bool) -> None:
        steps = self.trail.take()
        await self._keep(self._store.sending, self.delivery, part, uncertain=uncertain, steps=steps)

    async def card_is(self, state: CardState) -> None:
        """What its card shows from now on; `card` is there as long as it is open."""
        await self._keep(self._store.card, self.delivery, state)
        self.card_state = state
        if state is not CardState.OPEN:
            self.card = None

    def card_params(self, *, deep: bool = False) -> dict[str, str]:
        """The template's variables beside the answer."""
        return {"code": self.code, "page_url": self.page_url, "deep": "true" if deep else ""}

    async def claim_trouble(self) -> bool:
        return await self._keep(self._store.claim_trouble, self.delivery)

    async def later(self, delay_s: float, error: BridgeError, *, sent: int = 0, uncertain: bool = False) -> None:
        self.trail.add("later", delay_s=round(delay_s, 1), why=error.detail, cause=error.cause)
        await self._keep(
            self._store.later,
            self.delivery,
            delay_s,
            sent=sent,
            uncertain=uncertain,
            cause=error.cause,
            steps=self.trail.take(),
        )

    async def close(self, found: Found) -> bool:
        """The end; True where its lane has another message."""
        steps = self.trail.take()
        return await self._keep(
            self._store.done, self.delivery, found.outcome, found.reason, cause=found.cause, steps=steps
        )

    async def bury(self, found: Found, *, uncertain: bool = False) -> bool:
        """The end without success; like `close`. uncertain: what was sent last may have arrived all the same."""
        return await self._keep(
            self._store.dead,
            self.delivery,
            found.outcome,
            found.reason,
            uncertain=uncertain,
            cause=found.cause,
            steps=self.trail.take(),
        )

    def entry(self, found: Found, *, now: float, parts: int = 0, reply_s: float | None = None) -> Entry:
        """What is left behind of it."""
        delivery, route, answer = self.delivery, found.route, found.answer
        again = delivery.tries > 0 or delivery.answer is not None  # then the earlier try is in that time, too
        return Entry(
            message=delivery.message,
            outcome=found.outcome,
            lane=delivery.lane,
            route=route.name if route else "",
            workspace=(answer.origin if answer else "") or (route.workspace if route else ""),
            reason=found.reason,
            cause=found.cause,
            tries=delivery.tries + (answer.tries if answer else 1),
            parts=parts,
            queue_s=None if again else max(0.0, delivery.leased_at - delivery.received_at),
            first_token_s=answer.first_token_s if answer else None,
            handler_s=found.handler_s,
            reply_s=reply_s,
            total_s=max(0.0, now - delivery.received_at),
        )

    async def _keep(self, write: Callable[K, Awaitable[T]], *args: K.args, **kwargs: K.kwargs) -> T:
        return await keep(self._pause_s, write, *args, **kwargs)
