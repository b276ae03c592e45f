"""What comes into the store: seen before or new, within its asker's limits, stamped with its lane."""

from __future__ import annotations

import pytest

from dingbridge.model import Answer, Outcome, State, Task, lane_key
from dingbridge.store.intake import Limits
from dingbridge.store.operate import Depth
from dingbridge.store.store import Store
from tests.places import Place
from tests.stores import START, UNLIMITED, Clock, finish, head, leased, message


async def test_a_message_comes_out_as_it_went_in(place: Place) -> None:
    """Every field of a message survives the way through the file."""
    clock = Clock()
    sent = message("m1", text="一行\n二行 \U0001f600", webhook="https://oapi.example/1", expires=START + 3600)
    async with place.opened(clock) as store:
        placed = await store.put(sent)
        clock.tick(2)
        delivery = await head(store)

    assert delivery.message == sent
    assert delivery.message.webhook.reveal() == "https://oapi.example/1"
    assert (delivery.row, delivery.lane, delivery.task) == (placed.row, placed.lane, Task.QUESTION)
    assert (delivery.state, delivery.part, delivery.uncertain, delivery.answer) == (State.LEASED, 0, False, None)
    assert (delivery.received_at, delivery.leased_at, delivery.tries, delivery.crashes) == (START, START + 2, 0, 0)


@pytest.mark.parametrize("text", ["a\0b", "\U0001f600", "\u2028", "' OR 1=1; --", "%s ? {} \\"])
async def test_any_text_comes_out_as_it_went_in(place: Place, text: str) -> None:
    """What a database treats in a way of its own is only text here."""
    async with place.opened(Clock()) as store:
        await store.put(message("m1", text=text))
        delivery = await head(store)
        await store.answered(delivery, Answer(text), Outcome.ANSWERED, reason=text)
        await store.later(delivery, 0.0)
        again = await head(store)
        assert (again.message.text, again.answer) == (text, Answer(text))


@pytest.mark.parametrize(("deadline_s", "expected"), [(1800.0, START + 1800.0), (0.0, None)])
async def test_the_deadline_is_stored_with_the_message(place: Place, deadline_s: float, expected: float | None) -> None:
    """A message carries the moment its answer is due; 0 means it has none."""
    async with place.opened(Clock(), Limits(0, 0, deadline_s)) as store:
        await store.put(message("m1"))

        assert (await head(store)).deadline_at == expected


# -- seen before


async def test_a_message_is_kept_once(place: Place) -> None:
    """The same msgId of the same robot is told as a duplicate, with the row it has."""
    async with place.opened(Clock()) as store:
        first = await store.put(message("m1"))
        again = await store.put(message("m1", text="anything"))

        assert not first.duplicate
        assert again.duplicate
        assert (again.row, again.lane, again.task) == (first.row, first.lane, first.task)
        assert await leased(store) == ["m1"]


async def test_another_robot_has_its_own_messages(place: Place) -> None:
    """The same msgId of another robot is another message."""
    async with place.opened(Clock()) as store:
        first = await store.put(message("m1"))
        other = await store.put(message("m1", robot="ding2"))

        assert not other.duplicate
        assert other.lane != first.lane
        assert len(await leased(store)) == 2


async def test_a_message_that_ended_is_still_known(place: Place) -> None:
    """A redelivery after the answer, or after a restart, is a duplicate and brings nothing back."""
    clock = Clock()
    async with place.opened(clock) as store:
        first = await store.put(message("m1"))
        await finish(store, await head(store))
        assert (await store.put(message("m1"))).duplicate
        await store.put(message("m2"))
        await store.dead(await head(store), Outcome.UNDELIVERABLE, "no rung left")

    async with place.opened(clock) as store:
        again = await store.put(message("m1"))
        assert (again.row, again.duplicate) == (first.row, True)
        assert (await store.put(message("m2"))).duplicate
        assert await leased(store) == []


async def test_a_duplicate_says_what_the_first_became(place: Place) -> None:
    """A question that was refused as too much stays that when it comes again."""
    async with place.opened(Clock(), Limits(0, 1)) as store:
        await store.put(message("m1"))
        assert (await store.put(message("m2"))).task is Task.LIMITED

        assert (await store.put(message("m2"))).task is Task.LIMITED


async def test_a_duplicate_is_not_held_to_the_limits(place: Place) -> None:
    """Redeliveries count for nothing."""
    async with place.opened(Clock(), Limits(0, 2)) as store:
        await store.put(message("m1"))
        for _ in range(5):
            await store.put(message("m1"))

        assert (await store.put(message("m2"))).task is Task.QUESTION


