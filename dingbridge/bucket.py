"""How often one conversation may be written to: a value, for one daemon's memory or for a table that several share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

# DingTalk documents 20 messages a minute for custom robots, then ten minutes of refusal; the session webhook's own
# limit is not documented.
PER_MINUTE = 20.0
FORGOTTEN_S = 600.0
_ROUNDING = 1e-6  # waiting as long as was asked for has to be enough


@dataclass(frozen=True, slots=True)
class Bucket:
    """left: messages that could be sent at `at`, less than 0 in a pause. turns: when who waits may send.

    Times are seconds of one clock, given to each call as `now`.
    """

    left: float = PER_MINUTE
    at: float = 0.0
    turns: Mapping[str, float] = field(default_factory=dict)
    per_minute: float = PER_MINUTE

    def take(self, now: float, who: str = "", *, reserve: float = 0.0) -> tuple[float, Bucket]:
        """0.0 and one message less; or the seconds until there is one (above `reserve`).

        who: comes back after that time, to a turn that is kept for it; so nobody is overtaken. Without, nothing is
        kept.
        """
        if (turn := self.turns.get(who)) is not None:
            if turn - now > _ROUNDING:
                return turn - now, self
            return 0.0, replace(self, turns={other: at for other, at in self.turns.items() if other != who})
        left = self.left_at(now)
        wait_s = (1.0 + reserve - left) * 60.0 / self.per_minute
        if wait_s <= _ROUNDING:
            return 0.0, replace(self, left=left - 1.0, at=now)
        if not who:
            return wait_s, self
        awaited = {other: at for other, at in self.turns.items() if at > now - FORGOTTEN_S}
        return wait_s, replace(self, left=left - 1.0, at=now, turns={**awaited, who: now + wait_s})

    def pause(self, now: float, seconds: float) -> Bucket:
        """DingTalk said too fast: nothing for so long."""
        left = min(self.left_at(now), 1.0 - seconds * self.per_minute / 60.0)
        return replace(self, left=left, at=now, turns={who: turn + seconds for who, turn in self.turns.items()})

    def left_at(self, now: float) -> float:
        # A clock that was set back must not take messages away.
        passed = max(0.0, now - self.at)
        return min(self.per_minute, self.left + passed * self.per_minute / 60.0)

    @property
    def idle_at(self) -> float:
        """From then on it is as good as a new one: full, and nobody comes back to a turn."""
        full_at = self.at + (self.per_minute - self.left) * 60.0 / self.per_minute
        return max(full_at, *(turn + FORGOTTEN_S for turn in self.turns.values()), 0.0)


Step = Callable[[Bucket], tuple[float, Bucket]]
