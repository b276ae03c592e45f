"""The inbox in PostgreSQL, for several daemons of one robot.

A lease ends by itself: who does not renew it in time is taken for dead, and another daemon goes on. Where the
database was away nobody could renew, so for a while after that nobody is taken for dead.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import structlog

from dingbridge.clock import DRIFT_S
from dingbridge.errors import StoreError, StoreLocked, StoreUnavailable
from dingbridge.model import Message
from dingbridge.store import recovery, replicas, shared
from dingbridge.store.intake import Limits
from dingbridge.store.postgres_engine import Address, PostgresEngine, explained
from dingbridge.store.postgres_schema import lacking_rights, require, require_rights, version_of
from dingbridge.store.recovery import Recovered
from dingbridge.store.replicas import Replica
from dingbridge.store.seat import Seat, new_name, take_seat
from dingbridge.store.session import Session
from dingbridge.store.store import LEASE_S, Crew, Store

log = structlog.get_logger("dingbridge.store")

WAKE, LEASES = "wake", "leases"
TOLD_S = 1.0  # what has changed of a daemon is told to the others
LEAVE_S = 3.0
NAME_S = 3.0  # so long the server may take to see that the one before has died


@dataclass(frozen=True, slots=True)
class Rhythm:
    """Seconds. steady_s: how long the database must have answered before anybody is taken for dead."""

    lease_s: float = LEASE_S
    renew_s: float = 10.0
    look_s: float = 2.0
    steady_s: float = 15.0


@dataclass(frozen=True, slots=True)
class Seen:
    """version: of the tables, 0 where there are none. clock_s: so much is this machine's clock ahead of the store's."""

    version: int
    daemons: tuple[Replica, ...]
    clock_s: float


async def look(where: Address) -> Seen:
    """What is there; nothing is changed. Raises StoreError, also where a daemon would lack rights."""
    engine = PostgresEngine(where, threads=1)
    engine.prepared_by = require_rights

    def run(c: Any) -> Seen:
        (now,) = c.execute(f"SELECT {replicas.NOW}").fetchone()
        clock_s = time.time() - now
        if not (version := version_of(c)):
            return Seen(0, (), clock_s)
        return Seen(version, tuple(replicas.listed(c, LEASE_S)), clock_s)

    try:
        await engine.open()
        return await engine.run(run)
    finally:
        await engine.close()


def _condition(told: Mapping[str, Any]) -> list[Any]:
    """What others should hear of at once."""
    return [told.get(name) for name in ("ready", "link", "why", "on_duty")]


class PostgresStore(Store):
    """path: in a folder of this machine; lock and control socket stand beside it.

    on_time: told what time it is for all, in seconds since the epoch. The rest is as for SQLite.
    """

    def __init__(
        self,
        where: Address,
        path: Path,
        *,
        clock: Callable[[], float],
        limits: Limits | None = None,
        wipe: bool = True,
        on_commit: Callable[[float], None] = lambda _: None,
        redact: Callable[[str], str] = str,
        on_trouble: Callable[[StoreError | None], None] = lambda _: None,
        on_time: Callable[[float], None] = lambda _: None,
        rhythm: Rhythm | None = None,
    ) -> None:
        self._rhythm = rhythm or Rhythm()
        self._postgres = PostgresEngine(where, on_commit=on_commit, on_trouble=self._troubled)
        super().__init__(
            self._postgres, clock=clock, limits=limits, wipe=wipe, redact=redact, lease_s=self._rhythm.lease_s
        )
        self.shared = shared.Shared(self._postgres, clock)
        self._where = where
        self._path = path
        self._told_trouble = on_trouble
        self._on_time = on_time
        self._seat: Seat | None = None
        self._session: Session | None = None
        self._crew: Crew | None = None
        self._checking = asyncio.Event()
        self._started_at = 0.0
        self._steady_since = time.monotonic()
        self._renewed_at = time.monotonic()
        self._held_until = 0.0  # what was leased before has ended by then, unless it was renewed
        self._peers: list[Replica] = []
        self._calling: asyncio.Future[Any] | None = None
        self._began_at = 0.0  # when this machine's monotonic clock was 0, by the database's

    # -- opening and closing

    @property
    def beside(self) -> Path:
        return self._seat.beside if self._seat is not None else self._path

    async def open(self) -> Recovered:
        """What this daemon had leased before a crash goes back at once, what others had when their lease ends."""
        self._seat = await asyncio.to_thread(take_seat, self._path)
        try:
            await self._engine.open()
            self._session = Session(self._where, hear=self._heard)
            self.owner = await self._named(self._seat.name, self._session)
            await self._tell_time()
            self._started_at = self._clock()
            self._settled_at = self._started_at + recovery.SETTLE_S
            self._held_until = self._started_at + self._rhythm.lease_s
            self._steady_since = self._renewed_at = time.monotonic()
            await self._beat({})
            return await self._engine.run(
                lambda c: recovery.recover(c, owner=self.owner, now=self._clock(), wipe=self._wipe)
            )
        except BaseException as error:
            await self.close()
            if isinstance(error, psycopg.Error):
                raise explained(error, self.place) from None
            raise

    async def _named(self, name: str, session: Session) -> str:
        """The seat's name, unless somebody lives by it: a copy of this machine, or one that the server still sees."""
        until = time.monotonic() + NAME_S
        try:
            while not await session.open(name):
                await session.close()
                if time.monotonic() > until:
                    log.warning("store.name_taken", name=name)
                    name = new_name()
                await asyncio.sleep(0.2)
        except psycopg.errors.QueryCanceled:
            raise StoreLocked(f"{self.place} is being copied or checked: start the daemon after that") from None
        return name

    async def open_beside(self) -> None:
        """Beside the daemons that run."""
        self._postgres.prepared_by = require
        await self._engine.open()
        try:
            await self._tell_time()  # what an operator brings back is due by the same clock
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        if self._session is not None:
            with suppress(StoreError, TimeoutError):
                async with asyncio.timeout(LEAVE_S):
                    await self._engine.run(lambda c: replicas.leave(c, self.owner))
            await self._session.close()
        await self._engine.close()
        if self._seat is not None:
            self._seat.leave()

    # -- the others

    async def attend(self, crew: Crew, facts: Callable[[], Mapping[str, Any]]) -> None:
        assert self._session is not None
        self._crew = crew
        async with asyncio.TaskGroup() as group:
            group.create_task(self._session.run())
            group.create_task(self._renew_in_time(crew, facts))
            group.create_task(self._take_over_in_time(crew))
            group.create_task(self._check_when_asked(crew))

    async def _renew_in_time(self, crew: Crew, facts: Callable[[], Mapping[str, Any]]) -> None:
        while True:
            told = self._told(facts)
            with suppress(StoreError):
                await self._tell_time()  # first: by a clock that went wrong meanwhile, leases would end at once
                await self._check(crew)
                await self._beat(told)
            for _ in range(max(1, round(self._rhythm.renew_s / TOLD_S))):
                await asyncio.sleep(min(TOLD_S, self._rhythm.renew_s))
                if _condition(self._told(facts)) != _condition(told):
                    break

    def _told(self, facts: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        return {**facts(), "on_duty": self.on_duty, "clock_s": round(time.time() - self._clock(), 1)}

    async def _take_over_in_time(self, crew: Crew) -> None:
        while True:
            await asyncio.sleep(self._rhythm.look_s)
            if time.monotonic() - self._steady_since < self._rhythm.steady_s:
                continue
            with suppress(StoreError):
                taken = await self._engine.run(
                    lambda c: recovery.take_over(c, owner=self.owner, now=self._clock(), wipe=self._wipe)
                )
                if taken.returned:
                    log.warning("store.taken_over", returned=taken.returned, dead=taken.dead)
                    crew.wake()

    async def _check_when_asked(self, crew: Crew) -> None:
        while True:
            await self._checking.wait()
            self._checking.clear()
            with suppress(StoreError):
                await self._check(crew)

    async def _check(self, crew: Crew) -> None:
        """Renew what is held; who has lost a lease stops at once. Who comes too late says so, once."""
        held, asked = crew.held(), self._clock()
        kept = await self.renew(held.values())
        late, self._held_until = asked > self._held_until, asked + self._rhythm.lease_s
        self._renewed_at = time.monotonic()
        lost = {*held.values()} - kept
        if late and lost:
            log.warning(
                "store.leases_lost", count=len(lost), why="they were not renewed in time: others go on with them"
            )
        now_held = crew.held()
        for row, token in held.items():
            if token in lost and now_held.get(row) == token:
                crew.cease(row)
        young = self._rhythm.lease_s * 5 / 6  # what was leased just now may not be in hand yet
        tokens = {*held.values(), *now_held.values()}
        if await self._engine.run(
            lambda c: recovery.reclaim(c, owner=self.owner, held=tokens, before=self._clock() + young)
        ):
            crew.wake()

    async def _beat(self, facts: Mapping[str, Any]) -> None:
        def run(c: Any) -> list[Replica]:
            replicas.beat(c, self.owner, started_at=self._started_at, now=self._clock(), facts=facts)
            return replicas.listed(c, self._rhythm.lease_s)

        self._peers = await self._engine.run(run)

    async def _tell_time(self) -> None:
        """The machines' clocks may differ; the database's counts. Where it jumps, all have to renew by it first."""
        asked = time.monotonic()
        now = await self._engine.run(lambda c: c.execute(f"SELECT {replicas.NOW}").fetchone()[0])
        took_s = time.monotonic() - asked
        if took_s >= DRIFT_S:
            return
        jump_s, self._began_at = now - asked - self._began_at, now - asked
        self._on_time(now + took_s / 2)
        if abs(jump_s) >= 2 * DRIFT_S:
            self._steady_since = time.monotonic()
        if jump_s <= -2 * DRIFT_S:
            await self._engine.run(lambda c: recovery.set_back(c, now=self._clock(), lease_s=self._rhythm.lease_s))

    async def peers(self) -> list[Replica]:
        return await self._engine.run(lambda c: replicas.listed(c, self._rhythm.lease_s))

    @property
    def peers_last_seen(self) -> list[Replica]:
        return self._peers

    @property
    def on_duty(self) -> bool:
        return self._session is not None and self._session.on_duty

    async def forget(self, *, batch: int = 500) -> int:
        await self._engine.run(lambda c: shared.forget(c, now=self._clock()))
        return await super().forget(batch=batch)

    # -- what the others should hear of

    def call_others(self) -> None:
        if self._calling is None or self._calling.done():
            self._calling = self._tell(WAKE)

    def _tell(self, note: str) -> asyncio.Future[Any] | None:
        """Nobody waits for it, and nothing depends on it: the others look by themselves, a little later."""
        with suppress(StoreError):
            return self._engine.submit(lambda c: c.execute("SELECT pg_notify(?, ?)", (self._where.schema, note)))
        return None

    def _heard(self, note: str) -> None:
        if note in (LEASES, ""):
            self._checking.set()
        if note in (WAKE, "") and self._crew is not None:
            self._crew.wake()

    async def cancel(self, message: Message, *, before: int) -> dict[int, Message | None]:
        ended = await super().cancel(message, before=before)
        if ended:
            self._tell(LEASES)
        return ended

    async def drop(self, row: int, *, tell: bool) -> Message | None:
        ended = await super().drop(row, tell=tell)
        self._tell(LEASES)
        self._tell(WAKE)
        return ended

    async def retry(self, row: int) -> bool:
        retried = await super().retry(row)
        if retried:
            self._tell(WAKE)
        return retried

    # -- trouble

    async def probe(self) -> None:
        """It writes into one table; what this role may do with the others is asked for."""
        if lacking := await self._engine.run(lambda c: lacking_rights(c, self._where.schema)):
            raise StoreUnavailable(f"store {self.place}: {lacking}", cause="store.readonly")
        await super().probe()

    def _troubled(self, error: StoreError | None) -> None:
        if error is not None:
            self._steady_since = time.monotonic()
        self._told_trouble(error)

    @property
    def trouble(self) -> str | None:
        if (why := super().trouble) is not None:
            return why
        late_s = time.monotonic() - self._renewed_at
        if self._crew is not None and late_s > self._rhythm.lease_s:
            return f"store {self.place}: leases could not be renewed for {late_s:.0f} s: others go on with them"
        return None
