"""How the store hands out work: order in a lane, fairness between lanes, the fence, cancelling, telling once."""

from __future__ import annotations

import pytest

from dingbridge.errors import LeaseLost
from dingbridge.model import Answer, Outcome, State, Task
from tests.places import Place, life
from tests.stores import START, WRITES, Clock, Write, finish, head, leased, message

every_write = pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)


def snapshot(place: Place) -> tuple[object, ...]:
    return place.rows(), place.rows(table="lane")


# -- order


async def test_a_lane_is_worked_on_in_order_and_one_at_a_time(place: Place) -> None:
    """The next question of a lane is leased only when the one before it has ended."""
    clock = Clock()
    async with place.opened(clock) as store:
        for number in range(3):
            await store.put(message(f"m{number}"))
        for number in range(3):
            (delivery,) = (await store.lease(9)).deliveries
            assert delivery.message.id == f"m{number}"
            assert await leased(store) == []
            await store.answered(delivery, Answer("答"), Outcome.ANSWERED)
            await store.sending(delivery, 1)
            assert await leased(store) == []
            clock.tick()
            await store.done(delivery, Outcome.ANSWERED)
        assert await leased(store) == []


async def test_lanes_run_beside_each_other(place: Place) -> None:
    """As many lanes as asked for are leased at once, the longest waiting first."""
    clock = Clock()
    async with place.opened(clock) as store:
        for number in range(5):
            await store.put(message(f"m{number}", person=f"u{number}"))
            clock.tick()
        assert await leased(store, 3) == ["m0", "m1", "m2"]
        assert await leased(store, 3) == ["m3", "m4"]


async def test_a_backlog_does_not_starve_the_others(place: Place) -> None:
    """After each of its questions a lane goes behind the lanes that wait already."""
    clock = Clock()
    async with place.opened(clock) as store:
        for number in range(3):
            await store.put(message(f"busy{number}", person="u1"))
        clock.tick()
        await store.put(message("b", person="u2"))
        await store.put(message("c", person="u3"))
        order = []
        for _ in range(5):
            clock.tick()
            delivery = await head(store)
            order.append(delivery.message.id)
            await finish(store, delivery)

    assert order == ["busy0", "b", "c", "busy1", "busy2"]


async def test_the_express_path_is_a_path_of_its_own(place: Place) -> None:
    """Commands never wait behind answers, of any lane, nor behind each other."""
    async with place.opened(Clock()) as store:
        await store.put(message("m1"))
        running = await head(store)
        await store.put(message("m2"))
        await store.put(message("c1"), Task.COMMAND)
        await store.put(message("c2"), Task.UNREADABLE)
        assert await leased(store) == []

        deliveries = (await store.lease(9, express=True)).deliveries
        assert [(one.message.id, one.task) for one in deliveries] == [("c1", Task.COMMAND), ("c2", Task.UNREADABLE)]
        await store.done(deliveries[1], Outcome.COMMAND)
        await store.done(running, Outcome.ANSWERED)
        assert await leased(store, express=True) == []
        assert await leased(store) == ["m2"]


async def test_how_long_until_there_is_more(place: Place) -> None:
    """wait_s tells when the next lane of the same path is due, if fewer than asked for were."""
    clock = Clock()
    async with place.opened(clock) as store:
        assert (await store.lease(1)).wait_s is None
        for number, delay_s in ((1, 30.0), (2, 7.5)):
            await store.put(message(f"m{number}", person=f"u{number}"))
            await store.later(await head(store), delay_s)
        assert (await store.lease(1)).wait_s == 7.5
        assert (await store.lease(1, express=True)).wait_s is None
        await store.put(message("m3", person="u3"))
        full = await store.lease(1)
        assert (len(full.deliveries), full.wait_s) == (1, None)

        clock.tick(7.5)
        due = await store.lease(2)
        assert [one.message.id for one in due.deliveries] == ["m2"]
        assert due.wait_s == 22.5


async def test_later_keeps_the_place_at_the_head(place: Place) -> None:
    """A message given back comes again before the lane's next one, and holds that up; other lanes go on."""
    clock = Clock()
    async with place.opened(clock) as store:
        await store.put(message("m1"))
        await store.put(message("m2"))
        await store.later(await head(store), 5.0)
        await store.put(message("m3"))
        await store.put(message("b", person="u2"))
        assert await leased(store) == ["b"]
        clock.tick(4.9)
        assert await leased(store) == []
        clock.tick(0.1)

        again = await head(store)
        assert (again.message.id, again.tries, again.state) == ("m1", 1, State.LEASED)
        await finish(store, again)
        assert await leased(store) == ["m2"]


