"""The daemon dies at every await of a message's way. `python -m tests.crash_points --everything` takes an hour."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import awaits, crash_points, crash_way


@pytest.mark.timeout(900)
async def test_a_death_at_any_await_of_a_messages_way_breaks_no_promise(tmp_path: Path) -> None:
    """Killed before, in and after each await: all answered or told, repeats marked, one card a message, all ended."""
    findings = await crash_points.explore(tmp_path, last=2)

    print(findings)
    assert findings.wrong == []
    unreached = [str(one) for one in crash_way.way() if one.id not in findings.reached]
    assert not unreached, f"no script comes to {unreached}: write one, or leave the function out with a reason"
    # Whether something waits is a matter of chunks and timers; but each await has to be died at, before and after.
    died = {awaits.innermost(point.moment) for point in findings.died}
    missed = [(awaits.innermost(points.moment), str(points)) for points in findings.missed]
    assert [why for (place, phase), why in missed if phase != "waits" and (place, phase) not in died] == []


def test_what_is_left_out_is_there_and_no_more() -> None:
    """A function that is left out with a reason has an await, and so has each single place."""
    every = [one for file in crash_way.way_files() for one in awaits.awaits_of(file)]

    assert [name for name in crash_way.LEFT_OUT if not any(awaits.is_one_of(one, (name,)) for one in every)] == []
    assert [net for net in crash_way.NETS if not any(f"{one.function}: {one.text}" == net for one in every)] == []