# -- session webhooks


async def test_a_duplicate_renews_the_webhook_of_an_unfinished_message(place: Place) -> None:
    """The reply goes to the newer session webhook of a redelivery."""
    async with place.opened(Clock()) as store:
        await store.put(message("m1", webhook="https://a/old", expires=START + 10))
        await store.put(message("m1", webhook="https://a/new", expires=START + 20))
        found = (await head(store)).message

    assert found.webhook.reveal() == "https://a/new"
    assert found.webhook_expires == message("", expires=START + 20).webhook_expires


@pytest.mark.parametrize(
    ("second", "expires", "kept"),
    [
        ("https://a/older", START + 5, "https://a/first"),
        ("", None, "https://a/first"),
        ("https://a/same", START + 10, "https://a/same"),
        ("https://a/endless", None, "https://a/endless"),
    ],
)
async def test_only_a_newer_webhook_replaces(place: Place, second: str, expires: float | None, kept: str) -> None:
    """A redelivery without a webhook, or with one that ends sooner, takes nothing away."""
    async with place.opened(Clock()) as store:
        await store.put(message("m1", webhook="https://a/first", expires=START + 10))
        await store.put(message("m1", webhook=second, expires=expires))

        assert (await head(store)).message.webhook.reveal() == kept
        assert (await store.webhook("ding1", "c1"))[0].reveal() == kept


async def test_a_duplicate_of_a_finished_message_leaves_its_row_alone(place: Place) -> None:
    """What was forgotten at the end does not come back with a redelivery."""
    async with place.opened(Clock()) as store:
        await store.put(message("m1", webhook="https://a/1"))
        await finish(store, await head(store))
        await store.put(message("m1", webhook="https://a/2"))

        assert place.rows("key, state, webhook") == [("m1", "done", "")]


async def test_the_newest_webhook_of_a_conversation(place: Place) -> None:
    """Any message of a conversation, seen before or not, brings its newest webhook; other conversations keep theirs."""
    async with place.opened(Clock()) as store:
        assert await store.webhook("ding1", "c1") == (message("").webhook, None)
        await store.put(message("m1", webhook="https://a/1", expires=START + 10))
        await store.put(message("m2", person="u2", webhook="https://a/2", expires=START + 20))
        await store.put(message("m3", webhook="https://a/3", expires=START + 15))
        await store.put(message("m4", conversation="c2", webhook="https://a/4", expires=START + 90))
        secret, expires = await store.webhook("ding1", "c1")
        assert (secret.reveal(), expires) == ("https://a/2", START + 20)

        await store.put(message("m1", webhook="https://a/5", expires=START + 30))
        assert (await store.webhook("ding1", "c1"))[0].reveal() == "https://a/5"
        assert not (await store.webhook("ding2", "c1"))[0]


# -- limits


async def test_questions_per_minute(place: Place) -> None:
    """Over the limit a question is kept as LIMITED for the express path, until the minute has passed."""
    clock = Clock()
    async with place.opened(clock, Limits(0, 3)) as store:
        for number in range(3):
            assert (await store.put(message(f"m{number}"))).task is Task.QUESTION
            clock.tick(10)
        refused = await store.put(message("m3"))
        assert refused.task is Task.LIMITED
        assert (await head(store, express=True)).row == refused.row

        clock.tick(30.5)  # the first is 60.5 s old
        assert (await store.put(message("m4"))).task is Task.QUESTION
        assert (await store.put(message("m5"))).task is Task.LIMITED
        clock.tick(10)
        assert (await store.put(message("m6"))).task is Task.QUESTION


async def test_only_questions_count_per_minute(place: Place) -> None:
    """Commands, unreadable messages and what was refused already use nothing up, and are never refused."""
    clock = Clock()
    async with place.opened(clock, Limits(0, 2)) as store:
        for number in range(5):
            assert (await store.put(message(f"c{number}"), Task.COMMAND)).task is Task.COMMAND
            assert (await store.put(message(f"n{number}"), Task.UNREADABLE)).task is Task.UNREADABLE
        assert (await store.put(message("m1"))).task is Task.QUESTION
        clock.tick(59)
        assert (await store.put(message("m2"))).task is Task.QUESTION
        assert (await store.put(message("m3"))).task is Task.LIMITED
        assert (await store.put(message("c9"), Task.COMMAND)).task is Task.COMMAND
        clock.tick(2)  # m1 has left the minute, m3 was never in it
        assert (await store.put(message("m4"))).task is Task.QUESTION