async def test_later_keeps_an_answer_and_what_of_it_is_sent(place: Place) -> None:
    """A reply given back goes on behind the parts that arrived, knowing whether the next one may have."""
    clock = Clock()
    answer = Answer("长", partial=True, question_cut=True, tries=2, first_token_s=0.5)
    async with place.opened(clock) as store:
        await store.put(message("m1"))
        delivery = await head(store)
        clock.tick(3)
        await store.answered(delivery, answer, Outcome.PARTIAL, reason="the stream broke", route="handbook")
        await store.sending(delivery, 2)
        await store.later(delivery, 0.0, sent=1, uncertain=True)

        again = await head(store)
        assert (again.state, again.part, again.uncertain) == (State.ANSWERED, 1, True)
        assert (again.answer, again.outcome, again.answered_at) == (answer, Outcome.PARTIAL, START + 3)
        assert (again.reason, again.route) == ("the stream broke", "handbook")


@pytest.mark.parametrize(("said", "kept"), [("", "the stream broke"), ("no rung left", "no rung left")])
async def test_the_reason_at_the_end(place: Place, said: str, kept: str) -> None:
    """What was known with the answer stays in the row unless the end has a reason of its own."""
    async with place.opened(Clock()) as store:
        await store.put(message("m1"))
        delivery = await head(store)
        await store.answered(delivery, Answer("答"), Outcome.PARTIAL, reason="the stream broke")
        await store.done(delivery, Outcome.PARTIAL, said)

        assert place.rows("outcome, reason") == [("partial", kept)]


# -- told once


async def test_trouble_is_claimed_once_until_the_lane_is_empty(place: Place) -> None:
    """Of all the questions of a lane one asker's trouble is told, across leases; a lane that was empty starts anew."""
    async with place.opened(Clock()) as store:
        await store.put(message("m1"))
        await store.put(message("m2"))
        first = await head(store)
        assert await store.claim_trouble(first)
        assert not await store.claim_trouble(first)
        await store.later(first, 0.0)
        again = await head(store)
        assert not await store.claim_trouble(again)
        await store.put(message("b", person="u2"))
        assert await store.claim_trouble(await head(store))
        await finish(store, again)
        second = await head(store)
        assert not await store.claim_trouble(second)
        await finish(store, second)

        await store.put(message("m3"))
        assert await store.claim_trouble(await head(store))


async def test_the_notice_is_claimed_once_until_the_lane_is_empty(place: Place) -> None:
    """One waiting notice goes to a lane with unanswered questions, whichever of them waited long enough first."""
    async with place.opened(Clock()) as store:
        first = await store.put(message("m1"))
        second = await store.put(message("m2"))
        assert await store.claim_notice(second.row) == message("m2")
        assert await store.claim_notice(second.row) is None
        assert await store.claim_notice(first.row) is None
        await finish(store, await head(store))
        third = await store.put(message("m3"))
        assert await store.claim_notice(third.row) is None
        await finish(store, await head(store))
        await finish(store, await head(store))

        fourth = await store.put(message("m4"))
        assert await store.claim_notice(fourth.row) == message("m4")


async def test_no_notice_once_there_is_an_answer(place: Place) -> None:
    """Neither a message whose answer is known nor one that ended is announced any more, and nothing is used up."""
    async with place.opened(Clock()) as store:
        first = await store.put(message("m1"))
        second = await store.put(message("m2"))
        delivery = await head(store)
        await store.answered(delivery, Answer("答"), Outcome.ANSWERED)
        assert await store.claim_notice(first.row) is None
        await store.sending(delivery, 1)
        assert await store.claim_notice(first.row) is None
        await store.done(delivery, Outcome.ANSWERED)
        assert await store.claim_notice(first.row) is None
        assert await store.claim_notice(999) is None

        assert await store.claim_notice(second.row) == message("m2")


# -- the fence


@every_write
async def test_a_cancelled_worker_can_write_nothing(place: Place, write: Write) -> None:
    """After `/cancel` every write of the running worker is refused and changes nothing."""
    async with place.opened(Clock()) as store:
        placed = await store.put(message("m1"))
        await store.put(message("m2"))
        held = await head(store)
        assert await store.cancel(message("x"), before=placed.row + 1) == {placed.row: message("m1")}
        before = snapshot(place)

        with pytest.raises(LeaseLost):
            await write(store, held)
        assert snapshot(place) == before


@every_write
async def test_an_older_lease_can_write_nothing(place: Place, write: Write) -> None:
    """A worker that gave its message back is fenced off, also while another works on it."""
    async with place.opened(Clock()) as store:
        await store.put(message("m1"))
        old = await head(store)
        await store.later(old, 0.0)
        with pytest.raises(LeaseLost):
            await write(store, old)
        new = await head(store)
        assert (new.row, new.lane) == (old.row, old.lane)
        before = snapshot(place)
        with pytest.raises(LeaseLost):
            await write(store, old)
        assert snapshot(place) == before

        await write(store, new)


