"""Two thousand histories of chats, crashes and failures; and whether a bug would be noticed. `make fuzz` plays more."""

from __future__ import annotations

import pytest

from dingbridge.model import Outcome
from tests import fuzz, plants
from tests.fuzz_world import World

# One way only leads to these, with tests of its own; a duplicate has no end.
ELSEWHERE = {Outcome.LIMITED, Outcome.UNROUTED, Outcome.DUPLICATE}


@pytest.mark.timeout(900)
def test_no_history_breaks_a_promise() -> None:
    """Answered or told, repeated only with a mark, in order, asked once: through whatever two thousand times."""
    chosen = fuzz.profile()

    played = fuzz.explore(chosen)

    print(f"{played} histories: {dict(World.met)}")
    assert played >= chosen.max_examples
    unmet = {*Outcome, "repeated", "notice", "trouble", "dropped", "retried"} - {*World.met} - ELSEWHERE
    assert not unmet, f"no history comes to {unmet}"


def found(bug: str, examples: int) -> int:
    """In which history, or 0."""
    with plants.planted(*plants.BUGS[bug]):
        needed = fuzz.search(examples)
    print(f"{bug}: found in history {needed}")
    return needed


@pytest.mark.timeout(300)
@pytest.mark.parametrize("bug", [bug for bug in plants.BUGS if bug not in plants.RARE])
def test_a_planted_bug_is_found(bug: str) -> None:
    """The histories above would not pass if the bridge forgot a duplicate, the order or a part that was going out."""
    assert found(bug, examples=2000)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("bug", plants.RARE)
def test_a_planted_bug_that_takes_a_coincidence_is_found(bug: str) -> None:
    """What shows only when three things meet is found in the longer run."""
    assert found(bug, examples=20_000)
