"""When to spend less of a monthly pool: pure functions of what was spent, the limit, and the share of the month gone.

Two questions are kept apart. How far is a pool ahead of an even pace (`pressure`)? By that, what nobody needs goes
first: waiting notices, then frames of cards, then cards. How long would it last if things went on as in the last week
(`slack`)? By that the pool is chosen that an answer to one person is paid from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise

API = "api"
WEBHOOK_STREAM = "webhook_stream"
POOLS = (API, WEBHOOK_STREAM)
MOST = 10**9  # calls of a month

# What is planned with; the rest is for what we do not count.
PLANNED: Mapping[str, float] = {API: 0.97, WEBHOOK_STREAM: 0.95}
# Questions cannot be held back, and a busy day may be the month's last: for it so much is kept until the end.
SPARE_DAYS: Mapping[str, float] = {API: 0.0, WEBHOOK_STREAM: 3.0}
# So far a pool may be ahead of an even pace. Work happens on five days of seven and by day, so even use is 2.3 days
# ahead on a Friday evening; 5 leave that nearly in peace, and a first day cannot take the whole month.
AHEAD_DAYS = 5.0
AHEAD_CALLS = 30  # where those days are next to nothing, yet never more than a quarter of the month
WEEK = 7
LEAST_DAYS = 7.0  # a first hour says nothing of a month
PLENTY = 2.0  # a pool that holds twice what it has to carry needs no relief
SCARCE = 1.1  # below that what the pool carries anyway is in danger
SPARING = 1.25  # below that nobody is told to wait, for what a notice takes is what a busy day will need
PREFER = 1.15  # so much better the other pool must be


class Level(IntEnum):
    """What is left out, the dearest for the asker last."""

    FULL = 0
    NO_NOTICE = 1
    FRAMES_2_S = 2
    FRAMES_4_S = 3
    FRAMES_8_S = 4
    FINAL_ONLY = 5
    NO_CARD = 6


# The pressure from which a level holds; it ends by BAND less, so that it does not flap.
FROM: Mapping[Level, float] = {
    Level.NO_NOTICE: 0.3,
    Level.FRAMES_2_S: 0.35,
    Level.FRAMES_4_S: 0.45,
    Level.FRAMES_8_S: 0.55,
    Level.FINAL_ONLY: 0.65,
    Level.NO_CARD: 0.9,
}
BAND = 0.1
_INTERVALS: Mapping[Level, float] = {
    Level.FULL: 1.0,
    Level.NO_NOTICE: 1.0,
    Level.FRAMES_2_S: 2.0,
    Level.FRAMES_4_S: 4.0,
    Level.FRAMES_8_S: 8.0,
}
assert all(one < other for one, other in pairwise(FROM.values()))


@dataclass(frozen=True, slots=True)
class PoolNow:
    """A pool at a moment. limit: 0 is none. elapsed: share of the month's `days` that is gone.

    daily: what a day took of late, without what can be left out. refused: DingTalk says that it is spent.
    """

    name: str
    limit: int
    used: int
    elapsed: float
    days: int
    daily: float = 0.0
    refused: bool = False

    @property
    def planned(self) -> float:
        return self.limit * PLANNED[self.name]

    @property
    def left(self) -> float:
        """Of what is planned with; infinite without a limit."""
        if self.refused:
            return 0.0
        return max(0.0, self.planned - self.used) if self.limit else float("inf")

    @property
    def needed(self) -> float:
        """Until the month's end, if days go on like that; the spare days, too."""
        return self.daily * (self.days * (1.0 - self.elapsed) + SPARE_DAYS[self.name])


def pressure(pool: PoolNow, aside: float = 0.0) -> float:
    """0 and less: at an even pace or below. 1: as far ahead as it may be. More is possible.

    aside: calls that are to be left for something else.
    Near the month's end the allowance ahead melts to half of what an even pace has left, so that it ends inside.
    """
    if pool.refused:
        return float("inf")
    if not pool.limit:
        return 0.0
    allowance = max(AHEAD_DAYS / pool.days, min(AHEAD_CALLS / pool.planned, 0.25))
    allowance = max(min(allowance, (1.0 - pool.elapsed) / 2), 1e-9)
    return ((pool.used + aside) / pool.planned - pool.elapsed) / allowance


def level_at(pressure: float, before: Level) -> Level:
    """The one before holds on until the pressure is BAND below its beginning."""
    up = max((one for one, start in FROM.items() if pressure >= start), default=Level.FULL)
    down = max((one for one, start in FROM.items() if pressure >= start - BAND), default=Level.FULL)
    return up if up >= before else min(before, down)


def level(pool: PoolNow, before: Level, aside: float = 0.0) -> Level:
    """Webhook and stream pay for no cards, and save notices also where questions would not last.

    aside: what webhook and stream will lack, so that the API has to pay for it: cards yield to that as far as their
    last frame only, for a card, too, is an answer that needs no webhook.
    """
    now = level_at(pressure(pool), before)
    if pool.name != WEBHOOK_STREAM:
        return max(now, min(level_at(pressure(pool, aside), before), Level.FINAL_ONLY))
    enough = SPARING * PREFER if before else SPARING
    return Level.NO_NOTICE if slack(pool) < enough else min(now, Level.NO_NOTICE)


def interval_s(level: Level) -> float | None:
    """Between two frames of a card; None: only the final one."""
    return _INTERVALS.get(level)


def slack(pool: PoolNow) -> float:
    """What is left, by what would be needed until the month's end; at most PLENTY."""
    if not pool.left:
        return 0.0
    return min(PLENTY, pool.left / pool.needed) if pool.needed > 0 else PLENTY


def lacking(pool: PoolNow) -> float:
    """What will not be there at the month's end, if things go on like that."""
    return max(0.0, pool.needed * SCARCE - pool.left)


def choose(webhook_stream: PoolNow, api: PoolNow, before: str) -> str:
    """The pool that pays for an answer to one person.

    Questions are protected: where webhook and stream would not last, the API pays while it can at all, and cards show
    fewer frames for it. Else the one with more slack, and the one before unless the other is clearly better; webhooks
    where both have plenty, for they need no permission.
    """
    by_webhook, by_api = slack(webhook_stream), slack(api)
    if by_webhook < SCARCE and by_api > 0:
        return API
    if by_webhook == by_api:  # plenty of both, or none of either
        return WEBHOOK_STREAM
    mine, other = (by_webhook, by_api) if before == WEBHOOK_STREAM else (by_api, by_webhook)
    if other < mine * PREFER:
        return before
    return API if before == WEBHOOK_STREAM else WEBHOOK_STREAM


def recent_daily(by_day: Mapping[int, int], today: int, fraction: float) -> float:
    """Calls a day over the last week, which has each weekday once; today is `fraction` gone."""
    first = max(1, today - WEEK + 1)
    total = sum(by_day.get(day, 0) for day in range(first, today + 1))
    return total / max(LEAST_DAYS, today - first + fraction)


def runs_out(pool: PoolNow, daily: float, today: int, fraction: float) -> int | None:
    """The day of the month on which the limit is reached if days go on like that; None: not in this month."""
    if not pool.limit:
        return None
    if pool.used >= pool.limit:
        return today
    if daily <= 0:
        return None
    day = int(today + fraction + (pool.limit - pool.used) / daily)
    return day if day <= pool.days else None


def decode_used(text: str) -> int | None:
    """What an operator says was used of a pool; None where it is no such number."""
    whole = text.isascii() and text.isdecimal() and len(text) <= len(str(MOST))
    return int(text) if whole and int(text) <= MOST else None
