"""What a start makes of a crash, and what a planned stop gives back."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from dingbridge.errors import LeaseLost
from dingbridge.model import Answer, Outcome, State, Task
from dingbridge.store.recovery import SETTLE_S, Recovered
from dingbridge.store.store import Store
from tests.places import Life, Place, PostgresPlace, SQLitePlace, life
from tests.stores import START, Clock, finish, head, leased, message

ANSWER = Answer("答 m1")


# -- a crash


@pytest.mark.parametrize(
    ("steps", "state", "part", "uncertain", "answer", "crashes"),
    [
        ("", State.LEASED, 0, False, None, 0),
        ("lease", State.LEASED, 0, False, None, 1),
        ("lease answered", State.ANSWERED, 0, False, ANSWER, 1),
        ("lease answered sending:1", State.SENDING, 1, True, ANSWER, 1),
        ("lease answered sending:1 sending:2", State.SENDING, 2, True, ANSWER, 1),
        ("lease answered sending:1 sending:2 later:1", State.ANSWERED, 1, False, ANSWER, 0),
        ("lease later:0 lease", State.LEASED, 0, False, None, 0),
    ],
)
async def test_a_killed_process_leaves_every_step_behind(
    place: Place, steps: str, state: State, part: int, uncertain: bool, answer: Answer | None, crashes: int
) -> None:
    """After SIGKILL at any step the message is where it was, and a part that was going out is uncertain."""
    async with place.child("put:m1", "put:m2", *steps.split(), "kill") as process:
        assert await process.wait() == -signal.SIGKILL

    store = place.make(Clock(START + 5))  # what was given back is due
    assert await store.open() == Recovered(returned=crashes, dead=0)
    found = await head(store)
    assert (found.message, found.state, found.part, found.uncertain) == (message("m1"), state, part, uncertain)
    assert (found.answer, found.crashes) == (answer, crashes)
    assert found.outcome is (Outcome.ANSWERED if answer else None)
    await finish(store, found)
    assert await leased(store) == ["m2"]
    await store.close()


@pytest.mark.parametrize("way", ["kill", "exit"])
async def test_what_was_done_before_a_crash_stays_done(place: Place, way: str) -> None:
    """A message closed before the process died is never worked on again, and still known."""
    async with place.child("put:m1", "lease", "answered", "sending:1", "done", "put:m2", way) as process:
        await process.wait()
    async with place.opened(Clock()) as store:
        assert (await store.put(message("m1"))).duplicate
        assert await leased(store) == ["m2"]


async def test_nothing_kept_is_lost_to_a_kill_under_load(place: Place) -> None:
    """Every message that was told as kept is there after SIGKILL in the middle of writing."""
    kept: set[str] = set()
    async with place.child("flood") as process:
        assert process.stdout is not None
        while len(kept) < 400:
            kept.add((await process.stdout.readline()).decode().strip())
        process.kill()
        # The pipe may end within a line.
        rest = (await process.stdout.read()).decode().rpartition("\n")[0]
        kept.update(rest.split())
    async with place.opened(Clock()) as store:
        stored = {key for (key,) in place.rows("key")}
        assert kept <= stored
        assert set(await leased(store, 100_000)) == stored


async def test_the_write_ahead_log_alone_holds_what_is_committed(place: Place) -> None:
    """What a power cut leaves, the file and its log before any checkpoint, opens as it was."""
    async with life(place) as one:
        await one.store.put(message("m1"))
        delivery = await head(one.store)
        await one.store.answered(delivery, ANSWER, Outcome.REFUSED, reason="the documents do not say")
        await one.store.sending(delivery, 1, uncertain=True)
        store = await one.crash()

        assert one.recovered == Recovered(returned=1, dead=0)
        again = await head(store)
        assert (again.state, again.part, again.uncertain, again.outcome) == (State.SENDING, 1, True, Outcome.REFUSED)
        assert again.token != delivery.token
        with pytest.raises(LeaseLost):
            await store.done(delivery, Outcome.ANSWERED)


async def test_crashes_without_work_count_for_nothing(place: Place) -> None:
    """A process that died before it leased anything changes nothing and accuses nobody."""
    async with life(place) as one:
        await one.store.put(message("m1"))
        await one.store.answered(await head(one.store), ANSWER, Outcome.ANSWERED)
        store = await one.crash()
        for _ in range(5):
            store = await one.crash()
            assert one.recovered == Recovered(returned=0, dead=0)
        again = await head(store)
        assert (again.state, again.crashes, again.answer) == (State.ANSWERED, 1, ANSWER)


async def test_a_restart_tries_everything_again_at_once(tmp_path: Path) -> None:
    """A pause does not outlive the only daemon, whose clock it was; also with the clock set back."""
    clock = Clock()
    async with life(SQLitePlace(tmp_path), clock) as one:
        await one.store.put(message("m1"))
        await one.store.later(await head(one.store), 3600.0)
        clock.now = START - 86_400
        store = await one.crash()
        assert await leased(store) == ["m1"]


async def test_a_pause_is_of_the_store(postgres_place: PostgresPlace) -> None:
    """One daemon of several that starts anew changes nothing for what was put off for all."""
    clock = Clock()
    async with life(postgres_place, clock) as one:
        await one.store.put(message("m1"))
        await one.store.later(await head(one.store), 3600.0)
        store = await one.crash()
        assert await leased(store) == []
        clock.tick(3600.0)
        assert await leased(store) == ["m1"]


# -- a planned stop


async def test_a_planned_stop_is_no_crash(place: Place) -> None:
    """What is running goes back as it stands; a part that was going out is uncertain; the old leases are void."""
    async with life(place) as one:
        store = one.store
        for number in range(3):
            await store.put(message(f"m{number}", person=f"u{number}"))
        asked, answered, sending = held = (await store.lease(9)).deliveries
        for delivery in (answered, sending):
            await store.answered(delivery, ANSWER, Outcome.ANSWERED)
        await store.sending(sending, 2)
        assert await store.release_all() == 3
        for delivery in held:
            with pytest.raises(LeaseLost):
                await store.done(delivery, Outcome.ANSWERED)
        store = await one.restart()

        assert one.recovered == Recovered(returned=0, dead=0)
        again = (await store.lease(9)).deliveries
        assert [(one.state, one.part, one.uncertain, one.crashes) for one in again] == [
            (State.LEASED, 0, False, 0),
            (State.ANSWERED, 0, False, 0),
            (State.SENDING, 2, True, 0),
        ]
        assert again[0].row == asked.row


async def test_any_number_of_planned_stops_condemns_nobody(place: Place) -> None:
    """A long answer that is interrupted by every restart is asked again each time."""
    async with life(place) as one:
        await one.store.put(message("m1"))
        for _ in range(6):
            assert (await head(one.store)).crashes == 0
            await one.restart()
        assert (await head(one.store)).state is State.LEASED


# -- poison


async def _crash_while_leased(one: Life, times: int, *, express: bool = False) -> Store:
    for _ in range(times):
        assert (await one.store.lease(99, express=express)).deliveries
        await one.crash()
        one.clock.tick(SETTLE_S)
    return one.store


@pytest.mark.parametrize("express", [False, True])
async def test_two_crashes_make_a_message_run_alone(place: Place, express: bool) -> None:
    """It is leased while nothing else is, on either path, and nothing is beside it."""
    task = Task.COMMAND if express else Task.QUESTION
    async with life(place) as one:
        await one.store.put(message("bad"), task)
        store = await _crash_while_leased(one, 2, express=express)
        await store.put(message("other", person="u2"))
        await store.put(message("command", person="u2"), Task.COMMAND)

        assert await leased(store, express=not express) == []
        (suspect,) = (await store.lease(9, express=express)).deliveries
        assert (suspect.message.id, suspect.crashes) == ("bad", 2)
        for path in (False, True):
            assert await leased(store, express=path) == []
        await finish(store, suspect)
        assert await leased(store) == ["other"]
        assert await leased(store, express=True) == ["command"]


async def test_a_suspect_waits_until_the_start_has_settled(place: Place) -> None:
    """A start that dies at once cannot condemn it: others run meanwhile, and it runs when they have ended."""
    async with life(place) as one:
        await one.store.put(message("bad"))
        store = await _crash_while_leased(one, 2)
        for _ in range(5):
            store = await one.crash()
            assert one.recovered == Recovered(returned=0, dead=0)
        assert (await store.lease(1)).wait_s == SETTLE_S
        await store.put(message("other", person="u2"))
        other = await head(store)
        await store.put(message("third", person="u3"))
        one.clock.tick(SETTLE_S)
        assert await leased(store) == []

        await finish(store, other)
        assert await leased(store) == ["bad"]


async def test_one_crash_changes_nothing(place: Place) -> None:
    """After a first crash everything runs beside each other as before."""
    async with life(place) as one:
        for number in range(4):
            await one.store.put(message(f"m{number}", person=f"u{number}"))
        store = await _crash_while_leased(one, 1)
        assert await leased(store) == ["m0", "m1", "m2", "m3"]


async def test_the_third_crash_condemns_one_and_acquits_the_others(place: Place) -> None:
    """Of all that ran at two crashes the one that ran alone at the third is guilty; its asker is to be told."""
    async with life(place) as one:
        for number in range(4):
            await one.store.put(message(f"m{number}", person=f"u{number}"))
        await one.store.put(message("behind", person="u1"))
        store = await _crash_while_leased(one, 2)
        innocent = (await store.lease(9)).deliveries
        assert [delivery.message.id for delivery in innocent] == ["m0"]
        await finish(store, innocent[0])
        guilty = (await store.lease(9)).deliveries
        assert [delivery.message.id for delivery in guilty] == ["m1"]
        store = await one.crash()

        assert one.recovered == Recovered(returned=1, dead=1)
        found = {delivery.message.id: delivery for delivery in (await store.lease(9)).deliveries}
        assert set(found) == {"m1", "m2", "m3"}
        told = found["m1"]
        assert (told.state, told.outcome, told.answer, told.part) == (State.ANSWERED, Outcome.DEAD, Answer(""), 0)
        assert {delivery.crashes for delivery in found.values()} == {0}
        assert [found[key].state for key in ("m2", "m3")] == [State.LEASED, State.LEASED]
        await store.sending(told, 1)
        await store.dead(told, Outcome.DEAD, "died three times")
        assert await leased(store) == ["behind"]


async def test_innocents_beside_a_poison_all_come_through(place: Place) -> None:
    """Whoever ran beside the guilty one in every crash is worked on one by one, and nobody else dies."""
    async with life(place) as one:
        for number in range(9):
            await one.store.put(message(f"m{number}", person=f"u{number}"))
        store = await _crash_while_leased(one, 2)
        ended = set()
        dead = 0
        while deliveries := (await store.lease(9)).deliveries:
            if any(delivery.message.id == "m5" and delivery.outcome is None for delivery in deliveries):
                store = await one.crash()
                one.clock.tick(SETTLE_S)
                dead += one.recovered.dead
                continue
            for delivery in deliveries:
                await finish(store, delivery)
                ended.add(delivery.message.id)

    assert dead == 1
    assert ended == {f"m{number}" for number in range(9)}


@pytest.mark.parametrize("lived", ["later", "planned stop"])
async def test_a_message_that_lived_through_its_work(place: Place, lived: str) -> None:
    """Given back after its attempt it is trusted again; a planned stop neither accuses nor acquits."""
    async with life(place) as one:
        await one.store.put(message("m1"))
        store = await _crash_while_leased(one, 2)
        delivery = await head(store)
        if lived == "later":
            await store.later(delivery, 0.0)
        store = await one.restart()
        one.clock.tick(SETTLE_S)
        await store.put(message("m2", person="u2"))

        assert await leased(store) == (["m1", "m2"] if lived == "later" else ["m1"])


async def test_a_cancelled_suspect_holds_nobody_up(place: Place) -> None:
    """`/cancel` is itself held up by a suspect, but what ends it frees everybody."""
    async with life(place) as one:
        await one.store.put(message("m1"))
        await one.store.put(message("m2", person="u2"))
        store = await _crash_while_leased(one, 2)
        suspect = await head(store)
        await store.put(message("m3"))
        await store.cancel(message("x"), before=suspect.row + 1)
        assert await leased(store) == ["m2"]  # the other suspect
        await store.cancel(message("x", person="u2"), before=99)
        assert await leased(store) == ["m3"]


async def test_a_poison_that_kills_when_it_is_told_ends_dead(place: Place) -> None:
    """If even the text for its asker kills the process three times, the message is closed and the lane moves on."""
    async with life(place) as one:
        await one.store.put(message("bad", webhook="https://a/secret"))
        await one.store.put(message("next"))
        store = await _crash_while_leased(one, 3)
        assert one.recovered.dead == 1
        for crashes in range(3):
            delivery = await head(store)
            assert (delivery.outcome, delivery.crashes) == (Outcome.DEAD, crashes)
            await store.sending(delivery, 1)
            store = await one.crash()
            one.clock.tick(SETTLE_S)
        assert one.recovered.dead == 1

        assert await leased(store) == ["next"]
        (bad, _) = place.rows("id, state, outcome, reason, webhook, answer")
        assert bad == (1, "dead", "dead", "telling its asker kills the process", "", None)
        assert (await store.put(message("bad"))).duplicate
