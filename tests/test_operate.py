"""What an operator sees and changes, on a real store: trails, finding, retrying, dropping."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from dingbridge.errors import LeaseLost
from dingbridge.model import Answer, Delivery, Outcome, State, Task, trace_code
from dingbridge.store.codec import TRAIL_LENGTH, decode_steps, encode_steps
from dingbridge.store.intake import Limits
from dingbridge.store.operate import Row
from dingbridge.store.store import Store
from dingbridge.trail import Step
from tests.places import Place, life
from tests.stores import Clock, finish, head, leased, message


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(place: Place, clock: Clock) -> AsyncIterator[Store]:
    """An open one."""
    async with place.opened(clock, Limits(0, 0, 600.0)) as one:
        yield one


async def seen(store: Store, key: str) -> Row:
    found = await store.find("ding1", key)
    assert found is not None
    return found


async def names(store: Store, key: str) -> list[str]:
    return [step.name for step in (await seen(store, key)).steps]


def step(name: str, **facts: str | float) -> Step:
    return Step(1.5, name, dict(facts))


async def failed(store: Store, key: str = "m1") -> Delivery:
    """A question that was put and ended as failed, its text told."""
    await store.put(message(key))
    delivery = await head(store)
    await store.answered(delivery, Answer("抱歉"), Outcome.FAILED, reason="403", cause="backend.key", sending=True)
    await store.done(delivery, Outcome.FAILED, "403", cause="backend.key")
    return delivery


async def undelivered(
    store: Store, key: str = "m1", *, part: int, answer: Answer | None = None, uncertain: bool = False
) -> None:
    """An answer whose part `part` no rung took."""
    await store.put(message(key))
    delivery = await head(store)
    await store.answered(delivery, answer or Answer("答案"), Outcome.ANSWERED, sending=True)
    for number in range(2, part + 1):
        await store.sending(delivery, number)
    await store.dead(delivery, Outcome.UNDELIVERABLE, "no rung", uncertain=uncertain, cause="chat.permission")


# -- the trail


async def test_every_write_takes_its_steps_along(store: Store) -> None:
    """Receipt, answer, each part, each pause and the end append to one trail, in order."""
    await store.put(message("m1"), steps=[step("received", frame="f1")])
    delivery = await head(store)
    await store.later(delivery, 0.0, cause="backend.down", steps=[step("later", why="down")])
    delivery = await head(store)
    await store.answered(delivery, Answer("答"), Outcome.ANSWERED, steps=[step("backend.attempt", ok=True)])
    await store.sending(delivery, 1, steps=[step("a"), step("b")])
    await store.put(message("m1"), steps=[step("received", frame="f2")])
    await store.done(delivery, Outcome.ANSWERED, steps=[step("send.tried", part=1)])
    assert await names(store, "m1") == ["received", "later", "backend.attempt", "a", "b", "received", "send.tried"]
    found = (await seen(store, "m1")).steps
    assert (found[0].at, found[0].facts, found[1].facts) == (1.5, {"frame": "f1"}, {"why": "down"})


async def test_the_notice_a_cancellation_and_a_planned_stop_are_steps(store: Store) -> None:
    """What the store itself does to a message is noted by it."""
    first = await store.put(message("m1"))
    await store.claim_notice(first.row)
    await head(store)
    await store.release_all()
    await store.cancel(message("x"), before=99)
    assert await names(store, "m1") == ["notice", "given_back", "cancelled"]


async def test_a_crash_is_a_step_and_loses_none(place: Place) -> None:
    """After the process died at work, what was written before is there, and that it died."""
    async with life(place) as one:
        await one.store.put(message("m1"), steps=[step("received")])
        delivery = await head(one.store)
        await one.store.answered(
            delivery, Answer("答"), Outcome.ANSWERED, sending=True, steps=[step("backend.attempt")]
        )
        await one.store.put(message("m2", person="u2"), steps=[step("received")])
        store = await one.crash()
        assert await names(store, "m1") == ["received", "backend.attempt", "crash"]
        assert await names(store, "m2") == ["received"]
        assert (await seen(store, "m1")).crashes == 1


async def test_a_killed_process_leaves_the_trail_readable(place: Place) -> None:
    """SIGKILL with a lease in hand: the next start notes the crash behind what was there."""
    async with place.child("put:m1", "lease", "kill") as process:
        assert await process.wait() == -signal.SIGKILL
    async with place.opened(Clock()) as store:
        assert await names(store, "m1") == ["crash"]


async def test_a_trail_is_bounded_and_keeps_both_ends(place: Place, store: Store) -> None:
    """However often it is tried: the beginning, the end and a mark between them, each line whole."""
    await store.put(message("m1"), steps=[step("received", frame="first")])
    for number in range(400):
        delivery = await head(store)
        await store.later(delivery, 0.0, steps=[step("later", why=f"知识库 {number} " * 30)])
        (trail,) = place.rows("trail")[0]
        assert len(trail) < TRAIL_LENGTH + 2_000
    found = (await seen(store, "m1")).steps
    assert [one.name for one in found].count("…") == 1
    assert {one.name for one in found} == {"received", "later", "…"}
    assert found[0].facts == {"frame": "first"}
    assert found[-1].facts["why"].startswith("知识库 399 ")  # type: ignore[union-attr]
    gap = [one.name for one in found].index("…")
    assert gap > 5
    assert len(found) - gap > 10


@pytest.mark.parametrize("text", ["a\u2028b", "a\x85b", "a\x0bb\x1cc", "a\nb\r\nc", '"}\n{"', "\ud800", "😀", ""])
async def test_any_text_survives_in_a_step(store: Store, text: str) -> None:
    """Whatever an error quotes, a step stays one step; half a surrogate pair becomes a question mark."""
    await store.put(message("m1"), steps=[step("later", why=text), step("b")])
    found = (await seen(store, "m1")).steps
    assert [one.name for one in found] == ["later", "b"]
    assert found[0].facts["why"] == text.replace("\ud800", "?")


async def test_what_masks_does_not_break_the_steps(place: Place) -> None:
    """Facts and reasons are masked before they are written, each by itself, so that all of it can be read back."""
    async with place.opened(Clock()) as store:
        store._redact = lambda text: text.replace("geheim", '***"')
        await store.put(message("m1"), steps=[step("later", why="x geheim y", ms=5)])
        await store.dead(await head(store), Outcome.FAILED, "of geheim")
        found = await seen(store, "m1")
    assert found.steps == (step("later", why='x ***" y', ms=5),)
    assert found.reason == 'of ***"'
    assert "geheim" not in repr(place.rows())


@pytest.mark.parametrize("trail", ["{", "[]", "5", '{"at": 1}', '{"name": "x"}', '{"at": null, "name": 1}', "…"])
def test_a_line_that_cannot_be_read_is_a_gap(trail: str) -> None:
    """Of a later version, or cut: the others are read."""
    around = encode_steps([step("a")])
    assert [one.name for one in decode_steps(around + trail + "\n" + around)] == ["a", "…", "a"]


# -- finding


@pytest.mark.parametrize(
    "written",
    ["{code}", "编号 {code}", " 编号{code}\n", "编号：{code}", "Code {code}", "code: {code}", "{lower}", "{typed}"],
)
async def test_a_code_is_found_however_it_is_typed(store: Store, written: str) -> None:
    """Pasted with its word, in lower case, with o for 0 and i or l for 1."""
    key = next(f"m{n}" for n in range(999) if {"0", "1"} <= set(trace_code("ding1", f"m{n}")))
    await store.put(message(key))
    code = trace_code("ding1", key)
    typed = code.replace("0", "o").replace("1", "l", 1).replace("1", "i")
    assert (await seen(store, written.format(code=code, lower=code.lower(), typed=typed))).id == key


@pytest.mark.parametrize("key", ["msgA+b/c==", "a/../b", "a?b#c%2F", "Code", "编号", "长" * 50, " inner blank "])
async def test_a_msg_id_is_found_as_dingtalk_writes_it(store: Store, key: str) -> None:
    """Base64 and anything else that DingTalk may use; blanks around it come from pasting."""
    await store.put(message(key.strip()))
    assert (await seen(store, f" {key}\n")).id == key.strip()


async def test_unknown_ones_and_those_of_another_robot_are_not_found(store: Store) -> None:
    """A msgId is of one robot; a code names its robot by itself."""
    await store.put(message("m1", robot="ding2"))
    assert await store.find("ding1", "m1") is None
    assert await store.find("ding1", "") is None
    assert await store.find("ding1", "ZZZZZZZZ") is None
    assert await store.find("ding1", trace_code("ding2", "m1")) is not None


async def test_lists_are_in_order_and_bounded(store: Store, clock: Clock) -> None:
    """Open ones as they will be answered, ended ones the newest first."""
    for number in (1, 2, 3):
        await failed(store, f"f{number}")
        clock.tick()
    for number in (1, 2, 3):
        await store.put(message(f"o{number}", person=f"p{number}"))
    assert [row.id for row in await store.listed("open", 2)] == ["o1", "o2"]
    assert [row.id for row in await store.listed("failed", 2)] == ["f3", "f2"]
    assert [row.id for row in await store.listed("all", 4)] == ["o3", "o2", "o1", "f3"]
    assert [lane.code for lane in await store.lanes(2)] == [trace_code("ding1", "o1"), trace_code("ding1", "o2")]


async def test_a_row_that_cannot_be_read_is_shown_all_the_same(store: Store) -> None:
    """Damaged text is a question mark; the rest of the row stands."""
    await store.put(message("m1"))
    await store._engine.run(lambda c: c.execute("UPDATE message SET body = 'x', answer = '[]', trail = '}'"))
    found = await seen(store, "m1")
    assert (found.question, found.answer, [one.name for one in found.steps]) == ("?", "?", ["…"])


# -- retrying


async def test_a_failed_question_is_asked_again(store: Store, clock: Clock) -> None:
    """Its failure text is gone, its deadline is a new one, its deliveries go on counting, and it ends as any other."""
    await failed(store)
    clock.tick(1_000)
    assert (await seen(store, "m1")).retryable
    assert await store.retry((await seen(store, "m1")).row)
    found = await seen(store, "m1")
    assert (found.state, found.outcome, found.reason, found.cause, found.finished_at) == ("ready", "", "", "", None)
    assert (found.tries, found.deadline_at, found.steps[-1].name) == (1, clock.now + 600.0, "retried")
    delivery = await head(store)
    assert (delivery.message.text, delivery.answer, delivery.state) == ("问题 m1", None, State.LEASED)
    await finish(store, delivery)
    assert (await seen(store, "m1")).outcome == "answered"


async def test_it_goes_behind_the_head_that_runs_and_before_what_waits(place: Place, store: Store) -> None:
    """Order within a context: the running one is not disturbed, then the older question, then the newer ones."""
    await failed(store)
    for key in ("m2", "m3"):
        await store.put(message(key))
    running = await head(store)
    assert await store.retry(1)
    assert await leased(store) == []
    await finish(store, running)
    order = []
    for _ in range(2):
        delivery = await head(store)
        order.append(delivery.message.id)
        await finish(store, delivery)
    assert (running.message.id, order) == ("m2", ["m1", "m3"])
    assert place.rows("*", "lane") == []


@pytest.mark.parametrize(("part", "sent"), [(1, 0), (3, 2)])
@pytest.mark.parametrize("uncertain", [True, False])
async def test_an_undelivered_answer_is_sent_from_the_part_that_failed(
    store: Store, part: int, sent: int, *, uncertain: bool
) -> None:
    """What has arrived is not sent again; the part that failed is, in doubt only where it was; nothing is asked."""
    await undelivered(store, part=part, uncertain=uncertain)
    assert await store.retry(1)
    delivery = await head(store)
    assert (delivery.state, delivery.part, delivery.uncertain) == (State.ANSWERED, sent, uncertain)
    assert (delivery.answer, delivery.outcome) == (Answer("答案"), Outcome.ANSWERED)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [(Answer("没有", refused=True), Outcome.REFUSED), (Answer("前半", partial=True), Outcome.PARTIAL)],
)
async def test_an_undelivered_refusal_stays_a_refusal(store: Store, answer: Answer, outcome: Outcome) -> None:
    """The answer's own nature decides how the message ends, once it arrives."""
    await undelivered(store, part=1, answer=answer)
    assert await store.retry(1)
    assert (await head(store)).outcome is outcome


