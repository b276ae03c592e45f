"""DingTalk's monthly pools as a budget: counted at once, kept a moment later, and spent so that they last.

Per organisation and month DingTalk allows so many API calls, and so many messages by webhook and Stream (its page on
billing and its page on throttling); `[budget]` is this robot's share. What counts is what DingTalk has taken or may
have taken: calls that it refuses for being too fast, and those that never reached it, are not billed. That a session
webhook's messages count is not written anywhere, and taken for granted.

It never refuses: every answer goes out by some way, also beyond the limit. See `thrift.py` for what is left out when.
"""

from __future__ import annotations

import asyncio
import calendar
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import structlog

from dingbridge.errors import StoreError
from dingbridge.journal import thrift
from dingbridge.journal.metrics import Metrics
from dingbridge.journal.thrift import API, POOLS, WEBHOOK_STREAM, Level, PoolNow
from dingbridge.settings import BudgetConfig
from dingbridge.store.spent import CHINA, CORRECTION, Spent

log = structlog.get_logger("dingbridge.budget")

Path = Literal["webhook", "openapi"]
FLUSH_S = 2.0
READ_S = 30.0  # with nothing to keep, what others have spent can wait so long
CLOSE_S = 5.0
WARN_AT = (80, 95)
# What may be counted, by pool. A correction is made by hand.
KINDS: dict[str, tuple[str, ...]] = {
    API: ("send", "card.create", "card.frame", "card.final", "card.update", "emotion", "download"),
    WEBHOOK_STREAM: ("inbound", "callback", "reply", "notice", "alert"),
}
NOTICES = frozenset({"notice", "emotion"})  # can be left out, so no forecast has to carry them
INCOMING = frozenset({"inbound", "callback"})  # say nothing of what DingTalk lets out
_REFUSED = "refused"
_WEBHOOK, _OPENAPI = "webhook", "openapi"


@dataclass(frozen=True, slots=True)
class Day:
    """Of China's calendar. fraction: of this day; elapsed: of the month with its `days`."""

    month: str
    day: int
    days: int
    fraction: float

    @property
    def elapsed(self) -> float:
        return (self.day - 1 + self.fraction) / self.days


def day_at(now: float) -> Day:
    """now: seconds since the epoch."""
    at = datetime.fromtimestamp(now, UTC).astimezone(CHINA)
    _, days = calendar.monthrange(at.year, at.month)
    fraction = (at.hour * 3600 + at.minute * 60 + at.second) / 86_400
    return Day(f"{at.year:04d}-{at.month:02d}", at.day, days, fraction)


