"""Two thousand histories of chats, crashes and failures; and whether a bug would be noticed. `make fuzz` plays more."""

from __future__ import annotations

import pytest

from tests import fuzz, plants


@pytest.mark.timeout(900)
def test_no_history_breaks_a_promise() -> None:
    """Answered or told, repeated only with a mark, in order, asked once: through whatever two thousand times."""
    chosen = fuzz.profile()

    played = fuzz.explore(chosen)

    print(f"{played} histories")
    assert played >= chosen.max_examples


@pytest.mark.timeout(300)
@pytest.mark.parametrize("bug", plants.BUGS)
def test_a_planted_bug_is_found(bug: str) -> None:
    """The histories above would not pass if the bridge forgot a duplicate, the order or a part that was going out."""
    with plants.planted(*plants.BUGS[bug]):
        needed = fuzz.search(examples=2000)

    print(f"{bug}: found in history {needed}")
    assert needed
