"""DingTalk's monthly pools: kept by day and kind, spent so that they last, told and corrected."""

from __future__ import annotations

import asyncio
import itertools
import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dingbridge.cli import main
from dingbridge.control import ControlServer, Refused, call
from dingbridge.errors import StoreError
from dingbridge.journal import thrift
from dingbridge.journal.budget import KINDS, Budget, day_at
from dingbridge.journal.metrics import Metrics
from dingbridge.journal.thrift import API, POOLS, WEBHOOK_STREAM, Level, PoolNow
from dingbridge.operations import Operations
from dingbridge.settings import BudgetConfig
from dingbridge.store.store import Store
from dingbridge.verbs import quota
from dingbridge.verbs.words import WORDS, Words
from tests.house import House, until
from tests.month import STANDARD, WITHOUT, Habits, lived, played, unopened
from tests.operating import as_json, in_language, verb
from tests.places import Place
from tests.stores import Clock, opened

ROBOT = "ding1"


def at(text: str) -> float:
    """Seconds since the epoch of a time in China."""
    return datetime.fromisoformat(f"{text}+08:00").timestamp()


def budget_of(store: Store, clock: Clock, config: BudgetConfig = STANDARD) -> Budget:
    return Budget(config, ROBOT, store.spent, clock=clock)


def used(budget: Budget) -> tuple[int, int]:
    api, webhook_stream = (budget.facts()["pools"][pool]["used"] for pool in POOLS)
    return api, webhook_stream


def events(log_file: Path, event: str) -> list[str]:
    return [line for line in log_file.read_text("utf-8").splitlines() if event in line]


# -- what is kept


async def test_counts_add_up_over_daemons(place: Place) -> None:
    """Two that count at the same time lose nothing of each other, and each sees what both have spent."""
    clock = Clock(at("2026-09-10 09:00"))
    async with place.opened(clock) as store:
        one, two = budget_of(store, clock), budget_of(store, clock)
        for _ in range(5):
            one.count(API, "card.frame", 2)
            two.count(API, "card.frame")
            two.count(WEBHOOK_STREAM, "inbound")
            await asyncio.gather(one.flush(), two.flush())
        for budget in (one, two):
            await budget.read()
            assert used(budget) == (15, 5)
        assert await store.spent.month(ROBOT, "2026-09") == {
            (10, API, "card.frame"): 15,
            (10, WEBHOOK_STREAM, "inbound"): 5,
        }
        assert await store.spent.month("other", "2026-09") == {}


async def test_a_restart_goes_on_where_it_was(place: Place) -> None:
    """What was counted before an orderly end is known to the next start, without a flush in between."""
    clock = Clock(at("2026-09-10 09:00"))
    async with place.opened(clock) as store:
        before = budget_of(store, clock)
        before.count(WEBHOOK_STREAM, "reply", 7)
        await before.close()
        after = budget_of(store, clock)
        await after.read()
        assert used(after) == (0, 7)


async def test_the_month_turns_in_china(place: Place) -> None:
    """At midnight in Beijing both pools are full again; what was counted a second before is of the old month."""
    clock = Clock(at("2026-09-30 23:59:59"))
    async with place.opened(clock) as store:
        budget = budget_of(store, clock)
        budget.count(API, "send", 4999)
        assert not budget.cards_allowed()
        budget.refused(WEBHOOK_STREAM)
        clock.tick(1.0)
        assert budget.cards_allowed()
        budget.count(API, "send", 3)
        await budget.flush()
        assert used(budget) == (3, 0)
        assert budget.facts()["month"] == "2026-10"
        assert not budget.facts()["pools"][WEBHOOK_STREAM]["refused"]
        assert await store.spent.month(ROBOT, "2026-09") == {(30, API, "send"): 4999}


def test_days_are_chinas() -> None:
    """Without a time zone database, with the month's length, in a leap year too."""
    assert day_at(at("2028-02-29 12:00")).day == 29
    assert day_at(at("2028-02-29 12:00")).days == 29
    assert day_at(at("2026-09-01 00:00")).elapsed == 0.0
    assert day_at(at("2026-09-16 00:00")).elapsed == 0.5


