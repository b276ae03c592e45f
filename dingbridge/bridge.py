"""The way of a message: `accept` keeps it, `handle` answers it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import ParamSpec, Protocol, TypeVar

import structlog

from dingbridge import commands
from dingbridge.answerer import Answerer, Found
from dingbridge.dispatch import Crew, Dispatcher, Pauses
from dingbridge.errors import BridgeError, LeaseLost, ReplyError, ReplyUnsafe, StoreError
from dingbridge.model import Answer, Delivery, Entry, Message, MessageKind, Outcome, State, Task
from dingbridge.notices import Notices
from dingbridge.store.sqlite import SQLiteStore
from dingbridge.texts import Texts

log = structlog.get_logger("dingbridge.bridge")
T = TypeVar("T")
K = ParamSpec("K")


class Part(Protocol):
    """One message of a reply, numbered from 1."""

    @property
    def number(self) -> int: ...


P = TypeVar("P", bound=Part)


class Replies(Protocol[P]):
    """The way into the chat."""

    async def compose(self, answer: Answer) -> list[P]:
        """The answer as chat messages; the same answer always gives the same parts."""

    async def send(self, message: Message, part: P, *, uncertain: bool = False) -> bool:
        """False: nobody knows whether it arrived, and it will not be tried again. Raises ReplyError."""

    async def notice(self, message: Message, text: str | None = None) -> bool:
        """Best effort."""


class Bridge:
    """`run()` works until `drain()`. record: leaves an Entry behind. clock: the store's, in seconds."""

    def __init__(
        self,
        *,
        store: SQLiteStore,
        answerer: Answerer,
        replies: Replies[P],
        texts: Texts,
        record: Callable[[Entry], None],
        clock: Callable[[], float],
        notice_after_s: float,
        notice: bool = True,
        waiting_per_lane: int = 8,
        crew: Crew | None = None,
        pauses: Pauses | None = None,
    ) -> None:
        self.texts = texts
        self._store = store
        self._answerer = answerer
        self._replies = replies
        self._record = record
        self._clock = clock
        self._waiting_per_lane = waiting_per_lane
        self._pauses = pauses or Pauses()
        self._notices = Notices(after_s=notice_after_s, claim=store.claim_notice, send=replies.notice, enabled=notice)
        crew = crew or Crew()
        self._questions = Dispatcher(
            lease=store.lease, work=self._work, on_end=self._ended, crew=crew.questions, pauses=self._pauses
        )
        self._express = Dispatcher(
            lease=partial(store.lease, express=True),
            work=self._work,
            on_end=self._ended,
            crew=crew.express,
            pauses=self._pauses,
        )
        self._dispatchers = (self._express, self._questions)

    @property
    def alive_at(self) -> float:
        """When the slower of the two dispatchers last came round (monotonic seconds)."""
        return min(dispatcher.beat_at for dispatcher in self._dispatchers)

    @property
    def running(self) -> int:
        return sum(dispatcher.running for dispatcher in self._dispatchers)

    # -- the way of a message

    async def accept(self, message: Message) -> None:
        """Keep it; the caller acknowledges when this returns. Raises StoreError: then nothing was accepted."""
        command = commands.match(message.text) if _has_text(message) else None
        task = Task.QUESTION if _has_text(message) else Task.UNREADABLE
        if command is not None:
            task = Task.COMMAND
        placed = await self._store.put(message, task, fresh=command is not None and command.fresh)
        if placed.duplicate:
            self._record(Entry(message, Outcome.DUPLICATE))
            return
        if placed.task is Task.QUESTION:
            self._notices.arm(placed.row)
            self._questions.wake()
        else:
            self._express.wake()

    async def handle(self, delivery: Delivery) -> None:
        """Find the answer, keep it, send it, close the message, leave an entry."""
        found = self._kept(delivery) if delivery.answer is not None else await self._find(delivery)
        if found is None:
            return  # given back: it comes again
        if delivery.answer is None and found.answer is not None:
            route = found.route.name if found.route else ""
            await self._keep(
                self._store.answered,
                delivery,
                found.answer,
                found.outcome,
                reason=found.reason,
                route=route,
                sending=True,
            )
        await self._notices.settle(delivery.row)
        started = time.monotonic()
        parts = await self._send(delivery, found) if found.answer is not None else 0
        if parts is None:
            return  # given back, or given up and closed
        await self._close(delivery, found, dead=found.outcome is Outcome.DEAD)
        self._leave(delivery, found, parts=parts, reply_s=time.monotonic() - started)

    async def _find(self, delivery: Delivery) -> Found | None:
        """An answer for a message that has none; None where it was given back for later."""
        message = delivery.message
        match delivery.task:
            case Task.COMMAND:
                command = commands.match(message.text)
                text = await command.run(message, delivery.row, self) if command else self.texts("unreadable")
                return Found(Answer(text), Outcome.COMMAND)
            case Task.BUSY:
                return Found(Answer(self.texts("busy", waiting=self._waiting_per_lane)), Outcome.BUSY)
            case Task.LIMITED:
                return Found(Answer(self.texts("limited")), Outcome.LIMITED)
            case Task.UNREADABLE:
                key = "quota" if message.kind is MessageKind.QUOTA else "unreadable"
                return Found(Answer(self.texts(key)), Outcome.REFUSED)
            case Task.QUESTION:
                return await self._ask(delivery)

    async def _ask(self, delivery: Delivery) -> Found | None:
        message = delivery.message
        if delivery.deadline_at is not None and self._clock() >= delivery.deadline_at:
            return self._failure(delivery, BridgeError("older than answer_deadline_min", public="expired"))
        started = time.monotonic()
        try:
            found = await self._answerer.answer(message, delivery.lane, _Progress(self._notices, delivery.row))
        except BridgeError as error:
            if not error.retryable:
                return self._failure(delivery, error)
            await self._later(delivery, error)
            return None
        except Exception as error:
            log.exception("message.failed", code=message.code)
            return self._failure(delivery, BridgeError(f"a bug: {type(error).__name__}"))
        return replace(self._worded(found), handler_s=time.monotonic() - started)

    def _worded(self, found: Found) -> Found:
        """Nobody is left without words: not without a route, and not by a refusal that has none."""
        if found.outcome is Outcome.UNROUTED:
            return replace(found, answer=Answer(self.texts("unrouted")))
        if found.answer is not None and not found.answer.text.strip():
            return replace(found, answer=replace(found.answer, text=self.texts("refused")))
        return found

    def _failure(self, delivery: Delivery, error: BridgeError) -> Found:
        log.warning("message.gave_up", code=delivery.message.code, why=error.detail, deliveries=delivery.tries + 1)
        answer = Answer(self.texts.failure(error.public, delivery.message.code))
        return Found(answer, Outcome.FAILED, reason=error.detail)

    async def _later(self, delivery: Delivery, error: BridgeError) -> None:
        """Try again after a pause, but not past the deadline; the asker is told once per lane."""
        delay_s = max(self._pauses.delay_s(delivery.tries), error.retry_after or 0.0)
        if delivery.deadline_at is not None:
            delay_s = max(0.0, min(delay_s, delivery.deadline_at - self._clock()))
        log.warning(
            "message.later",
            code=delivery.message.code,
            why=error.detail,
            deliveries=delivery.tries + 1,
            delay_s=delay_s,
        )
        # Claimed before it is sent, and sent before the lease goes back: it is told once, and not after the answer.
        if await self._keep(self._store.claim_trouble, delivery):
            await self._tell_trouble(delivery.message)
        await self._give_back(delivery, delay_s)

    async def _tell_trouble(self, message: Message) -> None:
        try:
            for part in await self._replies.compose(Answer(self.texts.failure("trouble", message.code))):
                await self._replies.send(message, part)
        except ReplyError as error:
            log.warning("message.trouble_untold", code=message.code, why=error.detail)

    def _kept(self, delivery: Delivery) -> Found:
        """The answer found before; a message condemned at start has an empty one."""
        answer = delivery.answer
        if delivery.outcome is Outcome.DEAD:
            answer = Answer(self.texts.failure("dead", delivery.message.code))
        route = self._answerer.named(delivery.route)
        return Found(answer, delivery.outcome or Outcome.ANSWERED, route, delivery.reason)

    async def _send(self, delivery: Delivery, found: Found) -> int | None:
        """Send what has not been sent; the number of parts, or None where it was given back or given up."""
        parts = await self._replies.compose(found.answer or Answer(""))
        first = delivery.part if delivery.state is State.SENDING else delivery.part + 1
        for part in parts[first - 1 :]:
            uncertain = delivery.uncertain and part.number == first
            if part.number > 1 or delivery.answer is not None:  # a new answer was kept as sending its first part
                await self._keep(self._store.sending, delivery, part.number, uncertain=uncertain)
            try:
                if not await self._replies.send(delivery.message, part, uncertain=uncertain):
                    log.warning("reply.outcome_unknown", code=delivery.message.code, part=part.number)
            except ReplyUnsafe as error:
                await self._replace(delivery, error)
                return None
            except ReplyError as error:
                await self._unsent(delivery, found, error, sent=part.number - 1, uncertain=uncertain)
                return None
        return len(parts)

    async def _unsent(self, delivery: Delivery, found: Found, error: ReplyError, *, sent: int, uncertain: bool) -> None:
        """Try to send later; past its time, or where no rung will ever take it, the message is undeliverable."""
        now = self._clock()
        until = max(delivery.deadline_at or 0.0, (delivery.answered_at or now) + self._pauses.send_s)
        if error.retryable and now < until:
            delay_s = error.retry_after or self._pauses.delay_s(delivery.tries)
            log.info("reply.later", code=delivery.message.code, why=error.detail, delay_s=delay_s)
            unknown = uncertain or not error.certain
            await self._give_back(delivery, delay_s, sent=sent, uncertain=unknown)
            return
        await self._bury(delivery, error.detail, found)

    async def _replace(self, delivery: Delivery, error: BridgeError) -> None:
        """The answer cannot be sent as it is: a failure text takes its place, once."""
        if delivery.outcome is Outcome.FAILED:
            await self._bury(delivery, error.detail)
            return
        text = self.texts.failure(error.public, delivery.message.code)
        await self._keep(self._store.answered, delivery, Answer(text), Outcome.FAILED, reason=error.detail)
        await self._give_back(delivery, 0.0)

    async def _bury(self, delivery: Delivery, reason: str, found: Found | None = None) -> None:
        given_up = Found(None, Outcome.UNDELIVERABLE, found.route if found else None, reason)
        await self._close(delivery, given_up, dead=True)
        self._leave(delivery, given_up)

    async def _close(self, delivery: Delivery, found: Found, *, dead: bool) -> None:
        close = self._store.dead if dead else self._store.done
        if await self._keep(close, delivery, found.outcome, found.reason):
            self._wake(delivery)

    async def _give_back(self, delivery: Delivery, delay_s: float, *, sent: int = 0, uncertain: bool = False) -> None:
        await self._keep(self._store.later, delivery, delay_s, sent=sent, uncertain=uncertain)
        self._wake(delivery)

    def _wake(self, delivery: Delivery) -> None:
        (self._questions if delivery.task is Task.QUESTION else self._express).wake()

    def _leave(
        self,
        delivery: Delivery,
        found: Found,
        *,
        parts: int = 0,
        reply_s: float | None = None,
    ) -> None:
        route, answer = found.route, found.answer
        again = delivery.tries > 0 or delivery.answer is not None  # then the earlier try is in that time, too
        self._record(
            Entry(
                message=delivery.message,
                outcome=found.outcome,
                route=route.name if route else "",
                workspace=route.workspace if route else "",
                reason=found.reason,
                tries=delivery.tries + (answer.tries if answer else 1),
                parts=parts,
                queue_s=None if again else max(0.0, delivery.leased_at - delivery.received_at),
                first_token_s=answer.first_token_s if answer else None,
                handler_s=found.handler_s,
                reply_s=reply_s,
                total_s=max(0.0, self._clock() - delivery.received_at),
            )
        )

    async def _keep(self, write: Callable[K, Awaitable[T]], *args: K.args, **kwargs: K.kwargs) -> T:
        """Write until the store takes it: what is known must not be lost to a full disk."""
        while True:
            try:
                return await write(*args, **kwargs)
            except StoreError as error:
                if not error.retryable:
                    raise
                await asyncio.sleep(self._pauses.store_s)

    # -- what commands ask of us

    async def cancel(self, message: Message, *, before: int) -> int:
        cancelled = await self._keep(self._store.cancel, message, before=before)
        for row, question in cancelled.items():
            self._questions.cancel(row)
            await self._notices.settle(row)
            self._record(Entry(question or message, Outcome.CANCELLED, reason="cancelled by the asker"))
        self._questions.wake()
        return len(cancelled)

    async def waiting_since(self, message: Message) -> list[float]:
        now = self._clock()
        return [max(0.0, now - one.received_at) for one in await self._keep(self._store.waiting, message)]

    # -- who works when

    async def run(self) -> None:
        """Until `drain()`, and then until what runs has ended."""
        now = self._clock()
        for waiting in await self._store.waiting():
            self._notices.arm(waiting.row, waited_s=now - waiting.received_at)
        async with asyncio.TaskGroup() as group:
            notices = group.create_task(self._notices.run())
            async with asyncio.TaskGroup() as dispatchers:
                for dispatcher in self._dispatchers:
                    dispatchers.create_task(dispatcher.run())
            notices.cancel()

    def drain(self) -> None:
        """Lease nothing more; `run` returns when what is running has ended."""
        for dispatcher in self._dispatchers:
            dispatcher.drain()

    def _ended(self) -> None:
        for dispatcher in self._dispatchers:
            dispatcher.look_again()

    async def _work(self, delivery: Delivery) -> None:
        structlog.contextvars.bind_contextvars(code=delivery.message.code)  # of this task, for what edges log
        try:
            await self.handle(delivery)
        except LeaseLost:
            log.info("message.lease_lost", code=delivery.message.code)
        except StoreError as error:
            if not error.retryable:
                raise  # it is closed for good: that ends the process
            with suppress(LeaseLost):
                await self._give_back(delivery, self._pauses.store_s)
        except Exception as error:
            log.exception("message.failed", code=delivery.message.code)
            with suppress(LeaseLost):
                await self._replace(delivery, BridgeError(f"a bug: {type(error).__name__}"))


class _Progress:
    """What a handler sees of the chat while it works."""

    def __init__(self, notices: Notices, row: int) -> None:
        self._notices = notices
        self._row = row

    async def update(self, text: str) -> None:
        self._notices.replace(self._row, str(text))


def _has_text(message: Message) -> bool:
    """An empty text message asks for help; other kinds count when there is something to read in them."""
    readable = message.kind in (MessageKind.RICH_TEXT, MessageKind.AUDIO) and bool(message.text)
    return message.kind is MessageKind.TEXT or readable
