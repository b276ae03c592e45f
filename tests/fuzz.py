"""Whatever happens in whatever order, the bridge keeps its promises. `python -m tests.fuzz` for the long run."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

import structlog
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from dingbridge.store.recovery import SETTLE_S
from tests import plants
from tests.fuzz_world import CONTACT, World

PERSON = st.sampled_from(["甲", "乙"])
ASKS = st.lists(
    st.sampled_from(["", "long", "slow", "late", "down", "rejected", "refuse", "unknown", "partial", "bug"]), max_size=3
)
SENDS = st.lists(
    st.sampled_from(["", "slow", "stuck", "lost", "vanished", "down", "paced", "expired", "unsafe"]), max_size=3
)
OPENS = st.lists(st.sampled_from(["late", "refused", "vanished"]), max_size=1)
ENDS = st.lists(st.sampled_from(["", "slow", "lost", "vanished", "down", "paced", "refused", "unsafe"]), max_size=4)
COMMAND = st.sampled_from(["/new", "/cancel", "/status", "/good", "/bad 旧", "/human", "/deep"])
TURNS = st.integers(0, 45)  # about as many as a question takes from its frame to its end
LONG = st.sampled_from([0.5, 3.0, 10.0, 60.0, 700.0])


class Chats(RuleBasedStateMachine):
    """Two people, a group, and a daemon that is killed."""

    lives = 0

    def __init__(self) -> None:
        super().__init__()
        Chats.lives += 1
        self.world = World()

    @initialize(by_group=st.booleans(), idle_s=st.sampled_from([0.0, 0.0, 100.0]), cards=st.booleans())
    def begin(self, by_group: bool, idle_s: float, cards: bool) -> None:
        self.world.begin(by_group=by_group, idle_s=idle_s, cards=cards)

    @rule(person=PERSON, group=st.booleans(), asks=ASKS, sends=SENDS, opens=OPENS, ends=ENDS, turns=TURNS)
    def ask(self, person: str, group: bool, turns: int, **faults: list[str]) -> None:
        self.world.says(person, "", group=group, **faults)
        self.world.loop.turn(turns)

    @rule(person=PERSON, group=st.booleans(), count=st.integers(2, 6), asks=ASKS, sends=SENDS)
    def ask_at_once(self, person: str, group: bool, count: int, asks: list[str], sends: list[str]) -> None:
        for number in range(count):
            self.world.says(person, "", group=group, asks=[] if number else asks, sends=[] if number else sends)

    @precondition(lambda self: self.world.said)
    @rule(pick=st.integers(0, 2), text=COMMAND, sends=SENDS, turns=TURNS)
    def command(self, pick: int, text: str, sends: list[str], turns: int) -> None:
        """By one of those who spoke last: somebody without a question has little to cancel."""
        by = list(self.world.said.values())[-3:][-1 - pick :][0].message
        group = by.conversation.is_group
        self.world.says(by.sender.id, text, group=group, sends=sends)
        self.world.loop.turn(turns)

    @precondition(lambda self: self.world.said)
    @rule(pick=st.integers(0, 2), action=st.sampled_from(["good", "human", "deep"]), sends=SENDS, turns=TURNS)
    def press(self, pick: int, action: str, sends: list[str], turns: int) -> None:
        """What is told to a colleague meets what goes wrong, too."""
        self.world.tell_sends = sends
        self.world.presses(list(self.world.said.values())[-3:][-1 - pick :][0], action)
        self.world.loop.turn(turns)

    @precondition(lambda self: any(":contact" in key for key in self.world.said))
    @rule(reply=st.booleans(), turns=TURNS)
    def close(self, reply: bool, turns: int) -> None:
        """By the colleague that it was handed to."""
        key = [key for key in self.world.said if ":contact" in key][-1]
        code = self.world.said[key.partition(":contact")[0]].message.code
        self.world.says(CONTACT, f"/回复 {code} 好" if reply else f"/已解决 {code}", group=False)
        self.world.loop.turn(turns)

    @precondition(lambda self: self.world.said)
    @rule(pick=st.integers(0, 100), turns=TURNS)
    def duplicate(self, pick: int, turns: int) -> None:
        said = list(self.world.said.values())
        self.world.deliver(said[-1 - pick % len(said)])
        self.world.loop.turn(turns)

    @rule(seconds=LONG)
    def wait(self, seconds: float) -> None:
        self.world.loop.advance(seconds)

    @precondition(lambda self: self.world.said)
    @rule(turns=TURNS, times=st.sampled_from([1, 1, 1, 3]))
    def crash(self, turns: int, times: int) -> None:
        """Three times: with what was in work at two deaths in work again, and alone."""
        for number in range(times):
            self.world.loop.turn(turns)
            self.world.die()
            self.world.start()
            if number < times - 1:
                self.world.loop.advance(SETTLE_S)

    @precondition(lambda self: self.world.said)
    @rule(turns=TURNS)
    def stop(self, turns: int) -> None:
        self.world.loop.turn(turns)
        self.world.stop()
        self.world.start()

    @precondition(lambda self: self.world.said)
    @rule(pick=st.integers(0, 100), what=st.sampled_from(["drop", "drop and tell", "retry"]), turns=TURNS)
    def operate(self, pick: int, what: str, turns: int) -> None:
        kept = [said for said in self.world.said.values() if said.row]
        if kept and what == "retry":
            self.world.retries(kept[-1 - pick % len(kept)])
        elif kept:
            self.world.drops(kept[-1 - pick % len(kept)], tell=what != "drop")
        self.world.loop.turn(turns)

    @rule(workers=st.integers(0, 4), turns=TURNS)
    def reload(self, workers: int, turns: int) -> None:
        self.world.loop.turn(turns)
        self.world.reload(workers)

    @rule(down=st.booleans())
    def backend(self, down: bool) -> None:
        self.world.down = down

    @rule(full=st.booleans(), turns=TURNS)
    def disk(self, full: bool, turns: int) -> None:
        self.world.writer.full = full
        self.world.loop.turn(turns)

    @invariant()
    def every_promise_holds(self) -> None:
        assert not self.world.wrong, self.world.wrong

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:  # a step that failed is the finding, not what it leaves behind
                self.world.end()
                assert not self.world.wrong, self.world.wrong
        finally:
            self.world.close()


# Chosen by HYPOTHESIS_PROFILE. The short one draws the same histories every time, so that no build fails by chance.
COMMON = settings(
    stateful_step_count=15,
    deadline=None,
    print_blob=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
settings.register_profile("short", COMMON, max_examples=2000, derandomize=True)
settings.register_profile("long", COMMON, max_examples=50_000)


def profile() -> settings:
    return settings.get_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))


def explore(chosen: settings) -> int:
    """How many histories were played; AssertionError with the shortest that breaks a promise."""
    before = Chats.lives
    with _quiet():
        run_state_machine_as_test(Chats, settings=chosen)
    return Chats.lives - before


def search(examples: int) -> int:
    """How many histories it takes to break a promise, 0 where none does; none is shortened."""
    before = Chats.lives
    chosen = settings(
        profile(), max_examples=examples, derandomize=True, phases=[Phase.generate], report_multiple_bugs=False
    )
    try:
        with _quiet():
            run_state_machine_as_test(Chats, settings=chosen)
    except AssertionError:
        return Chats.lives - before
    return 0


@contextmanager
def _quiet() -> Iterator[None]:
    """Thousands of planned faults are not worth a line each."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    try:
        yield
    finally:
        structlog.reset_defaults()