async def test_a_correction_sets_the_months_sum(place: Place) -> None:
    """Upwards, downwards and again, on another day too; what comes after it is added to it."""
    clock = Clock(at("2026-09-10 09:00"))
    async with place.opened(clock) as store:
        budget = budget_of(store, clock)
        budget.count(API, "send", 10)
        await budget.set_used({API: 1234, WEBHOOK_STREAM: 567})
        assert used(budget) == (1234, 567)
        budget.count(API, "send")
        await budget.set_used({API: 4})
        clock.tick(86_400.0)
        budget.count(API, "send")
        await budget.set_used({WEBHOOK_STREAM: 0})
        assert used(budget) == (5, 0)
        other = budget_of(store, clock)
        await other.read()
        assert used(other) == (5, 0)


async def test_old_months_are_forgotten(place: Place) -> None:
    """After thirteen months, and no sooner."""
    clock = Clock(at("2026-11-30 12:00"))
    async with place.opened(clock) as store:
        months = ("2025-09", "2025-10", "2025-11", "2026-11")
        await store.spent.add(ROBOT, {(month, 1, API, "send"): 1 for month in months})
        await store.forget()
        assert [bool(await store.spent.month(ROBOT, month)) for month in months] == [False, True, True, True]


async def test_what_the_store_does_not_take_is_not_lost(tmp_path: Path) -> None:
    """A flush that fails leaves the counts for the next one; meanwhile decisions know them."""
    clock = Clock(at("2026-09-10 09:00"))
    budget = Budget(STANDARD, ROBOT, unopened(), clock=clock)
    budget.count(API, "card.frame", 9)
    with pytest.raises(StoreError):
        await budget.flush()
    budget.count(API, "card.frame")
    assert used(budget) == (10, 0)
    await budget.close()
    async with opened(tmp_path / "x.db", clock) as store:
        budget._spent = store.spent
        await budget.flush()
        assert used(budget) == (10, 0)
        assert await store.spent.month(ROBOT, "2026-09") == {(10, API, "card.frame"): 10}


async def test_a_running_budget_keeps_by_itself(tmp_path: Path) -> None:
    """Within the pause between two flushes, and again with what comes later."""
    clock = Clock(at("2026-09-10 09:00"))
    async with opened(tmp_path / "x.db", clock) as store:
        budget = Budget(STANDARD, ROBOT, store.spent, clock=clock, flush_s=0.005)
        running = asyncio.create_task(budget.run())
        try:
            async with asyncio.timeout(60):
                for n in (1, 2):
                    budget.count(API, "card.final")
                    while (await store.spent.month(ROBOT, "2026-09")).get((10, API, "card.final")) != n:
                        await asyncio.sleep(0.005)
        finally:
            running.cancel()
            await asyncio.wait({running})
        assert running.cancelled()


def test_only_known_names_are_counted() -> None:
    """A kind with a typing error is found by the first test that counts it, not by an operator."""
    budget = Budget(STANDARD, ROBOT, unopened(), clock=Clock())
    with pytest.raises(ValueError, match="no kind 'reply'"):
        budget.count(API, "reply")


# -- told


async def test_each_warning_is_given_once(place: Place, log_file: Path) -> None:
    """At 80 and 95 percent, once for a month and pool, by one of several daemons, also after a restart."""
    clock = Clock(at("2026-09-15 12:00"))
    async with place.opened(clock) as store:
        one, two = budget_of(store, clock), budget_of(store, clock)
        one.count(WEBHOOK_STREAM, "inbound", 2399)
        await one.flush()
        assert events(log_file, "budget.warning") == []
        one.count(WEBHOOK_STREAM, "inbound")
        await asyncio.gather(one.flush(), two.flush())
        again = budget_of(store, clock)
        await again.flush()
        (told,) = events(log_file, "budget.warning")
        for part in ("webhook_stream", "80", "2400", "3000", "2026-09-1"):
            assert part in told
        again.count(WEBHOOK_STREAM, "inbound", 600)
        for budget in (again, one, two, again):
            await budget.flush()
        assert len(events(log_file, "budget.warning")) == 2
        clock.now = at("2026-10-15 12:00")
        one.count(WEBHOOK_STREAM, "inbound", 3000)
        await one.flush()
        assert len(events(log_file, "budget.warning")) == 4