@every_write
async def test_what_has_ended_cannot_be_written(place: Place, write: Write) -> None:
    """After done the lease is gone, whether the lane is empty or has moved on."""
    async with place.opened(Clock()) as store:
        await store.put(message("m1"))
        first = await head(store)
        await finish(store, first)
        with pytest.raises(LeaseLost):
            await write(store, first)
        await store.put(message("m2"))
        await store.put(message("m3"))
        second = await head(store)
        await finish(store, second)
        third = await head(store)
        before = snapshot(place)
        for old in (first, second):
            with pytest.raises(LeaseLost):
                await write(store, old)
        assert snapshot(place) == before

        await write(store, third)


@every_write
async def test_a_worker_from_before_a_crash_can_write_nothing(place: Place, write: Write) -> None:
    """A start takes back what was leased: whoever still holds it from before is fenced off."""
    async with life(place, Clock()) as one:
        await one.store.put(message("m1"))
        held = await head(one.store)
        await one.crash()
        with pytest.raises(LeaseLost):
            await write(one.store, held)


async def test_a_lost_lease_says_so_without_retry(place: Place) -> None:
    """LeaseLost is certain: the worker stops, it does not try again."""
    async with place.opened(Clock()) as store:
        await store.put(message("m1"))
        held = await head(store)
        await finish(store, held)
        with pytest.raises(LeaseLost, match="message 1 was cancelled or taken over") as caught:
            await store.sending(held, 1)
        assert not caught.value.retryable
        assert store.trouble is None


# -- cancelling


async def test_cancel_ends_the_askers_own_unanswered_questions(place: Place) -> None:
    """Other people, conversations, robots and commands are left alone, and so is what came after."""
    async with place.opened(Clock()) as store:
        await store.put(message("m1"))
        await store.put(message("p1", person="u2"))
        await store.put(message("q1", conversation="c2"))
        await store.put(message("r1", robot="ding2"))
        await store.put(message("c1"), Task.COMMAND)
        await store.put(message("m2"))
        by = await store.put(message("cancel"), Task.COMMAND)
        await store.put(message("m3"))

        assert await store.cancel(message("cancel"), before=by.row) == {1: message("m1"), 6: message("m2")}
        assert sorted(await leased(store)) == ["m3", "p1", "q1", "r1"]
        assert await leased(store, express=True) == ["c1", "cancel"]
        ended = place.rows("key, state, outcome, body")
        assert [one for one in ended if one[1] == "done"] == [
            ("m1", "done", "cancelled", ""),
            ("m2", "done", "cancelled", ""),
        ]


async def test_cancelling_the_running_head_frees_the_lane(place: Place) -> None:
    """The next question, asked after the cancel, can be leased at once."""
    async with place.opened(Clock()) as store:
        await store.put(message("m1"))
        await store.put(message("m2"))
        held = await head(store)
        by = await store.put(message("cancel"), Task.COMMAND)
        await store.put(message("m3"))
        assert list(await store.cancel(message("cancel"), before=by.row)) == [1, 2]

        new = await head(store)
        assert (new.message.id, new.lane) == ("m3", held.lane)
        with pytest.raises(LeaseLost):
            await store.done(held, Outcome.ANSWERED)


async def test_cancelling_behind_an_answer_does_not_free_the_lane(place: Place) -> None:
    """The head that is being sent keeps its lease; only what waits behind it goes."""
    async with place.opened(Clock()) as store:
        for key in ("m1", "m2"):
            await store.put(message(key))
        held = await head(store)
        await store.answered(held, Answer("答"), Outcome.ANSWERED)
        by = await store.put(message("cancel"), Task.COMMAND)
        await store.put(message("m3"))
        assert list(await store.cancel(message("cancel"), before=by.row)) == [2]

        assert await leased(store) == []
        await store.sending(held, 1)
        await store.done(held, Outcome.ANSWERED)
        assert await leased(store) == ["m3"]


async def test_cancel_reaches_the_contexts_before_new(place: Place) -> None:
    """Questions of an older generation are dropped too, and each lane is free for what follows."""
    async with place.opened(Clock()) as store:
        for key in ("m1", "m2"):
            await store.put(message(key))
        await store.put(message("new"), Task.COMMAND, fresh=True)
        await store.put(message("m3"))
        await store.lease(9)
        by = await store.put(message("cancel"), Task.COMMAND)

        assert list(await store.cancel(message("cancel"), before=by.row)) == [1, 2, 4]
        assert list(await store.cancel(message("cancel"), before=by.row)) == []
        assert place.rows("key", table="lane") == [("express-3",), ("express-5",)]
        await store.put(message("m4"))
        assert await leased(store) == ["m4"]
