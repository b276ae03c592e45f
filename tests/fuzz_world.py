"""A chat, a backend and one daemon after another between them; whatever breaks a promise is noted in `wrong`.

Store, bridge, dispatchers, notices, answerer and commands are the real ones. Only the two protocols that the bridge
declares, the way into the chat and the backend, are played here.
"""

from __future__ import annotations

import asyncio
import math
import re
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from dingbridge import commands
from dingbridge.answerer import Answerer
from dingbridge.bridge import Bridge
from dingbridge.dispatch import Pauses
from dingbridge.errors import (
    BackendRejected,
    BackendUnavailable,
    ReplyPaced,
    ReplyRejected,
    ReplyUnavailable,
    ReplyUncertain,
    ReplyUnsafe,
    StoreError,
)
from dingbridge.model import (
    Answer,
    CardState,
    Conversation,
    ConversationKind,
    Entry,
    Message,
    MessageKind,
    Outcome,
    Person,
    Press,
    Route,
    State,
    Task,
    card_track,
    lane_key,
)
from dingbridge.setup import Setup
from dingbridge.shape import Shape
from dingbridge.store.intake import Limits
from dingbridge.store.recovery import CRASHES_DEAD
from dingbridge.store.sqlite import SQLiteStore
from dingbridge.texts import NOTICE, Texts
from tests.fuzz_cards import PlayedCards, Shown
from tests.fuzz_loop import Loop, TurnedEngine
from tests.stores import START

MEMORY = Path("/dev/shm")  # a flush costs nothing there, and power cuts are not what is examined here
TEXTS = Texts("zh-CN")
TROUBLE = TEXTS("trouble")
ROBOT = "ding1"
WAITING = 3
DRAIN_S = 20.0
DEADLINE_S = 1800.0
ASK_TURNS = 5
WORKERS = 3
CARDS_S = 60.0
FRONT = TEXTS("question_front", question="")
CONTACT = "丙"
ROUTES = (
    Route("一", workspace="w1", deep_workspace="d1", contact=CONTACT),
    Route("二", workspace="w2", deep_workspace="d2", contact=CONTACT),
)
FIRST = ("w1", "d1")
_NUMBER = re.compile(r"\bm\d+\b")
# Nothing is ever noticed by chance: who gives a lane something to do has to wake its dispatcher.
PAUSES = Pauses(beat_s=1e9)
TOLD = {Outcome.ANSWERED, Outcome.PARTIAL, Outcome.REFUSED, Outcome.COMMAND, Outcome.BUSY}


@dataclass
class Said:
    """One message of a person, and what has become of it.

    asks, sends, opens, ends: what goes wrong with it, one after another, the last two with its card. ours: nobody has
    written it, it is to be told, or a button stands for it; then it need not be there.
    """

    message: Message
    asks: list[str] = field(default_factory=list)
    sends: list[str] = field(default_factory=list)
    opens: list[str] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    ours: bool = False
    card_asked: bool = False
    acked: bool = False
    crashes: int = 0
    row: int = 0
    lane: str = ""
    state: str = ""
    outcome: str = ""
    ended: bool = False
    kept: bool = False
    given: list[Answer] = field(default_factory=list)
    met: set[str] = field(default_factory=set)
    tried: Counter[str] = field(default_factory=Counter)
    shown: Counter[str] = field(default_factory=Counter)
    marked: Counter[str] = field(default_factory=Counter)
    unknown: set[str] = field(default_factory=set)
    last: list[str] = field(default_factory=list)
    entries: int = 0
    dropped: int = 0
    promised: bool = False
    retried: int = 0

    @property
    def who(self) -> tuple[str, str]:
        return (self.message.conversation.id, self.message.sender.id)

    @property
    def over(self) -> bool:
        return (self.acked and self.ended) or (self.ours and not self.row)

    @property
    def question(self) -> bool:
        command = commands.match(self.message.text)
        return command is None or command.asks

    @property
    def deep(self) -> bool:
        return self.question and commands.match(self.message.text) is not None

    @property
    def is_new(self) -> bool:
        command = commands.match(self.message.text)
        return command is not None and command.fresh

    def __str__(self) -> str:
        return f"{self.message.id} {self.message.text!r} ({self.outcome or self.state or 'not kept'})"


@dataclass(frozen=True, slots=True)
class Piece:
    """One message of a reply, and all the reply's texts."""

    number: int
    text: str
    whole: tuple[str, ...]
    link_hosts: frozenset[str] = frozenset()


