"""What several daemons of one store promise each other: order, one lease at a time, the fence, taking over."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import chain
from typing import Any

import pytest
from structlog.testing import capture_logs

from dingbridge.errors import LeaseLost, StoreUnavailable
from dingbridge.model import Answer, Delivery, Outcome, State, Task, lane_key
from dingbridge.store import recovery, replicas, session
from dingbridge.store.intake import Limits
from dingbridge.store.postgres import PostgresStore, Rhythm
from dingbridge.store.postgres_wire import lock_number
from dingbridge.store.recovery import SETTLE_S, Recovered
from dingbridge.store.store import LEASE_S
from tests.house import until
from tests.places import PostgresPlace
from tests.stores import START, UNLIMITED, WRITES, Clock, Write, finish, head, leased, message

HANG_S = 30.0
every_write = pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@asynccontextmanager
async def daemons(
    place: PostgresPlace, clock: Clock, count: int = 2, limits: Limits = UNLIMITED, rhythm: Rhythm | None = None
) -> AsyncIterator[list[PostgresStore]]:
    """Several at the same time, which have run for a while."""
    async with AsyncExitStack() as stack:
        stores = [place.make(clock, limits, rhythm=rhythm) for _ in range(count)]
        for store in stores:
            await store.open()
            stack.push_async_callback(store.close)
        clock.tick(SETTLE_S)
        async with asyncio.timeout(HANG_S * 2):
            yield stores


async def take_over(store: PostgresStore, clock: Clock) -> Recovered:
    return await store._engine.run(lambda c: recovery.take_over(c, owner=store.owner, now=clock(), wipe=True))


# -- who they are


async def test_each_has_a_name_of_its_own_and_a_restart_finds_it(postgres_place: PostgresPlace, clock: Clock) -> None:
    """A seat on the machine is a name; who dies and comes again sits down where it was."""
    async with daemons(postgres_place, clock, 2) as (one, two):
        assert one.owner != two.owner
        assert one.beside != two.beside
        assert [peer.name for peer in await one.peers()] == sorted([one.owner, two.owner])
        await postgres_place.die(one)
        async with postgres_place.opened(clock) as again:
            assert (again.owner, again.beside) == (one.owner, one.beside)
        assert [peer.name for peer in await two.peers()] == [two.owner]


# -- intake


async def test_the_same_message_at_two_doors_is_kept_once(postgres_place: PostgresPlace, clock: Clock) -> None:
    """DingTalk may send a frame again to another connection: one row, one is told that it was first."""
    async with daemons(postgres_place, clock, 3) as stores:
        for number in range(20):
            placed = await asyncio.gather(*(store.put(message(f"m{number}")) for store in stores * 2))
            assert sorted(one.duplicate for one in placed) == [False] + [True] * 5
            assert len({(one.row, one.lane) for one in placed}) == 1
        assert [key for (key,) in postgres_place.rows("key")] == sorted(f"m{number}" for number in range(20))
        assert len(await leased(stores[0])) == 1


async def test_limits_are_of_all_doors_together(postgres_place: PostgresPlace, clock: Clock) -> None:
    """Whoever asks everybody at once gets no more than from one."""
    async with daemons(postgres_place, clock, 3, Limits(0, 4)) as stores:
        placed = await asyncio.gather(*(stores[n % 3].put(message(f"m{n}")) for n in range(12)))
        assert Counter(one.task for one in placed) == {Task.QUESTION: 4, Task.LIMITED: 8}
    async with daemons(postgres_place, clock, 3, Limits(2, 0)) as stores:
        placed = await asyncio.gather(*(stores[n % 3].put(message(f"w{n}", person="u2")) for n in range(12)))
        assert Counter(one.task for one in placed) == {Task.QUESTION: 3, Task.BUSY: 9}


async def test_new_counts_at_every_door(postgres_place: PostgresPlace, clock: Clock) -> None:
    """`/new` at one is a fresh context at the others; sent at several at once it is one each."""
    async with daemons(postgres_place, clock, 3) as (one, two, three):
        await one.put(message("new"), Task.COMMAND, fresh=True)
        assert (await two.put(message("m1"))).lane == lane_key("ding1", "c1", "u1", 1)
        same = message("again")
        await asyncio.gather(*(store.put(same, Task.COMMAND, fresh=True) for store in (one, two, three)))
        assert (await three.put(message("m2"))).lane == lane_key("ding1", "c1", "u1", 2)


async def test_cancel_reaches_what_another_works_on(postgres_place: PostgresPlace, clock: Clock) -> None:
    """The worker elsewhere can write nothing more, and hears that it has lost what it holds."""
    async with daemons(postgres_place, clock, 2) as (one, two):
        await one.put(message("m1"))
        await one.put(message("m2"))
        held = await head(one)
        by = await two.put(message("cancel"), Task.COMMAND)
        assert list(await two.cancel(message("cancel"), before=by.row)) == [1, 2]
        assert await one.renew([held.token]) == set()
        with pytest.raises(LeaseLost):
            await one.answered(held, Answer("答"), Outcome.ANSWERED)


async def test_a_notice_is_claimed_once_by_all(postgres_place: PostgresPlace, clock: Clock) -> None:
    """However many look at the same time, one tells the asker to wait."""
    async with daemons(postgres_place, clock, 3) as stores:
        for number in range(10):
            placed = await stores[0].put(message(f"m{number}", person=f"u{number}"))
            claimed = await asyncio.gather(*(store.claim_notice(placed.row) for store in stores * 2))
            assert [one for one in claimed if one is not None] == [message(f"m{number}", person=f"u{number}")]


# -- work


async def test_no_lane_is_leased_twice(postgres_place: PostgresPlace, clock: Clock) -> None:
    """Three that lease at the same time get different lanes, and all lanes together."""
    async with daemons(postgres_place, clock, 3) as stores:
        for number in range(60):
            await stores[number % 3].put(message(f"m{number}", person=f"u{number}"))
        while len(postgres_place.rows("key", "lane WHERE token IS NOT NULL")) < 60:
            found = await asyncio.gather(*(store.lease(5) for store in stores * 3))
            keys = [one.message.id for one in chain.from_iterable(some.deliveries for some in found)]
            assert len(keys) == len(set(keys))
        assert sum([len(await leased(store)) for store in stores]) == 0
        tokens = postgres_place.rows("token, owner", "lane")
        assert len({token for token, _ in tokens}) == 60
        assert {owner for _, owner in tokens} <= {store.owner for store in stores}


async def test_nobody_waits_for_the_transaction_of_another(postgres_place: PostgresPlace, clock: Clock) -> None:
    """While a lane is in somebody's transaction the others lease and put beside it."""
    async with daemons(postgres_place, clock, 1) as (one,):
        held_up = await one.put(message("m1"))
        await one.put(message("m2", person="u2"))
        with postgres_place.beside() as connection, connection.transaction():
            connection.execute("SELECT 1 FROM lane WHERE key = %s FOR UPDATE", (held_up.lane,))
            async with asyncio.timeout(10):
                assert await leased(one) == ["m2"]
                await one.put(message("m3", person="u3"))
                assert await take_over(one, clock) == Recovered(0, 0)
        assert sorted(await leased(one)) == ["m1", "m3"]