async def test_metrics_tell_both_pools(tmp_path: Path) -> None:
    """What is used by all, the limit, and what this daemon took by kind."""
    clock = Clock(at("2026-09-10 09:00"))
    metrics = Metrics("1")
    async with opened(tmp_path / "x.db", clock) as store:
        budget = Budget(STANDARD, ROBOT, store.spent, clock=clock, metrics=metrics)
        budget.count(API, "card.frame", 3)
        await budget.set_used({WEBHOOK_STREAM: 40})
    text = metrics.text().decode()
    assert 'dingbridge_quota_used{pool="api"} 3.0' in text
    assert 'dingbridge_quota_used{pool="webhook_stream"} 40.0' in text
    assert 'dingbridge_quota_limit{pool="api"} 5000.0' in text
    assert 'dingbridge_quota_total{kind="card.frame",pool="api"} 3.0' in text


@pytest.mark.parametrize("locale", sorted(WORDS))
def test_every_state_of_a_pool_has_its_words(locale: str) -> None:
    """With and without a limit, lasting, running out, beyond, refused, and each level; never a bare name of ours."""
    words, told = Words(locale), set()
    pool: dict[str, Any] = {
        "limit": 100,
        "used": 50,
        "forecast": 90,
        "runs_out_day": None,
        "refused": False,
        "level": "full",
    }
    changes: list[dict[str, Any]] = [{"limit": 0}, {"runs_out_day": 12}, {"used": 130}, {"refused": True}]
    changes += [{"level": level.name.lower()} for level in Level] + [{"level": "of another version"}]
    for change in changes:
        facts = {"month": "2026-09", "elapsed": 0.4, "pools": {name: {**pool, **change} for name in POOLS}}
        told.add(text := quota.render(facts, words))
        assert len(text.splitlines()) == 2
        assert "_" not in text
    assert len(told) == 4 + len(Level)  # another version's level is told like none


# -- what DingTalk says


async def test_a_refusal_counts_until_something_is_taken(place: Place, log_file: Path) -> None:
    """Kept over a restart and seen by the others; ended by a success, or by an operator."""
    clock = Clock(at("2026-09-10 09:00"))
    async with place.opened(clock) as store:
        one, two = budget_of(store, clock), budget_of(store, clock)
        assert one.cards_allowed()
        one.refused(API)
        one.refused(API)
        assert len(events(log_file, "budget.refused")) == 1
        assert (one.cards_allowed(), one.reply_path(True)) == (False, "webhook")
        await one.flush()
        await two.flush()
        assert not two.cards_allowed()
        two.count(API, "send")
        assert two.cards_allowed()
        await two.flush()
        await one.flush()
        assert one.cards_allowed()
        one.refused(WEBHOOK_STREAM)
        one.count(WEBHOOK_STREAM, "inbound")
        assert (one.reply_path(True), one.reply_path(False)) == ("openapi", "webhook")
        await one.flush()
        await two.set_used({WEBHOOK_STREAM: 5})
        await one.flush()
        assert one.reply_path(True) == "webhook"


# -- decisions, as functions

LEVELS = st.sampled_from(Level)
PRESSURES = st.floats(-3, 3)


@given(LEVELS, PRESSURES, PRESSURES)
@settings(max_examples=60, deadline=None)
def test_more_pressure_never_leaves_out_less(before: Level, one: float, other: float) -> None:
    """The levels go one way, from wherever; and cards' frames with them."""
    less, more = sorted((one, other))
    assert thrift.level_at(less, before) <= thrift.level_at(more, before)
    pauses = [thrift.interval_s(level) or float("inf") for level in Level]
    assert pauses == sorted(pauses)


@given(LEVELS, PRESSURES, st.lists(st.floats(0, 0.09), max_size=12))
@settings(max_examples=60, deadline=None)
def test_a_small_wiggle_does_not_flap(before: Level, base: float, wiggle: list[float]) -> None:
    """Whatever the pressure does within the band, the level moves in one direction at most."""
    levels = list(itertools.accumulate(wiggle, lambda level, x: thrift.level_at(base + x, level), initial=before))
    assert levels in (sorted(levels), sorted(levels, reverse=True))


POOL_NOW = st.builds(
    PoolNow,
    st.sampled_from(POOLS),
    st.integers(1, 10**6),
    st.integers(0, 10**6),
    st.floats(0, 1),
    st.integers(28, 31),
    st.floats(0, 10**5),
)


