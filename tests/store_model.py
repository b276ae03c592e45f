"""What the store promises, said once more in plain Python and without a database."""

from __future__ import annotations

from dataclasses import dataclass, field

from dingbridge.model import Delivery, Outcome, State, Task
from dingbridge.store.recovery import SETTLE_S, Recovered


@dataclass
class Row:
    """A message as the model knows it; `end` is its outcome once it ended."""

    id: int
    key: str
    person: str
    lane: str
    task: Task
    state: State = State.READY
    part: int = 0
    uncertain: bool = False
    outcome: Outcome | None = None
    crashes: int = 0
    end: Outcome | None = None


@dataclass
class Lane:
    due: float
    express: bool
    held: Delivery | None = None
    suspect: bool = False


@dataclass
class Model:
    """Lanes in the order of their first message; a lane is there as long as it has unfinished messages."""

    shared: bool = False  # by several daemons: the start of one of them leaves alone what it has not leased itself
    settled_at: float = 0.0
    rows: dict[int, Row] = field(default_factory=dict)
    lanes: dict[str, Lane] = field(default_factory=dict)
    generations: dict[str, int] = field(default_factory=dict)

    def open_rows(self, lane: str | None = None) -> list[Row]:
        return [row for row in self.rows.values() if row.end is None and lane in (None, row.lane)]

    def head(self, lane: str) -> Row:
        return self.open_rows(lane)[0]

    def put(self, row: Row, now: float) -> None:
        self.rows[row.id] = row
        self.lanes.setdefault(row.lane, Lane(now, row.task is not Task.QUESTION))

    def due(self, count: int, *, express: bool, now: float) -> list[str]:
        """The lanes a lease is to give, in order."""
        if any(lane.suspect and lane.held for lane in self.lanes.values()):
            return []
        suspects = sorted(
            (lane.due, self.head(key).id, key) for key, lane in self.lanes.items() if lane.suspect and lane.due <= now
        )
        if suspects and now >= self.settled_at:
            *_, key = suspects[0]
            alone = all(lane.held is None for lane in self.lanes.values())
            return [key] if alone and self.lanes[key].express is express else []
        free = [
            (lane.due, self.head(key).id, key)
            for key, lane in self.lanes.items()
            if lane.held is None and lane.express is express and lane.due <= now and not lane.suspect
        ]
        return [key for _, _, key in sorted(free)[:count]]

    def end(self, row: Row, outcome: Outcome, now: float) -> None:
        assert row.end is None, "a message ended twice"
        was_head = self.head(row.lane) is row
        row.end = outcome
        if not self.open_rows(row.lane):
            del self.lanes[row.lane]
        elif was_head:
            lane = self.lanes[row.lane]
            lane.due, lane.held, lane.suspect = now, None, False

    def release(self) -> None:
        for key, lane in self.lanes.items():
            row = self.head(key)
            if lane.held is not None:
                row.uncertain = row.uncertain or row.state is State.SENDING
                row.state = State.READY if row.state is State.LEASED else row.state
            lane.held = None

    def start(self, now: float, died: list[str]) -> Recovered:
        """A start, after a crash while the heads of `died` were leased."""
        self.settled_at = now + SETTLE_S if self.shared else 0.0
        touched = {key: self.lanes[key] for key in died} if self.shared else self.lanes
        for key in died:
            self.head(key).crashes += 1
        for lane in touched.values():
            lane.due, lane.suspect = min(lane.due, now), False
        guilty = [row for row in self.open_rows() if row.crashes >= 3]
        for row in guilty:
            if row.outcome is Outcome.DEAD:  # even telling it kills
                self.end(row, Outcome.DEAD, now)
            else:
                row.state, row.part, row.uncertain, row.outcome = State.ANSWERED, 0, False, Outcome.DEAD
        if guilty:
            for row in self.open_rows():
                row.crashes = 0
            for lane in self.lanes.values():
                lane.suspect = False
        for key, lane in touched.items():
            if key in self.lanes and self.head(key).crashes >= 2:
                lane.suspect, lane.due = True, now + SETTLE_S
        return Recovered(returned=len(died), dead=len(guilty))
