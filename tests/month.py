"""A month of questions on a virtual clock, through the real budget: `python -m tests.month [--days] [--capacity]`.

Beside it the same month without adaptation: the same budget without limits, so that nothing is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import structlog

from dingbridge.journal.budget import Budget, day_at
from dingbridge.journal.thrift import API, POOLS, WEBHOOK_STREAM
from dingbridge.settings import BudgetConfig
from dingbridge.store.spent import CHINA, Spent
from dingbridge.store.sqlite import SQLiteStore
from tests.stores import Clock

DAY_S = 86_400.0
BEGIN = datetime(2026, 9, 1, tzinfo=CHINA)  # a Tuesday
DAYS = 30
STANDARD = BudgetConfig(5000, 3000, "auto")
WITHOUT = BudgetConfig(0, 0, "webhook")
# Of an office's day: share of questions by the hour.
HOURS = {8: 1, 9: 6, 10: 8, 11: 6, 12: 2, 13: 4, 14: 8, 15: 8, 16: 7, 17: 5, 18: 2, 19: 1, 21: 1}
WEEKEND = 0.1  # of a workday's questions


@dataclass(frozen=True, slots=True)
class Habits:
    """How a month is. Shares are of questions; a follow-up is a question more."""

    questions: int = 1000
    card: float = 0.4
    one_to_one: float = 0.6
    notice: float = 1 / 3
    follow_up: float = 0.2
    callback: float = 0.25  # of cards, each with an update of the card
    long: float = 0.2  # answers of two messages
    download: float = 0.03
    burst_day: int | None = 10  # from 0
    burst: int = 200
    answer_s: tuple[float, float] = (6.0, 24.0)


@dataclass(frozen=True, slots=True)
class Asked:
    """at: seconds since the month began. answer_s: how long the backend writes."""

    at: float
    card: bool
    one_to_one: bool
    notice: bool
    callback: bool
    download: bool
    parts: int
    answer_s: float


@dataclass(slots=True)
class Result:
    """by_day: what each day took of each pool. kinds: of the month. seen: how answers went out."""

    by_day: list[Counter[str]] = field(default_factory=lambda: [Counter() for _ in range(DAYS)])
    kinds: Counter[tuple[str, str]] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    changes: int = 0

    def used(self, pool: str) -> int:
        return sum(day[pool] for day in self.by_day)

    @property
    def unavoidable(self) -> int:
        """Of webhook and Stream: what comes in, and groups' answers."""
        return sum(self.kinds[WEBHOOK_STREAM, kind] for kind in ("inbound", "callback")) + self.seen["group parts"]


def month_of(habits: Habits, seed: int) -> list[Asked]:
    rng = random.Random(seed)
    weights = [WEEKEND if (BEGIN.weekday() + day) % 7 >= 5 else 1.0 for day in range(DAYS)]
    burst = min(habits.burst, habits.questions) if habits.burst_day is not None else 0
    days = rng.choices(range(DAYS), weights, k=habits.questions - burst) + [habits.burst_day or 0] * burst
    asked = [_asked(habits, rng, day * DAY_S + _moment(rng)) for day in days]
    later = [rng.uniform(60, 600) if rng.random() < habits.follow_up else 0.0 for _ in asked]
    asked += [_asked(habits, rng, one.at + wait) for one, wait in zip(asked, later, strict=True) if wait]
    return sorted(asked, key=lambda one: one.at)


def _moment(rng: random.Random) -> float:
    (hour,) = rng.choices(list(HOURS), list(HOURS.values()))
    return hour * 3600 + rng.uniform(0, 3600)


def _asked(habits: Habits, rng: random.Random, at: float) -> Asked:
    def draw(share: float) -> bool:
        return rng.random() < share

    return Asked(
        at,
        card=draw(habits.card),
        one_to_one=draw(habits.one_to_one),
        notice=draw(habits.notice),
        callback=draw(habits.callback),
        download=draw(habits.download),
        parts=2 if draw(habits.long) else 1,
        answer_s=rng.uniform(*habits.answer_s),
    )