async def test_the_minute_is_a_persons_own(place: Place) -> None:
    """Others, and the same person at another robot, are not held up; the person is, in every conversation."""
    async with place.opened(Clock(), Limits(0, 1)) as store:
        await store.put(message("m1"))
        assert (await store.put(message("m2", person="u2"))).task is Task.QUESTION
        assert (await store.put(message("m3", robot="ding2"))).task is Task.QUESTION
        assert (await store.put(message("m4", conversation="c2"))).task is Task.LIMITED


async def test_the_minute_survives_a_restart(place: Place) -> None:
    """Finished questions count as well, and a restart forgives nothing."""
    clock = Clock()
    async with place.opened(clock, Limits(0, 1)) as store:
        await store.put(message("m1"))
        await finish(store, await head(store))
    async with place.opened(clock, Limits(0, 1)) as store:
        assert (await store.put(message("m2"))).task is Task.LIMITED


async def _tasks(store: Store, *keys: str, conversation: str = "c1", person: str = "u1") -> list[Task]:
    return [(await store.put(message(key, conversation=conversation, person=person))).task for key in keys]


async def test_waiting_questions_do_not_count_the_one_that_runs(place: Place) -> None:
    """Two may wait beside the running one, whether it runs already or is about to; the next is told BUSY."""
    async with place.opened(Clock(), Limits(2, 0)) as store:
        assert await _tasks(store, "m1", "m2", "m3", "m4") == [Task.QUESTION] * 3 + [Task.BUSY]
        running = await head(store)
        assert await _tasks(store, "m5") == [Task.BUSY]

        await store.answered(running, Answer("答"), Outcome.ANSWERED)
        assert await _tasks(store, "m6") == [Task.BUSY]
        await store.done(running, Outcome.ANSWERED)
        assert await _tasks(store, "m7", "m8") == [Task.QUESTION, Task.BUSY]


async def test_a_running_question_that_comes_later_takes_no_waiting_place(place: Place) -> None:
    """A head given back for later is still the one that runs."""
    async with place.opened(Clock(), Limits(1, 0)) as store:
        await _tasks(store, "m1")
        await store.later(await head(store), 5.0)
        assert await _tasks(store, "m2", "m3") == [Task.QUESTION, Task.BUSY]


async def test_waiting_is_counted_per_conversation_and_person(place: Place) -> None:
    """Another person, another conversation and another robot have places of their own."""
    async with place.opened(Clock(), Limits(1, 0)) as store:
        assert await _tasks(store, "m1", "m2", "m3") == [Task.QUESTION, Task.QUESTION, Task.BUSY]
        assert await _tasks(store, "p1", "p2", "p3", person="u2") == [Task.QUESTION, Task.QUESTION, Task.BUSY]
        assert await _tasks(store, "q1", "q2", "q3", conversation="c2") == [Task.QUESTION, Task.QUESTION, Task.BUSY]
        assert (await store.put(message("m1", robot="ding2"))).task is Task.QUESTION


async def test_a_new_context_makes_no_room(place: Place) -> None:
    """What waits in the contexts before `/new` counts; what runs in them does not."""
    async with place.opened(Clock(), Limits(2, 0)) as store:
        await _tasks(store, "m1", "m2", "m3")
        await store.put(message("new"), Task.COMMAND, fresh=True)
        assert await _tasks(store, "m4") == [Task.BUSY]
        await finish(store, await head(store))
        assert await _tasks(store, "m5", "m6") == [Task.QUESTION, Task.BUSY]

        assert await leased(store) == ["m2", "m5"]
        assert await _tasks(store, "m7", "m8") == [Task.QUESTION, Task.BUSY]


async def test_commands_are_exempt_and_take_no_place(place: Place) -> None:
    """A full lane still takes commands, and commands fill no lane."""
    async with place.opened(Clock(), Limits(1, 0)) as store:
        for number in range(5):
            assert (await store.put(message(f"c{number}"), Task.COMMAND)).task is Task.COMMAND
        assert await _tasks(store, "m1", "m2", "m3") == [Task.QUESTION, Task.QUESTION, Task.BUSY]
        assert (await store.put(message("c9"), Task.COMMAND)).task is Task.COMMAND


async def test_zero_means_no_limit(place: Place) -> None:
    """With both limits 0 a person may ask as much as they like."""
    async with place.opened(Clock(), UNLIMITED) as store:
        assert set(await _tasks(store, *(f"m{number}" for number in range(60)))) == {Task.QUESTION}


# -- contexts