async def test_order_within_a_lane_holds_over_all(postgres_place: PostgresPlace, clock: Clock) -> None:
    """Three put, three work, all at once: each lane's messages run one at a time in the order of their rows.

    Often a message comes exactly while the last of its lane ends; none is left behind.
    """
    total, people, ended = 240, 4, list[tuple[str, int]]()
    running = Counter[str]()

    async with daemons(postgres_place, clock, 3) as stores:

        async def ask(store: PostgresStore, part: int) -> None:
            for number in range(part, total, 6):
                await store.put(message(f"m{number}", person=f"u{number % people}"))

        async def work(store: PostgresStore) -> None:
            while len(ended) < total:
                for one in (await store.lease(2)).deliveries:
                    running[one.lane] += 1
                    assert running[one.lane] == 1
                    await store.answered(one, Answer("答"), Outcome.ANSWERED, sending=True)
                    running[one.lane] -= 1  # before the end, which lets the next one in
                    ended.append((one.lane, one.row))
                    await store.done(one, Outcome.ANSWERED)

        async with asyncio.TaskGroup() as group:
            for number in range(6):
                group.create_task(ask(stores[number % 3], number))
            for store in stores * 2:
                group.create_task(work(store))

    assert len(ended) == len(set(ended)) == total
    for lane in {lane for lane, _ in ended}:
        rows = [row for of, row in ended if of == lane]
        assert rows == sorted(rows)
    assert postgres_place.rows("*", "lane") == []
    assert postgres_place.rows("count(*)", "message WHERE outcome = 'answered'") == [(total,)]