class Month:
    """Spends through a budget what a daemon would, one question after the other."""

    def __init__(self, budget: Budget, clock: Clock) -> None:
        self.budget = budget
        self.clock = clock
        self.result = Result()
        self._paths: dict[bool, str] = {}

    def spend(self, pool: str, kind: str, n: int = 1) -> None:
        self.budget.count(pool, kind, n)
        self.result.by_day[day_at(self.clock()).day - 1][pool] += n
        self.result.kinds[pool, kind] += n

    def ask(self, one: Asked) -> None:
        self.clock.now = BEGIN.timestamp() + one.at
        self.spend(WEBHOOK_STREAM, "inbound")
        if one.download:
            self.spend(API, "download")
        if one.card and self.budget.cards_allowed():
            self._card(one)
            return
        if one.notice and self.budget.notice_allowed():
            self.spend(WEBHOOK_STREAM, "notice")
            self.result.seen["notices"] += 1
        path = self.budget.reply_path(one.one_to_one)
        self.result.changes += self._paths.get(one.one_to_one, path) != path
        self._paths[one.one_to_one] = path
        pool, kind = (API, "send") if path == "openapi" else (WEBHOOK_STREAM, "reply")
        self.spend(pool, kind, one.parts)
        self.result.seen[f"by {path}"] += 1
        self.result.seen["group parts"] += 0 if one.one_to_one else one.parts

    def _card(self, one: Asked) -> None:
        self.spend(API, "card.create")
        written, frames = 0.0, 0
        while (pause := self.budget.frame_interval_s()) is not None and (written := written + pause) < one.answer_s:
            self.clock.tick(pause)
            self.spend(API, "card.frame")
            frames += 1
        self.spend(API, "card.final")
        self.result.seen["cards"] += 1
        self.result.seen["cards that grow"] += frames > 0
        if one.callback:
            self.spend(WEBHOOK_STREAM, "callback")
            self.spend(API, "card.update")


def played(habits: Habits, seed: int, config: BudgetConfig, spent: Spent) -> Result:
    """Without the store, but for what it needs to be made."""
    clock = Clock(BEGIN.timestamp())
    month = Month(Budget(config, "ding1", spent, clock=clock), clock)
    for one in month_of(habits, seed):
        month.ask(one)
    return month.result