async def test_an_undelivered_command_is_sent_on_its_own_path(store: Store) -> None:
    """Commands are no questions: express again, and a command in the end."""
    await store.put(message("m1", text="/help"), Task.COMMAND)
    delivery = await head(store, express=True)
    await store.answered(delivery, Answer("帮助"), Outcome.COMMAND, sending=True)
    await store.dead(delivery, Outcome.UNDELIVERABLE, "no rung")
    assert await store.retry(1)
    assert await leased(store) == []
    delivery = await head(store, express=True)
    assert (delivery.outcome, delivery.task) == (Outcome.COMMAND, Task.COMMAND)


@pytest.mark.parametrize("before", [Outcome.FAILED, Outcome.DEAD, Outcome.CANCELLED])
async def test_a_text_without_an_answer_that_did_not_arrive_is_not_sent_again(store: Store, before: Outcome) -> None:
    """Where only a failure text was undeliverable, a retry asks: nobody wants the old apology as an answer."""
    await store.put(message("m1"))
    delivery = await head(store)
    await store.answered(delivery, Answer("抱歉" if before is Outcome.FAILED else ""), before, sending=True)
    await store.dead(delivery, Outcome.UNDELIVERABLE, "no rung")
    assert await store.retry(1)
    delivery = await head(store)
    assert (delivery.answer, delivery.outcome, delivery.part, delivery.uncertain) == (None, None, 0, False)