async def test_a_message_that_comes_as_its_lane_ends_is_not_left_behind(
    postgres_place: PostgresPlace, clock: Clock
) -> None:
    """Put and end of the same lane at the same moment, a hundred times: what came is always leased next."""
    async with daemons(postgres_place, clock, 2) as (one, two):
        await one.put(message("m0"))
        for number in range(1, 100):
            held = await head(one)
            assert held.message.id == f"m{number - 1}"
            await asyncio.gather(two.put(message(f"m{number}")), one.done(held, Outcome.ANSWERED))


async def test_commits_that_block_each_other_are_done_again(postgres_place: PostgresPlace, clock: Clock) -> None:
    """Where PostgreSQL ends one of two for a deadlock, its caller notices nothing."""
    async with daemons(postgres_place, clock, 2) as stores:
        for name in "ab":
            await stores[0].put(message(name, person=name))
        both, tries = threading.Barrier(2), Counter[str]()

        def crosswise(first: str, second: str) -> Callable[[Any], str]:
            def run(c: Any) -> str:
                tries[first] += 1
                assert c.execute("UPDATE message SET reason = ? WHERE key = ?", (first, first)).rowcount == 1
                if tries[first] == 1:
                    both.wait(HANG_S)
                c.execute("UPDATE message SET reason = ? WHERE key = ?", (first, second))
                return first

            return run

        work = (stores[0]._engine.run(crosswise("a", "b")), stores[1]._engine.run(crosswise("b", "a")))
        assert list(await asyncio.gather(*work)) == ["a", "b"]
        assert sorted(tries.values()) == [1, 2]
        assert {store.trouble for store in stores} == {None}


# -- leases that end


@every_write
async def test_who_was_taken_over_can_write_nothing(postgres_place: PostgresPlace, clock: Clock, write: Write) -> None:
    """After its lease has ended and another has the message, every write is refused and changes nothing."""
    async with daemons(postgres_place, clock, 2) as (one, two):
        await one.put(message("m1"))
        held = await head(one)
        clock.tick(LEASE_S + 1)
        assert await take_over(two, clock) == Recovered(returned=1, dead=0)
        with pytest.raises(LeaseLost):
            await write(one, held)
        new = await head(two)
        assert (new.row, new.crashes) == (held.row, 1)
        before = postgres_place.rows(), postgres_place.rows(table="lane")

        with pytest.raises(LeaseLost):
            await write(one, held)
        assert (postgres_place.rows(), postgres_place.rows(table="lane")) == before
        await write(two, new)


async def test_a_lease_is_kept_by_renewing(postgres_place: PostgresPlace, clock: Clock) -> None:
    """Renewed in time it ends for nobody; what is not renewed is taken over when its time is up, and not before."""
    async with daemons(postgres_place, clock, 2) as (one, two):
        for person in ("kept", "left"):
            await one.put(message(person, person=person))
        kept, left = (await one.lease(2)).deliveries
        for _ in range(5):
            clock.tick(10)
            assert await one.renew([kept.token]) == {kept.token}
            if clock() <= left.leased_at + LEASE_S:
                assert await take_over(two, clock) == Recovered(0, 0)
        assert await take_over(two, clock) == Recovered(1, 0)
        assert await one.renew([kept.token, left.token]) == {kept.token}
        assert await leased(two) == ["left"]
        await finish(one, kept)


async def test_a_take_over_is_a_step_with_both_names(postgres_place: PostgresPlace, clock: Clock) -> None:
    """Who has fallen silent and who goes on stands in the message's trail; a start of one's own stays a crash."""
    async with daemons(postgres_place, clock, 2) as (one, two):
        await one.put(message("m1"))
        await head(one)
        clock.tick(LEASE_S + 1)
        await take_over(two, clock)
        row = await two.find("ding1", "m1")
        assert row is not None
        assert [(step.name, step.facts) for step in row.steps] == [("taken_over", {"from": one.owner, "by": two.owner})]