@given(POOL_NOW, st.integers(0, 10**6), st.floats(0, 1), LEVELS)
@settings(max_examples=100, deadline=None)
def test_who_has_spent_more_is_under_more_pressure(pool: PoolNow, more: int, later: float, before: Level) -> None:
    """More used, or to be set aside, is more pressure and less slack; and a pool that is spent shows no card."""
    spent_more = replace(pool, used=pool.used + more)
    assert thrift.pressure(pool) <= thrift.pressure(spent_more)
    assert thrift.slack(pool) >= thrift.slack(spent_more)
    assert thrift.level(pool, before) <= thrift.level(spent_more, before)
    assert thrift.level(pool, before) <= thrift.level(pool, before, float(more))
    if pool.used >= pool.limit and pool.name == API:
        assert thrift.level(pool, before) is Level.NO_CARD
    if pool.used <= pool.planned * pool.elapsed:
        assert thrift.pressure(pool) <= 0


def test_the_path_protects_questions() -> None:
    """Scarce webhooks make the API pay, as long as it can; with plenty of both, webhooks; and it holds on to either."""
    webhook = PoolNow(WEBHOOK_STREAM, 3000, 0, 0.5, 30, 50.0)
    api = PoolNow(API, 5000, 0, 0.5, 30, 50.0)
    spent, half = replace(webhook, used=2500), replace(webhook, used=1600)
    for before in POOLS:
        assert thrift.choose(webhook, api, before) == WEBHOOK_STREAM
        assert thrift.choose(spent, api, before) == API
        assert thrift.choose(spent, replace(api, used=4000, daily=300.0), before) == API
        assert thrift.choose(spent, replace(api, used=5000), before) == WEBHOOK_STREAM
        assert thrift.choose(spent, replace(api, refused=True), before) == WEBHOOK_STREAM
        assert thrift.choose(replace(spent, refused=True), replace(api, refused=True), before) == WEBHOOK_STREAM
        assert thrift.choose(replace(half, limit=0), api, before) == WEBHOOK_STREAM
        assert thrift.choose(half, replace(api, used=1000, daily=200.0), before) == before


@pytest.mark.parametrize("path", ["webhook", "openapi"])
def test_a_fixed_path_is_kept(path: str) -> None:
    """The operator's word counts; but a group's answers need the webhook, which can mention."""
    budget = Budget(replace(STANDARD, reply_path=path), ROBOT, unopened(), clock=Clock())
    for _ in range(2):
        assert (budget.reply_path(True), budget.reply_path(False)) == (path, "webhook")
        budget.count(WEBHOOK_STREAM, "inbound", 3000)
        budget.count(API, "send", 5000)


def test_without_limits_nothing_is_left_out() -> None:
    """0 is no limit: however much is spent."""
    budget = Budget(WITHOUT, ROBOT, unopened(), clock=Clock())
    for pool in POOLS:
        budget.count(pool, KINDS[pool][0], 10**7)
        assert budget.notice_allowed(pool)
    assert (budget.cards_allowed(), budget.frame_interval_s(), budget.reply_path(True)) == (True, 1.0, "webhook")


# -- months


async def test_a_month_stays_inside_both_pools(tmp_path: Path) -> None:
    """1 000 questions with cards, notices, follow-ups and a day of 200: inside, where without adaptation it is over.

    Kept in a store and started anew on the way; most cards grow, and no answer is missing.
    """
    async with opened(tmp_path / "x.db", Clock()) as store:
        adapting = await lived(Habits(), 1, STANDARD, store.spent, "adapting")
    plain = played(Habits(), 1, WITHOUT, unopened())
    assert adapting.used(API) <= 5000 < plain.used(API)
    assert adapting.used(WEBHOOK_STREAM) <= 3000
    assert adapting.used(API) > 4500  # nothing is left out without need
    assert adapting.seen["cards"] > 0.9 * plain.seen["cards"]
    assert adapting.seen["cards that grow"] > 0.7 * plain.seen["cards that grow"]
    answers = ("cards", "by webhook", "by openapi")
    assert sum(adapting.seen[name] for name in answers) == sum(plain.seen[name] for name in answers)
    assert adapting.seen["notices"] < plain.seen["notices"]
    assert adapting.changes < 40


def test_a_busy_first_day_leaves_the_rest_its_share() -> None:
    """Whatever the first day brings, no more than a quarter is spent on it, and cards grow again within a week."""
    result = played(Habits(questions=600, burst_day=0, burst=300), 1, STANDARD, unopened())
    first = result.by_day[0]
    assert first[API] <= 5000 / 4
    assert sum(day[API] for day in result.by_day[7:]) > 5000 / 3
    assert result.used(API) <= 5000


