"""What was spent of DingTalk's monthly pools: by day and kind, added up over the daemons of one store.

Day 0 of a month holds no numbers but notes about a pool, like a warning that was given.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone

from dingbridge.store.engine import Connection, Engine

CHINA = timezone(timedelta(hours=8))  # no summer time since 1991, so no time zone database is needed
CORRECTION = "correction"
KEPT_MONTHS = 13
_UPSERT = (
    "INSERT INTO spent (robot, month, day, pool, kind, count) VALUES (?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (robot, month, day, pool, kind) DO"
)
Counts = Mapping[tuple[str, int, str, str], int]  # by month ("2026-11"), day (from 1), pool and kind


class Spent:
    """Every method raises StoreError."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def add(self, robot: str, counts: Counts) -> None:
        """All of it, or nothing."""
        await self._engine.run(lambda c: _add(c, robot, counts))

    async def month(self, robot: str, month: str) -> dict[tuple[int, str, str], int]:
        """By day, pool and kind."""
        rows = await self._engine.run(
            lambda c: c.execute(
                "SELECT day, pool, kind, count FROM spent WHERE robot = ? AND month = ? AND day > 0", (robot, month)
            ).fetchall()
        )
        return {(day, pool, kind): count for day, pool, kind, count in rows}

    async def set_used(self, robot: str, month: str, day: int, pool: str, value: int) -> None:
        """From now on the pool's month comes to `value`; the difference is a correction of that day."""
        await self._engine.run(lambda c: _set_used(c, robot, month, day, pool, value))

    async def note(self, robot: str, month: str, pool: str, name: str) -> bool:
        """True for the one who was first."""
        values = (robot, month, 0, pool, name, 1)
        return await self._engine.run(lambda c: c.execute(f"{_UPSERT} NOTHING", values).rowcount == 1)

    async def unnote(self, robot: str, month: str, pool: str, name: str) -> None:
        await self._engine.run(
            lambda c: c.execute(
                "DELETE FROM spent WHERE robot = ? AND month = ? AND day = 0 AND pool = ? AND kind = ?",
                (robot, month, pool, name),
            )
        )

    async def notes(self, robot: str, month: str) -> set[tuple[str, str]]:
        """Pools with the names of what was noted."""
        rows = await self._engine.run(
            lambda c: c.execute(
                "SELECT pool, kind FROM spent WHERE robot = ? AND month = ? AND day = 0", (robot, month)
            ).fetchall()
        )
        return {(pool, name) for pool, name in rows}


def _add(c: Connection, robot: str, counts: Counts) -> None:
    for (month, day, pool, kind), count in sorted(counts.items()):  # in one order, so that two never wait for another
        c.execute(f"{_UPSERT} UPDATE SET count = spent.count + excluded.count", (robot, month, day, pool, kind, count))


def _set_used(c: Connection, robot: str, month: str, day: int, pool: str, value: int) -> None:
    (others,) = c.execute(
        "SELECT CAST(coalesce(sum(count), 0) AS BIGINT) FROM spent"
        " WHERE robot = ? AND month = ? AND pool = ? AND day > 0 AND NOT (day = ? AND kind = ?)",
        (robot, month, pool, day, CORRECTION),
    ).fetchone()
    c.execute(f"{_UPSERT} UPDATE SET count = excluded.count", (robot, month, day, pool, CORRECTION, value - others))


def forget(c: Connection, *, now: float) -> None:
    """Months that began more than thirteen months ago."""
    today = datetime.fromtimestamp(now, UTC).astimezone(CHINA)
    year, month = divmod(today.year * 12 + today.month - 1 - KEPT_MONTHS, 12)
    c.execute("DELETE FROM spent WHERE month < ?", (f"{year:04d}-{month + 1:02d}",))