class Chat:
    """`Replies` of one daemon: what it sends is seen by everybody, until it dies."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.alive = True

    async def compose(self, answer: Answer, shape: Shape) -> list[Piece]:
        texts = tuple(answer.text.split("|"))
        self._world.whole[texts[0]] = texts
        return [Piece(number, text, texts) for number, text in enumerate(texts, start=1)]

    def wants_page(self, answer: Answer, parts: Sequence[Piece]) -> bool:
        return False

    async def send(self, message: Message, part: Piece, *, uncertain: bool = False) -> bool:
        world = self._world
        world.expect(self.alive, f"a dead daemon writes about {message.id}")
        said = world.said[message.id]
        fault = said.sends.pop(0) if said.sends else ""
        trouble = part.text.startswith(TROUBLE)
        with world.working(said):
            if not trouble:
                world.begins_to_send(said, part, uncertain=uncertain)
            said.met.add(fault)
            await asyncio.sleep({"slow": 8.0, "stuck": 30.0}.get(fault, 0))
            if fault in ("", "slow", "stuck", "lost"):
                world.shows(said, part, marked=uncertain, trouble=trouble)
            await asyncio.sleep(0)
            return _end_of_sending(said, part, fault, uncertain=uncertain)

    async def notice(self, message: Message, text: str | None = None) -> bool:
        self._world.expect(self.alive, f"a dead daemon notifies {message.id}")
        self._world.expect(text == TEXTS(NOTICE), f"a notice nobody asked for: {text}")
        await asyncio.sleep(0)
        self._world.notifies(self._world.said[message.id])
        await asyncio.sleep(0)
        return True


def _end_of_sending(said: Said, part: Piece, fault: str, *, uncertain: bool) -> bool:
    match fault:
        case "lost" | "vanished" if uncertain:
            said.unknown.add(part.text)
            return False
        case "lost" | "vanished":
            raise ReplyUncertain("no answer in time")
        case "down":
            raise ReplyUnavailable("no connection")
        case "paced":
            raise ReplyPaced("too fast", retry_after=7.0)
        case "expired":
            raise ReplyRejected("no way to this chat is left")
        case "unsafe":
            raise ReplyUnsafe("the content check refused the text")
    return True


class Documents:
    """`Backend`: says what the message's plan says, and notes what it should not have been asked."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def ask(self, question: str, *, workspace: str, session: str, **with_it: Any) -> Answer:
        world = self._world
        front, _, asked = question.rpartition(FRONT)
        said = world.asked_by(asked.partition(" ")[0], session)
        foreign = [one for one in _NUMBER.findall(front) if world.said[one].lane != session]
        world.expect(not foreign, f"asked with {foreign} of another context: {said}")
        fault = "down" if world.down else said.asks[0] if said.asks else ""
        said.met.add(fault)
        with world.working(said):
            world.is_asked(said, workspace, session)
            cancelled = said.outcome == Outcome.CANCELLED
            for _ in range(ASK_TURNS):
                await asyncio.sleep(0)
            await asyncio.sleep({"slow": 8.0, "late": 170.0}.get(fault, 0))
            if said.asks and not (fault == "unknown" and workspace in FIRST):  # the second does not know either
                said.asks.pop(0)  # not before: who asks again after a crash meets the same
            world.expect(not cancelled, f"asked to the end after it was cancelled: {said}")
            match fault:
                case "down":
                    raise BackendUnavailable("not there")
                case "rejected":
                    raise BackendRejected("the key is wrong")
                case "bug":
                    raise RuntimeError("a bug")
            name = f"答 {said.message.id} {workspace}"
            text = {"long": f"{name} 甲|{name} 乙|{name} 丙", "partial": f"{name} 一半"}.get(fault, name)
            answer = Answer(text, refused=fault in ("refuse", "unknown"), partial=fault == "partial")
            said.given.append(answer)
            return answer