SHARE = st.floats(0, 1)
MONTHS = st.builds(
    lambda habits, busy: replace(habits, burst=int(busy * habits.questions)),
    st.builds(
        Habits,
        questions=st.integers(10, 1700),
        card=SHARE,
        one_to_one=SHARE,
        notice=SHARE,
        follow_up=st.floats(0, 0.4),
        callback=st.floats(0, 0.5),
        long=st.floats(0, 0.5),
        download=st.floats(0, 0.1),
        burst_day=st.integers(0, 29),
        answer_s=st.tuples(st.just(2.0), st.floats(3, 40)),
    ),
    st.floats(0, 0.2),
)


@given(MONTHS, st.integers(0, 2**32))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_the_month_questions_get_through(habits: Habits, seed: int) -> None:
    """The API's pool is never overspent; webhook and stream only where questions and groups' answers nearly fill it."""
    result = played(habits, seed, STANDARD, unopened())
    assert result.used(API) <= 5000
    if result.unavoidable <= 0.8 * 3000:
        assert result.used(WEBHOOK_STREAM) <= 3000


# -- as an operator sees it


def config(house: House) -> tuple[str, str]:
    return "--config", str(house.folder / "dingbridge.toml")


async def test_a_daemon_keeps_its_counts_when_it_ends(house: House) -> None:
    """The last seconds, too; its page and its facts tell both pools, and a reload takes over another limit."""
    async with house.app() as app:
        app.budget.count(API, "send", 11)
        assert "api        11 of 5000 this month" in app.vitals.page()
        assert "webhook + stream" in app.vitals.page()
        house.configure(budget={"api_calls_per_month": 20})
        assert "budget.api_calls_per_month" in (await app.reload()).applied
        assert app.facts()["quota"]["pools"][API]["limit"] == 20
    told = await as_json("status", *config(house), expected=1)
    assert told["quota"]["pools"][API] == {**told["quota"]["pools"][API], "used": 11, "limit": 20, "share": 0.55}


async def test_set_used_reaches_a_running_daemon_and_its_store(house: House) -> None:
    """The running one counts on from there, status shows it in words; without one its store is corrected."""
    house.configure()
    daemon = await house.daemon()
    await house.gateway.connected()
    code, out, err = await verb("status", "--set-used", "api=4321", "--set-used", "webhook_stream=567", *config(house))
    assert (code, err) == (0, "")
    assert "接口额度" in out
    assert "4321 / 5000" in out
    told = await as_json("status", *config(house))
    assert [told["quota"]["pools"][pool]["used"] for pool in POOLS] == [4321, 567]
    assert await daemon.stop() == 0
    told = await as_json("status", "--set-used", "api=0", *config(house))
    assert told["pools"][API]["used"] == 0
    code, out, _ = await verb("status", "--config", str(in_language(house, "en")))
    assert code == 1
    assert "API quota" in out
    assert "567 of 3000" in out


@pytest.mark.parametrize("written", ["api", "api=", "api=-1", "api=1.5", "sms=1", "api=１", "api=1000000001"])
def test_set_used_refuses_what_is_no_number(written: str) -> None:
    """Exit 2 with the pools that there are, before anything is looked for."""
    done = CliRunner().invoke(main, ["status", "--set-used", written, "--config", "none.toml"])
    assert done.exit_code == 2
    assert "api / webhook_stream" in done.output


@pytest.mark.parametrize("query", [{}, {"api": "x"}, {"api": "1", "sms": "1"}])
async def test_the_control_socket_refuses_it_too(tmp_path: Path, query: dict[str, str]) -> None:
    """Whoever writes to it by hand gets a sentence, and nothing has changed."""
    clock = Clock()
    async with opened(tmp_path / "x.db", clock) as store:
        budget = budget_of(store, clock)
        server = ControlServer(store.beside, Operations(store, robot=ROBOT, config="x", budget=budget))
        running = asyncio.create_task(server.run())
        await until(lambda: server.path.exists() or running.done())
        try:
            with pytest.raises(Refused, match="a whole number"):
                await call(store.beside, "POST", "/quota", **query)
            told: dict[str, Any] = await call(store.beside, "GET", "/status")
            assert json.dumps(told["quota"]["pools"]).count('"used": 0') == 2
        finally:
            running.cancel()
            await asyncio.wait({running})