class Budget:
    """`run()` keeps what was counted, and `close()` keeps the rest; a kill loses FLUSH_S of counting at most.

    clock: seconds since the epoch. Where several daemons share a store, each sees with every flush what all have spent.
    """

    def __init__(
        self,
        config: BudgetConfig,
        robot: str,
        spent: Spent,
        *,
        clock: Callable[[], float],
        metrics: Metrics | None = None,
        flush_s: float = FLUSH_S,
    ) -> None:
        self._config = config
        self._robot = robot
        self._spent = spent
        self._clock = clock
        self._metrics = metrics
        self._flush_s = flush_s
        self._keeping = asyncio.Lock()
        self._pending: Counter[tuple[str, int, str, str]] = Counter()
        self._begin(day_at(clock()).month)

    def use(self, config: BudgetConfig) -> None:
        """After a reload."""
        self._config = config
        self._gauge()

    def _begin(self, month: str) -> None:
        self._month = month
        self._clear()
        self._levels = dict.fromkeys(POOLS, Level.FULL)
        self._refused: set[str] = set()
        self._noted: set[str] = set()  # refused, as the store knows it
        self._warned: set[tuple[str, str]] = set()
        self._payer = WEBHOOK_STREAM

    def _clear(self) -> None:
        self._by_kind: dict[str, Counter[str]] = {pool: Counter() for pool in POOLS}
        self._by_day: dict[str, Counter[int]] = {pool: Counter() for pool in POOLS}  # corrections left out
        self._needed: dict[str, Counter[int]] = {pool: Counter() for pool in POOLS}  # notices, too
        self._used = dict.fromkeys(POOLS, 0)

    def _today(self) -> Day:
        """A new month begins here."""
        today = day_at(self._clock())
        if today.month > self._month:  # a clock that is set back stays in the month
            self._begin(today.month)
        return today

    # -- counting

    def count(self, pool: str, kind: str, n: int = 1) -> None:
        """DingTalk has taken `n` of them, or may have. Raises KeyError, ValueError for what has no name here."""
        if kind not in KINDS[pool]:
            raise ValueError(f"{pool} has no kind {kind!r}")
        today = self._today()
        self._pending[self._month, today.day, pool, kind] += n
        self._take(today.day, pool, kind, n)
        if self._metrics is not None:
            self._metrics.quota.labels(pool, kind).inc(n)
        if pool in self._refused and kind not in INCOMING:
            self._refused.discard(pool)
            log.info("budget.accepted_again", pool=pool)

    def refused(self, pool: str) -> None:
        """DingTalk says that the pool is spent: so it is for the month, until something is taken after all."""
        self._today()
        if pool not in self._refused:
            self._refused.add(pool)
            log.warning("budget.refused", pool=pool, used=self._used[pool], limit=self._limit(pool), cause="chat.quota")

    def _take(self, day: int, pool: str, kind: str, n: int) -> None:
        self._used[pool] += n
        self._by_kind[pool][kind] += n
        if kind != CORRECTION:
            self._by_day[pool][day] += n
            if kind not in NOTICES:
                self._needed[pool][day] += n

    # -- deciding

    def reply_path(self, one_to_one: bool) -> Path:
        """How an answer goes out first. OpenAPI cannot mention, so a group's answers take the webhook."""
        if not one_to_one or self._config.reply_path == _WEBHOOK:
            return "webhook"
        if self._config.reply_path == _OPENAPI:
            return "openapi"
        today = self._today()
        self._payer = thrift.choose(self._pool(WEBHOOK_STREAM, today), self._pool(API, today), self._payer)
        return "openapi" if self._payer == API else "webhook"

    def notice_allowed(self, pool: str = WEBHOOK_STREAM) -> bool:
        """Whether a waiting notice may be sent. pool: that pays for it; API for an emotion or by OpenAPI."""
        return self._level(pool, self._today()) < Level.NO_NOTICE

    def frame_interval_s(self) -> float | None:
        """Seconds between two frames of a card; None: only the final one. Ask before each frame."""
        return thrift.interval_s(self._level(API, self._today()))

    def cards_allowed(self) -> bool:
        return self._level(API, self._today()) < Level.NO_CARD

    def _level(self, pool: str, today: Day) -> Level:
        before, now = self._levels[pool], self._level_now(pool, today)
        if now is not before:
            self._levels[pool] = now
            used, limit = self._used[pool], self._limit(pool)
            log.info(
                "budget.level", pool=pool, level=now.name.lower(), before=before.name.lower(), used=used, limit=limit
            )
        return now

    def _level_now(self, pool: str, today: Day) -> Level:
        aside = thrift.lacking(self._pool(WEBHOOK_STREAM, today)) if pool == API else 0.0
        return thrift.level(self._pool(pool, today), self._levels[pool], aside)

    def _limit(self, pool: str) -> int:
        return self._config.api_calls_per_month if pool == API else self._config.webhook_stream_per_month

    def _pool(self, pool: str, today: Day) -> PoolNow:
        return PoolNow(
            pool,
            self._limit(pool),
            self._used[pool],
            today.elapsed,
            today.days,
            thrift.recent_daily(self._needed[pool], today.day, today.fraction),
            pool in self._refused,
        )

    # -- keeping

    async def run(self) -> None:
        """Until cancelled. What the store does not take just now is tried again with the next flush."""
        loop = asyncio.get_running_loop()
        read_at = 0.0
        while True:
            if self._pending or self._refused != self._noted or loop.time() >= read_at:
                with suppress(StoreError):  # told as every trouble of the store is
                    await self.flush()
                read_at = loop.time() + READ_S
            await asyncio.sleep(self._flush_s)

    async def close(self) -> None:
        """Before the store is closed; a database that hangs does not keep it."""
        with suppress(StoreError, TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self.flush()

    async def flush(self) -> None:
        """Keep what was counted, and see what all have spent. Raises StoreError; then nothing is forgotten."""
        async with self._keeping:
            await self._keep()
            await self._read()
            await self._warn()

    async def read(self) -> None:
        """What all have spent, for who only looks. Raises StoreError."""
        async with self._keeping:
            await self._read()

    async def set_used(self, values: Mapping[str, int]) -> None:
        """The pools' months come to these numbers from now on, by what DingTalk's console says. Raises StoreError."""
        async with self._keeping:
            await self._keep()
            today = self._today()
            for pool, value in values.items():
                await self._spent.set_used(self._robot, self._month, today.day, pool, value)
                await self._spent.unnote(self._robot, self._month, pool, _REFUSED)
                self._refused.discard(pool)
            await self._read()

    async def _keep(self) -> None:
        self._today()
        pending, self._pending = self._pending, Counter()
        try:
            if pending:
                await self._spent.add(self._robot, pending)
        except StoreError:
            self._pending.update(pending)  # twice where only the commit's answer was lost: better than not at all
            raise
        for pool in self._refused - self._noted:
            await self._spent.note(self._robot, self._month, pool, _REFUSED)
        for pool in self._noted - self._refused:
            await self._spent.unnote(self._robot, self._month, pool, _REFUSED)

    async def _read(self) -> None:
        month, known = self._month, set(self._refused)
        cells = await self._spent.month(self._robot, month)
        notes = await self._spent.notes(self._robot, month)
        if month != self._month:
            return
        self._clear()
        for (day, pool, kind), n in cells.items():
            if pool in POOLS:  # another version may know more
                self._take(day, pool, kind, n)
        for (of, day, pool, kind), n in self._pending.items():
            if of == month:
                self._take(day, pool, kind, n)
        self._warned = {note for note in notes if note[1] != _REFUSED}
        self._noted = {pool for pool, name in notes if name == _REFUSED and pool in POOLS}
        self._refused = (self._noted - (known - self._refused)) | (self._refused - known)
        self._gauge()

    async def _warn(self) -> None:
        today = self._today()
        for pool, percent in ((pool, percent) for pool in POOLS for percent in WARN_AT):
            name, limit, used = f"warned {percent}", self._limit(pool), self._used[pool]
            if not limit or used * 100 < limit * percent or (pool, name) in self._warned:
                continue
            if await self._spent.note(self._robot, self._month, pool, name):
                out = self._runs_out(pool, today)
                on = f"{self._month}-{out:02d}" if out is not None else ""
                log.warning("budget.warning", pool=pool, percent=percent, used=used, limit=limit, runs_out=on)
            self._warned.add((pool, name))

    def _gauge(self) -> None:
        if self._metrics is not None:
            for pool in POOLS:
                self._metrics.quota_used.labels(pool).set(self._used[pool])
                self._metrics.quota_limit.labels(pool).set(self._limit(pool))

    # -- looking

    def facts(self) -> dict[str, Any]:
        """For JSON: how much each pool has given, for how long it lasts, and what is left out now."""
        today = self._today()
        return {
            "month": self._month,
            "elapsed": round(today.elapsed, 4),
            "reply_path": self._config.reply_path,
            "pools": {pool: self._seen(pool, today) for pool in POOLS},
        }

    def _seen(self, pool: str, today: Day) -> dict[str, Any]:
        limit, used, daily = self._limit(pool), self._used[pool], self._daily(pool, today)
        return {
            "limit": limit,
            "used": used,
            "share": round(used / limit, 4) if limit else None,
            "forecast": round(used + daily * today.days * (1.0 - today.elapsed)),
            "runs_out_day": self._runs_out(pool, today),
            "refused": pool in self._refused,
            "level": self._level_now(pool, today).name.lower(),
            "kinds": {kind: self._by_kind[pool][kind] for kind in (*KINDS[pool], CORRECTION)},
        }

    def _daily(self, pool: str, today: Day) -> float:
        return thrift.recent_daily(self._by_day[pool], today.day, today.fraction)

    def _runs_out(self, pool: str, today: Day) -> int | None:
        return thrift.runs_out(self._pool(pool, today), self._daily(pool, today), today.day, today.fraction)