class World:
    """Everything around one store file, from the first start to the end."""

    met: ClassVar[Counter[str]] = Counter()
    """What has been seen in all histories: how messages ended, and a few more things by name."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
        self.said: dict[str, Said] = {}
        self.wrong: list[str] = []
        self.down = False
        self.tell_sends: list[str] = []
        self.starts = 0
        self.limits = Limits(waiting_per_lane=WAITING, per_user_per_minute=0, answer_deadline_s=DEADLINE_S)
        self.has_cards = False
        self.cards: dict[str, Shown] = {}
        self.tracks: dict[str, Said] = {}
        self.whole: dict[str, tuple[str, ...]] = {}
        self._by_row: dict[int, Said] = {}
        self._generations: Counter[tuple[str, ...]] = Counter()
        self._spoken_at: dict[tuple[str, ...], float] = {}
        self._troubled: set[str] = set()
        self._noticed: set[str] = set()
        self._working: Counter[str] = Counter()
        self._changes = -1
        self.start()

    def clock(self) -> float:
        return START + self.loop.time()

    def expect(self, holds: object, otherwise: str) -> None:
        if not holds:
            self.wrong.append(otherwise)

    # -- one daemon after another

    def start(self) -> None:
        self.starts += 1
        self._changes = -1
        self.store = SQLiteStore(self.folder / "x.db", clock=self.clock, limits=self.limits)
        self.writer = TurnedEngine(self.store.path, self._seen)
        self.store._engine = self.store.answers._engine = self.writer
        self.loop.finish(self.store.open())
        self.chat = Chat(self)
        self.played = PlayedCards(self, available=self.has_cards)
        self.bridge = Bridge(
            store=self.store, setup=self._setup(WORKERS), record=self._entry, clock=self.clock, pauses=PAUSES
        )
        self.running = self.loop.create_task(self.bridge.run())
        self.loop.create_task(self._close_cards(self.bridge))

    async def _close_cards(self, bridge: Bridge) -> None:
        """As upkeep does."""
        while True:
            with suppress(StoreError):
                await bridge.desk.close_cards()
            with suppress(TimeoutError):
                async with asyncio.timeout(CARDS_S):
                    await bridge.desk.card_ended.wait()
            bridge.desk.card_ended.clear()

    def begin(self, *, by_group: bool, idle_s: float, cards: bool) -> None:
        """What this history is about; before anything is said."""
        self.limits = replace(self.limits, by_group=by_group, idle_s=idle_s)
        self.store.limits = self.limits
        self.has_cards = self.played.available = cards

    def _setup(self, workers: int) -> Setup:
        return Setup(
            robot=ROBOT,
            answerer=Answerer(ROUTES, Documents(self), handler_s=180.0),
            replies=self.chat,
            texts=TEXTS,
            notice_after_s=3.0,
            waiting_per_lane=WAITING,
            workers=workers,
            cards=self.played,
        )

    def reload(self, workers: int) -> None:
        """Another configuration, while this one works."""
        self.bridge.use(self._setup(workers))

    def die(self) -> None:
        """Here and now. What is not committed is gone, and nobody has a last word."""
        self._check_running()
        for said in self.said.values():
            said.crashes += not said.ended and said.row > 0
        self.writer.die()
        self._abandon()

    def stop(self) -> None:
        """As on SIGTERM: what runs may end, the rest is given back."""
        self.loop.settle()
        self.bridge.drain()
        for _ in range(int(DRAIN_S)):
            if self.running.done():
                break
            self.loop.advance(1.0)
        self.running.cancel()
        self.loop.settle()
        self._check_running()
        self.writer.full = False
        self.loop.finish(self.store.release_all())
        self.loop.finish(self.store.close())
        self._abandon()

    def _abandon(self) -> None:
        self.chat.alive = self.played.alive = False
        for task in asyncio.all_tasks(self.loop):  # all at once: none of them takes another step
            task.cancel()
        self.loop.settle()
        assert self.store._lock is not None
        self.store._lock.close()
        self._working.clear()

    def _check_running(self) -> None:
        if self.running.done() and not self.running.cancelled() and (error := self.running.exception()) is not None:
            self.wrong.append(f"the daemon ended: {error!r}")

    def end(self) -> None:
        """Heal everything, wait, and judge."""
        self.down = self.writer.full = False
        for again in range(120):
            self._check_running()
            if self.wrong:
                return
            for said in self.said.values():
                if not said.acked:
                    self.deliver(said)
            self.loop.settle()
            cards_are_made = again or not self.has_cards  # the last one may still be on its way
            over = all(said.over for said in self.said.values())
            if cards_are_made and over and all(one.last for one in self.cards.values()):
                break
            self.loop.advance(31.0)
        self.stop()
        self._judge()
        self.met.update(said.outcome for said in self.said.values())
        self.met["repeated"] += sum(said.marked.total() for said in self.said.values())

    def close(self) -> None:
        self.chat.alive = False
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.settle()
        self.writer.die()
        if self.store._lock is not None:
            self.store._lock.close()
        self.loop.close()
        shutil.rmtree(self.folder)

    # -- what people do

    def says(
        self, person: str, text: str, *, group: bool, asks: Sequence[str] = (), sends: Sequence[str] = (), **card: Any
    ) -> Said:
        """asks, sends, and opens and ends of its card: the faults that this message meets. text: {} is its number."""
        number = f"m{len(self.said) + 1}"
        kind = ConversationKind.GROUP if group else ConversationKind.SINGLE
        message = Message(
            id=number,
            robot=ROBOT,
            conversation=Conversation("群" if group else f"与{person}", kind),
            sender=Person(person, person, person),
            kind=MessageKind.TEXT,
            text=text.format(number) if text else f"{number} 年假有几天？",
            sent_at=datetime.fromtimestamp(self.clock(), UTC),
        )
        said = self.said[number] = Said(message, list(asks), list(sends), **card)
        self.tracks[card_track(ROBOT, number)] = said
        self.deliver(said)
        return said

    def presses(self, on: Said, action: str) -> None:
        """The asker presses a button of a card."""
        track, message = card_track(ROBOT, on.message.id), on.message
        if action in ("deep", "human"):
            key = f"{track}:{action}:{message.sender.id}"
            text = f"/{action} {message.code}"
            if key not in self.said:
                said = self.said[key] = Said(replace(message, id=key, text=text), acked=True, ours=True)
                self.tracks[card_track(ROBOT, key)] = said
        chat = message.conversation.id if message.conversation.is_group else ""
        press = Press(track, message.sender.id, chat, action)
        self.loop.create_task(self._operates(partial(self.bridge.press, press)))

    def deliver(self, said: Said) -> None:
        """For the first time or once more."""
        self._accepting = self.loop.create_task(self._accept(said))

    async def _accept(self, said: Said) -> None:
        try:
            await self.bridge.accept(said.message)
        except StoreError:
            return
        self.expect(said.row, f"acknowledged without being kept: {said}")
        said.acked = True

    def drops(self, said: Said, *, tell: bool) -> None:
        """An operator ends it."""
        said.dropped += 1
        self.loop.create_task(self._operates(partial(self.bridge.drop, said.row, tell=tell)))

    def retries(self, said: Said) -> None:
        """An operator brings it back, if it failed."""
        self.loop.create_task(self._operates(partial(self.bridge.retry, said.row)))

    async def _operates(self, work: Callable[[], Awaitable[object]]) -> None:
        with suppress(StoreError):
            await work()

    # -- what is in the file after each piece of work

    def _seen(self, c: sqlite3.Connection) -> None:
        if c.total_changes == self._changes:
            return
        self._changes = c.total_changes
        rows = c.execute(
            "SELECT id, key, lane, task, state, outcome, finished_at IS NOT NULL, answer IS NOT NULL FROM message"
            " ORDER BY id"
        ).fetchall()
        self.expect(len(rows) >= len(self._by_row), "a message is gone from the file")
        for row, key, lane, task, state, outcome, ended, kept in rows:
            if key not in self.said and task == Task.TELL:
                self._is_told(key)
            said = self.said[key]
            if said.row != row:
                self._comes(said, row, lane, task)
            if said.ended and not ended:
                self._is_retried(said, kept=bool(kept))
            if said.ended:
                self.expect(said.outcome == outcome and ended, f"ended twice: {said}, now {outcome}")
                continue
            if outcome == Outcome.CANCELLED and said.dropped:
                said.promised |= state == State.ANSWERED
                self.met["dropped"] += 1
            elif outcome == Outcome.CANCELLED:
                self._is_cancelled(said)
            said.state, said.outcome, said.ended, said.kept = state, outcome or "", bool(ended), bool(kept)
        lanes = {lane for (lane,) in c.execute("SELECT key FROM lane")}
        self._troubled &= lanes
        self._noticed &= lanes

    def _is_told(self, key: str) -> None:
        """Something that nobody wrote: of a message, to be told to somebody."""
        of = re.split(":(?:contact|closed)", key)[0]
        to = replace(self.said[of].message, id=key, text="")
        self.said[key] = Said(to, sends=list(self.tell_sends), acked=True, ours=True)
        self.met["passed on"] += 1

    def _comes(self, said: Said, row: int, lane: str, task: str) -> None:
        self.expect(not said.row, f"kept twice: {said}")
        said.row = row
        self._by_row[row] = said
        context = self.limits.context_of(said.message)
        idle = self.limits.idle_s and self.clock() - self._spoken_at.get(context, math.inf) > self.limits.idle_s
        if said.is_new or (said.question and idle):
            self._generations[context] += 1
        if said.is_new or said.question:
            self._spoken_at[context] = self.clock()
        said.lane = lane_key(*context, self._generations[context])
        if said.question and task == Task.QUESTION:
            self.expect(lane == said.lane, f"in the wrong lane: {said}")
            return
        said.lane = lane
        if task == Task.BUSY:
            waiting = [one for one in self._by_row.values() if one.who == said.who and one.question and not one.ended]
            self.expect(len(waiting) > WAITING, f"told to be busy with {len(waiting) - 1} waiting: {said}")

    def _is_retried(self, said: Said, *, kept: bool) -> None:
        failed = {Outcome.FAILED, Outcome.DEAD, Outcome.UNDELIVERABLE, Outcome.PARTIAL}
        self.expect(said.outcome in failed, f"retried for no reason: {said}")
        said.ended = False
        said.retried += 1
        self.met["retried"] += 1
        if not kept:  # another answer is found, and seen for the first time
            said.shown.clear()
            said.unknown.clear()
            said.last.clear()

    def _is_cancelled(self, said: Said) -> None:
        by = [
            one
            for one in self._by_row.values()
            if one.message.text == "/cancel" and one.who == said.who and one.row > said.row and not one.ended
        ]
        self.expect(by, f"cancelled by nobody: {said}")
        self.expect(said.question, f"a command was cancelled: {said}")
        self.expect(said.state in (State.READY, State.LEASED), f"cancelled while being answered: {said}")

    # -- what the bridge does

    @contextmanager
    def working(self, said: Said) -> Iterator[None]:
        self._working[said.message.id] += 1
        self.expect(self._working[said.message.id] == 1, f"worked on twice at once: {said}")
        try:
            yield
        finally:
            self._working[said.message.id] -= 1

    def is_asked(self, said: Said, workspace: str, session: str) -> None:
        # In the same moment it may be cancelled; then the ask is broken off.
        cancelled = said.outcome == Outcome.CANCELLED
        self.expect(cancelled or not (said.kept or said.ended), f"asked again although it has an answer: {said}")
        self.expect(session == said.lane, f"asked in another context: {said}")
        if workspace not in FIRST:
            self.expect(said.met & {"refuse", "unknown"}, f"the second route without a refusal: {said}")
        self._in_turn(said, "asked")

    def asked_by(self, number: str, session: str) -> Said:
        """A question may be one that is asked again, deeper, by another message of its context."""
        said = self.said[number]
        if not said.kept and not said.ended:
            return said
        again = [one for one in self._by_row.values() if one.lane == session and one.deep and not one.ended]
        return again[0] if again else said

    def makes_card(self, said: Said) -> None:
        self.cards[card_track(ROBOT, said.message.id)] = Shown()
        self.met["card"] += 1

    def begins_on_card(self, said: Said, text: str) -> None:
        whole = self.whole[text]
        self.expect(said.state == State.SENDING or said.dropped, f"sent without being stored as sending: {said}")
        said.tried[text] += 1
        said.last = list(whole)
        self._in_turn(said, "answered")

    def shows_on_card(self, said: Said, text: str) -> None:
        self.expect(not said.shown[text], f"repeated on its card: {said}: {text}")
        said.shown[text] += 1

    def begins_to_send(self, said: Said, part: Piece, *, uncertain: bool) -> None:
        self.expect(said.state == State.SENDING or said.dropped, f"sent without being stored as sending: {said}")
        may_have_arrived = said.tried[part.text] or said.crashes or said.retried
        self.expect(not uncertain or may_have_arrived, f"marked as a repeat for no reason: {said}")
        said.tried[part.text] += 1
        said.last = list(part.whole)
        done = [text for text in part.whole[: part.number - 1] if not said.shown[text] and text not in said.unknown]
        self.expect(not done, f"part {part.number} before {done}: {said}")
        self._in_turn(said, "answered")

    def shows(self, said: Said, part: Piece, *, marked: bool, trouble: bool) -> None:
        if trouble:
            self.expect(said.lane not in self._troubled, f"told of trouble twice: {said}")
            if not said.ended:  # else it was on its way at its end, and its lane may be another by now
                self._troubled.add(said.lane)
            self.met["trouble"] += 1
            return
        if said.shown[part.text] and not marked:
            self.wrong.append(f"repeated without a mark: {said}: {part.text}")
        said.shown[part.text] += 1
        said.marked[part.text] += marked

    def notifies(self, said: Said) -> None:
        self.expect(said.lane not in self._noticed, f"a second notice: {said}")
        self.expect(not said.shown, f"a notice after the answer: {said}")
        if not said.ended:
            self._noticed.add(said.lane)
        self.met["notice"] += 1

    def _in_turn(self, said: Said, what: str) -> None:
        earlier = [
            one
            for one in self._by_row.values()
            if one.lane == said.lane and one.row < said.row and not (one.ended or one.retried)
        ]
        self.expect(not earlier, f"{what} before {[str(one) for one in earlier]}: {said}")
        self.expect(not said.ended or said.outcome == Outcome.CANCELLED, f"{what} after its end: {said}")

    def _entry(self, entry: Entry) -> None:
        if entry.outcome is not Outcome.DUPLICATE:
            said = self.said[entry.message.id]
            said.entries += 1
            self.expect(said.entries <= 1 + said.retried, f"two entries: {said}")

    # -- the end

    def _judge(self) -> None:
        with sqlite3.connect(self.folder / "x.db") as connection:
            lanes = connection.execute("SELECT key, token FROM lane").fetchall()
            votes = connection.execute("SELECT key, person FROM vote").fetchall()
            handed = connection.execute("SELECT key, closed_at FROM handover").fetchall()
        connection.close()
        self.expect(not lanes, f"lanes are left: {lanes}")
        self._judge_what_came_after(votes, handed)
        for track, shown in self.cards.items():
            said = self.tracks[track]
            self.expect(shown.last, f"its card says for ever that something is to come: {said}")
            unanswered = shown.last and shown.last[0] is CardState.CLOSED and said.message.code in shown.last[1]
            self.expect(not unanswered, f"its card failed with the answer on it: {said}")
        for said in self.said.values():
            if said.ours and not said.row:
                continue
            self.expect(said.acked, f"never accepted: {said}")
            self.expect(said.ended, f"never ended: {said}")
            if said.ended:
                self._judge_one(said)

    def _judge_what_came_after(self, votes: list[tuple[str, str]], handed: list[tuple[str, float | None]]) -> None:
        for key, person in votes:
            self.met["vote"] += 1
            self.expect(self.said[key].given, f"judged without an answer: {self.said[key]}")
            self.expect(any(one.who[1] == person for one in self.said.values()), f"judged by nobody: {person}")
        for key, closed_at in handed:
            for what in ("contact:", *(("closed",) if closed_at is not None else ())):
                told = any(one.startswith(f"{key}:{what}") for one in self.said)
                self.expect(told, f"handed over and nobody told: {self.said[key]}, {what}")

    def _judge_one(self, said: Said) -> None:
        outcome = Outcome(said.outcome)
        whole = bool(said.last) and all(said.shown[text] or text in said.unknown for text in said.last)
        if outcome is Outcome.CANCELLED:
            self.expect(said.dropped or not said.shown, f"cancelled and answered all the same: {said}")
            # Who drops it again ends it, whatever was being said.
            self.expect(whole or not said.promised or said.dropped > 1, f"dropped and not told: {said}")
            return
        if outcome is Outcome.UNDELIVERABLE:
            self.expect(said.met & {"expired", "unsafe", "down", "paced"}, f"given up for no reason: {said}")
            return
        # Whose telling has killed the process three more times is closed without it.
        beyond_telling = outcome is Outcome.DEAD and said.crashes >= 2 * CRASHES_DEAD
        self.expect(whole or beyond_telling, f"never told: {said}: {said.last}")
        if said.retried:
            return  # what could not be delivered counts as answered then, whatever it says
        if outcome in (Outcome.ANSWERED, Outcome.PARTIAL):
            self.expect(said.last in [one.text.split("|") for one in said.given], f"another answer: {said}")
        elif outcome is Outcome.FAILED:
            expired = self.clock() - said.message.sent_at.timestamp() >= DEADLINE_S
            self.expect(said.met & {"rejected", "bug", "unsafe"} or expired, f"failed for no reason: {said}")
        elif outcome is Outcome.DEAD:
            self.expect(said.crashes >= 3, f"condemned after {said.crashes} crashes: {said}")
        if outcome in (Outcome.FAILED, Outcome.DEAD):
            self.expect(said.message.code in said.last[-1], f"told without its code: {said}")
        else:
            self.expect(said.deep or (outcome is Outcome.COMMAND) != said.question, f"an odd end: {said}")
            self.expect(outcome in TOLD, f"an odd end: {said}")