async def test_retried_twice_at_the_same_time_it_comes_once(store: Store) -> None:
    """One of the two is told that there is nothing to retry."""
    await failed(store)
    assert sorted(await asyncio.gather(store.retry(1), store.retry(1))) == [False, True]
    assert await leased(store) == ["m1"]
    assert not await store.retry(1)
    assert await names(store, "m1") == ["retried"]


async def test_what_is_open_or_forgotten_cannot_be_retried(store: Store) -> None:
    """An answered question's text is gone; an open one is tried by itself; a row that is not there is none."""
    await store.put(message("m1"))
    assert not await store.retry(1)
    await finish(store, await head(store))
    assert not (await seen(store, "m1")).retryable
    assert not await store.retry(1)
    assert not await store.retry(99)


async def test_a_question_condemned_for_its_crashes_starts_anew(place: Place) -> None:
    """After three crashes it is dead; retried, it has none."""
    async with life(place) as one:
        await one.store.put(message("m1"))
        for _ in range(3):
            one.clock.tick(10)
            await head(one.store)
            await one.crash()
        delivery = await head(one.store)
        assert delivery.outcome is Outcome.DEAD
        await one.store.sending(delivery, 1)
        await one.store.dead(delivery, Outcome.DEAD, "")
        assert await one.store.retry(1)
        again = await head(one.store)
        assert (again.crashes, again.answer, again.outcome) == (0, None, None)