async def test_who_wakes_up_too_late_says_once_what_it_has_lost(postgres_place: PostgresPlace, clock: Clock) -> None:
    """How many leases others have taken over; what was cancelled elsewhere in time is no such loss."""
    async with daemons(postgres_place, clock, 2) as (one, two):
        for person in ("p1", "p2", "p3"):
            await one.put(message(person, person=person))
        crew = Hands()
        crew.holds = {some.row: some.token for some in (await one.lease(3)).deliveries}
        with capture_logs() as logs:
            await two.cancel(message("x", person="p3"), before=99)
            await one._check(crew)
            assert [entry for entry in logs if entry["event"] == "store.leases_lost"] == []
            assert len(crew.holds) == 2
            clock.tick(LEASE_S + 1)
            await take_over(two, clock)
            await one._check(crew)
            await one._check(crew)
        lost = [entry for entry in logs if entry["event"] == "store.leases_lost"]
        assert [entry["count"] for entry in lost] == [2]
        assert crew.holds == {}


async def test_a_part_on_its_way_at_the_take_over_is_uncertain(postgres_place: PostgresPlace, clock: Clock) -> None:
    """Nobody knows whether it has arrived: it comes again with a mark; what was only asked is asked again."""
    async with daemons(postgres_place, clock, 2) as (one, two):
        for person in ("asked", "answered", "sent"):
            await one.put(message(person, person=person))
        _, answered, sent = (await one.lease(3)).deliveries
        for delivery in (answered, sent):
            await one.answered(delivery, Answer("答"), Outcome.ANSWERED)
        await one.sending(sent, 2)
        clock.tick(LEASE_S + 1)
        await take_over(two, clock)
        again = (await two.lease(3)).deliveries
        assert [(some.message.id, some.state, some.part, some.uncertain) for some in again] == [
            ("asked", State.LEASED, 0, False),
            ("answered", State.ANSWERED, 0, False),
            ("sent", State.SENDING, 2, True),
        ]


async def test_a_restart_returns_its_own_and_nobody_elses(postgres_place: PostgresPlace, clock: Clock) -> None:
    """What a daemon held when it died is there at its next start, at once; the others' work is not disturbed."""
    async with daemons(postgres_place, clock, 2) as (one, two):
        for person in ("mine", "theirs"):
            await one.put(message(person, person=person))
        mine, theirs = await head(one), await head(two)
        await postgres_place.die(one)
        again = postgres_place.make(clock)
        assert await again.open() == Recovered(returned=1, dead=0)
        assert [(some.message.id, some.crashes) for some in (await again.lease(9)).deliveries] == [("mine", 1)]
        with pytest.raises(LeaseLost):
            await again.sending(mine, 1)
        await finish(two, theirs)
        await again.close()


async def test_a_planned_stop_gives_back_its_own(postgres_place: PostgresPlace, clock: Clock) -> None:
    """The others can lease it at once, and it counts as no crash; what they hold stays theirs."""
    async with daemons(postgres_place, clock, 2) as (one, two):
        for person in ("mine", "theirs"):
            await one.put(message(person, person=person))
        await head(one)
        theirs = await head(two)
        assert await one.release_all() == 1
        (taken,) = (await two.lease(9)).deliveries
        assert (taken.message.id, taken.crashes) == ("mine", 0)
        await finish(two, theirs)


async def test_two_take_over_each_lease_once(postgres_place: PostgresPlace, clock: Clock) -> None:
    """A daemon's death is one crash, however many notice it."""
    async with daemons(postgres_place, clock, 3) as (one, two, three):
        for number in range(40):
            await one.put(message(f"m{number}", person=f"u{number}"))
        await one.lease(40)
        clock.tick(LEASE_S + 1)
        found = await asyncio.gather(*(take_over(store, clock) for store in (two, three) * 3))
        assert sum(some.returned for some in found) == 40
        assert postgres_place.rows("DISTINCT crashes") == [(1,)]


# -- poison


async def _lost(one: PostgresStore, by: PostgresStore, clock: Clock, times: int) -> None:
    """So often the one who worked on it was not heard of again."""
    for _ in range(times):
        assert (await one.lease(9)).deliveries
        clock.tick(LEASE_S + 1)
        await take_over(by, clock)
        clock.tick(SETTLE_S)