def _job(examples: int) -> tuple[int, str]:
    before = Chats.lives
    failure = ""
    try:
        explore(settings(profile(), max_examples=examples))
    except Exception:  # noqa: BLE001 - it is printed
        failure = traceback.format_exc()
    return Chats.lives - before, failure


def main() -> int:
    os.environ.setdefault("HYPOTHESIS_PROFILE", "long")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=profile().max_examples)
    parser.add_argument("--once", action="store_true", help="the short profile here; prints how many and what was met")
    parser.add_argument("--bug", choices=list(plants.BUGS), help="planted; prints in which history it is found, or 0")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes, each with its own histories")
    options = parser.parse_args()
    if options.bug:
        with plants.planted(*plants.BUGS[options.bug]):
            print(search(options.examples))
        return 0
    if options.once:
        print(json.dumps({"played": explore(profile()), "met": sorted(map(str, World.met))}))
        return 0
    started = time.monotonic()
    with ProcessPoolExecutor(options.jobs) as pool:
        # In pieces: Hypothesis keeps a tree of what it has drawn.
        piece = min(2500, -(-options.examples // options.jobs))
        pieces = [min(piece, options.examples - begun) for begun in range(0, options.examples, piece)]
        played = failures = 0
        for count, failure in pool.map(_job, pieces):
            played += count
            failures += bool(failure)
            if failure:  # at once: the rest takes minutes
                print(failure)
            print(f"{played} histories in {time.monotonic() - started:.0f} s, {failures} failures", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
