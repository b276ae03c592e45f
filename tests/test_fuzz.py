"""Two thousand histories of chats, crashes and failures; and whether a bug would be noticed. `make fuzz` plays more.

Each in a process of its own whose sets keep one order, so that the same histories are played in every build.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dingbridge.model import Outcome
from tests import fuzz, plants

ROOT = Path(__file__).parents[1]
# One way only leads to these, with tests of its own; a duplicate has no end.
ELSEWHERE = {Outcome.LIMITED, Outcome.UNROUTED, Outcome.DUPLICATE}


def printed(*arguments: str, timeout_s: float) -> str:
    """The last line that the play prints; a broken promise fails with the shortest history that breaks it."""
    played = subprocess.run(
        [sys.executable, "-X", "dev", "-m", "tests.fuzz", *arguments],
        cwd=ROOT,
        env={**os.environ, "HYPOTHESIS_PROFILE": "short", "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert played.returncode == 0, played.stderr[-6000:]
    return played.stdout.splitlines()[-1]


@pytest.mark.timeout(900)
def test_no_history_breaks_a_promise() -> None:
    """Answered or told, repeated only with a mark, in order, asked once: through whatever two thousand times."""
    told = json.loads(printed("--once", timeout_s=890))

    assert told["played"] >= fuzz.profile().max_examples
    unmet = {*Outcome, "repeated", "notice", "trouble", "dropped", "retried"} - {*told["met"]} - ELSEWHERE
    assert not unmet, f"no history comes to {unmet}"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("bug", [bug for bug in plants.BUGS if bug not in plants.RARE])
def test_a_planted_bug_is_found(bug: str) -> None:
    """The histories above would not pass if the bridge forgot a duplicate, the order or a part that was going out."""
    assert int(printed("--bug", bug, "--examples", "2000", timeout_s=290))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("bug", plants.RARE)
def test_a_planted_bug_that_takes_a_coincidence_is_found(bug: str) -> None:
    """What shows only when three things meet is found in the longer run."""
    assert int(printed("--bug", bug, "--examples", "20000", timeout_s=1790))
