"""SIGKILL under load. `make kills` runs three hundred of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import kills


@pytest.mark.timeout(300)
async def test_nothing_accepted_is_lost_through_twenty_kills(tmp_path: Path) -> None:
    """200 questions in 20 lanes, 20 SIGKILLs: all answered, at most one told instead, repeats marked, order kept."""
    count = await kills.run(tmp_path, kills=20, questions=200, seed=20)

    assert count.lost == []
    assert count.answered + count.told == 200
    assert count.told <= 1
    assert count.unmarked_repeats == []
    assert count.disorder == []
    print(count)