async def test_a_retried_message_that_comes_again_is_a_duplicate(store: Store) -> None:
    """While it waits and after it was answered; it brings its newer webhook along."""
    await failed(store)
    assert await store.retry(1)
    assert (await store.put(replace(message("m1", webhook="https://new", expires=9e9)))).duplicate
    delivery = await head(store)
    assert delivery.message.webhook.reveal() == "https://new"
    await finish(store, delivery)
    assert (await store.put(message("m1"))).duplicate
    assert await leased(store) == []


async def test_a_retry_survives_a_restart(place: Place) -> None:
    """It is a write like any other."""
    async with life(place) as one:
        await failed(one.store)
        await one.store.retry(1)
        store = await one.crash()
        assert await leased(store) == ["m1"]


# -- dropping


async def test_dropped_while_it_waits_its_asker_is_told_at_its_turn(store: Store) -> None:
    """Not the head: the one before it goes on, then it is told as cancelled, then the lane is empty."""
    for key in ("m1", "m2"):
        await store.put(message(key))
    first = await head(store)
    assert await store.drop(2, tell=True) is None
    assert await leased(store) == []
    await finish(store, first)
    delivery = await head(store)
    assert (delivery.message.id, delivery.outcome, delivery.answer) == ("m2", Outcome.CANCELLED, Answer(""))
    assert delivery.reason == "dropped by an operator"


