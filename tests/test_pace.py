"""How often a conversation is written to, on a clock that a test moves."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dingbridge.dingtalk.pace import NOTICE_RESERVE, PER_MINUTE, Pace
from tests.replying import Clock


def test_a_burst_then_one_every_three_seconds() -> None:
    """Twenty at once, then as many as the minute gives; a refused take costs nothing."""
    clock = Clock(1e9)
    pace = Pace(clock)
    assert [pace.take("c") for _ in range(20)] == [0.0] * 20
    assert pace.take("c") == pytest.approx(3.0)
    assert pace.take("c") == pytest.approx(3.0)
    clock.now += 1.0
    assert pace.take("c") == pytest.approx(2.0)
    clock.now += 2.0
    assert pace.take("c") == 0.0
    assert pace.take("c") == pytest.approx(3.0)


def test_conversations_do_not_share() -> None:
    """A busy group costs nobody else anything."""
    pace = Pace(Clock())
    for _ in range(20):
        pace.take("busy")
    assert pace.take("busy") > 0
    assert pace.take("quiet") == 0.0


def test_the_bucket_does_not_overflow() -> None:
    """A quiet day is not saved up."""
    clock = Clock()
    pace = Pace(clock)
    pace.take("c")
    clock.now += 86_400.0
    assert sum(pace.take("c") == 0.0 for _ in range(50)) == PER_MINUTE


def test_the_reserve_is_kept_for_others() -> None:
    """Whoever takes with a reserve is refused while the last messages are still there for answers."""
    clock = Clock()
    pace = Pace(clock)
    taken = sum(pace.take("c", reserve=NOTICE_RESERVE) == 0.0 for _ in range(20))
    assert taken == PER_MINUTE - NOTICE_RESERVE
    wait_s = pace.take("c", reserve=NOTICE_RESERVE)
    assert wait_s == pytest.approx(3.0)
    assert [pace.take("c") for _ in range(5)] == [0.0] * 5
    clock.now += 5 * 3.0 + wait_s
    assert pace.take("c", reserve=NOTICE_RESERVE) == 0.0


def test_a_pause_lasts_and_ends() -> None:
    """Nothing until the pause is over, then one, then the usual pace; a shorter pause does not shorten it."""
    clock = Clock()
    pace = Pace(clock)
    pace.pause("c", 60.0)
    pace.pause("c", 1.0)
    assert pace.take("c") == pytest.approx(60.0)
    clock.now += 59.0
    assert pace.take("c") == pytest.approx(1.0)
    clock.now += 1.0
    assert pace.take("c") == 0.0
    assert pace.take("c") == pytest.approx(3.0)


def test_a_clock_set_back_takes_nothing_away() -> None:
    """Messages left stay left when the clock jumps back by an hour."""
    clock = Clock(1e9)
    pace = Pace(clock)
    pace.take("c")
    clock.now -= 3600.0
    assert [pace.take("c") for _ in range(19)] == [0.0] * 19


def test_quiet_conversations_are_forgotten() -> None:
    """Memory holds the conversations of the last minute, not all there ever were; a pause is remembered."""
    clock = Clock()
    pace = Pace(clock)
    pace.pause("paused", 3600.0)
    for number in range(5000):
        clock.now += 0.1
        pace.take(str(number))
    assert len(pace._buckets) <= 1001
    assert pace.take("paused") > 0


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 10), st.sampled_from(["take", "notice", "pause"]))))
def test_the_wait_that_is_named_is_enough(steps: list[tuple[float, float, str]]) -> None:
    """Whatever came before: after waiting as long as was said, the message is let through."""
    clock = Clock(1e9)
    pace = Pace(clock)
    for passed, pause_s, step in steps:
        clock.now += passed
        if step == "pause":
            pace.pause("c", pause_s)
            continue
        reserve = NOTICE_RESERVE if step == "notice" else 0.0
        if wait_s := pace.take("c", reserve=reserve):
            clock.now += wait_s
            assert pace.take("c", reserve=reserve) == 0.0
