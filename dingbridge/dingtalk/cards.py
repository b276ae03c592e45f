"""Answers as AI cards: opened once before the backend is asked, growing while it writes, always closed.

A card shows 处理中 for ever until a last frame finalizes it or marks it failed, so its id derives from the message:
after a restart the same card is found and closed. Every frame is a billed call, and 20 calls a second are all that
an app has for all its cards. (DingTalk's pages on creating and delivering cards and on streaming updates.)
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

import structlog

from dingbridge import trail
from dingbridge.causes import explain
from dingbridge.dingtalk import card_text
from dingbridge.dingtalk.allowance import Budget, Unlimited
from dingbridge.dingtalk.card_calls import FINALIZED, PAUSE_S, STREAM, Api, CardCalls, Frame
from dingbridge.dingtalk.replies import THREAD_ABOVE
from dingbridge.errors import ReplyError, ReplyPaced, ReplyRejected, ReplyTooLong, ReplyUnavailable, ReplyUncertain
from dingbridge.model import CardState, Message, card_track

log = structlog.get_logger("dingbridge.card")
T = TypeVar("T")

FRAME_INTERVAL_S = 1.0
FRAME_TURN_S = 10.0
FIRST_S = 0.3
SHOW_S = 5.0
OPEN_S = 6.0
FINISH_S = 10.0  # as long as tries for a last frame are begun
TRIES = 3
RETRY_S = 0.5
IDLE_S = 60.0  # who shows nothing new for so long has perhaps been given up
SETTLE_S = 15.0  # a call that has been sent ends sooner
REFUSED_S = 30 * 60.0
# What will not be better the next time.
_LASTING_CAUSES = (
    "card.template",
    "card.permission",
    "card.key",
    "card.busy",
    "chat.quota",
    "chat.ip_list",
    "chat.robot",
)


class Cards:
    """The cards of one robot and setup. clock: seconds that do not jump. interval_s: between frames of one card.

    first_s: before the first one.
    """

    def __init__(
        self,
        openapi: Api,
        *,
        robot: str,
        template_id: str,
        content_key: str = "content",
        budget: Budget | None = None,
        clock: Callable[[], float] = time.monotonic,
        interval_s: float = FRAME_INTERVAL_S,
        first_s: float = FIRST_S,
    ) -> None:
        self.budget: Budget = budget or Unlimited()
        self.calls = CardCalls(
            openapi, robot=robot, template_id=template_id, content_key=content_key, budget=self.budget
        )
        self.clock = clock
        self.interval_s = interval_s
        self.first_s = first_s
        # Frames wait here for the API, one behind the other; a last frame passes them.
        self.queue = asyncio.Lock()
        self._configured = bool(template_id)
        self._refused_until = 0.0
        self._told = ""
        self.closed = False
        self._running: set[Card] = set()
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="card")

    @property
    def available(self) -> bool:
        """Not without a template, nor half an hour after DingTalk said that cards do not work."""
        return self._configured and self.clock() >= self._refused_until

    async def close(self) -> None:
        """No frame is on its way any more; what is open stays so, for a later start to close."""
        self.closed = True
        await asyncio.gather(*(card.settle() for card in list(self._running)))
        self._threads.shutdown(wait=False, cancel_futures=True)

    def wanted(self, message: Message) -> bool:
        """Whether `open` would try; asked before anything is kept or sent."""
        if not self.available:
            return False
        alone, paid = not message.conversation.is_group, self.budget.cards_allowed()
        if paid and (not alone or message.sender.staff_id):
            return True
        trail.note("card.skipped", why="no staff id" if paid else "budget")
        return False

    async def open(self, message: Message, text: str, *, forward: bool, params: Mapping[str, str]) -> Card | None:
        """A card in the message's chat that shows `text`; None: answer by markdown. Raises for no refusal.

        params: the template's other variables, inert already. One that was there before is gone on with. Where
        nobody knows whether it was made, the card has no frames but can be tried to be finished.
        """
        if not self.wanted(message):
            return None
        card = Card(self, card_track(message.robot, message.id), message.code, opened=dict(params))
        try:
            with trail.timed("card.opened") as facts:
                known = not await self._create(card, message, card_text.final(text), forward=forward, params=params)
                facts["known"] = known or None
        except ReplyError as error:
            self.refused(error, message.code)
            if error.certain:
                return None
            card.give_up(error)
            return card
        self._told = ""
        return card

    def resume(self, track: str, code: str) -> Card:
        """The card that was opened before a restart. code: of its message."""
        return Card(self, track, code, opened=None)

    async def _create(
        self, card: Card, message: Message, text: str, *, forward: bool, params: Mapping[str, str]
    ) -> bool:
        """Tried again with the same id, under which DingTalk makes no second one."""

        async def create() -> bool:
            return await self.calls.create(card.track, message, text, forward=forward, params=params)

        try:
            async with asyncio.timeout(OPEN_S):
                return await self.tried(create, OPEN_S, tries=2)
        except TimeoutError:
            failure = ReplyUncertain("OpenAPI: the card took too long to make", cause="network.timeout")
        raise failure

    async def tried(self, call: Callable[[], Awaitable[T]], within_s: float, tries: int = TRIES) -> T:
        """The call, again where it may help and time is left. A limit of DingTalk's makes the next turn wait."""
        until = self.clock() + within_s
        failures = 0
        doubt: ReplyUncertain | None = None
        while True:
            try:
                return await call()
            except (ReplyPaced, ReplyUncertain, ReplyUnavailable) as error:
                doubt = error if isinstance(error, ReplyUncertain) else doubt
                wait_s = (error.retry_after or RETRY_S) if isinstance(error, ReplyPaced) else RETRY_S * (failures + 1)
                failures += not isinstance(error, ReplyPaced)
                if failures >= tries or self.clock() + wait_s >= until:
                    if doubt is not None and not isinstance(error, ReplyPaced):
                        raise doubt from None  # an earlier try may have arrived
                    raise
            await asyncio.sleep(wait_s)

    def refused(self, error: ReplyError, code: str) -> None:
        """What will not be better the next time stops cards for half an hour; told once."""
        log.info("card.degraded", code=code, why=error.detail, cause=error.cause, certain=error.certain)
        if error.cause not in _LASTING_CAUSES:
            return
        self._refused_until = self.clock() + REFUSED_S
        if self._told != error.cause:
            self._told = error.cause
            explanation = explain(error.cause, "en")
            remedy = explanation.remedy if explanation is not None else ""
            log.warning("card.unavailable", why=error.detail, cause=error.cause, remedy=remedy, minutes=REFUSED_S // 60)

    async def written(self, text: str, write: Callable[[str], str]) -> str:
        if len(text) <= THREAD_ABOVE:
            return write(text)
        return await asyncio.get_running_loop().run_in_executor(self._threads, write, text)

    def start(self, card: Card) -> asyncio.Task[None]:
        task = asyncio.create_task(card.stream(), name=f"card {card.code}")
        self._running.add(card)
        task.add_done_callback(lambda _: self._running.discard(card))
        return task


class Card:
    """One answer's card. Opened by `Cards`; its frames are a task that `settle`, `finish` and `fail` end.

    broken: the cause of the error after which it shows no more frames; "" while it does.
    newest: what was to be shown last.
    """

    def __init__(self, cards: Cards, track: str, code: str, *, opened: dict[str, str] | None) -> None:
        self.track = track
        self.code = code
        self.broken = ""
        self.frames = 0
        self._cards = cards
        self._opened = opened
        self.newest = ""
        self._shown = ""
        self._shown_at = -math.inf
        self._changed = asyncio.Event()
        self._seen = asyncio.Event()
        self._ending = False
        self._closed = False
        self._sending = False
        self._task: asyncio.Task[None] | None = None

    def update(self, text: str) -> None:
        """The answer so far, markdown of a stranger. A frame shows the newest one when it is this card's turn."""
        if self._ending or self.broken or self._cards.closed:
            return
        self.newest = text
        self._changed.set()
        if self._task is None or self._task.done():
            self._task = self._cards.start(self)

    async def show(self, text: str) -> bool:
        """As `update`; whether it is seen when this returns."""
        self._seen.clear()
        self.update(text)
        with suppress(TimeoutError):
            async with asyncio.timeout(SHOW_S):
                while self._task is not None and not self.broken and self._shown != card_text.head(text):
                    await self._seen.wait()
                    self._seen.clear()
        return self._shown == card_text.head(text)

    def stop(self) -> None:
        """No more frames; one that is on its way just now arrives."""
        self._ending = True
        if self._task is not None and not self._sending:
            self._task.cancel()

    async def settle(self) -> None:
        """No frame is on its way any more, and none will be."""
        self.stop()
        task = self._task
        if task is None:
            return
        _, late = await asyncio.wait({task}, timeout=SETTLE_S)
        if late:
            task.cancel()
            await asyncio.wait({task})

    async def finish(self, text: str, *, params: Mapping[str, str], link_hosts: frozenset[str] = frozenset()) -> None:
        """The whole answer, and the card is closed; then the template's other variables where they have changed.

        The same text again, also after a restart, is the same frame. Raises ReplyTooLong (finish with a shorter text,
        and send the answer otherwise), ReplyUnsafe, ReplyRejected, ReplyPaced, ReplyUnavailable, ReplyUncertain. When
        only the variables fail, the answer has arrived: that is noted and not raised.
        """
        await self.settle()
        written = await self._cards.written(text, lambda whole: card_text.final(whole, link_hosts=link_hosts))
        try:
            with trail.timed("card.finished", frames=self.frames, broken=self.broken or None):
                if not card_text.fits(written):
                    raise ReplyTooLong("longer than a card takes", cause="card.too_large")
                await self._close(Frame(self._guid("final", written), written, last=True))
        except ReplyError as error:
            self._cards.refused(error, self.code)
            raise
        if dict(params) != (self._opened or {}):
            await self._change(dict(params))

    async def _change(self, params: dict[str, str]) -> None:
        try:
            with trail.timed("card.variables"):
                await self._cards.tried(lambda: self._cards.calls.change(self.track, params), FINISH_S)
        except ReplyError as error:
            log.warning("card.variables_failed", code=self.code, why=error.detail, cause=error.cause)
        else:
            self._opened = params

    async def fail(self, text: str) -> CardState:
        """The card is closed as failed; where even that does not work it is noted, not raised. See `setup.Card`."""
        await self.settle()
        written = card_text.capped(await self._cards.written(text, card_text.final))
        frame = Frame(self._guid("error", written), written, failed=True)
        try:
            with trail.timed("card.failed", frames=self.frames, broken=self.broken or None):
                return CardState.CLOSED if await self._close(frame) else CardState.SHOWN
        except ReplyError as error:
            log.warning("card.left_open", code=self.code, why=error.detail, cause=error.cause)
            return CardState.OPEN if error.retryable or not error.certain else CardState.NONE

    async def _close(self, frame: Frame) -> bool:
        """False where it was closed before; in another life, with what was to be shown then."""
        try:
            await self._cards.tried(lambda: self._cards.calls.stream(self.track, frame), FINISH_S)
        except ReplyRejected as error:
            if error.code != FINALIZED or self._closed:
                raise
            trail.note("card.closed_before")
            return False
        self._closed = True
        return True

    def give_up(self, error: ReplyError) -> None:
        self.broken = error.cause
        self._seen.set()
        trail.note("card.broken", frames=self.frames, why=error.detail, cause=error.cause)

    def _guid(self, kind: str, text: str) -> str:
        """DingTalk takes a frame of one guid once, whoever sends it."""
        digest = hashlib.sha256(f"{self.track}\0{kind}\0{text}".encode("utf-8", "replace")).digest()
        return str(uuid.UUID(bytes=digest[:16]))

    # -- frames

    async def stream(self) -> None:
        """Frames until `settle`; a trouble with them costs the reader a preview, never the answer."""
        try:
            await self._stream()
        except ReplyError as error:
            if error.cause != "card.busy":  # one frame in a moment of trouble says nothing of the next card
                self._cards.refused(error, self.code)
            self.give_up(error)
        except Exception:
            self.broken = "bug"
            log.exception("card.frame_failed", code=self.code)

    async def _stream(self) -> None:
        cards = self._cards
        while not self._ending and await self._has_news():
            interval_s = cards.budget.frame_interval_s()
            if interval_s is None or card_text.head(self.newest) == self._shown:
                continue
            interval_s = max(cards.interval_s, interval_s)
            wait_s = self._shown_at + interval_s - cards.clock()
            # An answer that is there at once needs no preview, which would be billed.
            await asyncio.sleep(max(wait_s, cards.first_s if self._shown_at == -math.inf else 0.0))
            if not await self._has_turn():
                continue
            self._changed.clear()
            newest, self._shown_at = self.newest, cards.clock()
            if await self._show(await cards.written(newest, card_text.frame)):
                self._shown = card_text.head(newest)
                self._seen.set()

    async def _has_news(self) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(IDLE_S):
                await self._changed.wait()
        if not self._changed.is_set():
            return False
        self._changed.clear()
        return True

    async def _has_turn(self) -> bool:
        try:
            async with self._cards.queue:
                await self._cards.calls.turn(STREAM, FRAME_TURN_S)
        except ReplyPaced as error:
            self._changed.set()
            await asyncio.sleep(error.retry_after or PAUSE_S)
            return False
        return True

    async def _show(self, text: str) -> bool:
        """False where DingTalk found it too fast: all cards pause, and the newest text is shown then."""
        self._sending = True
        try:
            await self._cards.calls.stream(self.track, Frame(str(uuid.uuid4()), text), has_turn=True)
        except ReplyPaced:
            self._changed.set()
            return False
        finally:
            self._sending = False
        self.frames += 1
        if self.frames == 1:
            trail.note("card.frame")
        return True