async def test_dropped_quietly_it_ends_at_once(store: Store) -> None:
    """The message is given back for its line; its text is forgotten; the lane moves on."""
    for key in ("m1", "m2", "m3"):
        await store.put(message(key))
    for row, key in ((2, "m2"), (1, "m1")):
        assert await store.drop(row, tell=False) == message(key)
        found = await seen(store, key)
        assert (found.outcome, found.question, found.retryable) == ("cancelled", "", False)
    assert await leased(store) == ["m3"]


@pytest.mark.parametrize("tell", [True, False])
async def test_dropped_while_it_runs_the_worker_can_write_nothing_more(store: Store, tell: bool) -> None:
    """The lease is lost at once, so the answer is neither kept nor sent."""
    await store.put(message("m1"))
    running = await head(store)
    await store.drop(1, tell=tell)
    for write in (
        store.answered(running, Answer("答"), Outcome.ANSWERED, sending=True),
        store.sending(running, 1),
        store.later(running, 0.0),
        store.done(running, Outcome.ANSWERED),
    ):
        with pytest.raises(LeaseLost):
            await write
    assert await leased(store) == (["m1"] if tell else [])


async def test_what_is_being_sent_is_ended_without_a_word(place: Place, store: Store) -> None:
    """Part of it may be in the chat: another text behind it would only confuse."""
    await store.put(message("m1"))
    running = await head(store)
    await store.answered(running, Answer("答"), Outcome.ANSWERED, sending=True)
    assert await store.drop(1, tell=True) == message("m1")
    with pytest.raises(LeaseLost):
        await store.done(running, Outcome.ANSWERED)
    assert place.rows("*", "lane") == []


async def test_a_dropped_dead_message_is_forgotten_and_counts_no_more(store: Store) -> None:
    """The text goes, so nobody can retry it; how it ended stays."""
    await undelivered(store, part=1)
    assert (await store.depth()).dead == 1
    assert await store.drop(1, tell=True) is None
    found = await seen(store, "m1")
    assert (found.outcome, found.question, found.answer, found.retryable) == ("undeliverable", "", "", False)
    assert (await store.depth()).dead == 0
    assert not await store.retry(1)


async def test_a_row_that_is_gone_can_be_dropped(store: Store) -> None:
    """Forgotten between looking and dropping: nothing happens."""
    assert await store.drop(7, tell=True) is None


# -- beside a daemon


async def test_looking_counts_no_crash(place: Place, clock: Clock) -> None:
    """An operator who opens the file of a killed daemon changes nothing in it."""
    async with place.child("put:m1", "lease", "kill") as process:
        await process.wait()
    before = place.rows()
    looking = place.make(clock)
    await looking.open_beside()
    assert (await seen(looking, "m1")).state == "leased"
    await looking.close()
    assert place.rows() == before
    async with place.opened(clock) as store:
        assert (await seen(store, "m1")).crashes == 1


def test_steps_are_json_lines() -> None:
    """Any tool can read them."""
    assert json.loads(encode_steps([step("a", why="因")])) == {"at": 1.5, "name": "a", "why": "因"}
