"""The way of a message: `accept` keeps it, `handle` answers it; a button of its card is a `press`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

import structlog

from dingbridge import commands, questions, trail
from dingbridge.answerer import Found
from dingbridge.desk import Desk
from dingbridge.dispatch import Dispatcher, Pauses
from dingbridge.errors import BridgeError, LeaseLost, ReplyError, StoreError
from dingbridge.inquiry import Inquiry, worded
from dingbridge.lease import Lease, keep
from dingbridge.model import (
    Answer,
    CardState,
    Delivery,
    Entry,
    Message,
    MessageKind,
    Outcome,
    Press,
    Route,
    Task,
)
from dingbridge.notices import Notices
from dingbridge.sending import Sending
from dingbridge.setup import Setup
from dingbridge.shape import Shape
from dingbridge.store.store import Store
from dingbridge.store.work import Leased
from dingbridge.texts import NOTICE
from dingbridge.trail import Step, Trail

log = structlog.get_logger("dingbridge.bridge")

EXPRESS = 16  # commands and refusals worked on at once


class Bridge:
    """`run()` works until `drain()`. record: leaves an Entry behind. clock: the store's, in seconds.

    counted: told of what happens beside messages, by kind: feedback and handover.
    """

    def __init__(
        self,
        *,
        store: Store,
        setup: Setup,
        record: Callable[[Entry], None],
        clock: Callable[[], float],
        pauses: Pauses | None = None,
        counted: Callable[[str, str], None] = lambda *_: None,
    ) -> None:
        self._store = store
        self._setup = setup
        self._record = record
        self._clock = clock
        self._pauses = pauses or Pauses()
        self._notices = Notices(
            after_s=setup.notice_after_s,
            claim=store.claim_notice,
            send=self._send_notice,
            enabled=setup.notice,
        )
        self.desk = Desk(
            store,
            setup=lambda: self._setup,
            clock=clock,
            pause_s=self._pauses.store_s,
            cancelled=self._cancelled,
            wake=self.wake,
            counted=counted,
        )
        self._inquiry = Inquiry(self.desk, self._notices)
        self._sending = Sending(
            clock=clock, pauses=self._pauses, ended=self._wake, left=self._leave, unreached=self.desk.unreached
        )
        self._questions = self._dispatcher(store.lease, setup.workers)
        self._express = self._dispatcher(partial(store.lease, express=True), EXPRESS)
        self._dispatchers = (self._express, self._questions)
        self._leases: dict[int, Lease] = {}

    def _dispatcher(self, lease: Callable[[int], Awaitable[Leased]], crew: int) -> Dispatcher:
        return Dispatcher(lease=lease, work=self._work, on_end=self._ended, crew=crew, pauses=self._pauses)

    def route(self, name: str) -> Route | None:
        return self._setup.answerer.named(name)

    def use(self, setup: Setup) -> list[asyncio.Task[None]]:
        """From now on by this one; what still runs by the one before is returned."""
        self._setup = setup
        self._notices.change(after_s=setup.notice_after_s, enabled=setup.notice)
        self._questions.change(crew=setup.workers)
        return [*self._notices.sending, *(task for one in self._dispatchers for task in one.tasks)]

    async def _send_notice(self, row: int, message: Message, text: str | None) -> bool:
        """It is a step of whoever works on the question just now; the answer waits for it."""
        lease = self._leases.get(row)
        setup = self._setup
        with trail.follow(lease.trail if lease is not None else Trail()):
            if setup.emotions is not None and not text and await setup.emotions.show(message):
                return True
            return await setup.replies.notice(message, text or setup.texts_for(message)(NOTICE))

    def held(self) -> dict[int, str]:
        """The token of each row that is worked on."""
        return {row: lease.delivery.token for row, lease in self._leases.items()}

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
        command, task = _command(message), Task.UNREADABLE
        if command is not None and not command.asks:
            task = Task.COMMAND
        elif questions.is_question(message):
            task = Task.QUESTION
        kind, chat = message.kind.value, message.conversation.kind.value
        trail.note("received", frame=message.frame, kind=kind, chat=chat, by=self._store.owner or None)
        fresh = command is not None and command.fresh
        placed = await self._store.put(message, task, fresh=fresh, steps=trail.take())
        if placed.duplicate:
            self._record(Entry(message, Outcome.DUPLICATE, lane=placed.lane))
            return
        if placed.task is Task.QUESTION:
            self._notices.arm(placed.row)
            self._questions.wake()
            if self._questions.full:
                self._store.call_others()
        else:
            self._express.wake()

    async def press(self, press: Press) -> dict[str, str]:
        """What the presser's card shows from now on. What the button stands for is kept. Raises StoreError."""
        shown, message = await self.desk.press(press)
        if message is not None:
            with trail.follow(Trail()):
                await self.accept(message)
        return shown

    async def handle(self, lease: Lease) -> None:
        """Find the answer, keep it, send it, close the message, leave an entry."""
        delivery = lease.delivery
        found = self._kept(lease) if delivery.answer is not None else await self._find(lease)
        if found is None:
            return  # given back: it comes again
        if delivery.answer is None and found.answer is not None:
            answer = replace(found.answer, late=lease.late(self._clock()))
            found = replace(found, answer=answer)
            await lease.answered(answer, found, sending=True)
        await self._notices.settle(delivery.row)
        started = time.monotonic()
        parts = await self._sending.send(lease, found)
        if parts is None:
            return  # given back, or given up and closed
        more = await (lease.bury(found) if found.outcome is Outcome.DEAD else lease.close(found))
        if more:
            self._wake(lease)
        self._leave(lease, found, parts=parts, reply_s=time.monotonic() - started)

    async def _find(self, lease: Lease) -> Found | None:
        """An answer for a message that has none; None where it was given back for later."""
        delivery, texts = lease.delivery, lease.texts
        message = delivery.message
        match delivery.task:
            case Task.COMMAND:
                said = await self._run(lease)
                return Found(said if isinstance(said, Answer) else Answer(said), Outcome.COMMAND)
            case Task.BUSY:
                return Found(Answer(texts("busy", waiting=lease.setup.waiting_per_lane)), Outcome.BUSY)
            case Task.LIMITED:
                return Found(Answer(texts("limited")), Outcome.LIMITED)
            case Task.UNREADABLE:
                return Found(Answer(texts(questions.unreadable(message))), Outcome.REFUSED)
            case Task.TELL:  # its answer was kept with it
                return Found(None, Outcome.COMMAND)
            case Task.QUESTION:
                return await self._ask(lease)

    async def _run(self, lease: Lease) -> str | Answer:
        message, texts = lease.delivery.message, lease.texts
        found = commands.of(message)
        if found is None:
            return texts("unreadable")
        command, argument = found
        return await command.run(commands.Request(message, lease.delivery.row, argument, texts), self.desk)

    async def _ask(self, lease: Lease) -> Found | None:
        delivery = lease.delivery
        expired = delivery.deadline_at is not None and self._clock() >= delivery.deadline_at
        await self._inquiry.open_card(lease, anew=not expired)
        if expired:
            too_old = BridgeError("older than answer_deadline_min", public="expired", cause="deadline.passed")
            return self._failure(lease, too_old)
        started = time.monotonic()
        try:
            found = await self._inquiry.answer(lease)
        except BridgeError as error:
            if error.retryable:
                await self._later(lease, error)
                return None
            found = self._failure(lease, error)
        except Exception as error:
            log.exception("message.failed", code=lease.code)
            found = self._failure(lease, _bug(error))
        return replace(worded(found, lease.setup), handler_s=time.monotonic() - started)

    def _failure(self, lease: Lease, error: BridgeError) -> Found:
        deliveries = lease.delivery.tries + 1
        log.warning("message.gave_up", code=lease.code, why=error.detail, cause=error.cause, deliveries=deliveries)
        lease.trail.add("gave_up", why=error.detail, cause=error.cause)
        route = lease.setup.answerer.named(error.route)
        texts = lease.setup.texts_of(route) if route is not None else lease.texts
        answer = Answer(texts.failure(error.public, lease.code))
        return Found(answer, Outcome.FAILED, route, error.detail, error.cause)

    async def _later(self, lease: Lease, error: BridgeError) -> None:
        """Try again after a pause, but not past the deadline; the asker is told once per lane."""
        delivery = lease.delivery
        delay_s = max(self._pauses.delay_s(delivery.tries), error.retry_after or 0.0)
        if delivery.deadline_at is not None:
            delay_s = max(0.0, min(delay_s, delivery.deadline_at - self._clock()))
        log.warning(
            "message.later",
            code=lease.code,
            why=error.detail,
            cause=error.cause,
            deliveries=delivery.tries + 1,
            delay_s=delay_s,
        )
        # Claimed before it is sent, and sent before the lease goes back: it is told once, and not after the answer.
        if await lease.claim_trouble():
            await self._tell_trouble(lease)
        await self._sending.give_back(lease, delay_s, error)

    async def _tell_trouble(self, lease: Lease) -> None:
        replies, texts = lease.setup.replies, lease.texts
        text = texts.failure("trouble", lease.code)
        if lease.card is not None and await lease.card.show(text):
            return
        try:
            for part in await replies.compose(Answer(text), Shape(texts)):
                await replies.send(lease.delivery.message, part)
        except ReplyError as error:
            log.warning("message.trouble_untold", code=lease.code, why=error.detail)

    def _kept(self, lease: Lease) -> Found:
        """The answer found before; one that was condemned at a start, or dropped, has an empty one."""
        delivery, setup = lease.delivery, lease.setup
        answer = delivery.answer
        if delivery.card is CardState.OPEN and setup.cards is not None:
            lease.card = setup.cards.resume(lease.track, lease.code)
        if delivery.outcome in _EMPTY:
            answer = Answer(lease.texts.failure(_EMPTY[delivery.outcome], lease.code))
        route = setup.answerer.named(delivery.route)
        return Found(answer, delivery.outcome or Outcome.ANSWERED, route, delivery.reason)

    def _wake(self, lease: Lease) -> None:
        (self._questions if lease.delivery.task is Task.QUESTION else self._express).wake()

    def _leave(self, lease: Lease, found: Found, *, parts: int = 0, reply_s: float | None = None) -> None:
        self._record(lease.entry(found, now=self._clock(), parts=parts, reply_s=reply_s))

    async def _leave_ended(self, row: int, message: Message, reason: str) -> None:
        self.desk.card_ended.set()
        lane = await keep(self._pauses.store_s, self._store.lane_of, row)
        self._record(Entry(message, Outcome.CANCELLED, lane=lane, reason=reason))

    async def _cancelled(self, questions: dict[int, Message | None], by: Message) -> None:
        for row in questions:  # all at once: nobody asks on while the others are seen to
            self._questions.cancel(row)
        for row, question in questions.items():
            await self._notices.settle(row)
            await self._leave_ended(row, question or by, "cancelled by the asker")
        self._questions.wake()
        for row, question in questions.items():
            if question is not None:
                await self.desk.calm(row, question)

    # -- what operators ask of us

    def steps(self, row: int) -> tuple[Step, ...]:
        """What has happened to a message in work since its last write."""
        lease = self._leases.get(row)
        return lease.trail.steps if lease is not None else ()

    async def retry(self, row: int) -> bool:
        retried = await self._store.retry(row)
        self.wake()
        return retried

    async def drop(self, row: int, *, tell: bool) -> None:
        ended = await self._store.drop(row, tell=tell)
        self.cease(row)
        self.wake()
        if ended is not None:
            await self._leave_ended(row, ended, "dropped by an operator")
            await self.desk.calm(row, ended)

    def cease(self, row: int) -> None:
        """Stop working on a row that was ended."""
        for dispatcher in self._dispatchers:
            dispatcher.cancel(row)

    def wake(self) -> None:
        for dispatcher in self._dispatchers:
            dispatcher.wake()

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
        lease = self._leases[delivery.row] = Lease(self._store, delivery, self._setup, pause_s=self._pauses.store_s)
        with trail.follow(lease.trail):
            waited_s = round(max(0.0, delivery.leased_at - delivery.received_at), 3)
            lease.trail.add("leased", waited_s=waited_s, by=self._store.owner or None)
            try:
                await self._in_order(lease)
            finally:
                if self._leases.get(delivery.row) is lease:
                    del self._leases[delivery.row]
                if lease.card is not None:  # whoever goes on with it must not be overtaken
                    lease.card.stop()
            if delivery.task is Task.QUESTION:  # after its end: nothing waits for it, and no stop sends anything again
                await self.desk.calm(delivery.row, delivery.message, lease.setup)

    async def _in_order(self, lease: Lease) -> None:
        """Whatever `handle` raises, the message is given back, given up, or somebody else's."""
        try:
            await self.handle(lease)
        except LeaseLost:
            log.info("message.lease_lost", code=lease.code)
        except StoreError as error:
            if not error.retryable:
                raise  # it is closed for good: that ends the process
            with suppress(LeaseLost):
                await self._sending.give_back(lease, self._pauses.store_s, error)
        except Exception as error:
            log.exception("message.failed", code=lease.code)
            with suppress(LeaseLost):
                await self._sending.replace(lease, _bug(error))


# What is said of a message whose stored answer is empty, by its outcome.
_EMPTY = {Outcome.DEAD: "dead", Outcome.CANCELLED: "dropped"}


def _bug(error: Exception) -> BridgeError:
    return BridgeError(f"a bug: {type(error).__name__}", cause="bug")


def _command(message: Message) -> commands.Command | None:
    """An empty text message asks for help; of other kinds only what can be read is looked at."""
    if message.kind is not MessageKind.TEXT and not message.text:
        return None
    found = commands.of(message)
    return found[0] if found is not None else None
