"""How often a conversation is written to, on a clock that a test moves."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dingbridge.bucket import PER_MINUTE, Bucket
from dingbridge.dingtalk.pace import NOTICE_RESERVE, Pace
from tests.replying import Clock


class Held:
    """A bucket and its clock."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        self.bucket = Bucket()

    def take(self, who: str = "", *, reserve: float = 0.0) -> float:
        wait_s, self.bucket = self.bucket.take(self.now, who, reserve=reserve)
        return wait_s

    def pause(self, seconds: float) -> None:
        self.bucket = self.bucket.pause(self.now, seconds)


def test_a_burst_then_one_every_three_seconds() -> None:
    """Twenty at once, then as many as the minute gives; a refused take costs nothing."""
    pace = Held(1e9)
    assert [pace.take() for _ in range(20)] == [0.0] * 20
    assert pace.take() == pytest.approx(3.0)
    assert pace.take() == pytest.approx(3.0)
    pace.now += 1.0
    assert pace.take() == pytest.approx(2.0)
    pace.now += 2.0
    assert pace.take() == 0.0
    assert pace.take() == pytest.approx(3.0)


def test_who_waits_has_a_turn_that_nobody_takes() -> None:
    """Those who come back find their turns in the order they asked in; a pause moves them all."""
    pace = Held()
    for _ in range(20):
        pace.take()
    assert [pace.take("a"), pace.take("b")] == [pytest.approx(3.0), pytest.approx(6.0)]
    pace.now += 3.0
    assert pace.take("c") == pytest.approx(6.0)
    assert pace.take("a") == 0.0
    pace.pause(10.0)
    assert pace.take("b") == pytest.approx(13.0)
    pace.now += 13.0
    assert pace.take("b") == 0.0


async def test_conversations_do_not_share() -> None:
    """A busy group costs nobody else anything."""
    pace = Pace(Clock())
    for _ in range(20):
        await pace.take("busy")
    assert await pace.take("busy") > 0
    assert await pace.take("quiet") == 0.0


def test_the_bucket_does_not_overflow() -> None:
    """A quiet day is not saved up."""
    pace = Held()
    pace.take()
    pace.now += 86_400.0
    assert sum(pace.take() == 0.0 for _ in range(50)) == PER_MINUTE


def test_the_reserve_is_kept_for_others() -> None:
    """Whoever takes with a reserve is refused while the last messages are still there for answers."""
    pace = Held()
    taken = sum(pace.take(reserve=NOTICE_RESERVE) == 0.0 for _ in range(20))
    assert taken == PER_MINUTE - NOTICE_RESERVE
    wait_s = pace.take(reserve=NOTICE_RESERVE)
    assert wait_s == pytest.approx(3.0)
    assert [pace.take() for _ in range(5)] == [0.0] * 5
    pace.now += 5 * 3.0 + wait_s
    assert pace.take(reserve=NOTICE_RESERVE) == 0.0


def test_a_pause_lasts_and_ends() -> None:
    """Nothing until the pause is over, then one, then the usual pace; a shorter pause does not shorten it."""
    pace = Held()
    pace.pause(60.0)
    pace.pause(1.0)
    assert pace.take() == pytest.approx(60.0)
    pace.now += 59.0
    assert pace.take() == pytest.approx(1.0)
    pace.now += 1.0
    assert pace.take() == 0.0
    assert pace.take() == pytest.approx(3.0)


def test_a_clock_set_back_takes_nothing_away() -> None:
    """Messages left stay left when the clock jumps back by an hour."""
    pace = Held(1e9)
    pace.take()
    pace.now -= 3600.0
    assert [pace.take() for _ in range(19)] == [0.0] * 19


async def test_quiet_conversations_are_forgotten() -> None:
    """Memory holds the conversations of the last minute, not all there ever were; a pause is remembered."""
    clock = Clock()
    pace = Pace(clock)
    await pace.pause("paused", 3600.0)
    for number in range(5000):
        clock.now += 0.1
        await pace.take(str(number))
    assert len(pace._buckets) <= 1001
    assert await pace.take("paused") > 0


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 10), st.sampled_from(["take", "notice", "pause"]))))
def test_the_wait_that_is_named_is_enough(steps: list[tuple[float, float, str]]) -> None:
    """Whatever came before: after waiting as long as was said, the message is let through."""
    pace = Held(1e9)
    for passed, pause_s, step in steps:
        pace.now += passed
        if step == "pause":
            pace.pause(pause_s)
            continue
        reserve = NOTICE_RESERVE if step == "notice" else 0.0
        if wait_s := pace.take(reserve=reserve):
            pace.now += wait_s
            assert pace.take(reserve=reserve) == 0.0