async def test_a_suspect_runs_alone_in_one_while_the_others_go_on(postgres_place: PostgresPlace, clock: Clock) -> None:
    """One daemon keeps it until it works on nothing else, then works on it alone; the others see nothing of that."""
    async with daemons(postgres_place, clock, 3) as (one, two, three):
        await one.put(message("bad"))
        await _lost(one, two, clock, 2)
        await one.put(message("other", person="u2"))
        busy = await head_of_another(two, one)
        await one.put(message("third", person="u3"))

        waiting = await two.lease(9)
        assert (waiting.deliveries, waiting.held) == ([], True)  # it has kept the suspect for itself
        assert await leased(three) == ["third"]
        await finish(two, busy)
        suspect = await head(two)
        assert (suspect.message.id, suspect.crashes) == ("bad", 2)
        await one.put(message("fourth", person="u4"))
        await one.put(message("command"), Task.COMMAND)
        assert await leased(two) == []
        assert await leased(two, express=True) == []
        assert await leased(three) == ["fourth"]
        assert await leased(three, express=True) == ["command"]


async def head_of_another(store: PostgresStore, by: PostgresStore) -> Delivery:
    """What is not suspect, leased by `store` as if it had begun before there was a suspect."""
    await by._engine.run(lambda c: c.execute("UPDATE lane SET suspect = FALSE WHERE suspect RETURNING key").fetchall())
    found = (await store.lease(9)).deliveries
    kept = next(one for one in found if not one.crashes)
    for one in found:
        if one is not kept:
            await store._engine.run(
                lambda c, lane=one.lane: c.execute(  # type: ignore[misc]
                    "UPDATE lane SET suspect = TRUE, token = NULL, owner = '' WHERE key = ?", (lane,)
                )
            )
    return kept


async def test_two_threads_of_one_daemon_leave_a_suspect_alone(postgres_place: PostgresPlace, clock: Clock) -> None:
    """Express and ordinary leases at the same moment: either the suspect runs, or others do."""
    async with daemons(postgres_place, clock, 2) as (one, two):
        for number in range(15):
            await one.put(message(f"bad{number}", person=f"b{number}"))
        for number in range(15):
            await one.put(message(f"c{number}"), Task.COMMAND)
        await one._engine.run(
            lambda c: c.execute("UPDATE lane SET suspect = TRUE WHERE NOT express RETURNING key").fetchall()
        )
        for _ in range(15):
            found = await asyncio.gather(*(two.lease(1, express=express) for express in (True, False) * 2))
            deliveries = list(chain.from_iterable(some.deliveries for some in found))
            suspects = [one for one in deliveries if one.task is Task.QUESTION]
            assert not suspects or len(deliveries) == 1
            for delivery in deliveries:
                await two.done(delivery, Outcome.ANSWERED)


async def test_a_suspect_kept_by_a_daemon_that_died_is_free_again(postgres_place: PostgresPlace, clock: Clock) -> None:
    """What was kept for later ends like a lease."""
    async with daemons(postgres_place, clock, 3) as (one, two, three):
        await one.put(message("bad"))
        await _lost(one, two, clock, 2)
        await one.put(message("other", person="u2"))
        await head_of_another(two, one)
        assert (await two.lease(1)).held
        assert await leased(three) == []
        clock.tick(LEASE_S + 1)
        assert await leased(three) == ["bad"]


async def test_the_third_daemon_lost_condemns(postgres_place: PostgresPlace, clock: Clock) -> None:
    """Its asker is told by whoever is left; who ran beside it at the first two is acquitted."""
    async with daemons(postgres_place, clock, 2) as (one, two):
        await one.put(message("bad"))
        await one.put(message("good", person="u2"))
        await _lost(one, two, clock, 2)
        assert await leased(one) == ["bad"]
        clock.tick(LEASE_S + 1)
        assert await take_over(two, clock) == Recovered(returned=1, dead=1)
        found = {some.message.id: some for some in (await two.lease(9)).deliveries}
        assert (found["bad"].outcome, found["bad"].answer, found["bad"].crashes) == (Outcome.DEAD, Answer(""), 0)
        assert (found["good"].outcome, found["good"].crashes) == (None, 0)


# -- as they live


class Hands:
    """Who works in a daemon."""

    def __init__(self) -> None:
        self.holds: dict[int, str] = {}
        self.ceased: list[int] = []
        self.woken = asyncio.Event()

    def held(self) -> dict[int, str]:
        return dict(self.holds)

    def cease(self, row: int) -> None:
        self.ceased.append(row)
        del self.holds[row]

    def wake(self) -> None:
        self.woken.set()


