"""SIGKILL under load. `make kills` runs three hundred of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import kills, kills_replicas


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


@pytest.mark.timeout(600)
async def test_nothing_accepted_is_lost_while_one_of_three_daemons_dies_again_and_again(tmp_path: Path) -> None:
    """20 SIGKILLs, one daemon stopped and one away past their leases: all answered, repeats were in flight, marked."""
    count = await kills_replicas.run(tmp_path, kills=20, questions=200, seed=20, lanes=40, every_s=1.0)

    print(count)
    assert count.faults == {}
    assert count.answered + count.told == 200
    assert count.told <= 1
    assert count.kills == 21
    assert count.stops == 1
    assert count.taken_over > 0
    assert count.recovered > 0
    assert count.codes == [0, 0, 0]
