"""The store beside a plain model of it: whatever happens in whatever order, both agree, and all comes to an end."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from dingbridge.errors import LeaseLost
from dingbridge.model import Answer, Delivery, Outcome, State, Task, lane_key
from dingbridge.store.recovery import SETTLE_S
from dingbridge.store.store import Store
from tests.places import Life, Place, PostgresPlace, SQLitePlace
from tests.postgres import Server
from tests.store_model import Model, Row
from tests.stores import Clock, message

T = TypeVar("T")
PEOPLE = st.sampled_from(["u1", "u2"])
MEMORY = Path("/dev/shm")  # a flush costs nothing there, and power cuts are not what is examined here
PICK = st.integers(0, 1000)
WRITES = st.sampled_from(["answered", "sending", "later", "done", "dead"])


class Inbox(RuleBasedStateMachine):
    """Drives both, and compares them after every step."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.lost: list[Delivery] = []
        self.folder = tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None)
        self.runner = asyncio.Runner()
        self.place = self.make_place(Path(self.folder.name))
        self.model = Model(shared=isinstance(self.place, PostgresPlace))
        self.life = Life(self.place, self.clock)
        self.run(self.life.start())
        self.model.start(self.clock(), [])

    def make_place(self, folder: Path) -> Place:
        return SQLitePlace(folder)

    def run(self, work: Awaitable[T]) -> T:
        async def wrapped() -> T:
            return await work

        return self.runner.run(wrapped())

    @property
    def store(self) -> Store:
        return self.life.store

    @property
    def held(self) -> list[Delivery]:
        return [lane.held for lane in self.model.lanes.values() if lane.held is not None]

    # -- what comes in

    @rule(people=st.lists(PEOPLE, min_size=1, max_size=4))
    def ask(self, people: list[str]) -> None:
        for person in people:
            self._put(person, Task.QUESTION)

    @rule(person=PEOPLE, fresh=st.booleans())
    def command(self, person: str, fresh: bool) -> None:
        if fresh:
            self.model.generations[person] = self.model.generations.get(person, 0) + 1
        self._put(person, Task.COMMAND, fresh=fresh)

    def _put(self, person: str, task: Task, *, fresh: bool = False) -> None:
        number = len(self.model.rows) + 1
        placed = self.run(self.store.put(message(f"m{number}", person=person), task, fresh=fresh))
        lane = lane_key("ding1", "c1", person, self.model.generations.get(person, 0))
        if task is Task.COMMAND:
            lane = f"express-{number}"
        assert (placed.row, placed.lane, placed.task, placed.duplicate) == (number, lane, task, False)
        self.model.put(Row(number, f"m{number}", person, lane, task), self.clock())

    @precondition(lambda self: self.model.rows)
    @rule(pick=PICK, fresh=st.booleans())
    def redeliver(self, pick: int, fresh: bool) -> None:
        row = self.model.rows[pick % len(self.model.rows) + 1]
        placed = self.run(self.store.put(message(row.key, person=row.person), row.task, fresh=fresh))
        assert (placed.row, placed.lane, placed.duplicate) == (row.id, row.lane, True)

    @rule(seconds=st.sampled_from([0.5, 5.0, 40.0]))
    def tick(self, seconds: float) -> None:
        self.clock.tick(seconds)

    # -- work

    @precondition(lambda self: self.model.lanes)
    @rule(count=st.integers(1, 4), answered=st.booleans())
    def work(self, count: int, answered: bool) -> None:
        """Questions are taken up, and some have their answer before anything else happens."""
        self.lease(count, express=False)
        for pick in range(len(self.held) if answered else 0):
            self.answered(pick)

    @precondition(lambda self: self.model.lanes)
    @rule(count=st.integers(1, 4), express=st.booleans())
    def lease(self, count: int, express: bool) -> None:
        expected = self.model.due(count, express=express, now=self.clock())
        deliveries = self.run(self.store.lease(count, express=express)).deliveries
        assert [one.lane for one in deliveries] == expected
        for delivery in deliveries:
            row = self.model.head(delivery.lane)
            if row.state is State.READY:
                row.state = State.LEASED
            self.model.lanes[delivery.lane].held = delivery
            seen = (delivery.state, delivery.part, delivery.uncertain, delivery.outcome, delivery.crashes)
            assert delivery.row == row.id
            assert seen == (row.state, row.part, row.uncertain, row.outcome, row.crashes)

    @precondition(lambda self: self.model.lanes)
    @rule(count=st.integers(1, 4), express=st.booleans())
    def serve(self, count: int, express: bool) -> None:
        self.lease(count, express)
        while self.held:
            self.answered(0)
            self.sending(0, 1)
            self.finish(0, dead=False)

    @precondition(lambda self: self.held)
    @rule(pick=PICK)
    def answered(self, pick: int) -> None:
        delivery, row = self._picked(pick)
        self.run(self.store.answered(delivery, Answer("答"), Outcome.ANSWERED))
        row.state, row.part, row.uncertain, row.outcome = State.ANSWERED, 0, False, Outcome.ANSWERED

    @precondition(lambda self: self.held)
    @rule(pick=PICK, part=st.integers(1, 3))
    def sending(self, pick: int, part: int) -> None:
        delivery, row = self._picked(pick)
        if row.state is not State.LEASED:  # there is an answer
            self.run(self.store.sending(delivery, part))
            row.state, row.part, row.uncertain = State.SENDING, part, False

    @precondition(lambda self: self.held)
    @rule(pick=PICK, delay_s=st.sampled_from([0.0, 5.0, 30.0]), uncertain=st.booleans(), write=WRITES)
    def later(self, pick: int, delay_s: float, uncertain: bool, write: str) -> None:
        delivery, row = self._picked(pick)
        self.run(self.store.later(delivery, delay_s, uncertain=uncertain))
        row.state = State.READY if row.state is State.LEASED else State.ANSWERED
        row.part, row.uncertain, row.crashes = 0, uncertain, 0
        lane = self.model.lanes[row.lane]
        lane.due, lane.held, lane.suspect = self.clock() + delay_s, None, False
        self.lost.append(delivery)
        self.lease(4, lane.express)
        self.write_without_lease(0, write)

    @precondition(lambda self: self.held)
    @rule(pick=PICK, dead=st.booleans())
    def finish(self, pick: int, dead: bool) -> None:
        delivery, row = self._picked(pick)
        outcome = Outcome.UNDELIVERABLE if dead else Outcome.ANSWERED
        self.run(self.store.dead(delivery, outcome, "") if dead else self.store.done(delivery, outcome))
        self.model.end(row, outcome, self.clock())
        self.lost.append(delivery)

    def _picked(self, pick: int) -> tuple[Delivery, Row]:
        delivery = self.held[pick % len(self.held)]
        return delivery, self.model.rows[delivery.row]

    @precondition(lambda self: self.lost)
    @rule(pick=PICK, write=WRITES)
    def write_without_lease(self, pick: int, write: str) -> None:
        delivery = self.lost[-1 - pick % min(3, len(self.lost))]  # the latest: another may work on it by now
        values: dict[str, tuple[Any, ...]] = {
            "answered": (Answer("晚"), Outcome.FAILED),
            "sending": (1,),
            "later": (5.0,),
            "done": (Outcome.FAILED,),
            "dead": (Outcome.FAILED, ""),
        }
        with pytest.raises(LeaseLost):
            self.run(getattr(self.store, write)(delivery, *values[write]))

    @precondition(lambda self: self.model.rows)
    @rule(person=PEOPLE, pick=PICK)
    def cancel(self, person: str, pick: int) -> None:
        before = len(self.model.rows) + 1 if pick % 2 else pick % len(self.model.rows) + 1
        held = self.held
        gone = [
            row
            for row in self.model.open_rows()
            if row.person == person
            and row.task is Task.QUESTION
            and row.state in {State.READY, State.LEASED}
            and row.id < before
        ]
        ended = self.run(self.store.cancel(message("x", person=person), before=before))
        assert ended == {row.id: message(row.key, person=person) for row in gone}
        for row in gone:
            self.model.end(row, Outcome.CANCELLED, self.clock())
        self.lost += [one for one in held if self.model.rows[one.row].end is not None]

    # -- ends and starts

    @precondition(lambda self: self.model.rows)
    @rule(how=st.sampled_from(["crash", "stop", "poison"]), express=st.booleans())
    def restart(self, how: str, express: bool) -> None:
        """One rule for all, or there would be little else; `poison`: the same in work at one crash after another."""
        if how == "stop":
            self._stop()
            return
        for _ in range(3 if how == "poison" else 0):
            self.lease(4, express)
            self._crash()
            self.clock.tick(SETTLE_S)
        self._crash()

    def _crash(self) -> None:
        self.lost += self.held
        died = [one.lane for one in self.held]
        self.model.release()
        self.run(self.life.crash())
        assert self.life.recovered == self.model.start(self.clock(), died)

    def _stop(self) -> None:
        self.lost += self.held
        self.model.release()
        self.run(self.life.restart())
        assert self.life.recovered == self.model.start(self.clock(), [])

    # -- what always holds

    @invariant()
    def the_file_says_what_the_model_says(self) -> None:
        found, lanes = self.run(
            self.store._engine.run(
                lambda c: (
                    c.execute(
                        "SELECT id, lane, state, outcome, crashes, finished_at FROM message ORDER BY id"
                    ).fetchall(),
                    c.execute("SELECT key, head, due, token, suspect FROM lane").fetchall(),
                )
            )
        )
        assert len(found) == len(self.model.rows), "a message is lost"
        for id_, lane, state, outcome, crashes, finished_at in found:
            row = self.model.rows[id_]
            assert (lane, finished_at is not None) == (row.lane, row.end is not None)
            if row.end is not None:
                assert outcome == row.end, "a message ended twice"
            else:
                assert (state, outcome, crashes) == (row.state, row.outcome, row.crashes)
        assert {key: tuple(rest) for key, *rest in lanes} == {
            key: (self.model.head(key).id, lane.due, lane.held and lane.held.token, lane.suspect)
            for key, lane in self.model.lanes.items()
        }

    def teardown(self) -> None:
        """No lane is stuck: whatever is unfinished can be leased in the end, lane by lane in order."""
        try:
            if sys.exc_info()[0] is None:  # a step that failed is the finding, not what it leaves behind
                self._nothing_is_stuck()
        finally:
            self.run(self.store.close())
            self.runner.close()
            self.place.close()
            self.folder.cleanup()

    def _nothing_is_stuck(self) -> None:
        for delivery in self.held:
            self.run(self.store.later(delivery, 0.0))
        self.clock.tick(1000.0)
        ended = self.run(self._drain())
        assert sorted(ended) == [row.id for row in self.model.open_rows()]
        for lane in self.model.lanes:
            of_lane = [row.id for row in self.model.open_rows(lane)]
            assert [id_ for id_ in ended if id_ in of_lane] == of_lane

    async def _drain(self) -> list[int]:
        ended: list[int] = []
        while True:
            deliveries = [
                one for express in (False, True) for one in (await self.store.lease(2, express=express)).deliveries
            ]
            if not deliveries:
                return ended
            for delivery in deliveries:
                await self.store.done(delivery, Outcome.ANSWERED)
                ended.append(delivery.row)


def explore(inbox: type[Inbox], examples: int, steps: int) -> None:
    run_state_machine_as_test(
        inbox,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=False,
            print_blob=True,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )


def on(server: Server) -> type[Inbox]:
    class Shared(Inbox):
        def make_place(self, folder: Path) -> Place:
            return PostgresPlace(server, folder)

    return Shared


def test_the_store_and_its_model_stay_the_same() -> None:
    """No order of messages, leases, cancels, crashes and stops loses, repeats, reorders or blocks a message."""
    explore(Inbox, 60, 40)


def test_the_shared_store_and_its_model_stay_the_same(postgres: Server) -> None:
    """The same of one of several daemons, whose start leaves alone what is not its own."""
    explore(on(postgres), 20, 40)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_the_store_and_its_model_stay_the_same_for_long(request: pytest.FixtureRequest, database: str) -> None:
    """The same over many more and longer histories."""
    if database == "sqlite":
        explore(Inbox, 400, 100)
    else:
        explore(on(request.getfixturevalue("postgres")), 200, 100)