@asynccontextmanager
async def attended(store: PostgresStore) -> AsyncIterator[Hands]:
    """What a daemon does beside its work goes on."""
    hands = Hands()

    def facts() -> Mapping[str, Any]:
        return {}

    task = asyncio.create_task(store.attend(hands, facts))
    try:
        yield hands
    finally:
        task.cancel()
        await asyncio.wait({task})


QUICK = Rhythm(lease_s=30.0, renew_s=0.1, look_s=0.05, steady_s=0.2)


async def test_what_is_held_is_renewed_and_what_is_left_is_taken(postgres_place: PostgresPlace, clock: Clock) -> None:
    """By themselves: the living keep theirs, who died loses it, and whoever takes it over is woken for it."""
    async with daemons(postgres_place, clock, 3, rhythm=QUICK) as (one, two, dead):
        for person in ("kept", "left"):
            await one.put(message(person, person=person))
        kept, left = await head(one), await head(dead)
        async with attended(one) as hands, attended(two) as others:
            hands.holds[kept.row] = kept.token
            for _ in range(4):
                clock.tick(10)
                await until(lambda: (clock() + LEASE_S,) in postgres_place.rows("leased_until", "lane"))
            await until(lambda: (left.row, 1) in postgres_place.rows("id, crashes"))
            await until(lambda: hands.woken.is_set() or others.woken.is_set())
            assert (kept.row, 0) in postgres_place.rows("id, crashes")
            assert hands.ceased == []


@pytest.mark.parametrize("how", ["cancel", "drop"])
async def test_who_loses_a_lease_hears_of_it_at_once(postgres_place: PostgresPlace, clock: Clock, how: str) -> None:
    """A cancel or a drop at one daemon stops the worker in another, long before its next renewal."""
    slow = Rhythm(renew_s=600.0)
    async with daemons(postgres_place, clock, 2, rhythm=slow) as (one, two):
        placed = await one.put(message("m1"))
        held = await head(one)
        async with attended(one) as hands, attended(two):
            hands.holds[held.row] = held.token
            await asyncio.sleep(0)
            if how == "cancel":
                await two.cancel(message("x"), before=placed.row + 1)
            else:
                await two.drop(placed.row, tell=False)
            await until(lambda: hands.ceased == [held.row])


async def test_a_call_wakes_the_others(postgres_place: PostgresPlace, clock: Clock) -> None:
    """A daemon whose hands are full tells that there is more."""
    async with daemons(postgres_place, clock, 2, rhythm=Rhythm()) as (one, two), attended(two) as hands:
        one.call_others()
        async with asyncio.timeout(HANG_S):
            await hands.woken.wait()


async def test_after_an_outage_nobody_is_taken_for_dead(postgres_place: PostgresPlace, clock: Clock) -> None:
    """Where the database was away nobody could renew: for a while who is late is waited for."""
    patient = Rhythm(lease_s=30.0, renew_s=0.1, look_s=0.02, steady_s=1.5)
    async with daemons(postgres_place, clock, 2, rhythm=patient) as (one, two):
        await one.put(message("m1"))
        held = await head(one)
        async with attended(two):
            two._troubled(StoreUnavailable("away"))  # as at an outage
            clock.tick(LEASE_S + 1)
            await asyncio.sleep(0.5)  # looked at twenty times; nothing to wait for, as nothing is to happen
            assert postgres_place.rows("crashes") == [(0,)]
            assert await one.renew([held.token]) == {held.token}
            clock.tick(LEASE_S + 1)
            await until(lambda: postgres_place.rows("crashes") == [(1,)])