async def lived(habits: Habits, seed: int, config: BudgetConfig, spent: Spent, robot: str) -> Result:
    """Kept in the store each hour, and read back; started anew on each tenth day."""
    clock = Clock(BEGIN.timestamp())
    month = Month(Budget(config, robot, spent, clock=clock), clock)
    kept_at, started = 0.0, 0
    for one in month_of(habits, seed):
        month.ask(one)
        if one.at > kept_at + 3600:
            await month.budget.flush()
            kept_at = one.at
        if (tenth := int(one.at // (10 * DAY_S))) > started:
            started = tenth
            await month.budget.close()
            month.budget = Budget(config, robot, spent, clock=clock)
            await month.budget.read()
    await month.budget.close()
    return month.result


@asynccontextmanager
async def somewhere() -> AsyncIterator[SQLiteStore]:
    with tempfile.TemporaryDirectory() as folder:
        store = SQLiteStore(Path(folder) / "x.db", clock=Clock())
        await store.open()
        try:
            yield store
        finally:
            await store.close()


def unopened() -> Spent:
    """For budgets that keep nothing."""
    return SQLiteStore(Path("nowhere.db"), clock=Clock()).spent


# -- capacity

EDITIONS = {
    "standard": BudgetConfig(5000, 3000, "auto"),
    "professional": BudgetConfig(200_000, 50_000, "auto"),
    "professional + add-on": BudgetConfig(5_200_000, 550_000, "auto"),
}
FRAMES = (0, 10, 20)


def styles() -> Iterator[tuple[str, int, int]]:
    """(style, API calls, messages by webhook and Stream) of one question with an answer of one message."""
    yield "markdown by webhook", 0, 2
    yield "markdown by webhook, with a notice", 0, 3
    yield "markdown by OpenAPI (one to one)", 1, 1
    for frames in FRAMES:
        yield f"card, {frames} frames" if frames else "card, only the final text", 2 + frames, 1


def capacity(config: BudgetConfig, api: int, webhook_stream: int) -> int:
    by_api = config.api_calls_per_month // api if api else None
    by_webhook = config.webhook_stream_per_month // webhook_stream
    return by_webhook if by_api is None else min(by_api, by_webhook)


def simulated(edition: BudgetConfig, config: BudgetConfig) -> int:
    """So many questions of the simulated kind stay inside the edition, found by halving; follow-ups come on top."""
    spent = unopened()
    scale = edition.webhook_stream_per_month
    low, high = 0, scale
    while high - low > scale // 300:
        middle = (low + high) // 2
        result = played(Habits(questions=middle, burst=middle // 5), 1, config, spent)
        fits = result.used(API) <= edition.api_calls_per_month and result.used(WEBHOOK_STREAM) <= scale
        low, high = (middle, high) if fits else (low, middle)
    return low


def print_capacity() -> None:
    print(f"{'a question answered by':36}" + "".join(f"{name:>24}" for name in EDITIONS))
    for style, api, webhook_stream in styles():
        cells = (f"{capacity(config, api, webhook_stream):,}" for config in EDITIONS.values())
        print(f"{style:36}" + "".join(f"{cell:>24}" for cell in cells))
    for name, config in (("mixed as simulated, adapting", STANDARD), ("the same without adapting", WITHOUT)):
        print(f"{name:36}{simulated(STANDARD, config):>24,}")


# -- telling


def print_days(names: tuple[str, str], results: tuple[Result, Result], habits: Habits, seed: int) -> None:
    asked = Counter(int(one.at // DAY_S) for one in month_of(habits, seed))
    print(f"{'':4}{'':>10}" + "".join(f"{name:>26}" for name in names))
    print(f"{'day':4}{'questions':>10}" + f"{'api':>14}{'webhook':>12}" * 2)
    sums = [Counter[str](), Counter[str]()]
    for day in range(DAYS):
        cells = ""
        for result, total in zip(results, sums, strict=True):
            total.update(result.by_day[day])
            cells += f"{total[API]:>14}{total[WEBHOOK_STREAM]:>12}"
        print(f"{day + 1:<4}{asked[day]:>10}{cells}")


def print_end(name: str, result: Result, config: BudgetConfig) -> None:
    for pool, limit in zip(POOLS, (config.api_calls_per_month, config.webhook_stream_per_month), strict=True):
        kinds = ", ".join(f"{kind} {n}" for (of, kind), n in sorted(result.kinds.items()) if of == pool)
        state = "inside" if result.used(pool) <= limit else "OVER"
        print(f"{name:10} {pool:15} {result.used(pool):6} of {limit:6}  {state:7} {kinds}")
    print(f"{name:10} " + ", ".join(f"{n} {what}" for what, n in sorted(result.seen.items())))


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--days", action="store_true", help="both pools, day by day")
    parser.add_argument("--capacity", action="store_true", help="questions a month by edition and style of answer")
    parser.add_argument("--seed", type=int, default=1)
    told = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    if told.capacity:
        print_capacity()
        return
    habits = Habits()
    async with somewhere() as store:
        adapting = await lived(habits, told.seed, STANDARD, store.spent, "adapting")
        plain = await lived(habits, told.seed, WITHOUT, store.spent, "plain")
    if told.days:
        print_days(("adapting", "without"), (adapting, plain), habits, told.seed)
    print_end("adapting", adapting, STANDARD)
    print_end("without", plain, STANDARD)


if __name__ == "__main__":
    asyncio.run(main())
