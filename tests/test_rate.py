"""DingTalk's limit of calls a second, and what each of several daemons takes of it."""

from __future__ import annotations

import pytest

from dingbridge.dingtalk.rate import PER_SECOND, WINDOW_S, Rate
from dingbridge.errors import ReplyPaced
from tests.replying import Clock

ENOUGH_S = 3600.0


@pytest.mark.parametrize("replicas", [1, 2, 3, 7, 20, 50])
def test_all_daemons_together_keep_the_limit(replicas: int) -> None:
    """However many divide it, in no second more than 20 calls are made, and not much less are possible."""
    starts: list[float] = []
    for _ in range(replicas):
        rate = Rate(lambda: replicas, Clock())
        starts += [rate.reserve("/a", ENOUGH_S) for _ in range(60)]
    starts.sort()
    crowded = max(sum(at <= one < at + 1.0 for one in starts) for at in starts)
    # More than 20 daemons, at their very first call, can only be told apart from a burst by asking each other.
    assert crowded <= max(PER_SECOND, replicas)
    assert len(starts) / (starts[-1] + WINDOW_S) > PER_SECOND * 0.6


def test_each_api_has_its_own() -> None:
    """A busy API costs another one nothing."""
    rate = Rate(clock=Clock())
    assert [rate.reserve("/a", ENOUGH_S) for _ in range(PER_SECOND)] == [0.0] * PER_SECOND
    assert rate.reserve("/a", ENOUGH_S) == pytest.approx(WINDOW_S)
    assert rate.reserve("/b", ENOUGH_S) == 0.0


def test_who_would_wait_too_long_is_told_when_to_come_again() -> None:
    """Beyond the bound nobody waits, and the refused call takes no turn."""
    clock = Clock()
    rate = Rate(lambda: 2, clock)
    for _ in range(10):
        rate.reserve("/a", 0.0)
    for _ in range(3):
        with pytest.raises(ReplyPaced) as caught:
            rate.reserve("/a", 0.5)
        assert caught.value.retry_after == pytest.approx(WINDOW_S)
        assert caught.value.certain
    clock.now += WINDOW_S
    assert rate.reserve("/a", 0.5) == 0.0


def test_turns_are_first_come_first_served() -> None:
    """Who asks later is not called earlier, also when daemons come or go meanwhile."""
    replicas, clock = 1, Clock()
    rate = Rate(lambda: replicas, clock)
    turns = []
    for number in range(100):
        replicas = (1, 3, 2)[number // 10 % 3]
        turns.append(clock.now + rate.reserve("/a", ENOUGH_S))
        clock.now += 0.01
    assert turns == pytest.approx(sorted(turns))
