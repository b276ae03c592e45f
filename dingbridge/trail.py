"""The way of one message, step by step, for whoever has to explain it at three in the morning.

Whoever works on a message follows it; what they call notes its steps from wherever it stands, as a logger would. The
steps are stored with the message's next write, so that they cost no commit of their own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from dingbridge.errors import BridgeError

Fact = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened. at: seconds since the epoch. facts: no secret, no question, no answer."""

    at: float
    name: str
    facts: dict[str, Fact]


MOST = 200


class Trail:
    """The steps of one message that have not been stored yet; of very many, the first and the last ones."""

    def __init__(self) -> None:
        self._steps: list[Step] = []

    def add(self, name: str, **facts: Fact) -> None:
        if len(self._steps) >= MOST:
            del self._steps[MOST // 2]
        self._steps.append(Step(time.time(), name, {key: fact for key, fact in facts.items() if fact is not None}))

    @property
    def steps(self) -> tuple[Step, ...]:
        return tuple(self._steps)

    def take(self) -> tuple[Step, ...]:
        """What has come since the last call."""
        taken, self._steps = tuple(self._steps), []
        return taken


_followed: ContextVar[Trail | None] = ContextVar("trail", default=None)


@contextmanager
def follow(trail: Trail) -> Iterator[Trail]:
    """Until the end of the block, what this task and the tasks it starts note belongs to this trail."""
    token = _followed.set(trail)
    try:
        yield trail
    finally:
        _followed.reset(token)


@contextmanager
def timed(name: str, **facts: Fact) -> Iterator[dict[str, Fact]]:
    """Notes how the block went: ms, ok, and of the BridgeError that ended it why, cause and an unknown outcome.

    What the block puts into the dictionary is noted, too.
    """
    began, found = time.monotonic(), dict(facts)
    try:
        yield found
    except BridgeError as error:
        unknown = None if error.certain else False
        _note(name, found, began, ok=False, why=error.detail, cause=error.cause or None, certain=unknown)
        raise
    _note(name, found, began, ok=True)


def _note(name: str, found: dict[str, Fact], began: float, **facts: Fact) -> None:
    note(name, **{**found, "ms": round((time.monotonic() - began) * 1000), **facts})


def note(name: str, **facts: Fact) -> None:
    """A step of the message that is being worked on; nothing where none is. Facts that are None are left out."""
    if (trail := _followed.get()) is not None:
        trail.add(name, **facts)


def take() -> tuple[Step, ...]:
    """The steps noted since the last call, to be stored by the caller."""
    trail = _followed.get()
    return trail.take() if trail is not None else ()