async def test_a_lane_is_a_context(place: Place) -> None:
    """Robot, conversation and person make the lane; the key is what the model says it is."""
    async with place.opened(Clock()) as store:
        assert (await store.put(message("m1"))).lane == lane_key("ding1", "c1", "u1", 0)
        assert (await store.put(message("m2"))).lane == lane_key("ding1", "c1", "u1", 0)
        assert (await store.put(message("m3", person="u2"))).lane == lane_key("ding1", "c1", "u2", 0)
        assert (await store.put(message("m4", conversation="c2"))).lane == lane_key("ding1", "c2", "u1", 0)
        assert (await store.put(message("m5", robot="ding2"))).lane == lane_key("ding2", "c1", "u1", 0)


async def test_new_opens_another_lane_and_leaves_the_old_its_questions(place: Place) -> None:
    """Questions after `/new` run beside the older ones, in a fresh context; other people's contexts stay."""
    async with place.opened(Clock()) as store:
        old = await store.put(message("m1"))
        await store.put(message("m2"))
        await store.put(message("new"), Task.COMMAND, fresh=True)
        fresh = await store.put(message("m3"))
        other = await store.put(message("m4", person="u2"))

        assert fresh.lane == lane_key("ding1", "c1", "u1", 1)
        assert other.lane == lane_key("ding1", "c1", "u2", 0)
        deliveries = (await store.lease(9)).deliveries
        assert [(one.message.id, one.lane) for one in deliveries] == [
            ("m1", old.lane),
            ("m3", fresh.lane),
            ("m4", other.lane),
        ]
        await finish(store, deliveries[0])
        assert (await head(store)).lane == old.lane


async def test_a_duplicate_of_new_opens_nothing(place: Place) -> None:
    """A redelivered `/new`, also after a restart, does not cut the conversation a second time."""
    clock = Clock()
    async with place.opened(clock) as store:
        await store.put(message("new"), Task.COMMAND, fresh=True)
        await store.put(message("new"), Task.COMMAND, fresh=True)
        assert (await store.put(message("m1"))).lane == lane_key("ding1", "c1", "u1", 1)
        await store.put(message("new2"), Task.COMMAND, fresh=True)
    async with place.opened(clock) as store:
        await store.put(message("new2"), Task.COMMAND, fresh=True)
        assert (await store.put(message("m2"))).lane == lane_key("ding1", "c1", "u1", 2)


async def test_new_and_its_generation_are_one_transaction(place: Place) -> None:
    """Where the row cannot be kept, the context is not cut either."""
    async with place.opened(Clock()) as store:
        bad = message("new", text="\ud800")  # cannot be written as UTF-8
        with pytest.raises(UnicodeEncodeError):
            await store.put(bad, Task.COMMAND, fresh=True)

        assert place.rows(table="context") == []
        assert (await store.put(message("m1"))).lane == lane_key("ding1", "c1", "u1", 0)


# -- looking


async def test_waiting_lists_unanswered_questions(place: Place) -> None:
    """Ready and running questions in order, with their age; one person's in one conversation on demand."""
    clock = Clock()
    async with place.opened(clock) as store:
        for key, person in (("m1", "u1"), ("m2", "u2"), ("m3", "u1"), ("m4", "u3")):
            await store.put(message(key, person=person))
            clock.tick()
        await store.put(message("c1"), Task.COMMAND)
        first, second, third = (await store.lease(9)).deliveries
        await store.answered(second, Answer("答"), Outcome.ANSWERED)
        await finish(store, third)

        assert [(one.row, one.received_at) for one in await store.waiting()] == [(1, START), (3, START + 2)]
        assert {one.lane for one in await store.waiting()} == {first.lane}
        assert [one.row for one in await store.waiting(message("any"))] == [1, 3]
        assert await store.waiting(message("any", person="u2")) == []


async def test_depth_counts_what_is_unfinished(place: Place) -> None:
    """By state, with the age of the oldest; what ended is in no state, what was given up is counted apart."""
    clock = Clock()
    async with place.opened(clock) as store:
        assert await store.depth() == Depth({}, 0.0, dead=0)
        for number in range(6):
            await store.put(message(f"m{number}", person=f"u{number}"))
        clock.tick(120.0)
        await store.put(message("m9", person="u9"))
        first, second, _, done, dead = (await store.lease(5)).deliveries
        await store.answered(first, Answer("答"), Outcome.ANSWERED)
        await store.answered(second, Answer("答"), Outcome.ANSWERED)
        await store.sending(second, 1)
        await finish(store, done)
        await store.dead(dead, Outcome.UNDELIVERABLE, "no rung left")

        assert await store.depth() == Depth({"answered": 1, "sending": 1, "leased": 1, "ready": 2}, 120.0, dead=1)
