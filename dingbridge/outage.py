"""Whether something works that others depend on: told once when it is lost, and once when it is found."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypedDict

QUIET_S = 60.0
CAUSES = 4  # told within quiet_s; more would be a storm of its own


@dataclass(frozen=True, slots=True)
class Lost:
    """untold: how often it was lost and found again, without a word, since the last one that was told."""

    why: str
    cause: str
    untold: int


class Condition(TypedDict):
    """For status pages. since_s: for how many seconds it has been so."""

    ok: bool
    why: str
    cause: str
    since_s: float


class Outage:
    """Call `lost` at each failure and `found` at each success: only what is news is told.

    on_lost, on_found: what tells it; on_found gets the seconds it was away. A loss is told again for each other
    cause. What comes and goes is told as one pair in quiet_s, the next one with the count; a loss that stays is
    told late rather than never. clock: seconds that only go forward.
    """

    def __init__(
        self,
        on_lost: Callable[[Lost], None],
        on_found: Callable[[float], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        quiet_s: float = QUIET_S,
    ) -> None:
        self._on_lost = on_lost
        self._on_found = on_found
        self._clock = clock
        self._quiet_s = quiet_s
        self._ok = True
        self._since = clock()
        self._why = self._cause = ""
        self._told: set[str] = set()  # causes, of this outage
        self._told_at: dict[str, float] = {}  # by cause, of any
        self._untold = 0

    def lost(self, why: str, cause: str = "") -> None:
        """It failed. why: for the operator, with the remedy. cause: a key, what makes one outage another."""
        now = self._clock()
        if self._ok:
            self._ok, self._since = False, now
            self._told.clear()
        self._why, self._cause = why, cause
        if cause in self._told:
            return
        self._told_at = {one: at for one, at in self._told_at.items() if now - at < self._quiet_s}
        if cause in self._told_at or len(self._told_at) >= CAUSES:
            return
        self._told.add(cause)
        self._told_at[cause] = now
        untold, self._untold = self._untold, 0
        self._on_lost(Lost(why, cause, untold))

    def found(self) -> None:
        """It worked."""
        if self._ok:
            return
        now = self._clock()
        down_s, self._since = now - self._since, now
        self._ok, self._why, self._cause = True, "", ""
        if self._told:
            self._on_found(down_s)
        else:
            self._untold += 1

    def state(self) -> Condition:
        return {"ok": self._ok, "why": self._why, "cause": self._cause, "since_s": self._clock() - self._since}