async def test_after_a_jump_of_the_common_clock_nobody_is_taken_for_dead(
    postgres_place: PostgresPlace, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another server leads, or its clock was set: leases count anew when all have renewed them by it."""
    patient = Rhythm(lease_s=30.0, renew_s=0.1, look_s=0.02, steady_s=1.5)
    async with daemons(postgres_place, clock, 2, rhythm=patient) as (one, two):
        await one.put(message("m1"))
        await head(one)
        async with attended(two):
            before = two._began_at
            monkeypatch.setattr(replicas, "NOW", f"{replicas.NOW} + {LEASE_S}")
            await until(lambda: two._began_at > before + 1.0)
            clock.tick(LEASE_S + 1)
            await asyncio.sleep(0.5)  # looked at twenty times; nothing to wait for, as nothing is to happen
            assert postgres_place.rows("crashes") == [(0,)]
            await until(lambda: postgres_place.rows("crashes") == [(1,)])


async def test_a_common_clock_that_goes_back_makes_nobody_wait(
    postgres_place: PostgresPlace, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was due by the clock before is due by the new one, and a lease is not longer than any other."""
    async with daemons(postgres_place, clock, 2, rhythm=QUICK) as (one, dead):
        await one.put(message("waits", person="u1"))
        await one.put(message("held", person="u2"))
        await dead.lease(1)
        async with attended(one):
            monkeypatch.setattr(replicas, "NOW", f"{replicas.NOW} - 3600")
            one._on_time = lambda _: setattr(clock, "now", START - 3600.0)
            back = START - 3600.0
            await until(lambda: postgres_place.rows("due", "lane WHERE token IS NULL") == [(back,)])
            assert postgres_place.rows("leased_until", "lane WHERE token IS NOT NULL") == [(back + LEASE_S,)]


async def test_who_was_frozen_renews_by_the_common_clock(
    postgres_place: PostgresPlace, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that slept finds its clock behind: by that one its leases would have ended already."""
    async with daemons(postgres_place, clock, 1, rhythm=Rhythm(renew_s=600.0)) as (one,):
        await one.put(message("m1"))
        held = await head(one)
        one._on_time = lambda _: setattr(clock, "now", START + 1000.0)
        renewed: list[float] = []
        renew = one.renew

        async def noted(tokens: Collection[str]) -> set[str]:
            renewed.append(clock())
            return await renew(tokens)

        monkeypatch.setattr(one, "renew", noted)
        async with attended(one) as hands:
            hands.holds[held.row] = held.token
            await until(lambda: bool(renewed))
            assert renewed[0] == START + 1000.0


async def test_an_operator_beside_goes_by_the_common_clock(postgres_place: PostgresPlace, clock: Clock) -> None:
    """What is retried from a machine whose clock is wrong is due at once all the same."""
    told: list[float] = []
    async with daemons(postgres_place, clock, 1):
        beside = postgres_place.make(clock)
        beside._on_time = told.append
        await beside.open_beside()
        await beside.close()
    ((now,),) = postgres_place.rows("extract(epoch FROM clock_timestamp())::float8", "(SELECT 1) one")
    assert 0.0 <= now - told[0] < HANG_S


async def test_a_name_that_was_lost_with_its_connection_is_taken_again(
    postgres_place: PostgresPlace, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server may see the end of the old connection later than the new one; the name does not stay free."""
    monkeypatch.setattr(session, "HEAR_S", 0.1)
    async with daemons(postgres_place, clock, 1, rhythm=QUICK) as (one,), attended(one):
        number = lock_number(postgres_place.schema, "name", one.owner)
        with postgres_place.beside() as other:
            old = _backend(one)
            waiting = asyncio.create_task(asyncio.to_thread(other.execute, f"SELECT pg_advisory_lock({number})"))
            await until(lambda: bool(postgres_place.rows("pid", "pg_locks WHERE NOT granted")))
            postgres_place.rows("pg_terminate_backend(pid)", f"pg_stat_activity WHERE pid = {old}")
            await waiting
            await until(lambda: _backend(one) not in (0, old) and one.on_duty)
            other.execute(f"SELECT pg_advisory_unlock({number})")
            await until(lambda: not _free(other, number))


def _backend(store: PostgresStore) -> int:
    """The process of its session on the server; 0 where it has none just now."""
    assert store._session is not None
    connection = store._session._connection
    return 0 if connection is None or connection.closed else connection.info.backend_pid


def _free(other: Any, number: int) -> bool:
    """A free lock is left free."""
    (free,) = other.execute(f"SELECT pg_try_advisory_lock({number})").fetchone()
    if free:
        other.execute(f"SELECT pg_advisory_unlock({number})")
    return bool(free)


async def test_one_of_all_has_the_chores(postgres_place: PostgresPlace, clock: Clock) -> None:
    """What has to be done once for all is done by one; when it dies another takes that over."""
    async with daemons(postgres_place, clock, 2, rhythm=QUICK) as (one, two):
        async with attended(one):
            await until(lambda: one.on_duty)
            async with attended(two):
                await asyncio.sleep(0.2)
                assert not two.on_duty
        await postgres_place.die(one)
        async with attended(two):
            await until(lambda: two.on_duty)


async def test_retried_at_two_doors_it_comes_once(postgres_place: PostgresPlace, clock: Clock) -> None:
    """Two operators at the same time: one is told that there is nothing to retry."""
    async with daemons(postgres_place, clock, 2) as (one, two):
        for number in range(20):
            await one.put(message(f"m{number}"))
            held = await head(one)
            await one.answered(held, Answer("抱歉"), Outcome.FAILED)
            await one.done(held, Outcome.FAILED, "403")
            assert sorted(await asyncio.gather(one.retry(held.row), two.retry(held.row))) == [False, True]
            await finish(two, await head(two))
        assert await leased(one) == []


async def test_dropped_and_retried_at_the_same_time_it_is_one_of_both(
    postgres_place: PostgresPlace, clock: Clock
) -> None:
    """Whichever comes last holds; no message is left that is neither ended nor readable."""
    async with daemons(postgres_place, clock, 2) as (one, two):
        for number in range(30):
            await one.put(message(f"m{number}", person=f"u{number}"))
            held = await head(one)
            await one.answered(held, Answer("抱歉"), Outcome.FAILED)
            await one.done(held, Outcome.FAILED, "403")
            await asyncio.gather(one.retry(held.row), two.drop(held.row, tell=False))
            for delivery in (await two.lease(9)).deliveries:
                await finish(two, delivery)
        assert postgres_place.rows("*", "lane") == []
        assert postgres_place.rows("id", "message WHERE finished_at IS NULL OR reason = 'the row cannot be read'") == []


async def test_what_is_brought_back_is_not_forgotten(postgres_place: PostgresPlace, clock: Clock) -> None:
    """A retry of an old message while the chores look at it: they wait, and leave it alone."""
    async with daemons(postgres_place, clock, 1) as (one,):
        await one.put(message("m1"))
        await one.dead(await head(one), Outcome.FAILED, "no")
        clock.tick(8 * 24 * 3600.0)
        with postgres_place.beside() as other:
            with other.transaction():
                other.execute("UPDATE message SET finished_at = NULL")
                forgetting = asyncio.create_task(one.forget())
                await until(lambda: bool(postgres_place.rows("pid", "pg_locks WHERE NOT granted")))
            assert await forgetting == 0
        assert postgres_place.rows("key") == [("m1",)]


async def _live(store: PostgresStore, clock: Clock, mine: int) -> None:
    """Ask, work, and now and then something else."""
    for number in range(25):
        person = f"u{(number + mine) % 3}"
        placed = await store.put(message(f"m{mine}-{number}", person=person))
        for delivery in (await store.lease(2)).deliveries:
            with suppress(LeaseLost):  # cancelled, dropped or taken over meanwhile
                await finish(store, delivery)
        match number % 6:
            case 1:
                await store.cancel(message("x", person=person), before=placed.row)
            case 2:
                await store.drop(placed.row, tell=bool(mine % 2))
            case 3:
                await store.lease(1)  # and forgotten
            case 4:
                clock.tick(LEASE_S / 2)
                await take_over(store, clock)
            case 5:
                await store.claim_notice(placed.row)


async def test_everything_at_once_leaves_nothing_stuck(postgres_place: PostgresPlace, clock: Clock) -> None:
    """Puts, leases, cancels, drops, take-overs from three daemons at once: in the end each message has ended once."""
    async with daemons(postgres_place, clock, 3) as stores:
        async with asyncio.TaskGroup() as group:
            for number, store in enumerate(stores * 2):
                group.create_task(_live(store, clock, number))
        for store in stores * 7:
            clock.tick(LEASE_S + SETTLE_S)
            await take_over(store, clock)
            while deliveries := (await store.lease(9)).deliveries:
                for delivery in deliveries:
                    await store.done(delivery, Outcome.ANSWERED)
    assert postgres_place.rows("*", "lane") == []
    assert postgres_place.rows("key", "message WHERE finished_at IS NULL") == []
    assert len(postgres_place.rows("key")) == 150
