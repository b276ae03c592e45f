"""What a start makes of a crash, what a planned stop gives back, and what is forgotten with time."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from dingbridge.model import Answer, Outcome, State
from dingbridge.store import work
from dingbridge.store.codec import APPEND_TRAIL, encode_answer, encode_steps
from dingbridge.trail import Step

SEEN_S = 7 * 24 * 3600.0
CRASHES_ALONE = 2
CRASHES_DEAD = 3
# A suspect waits until this start has proved to last: what dies sooner was not killed by it, and with many suspects
# in a row the next power cut would otherwise condemn whoever runs just then.
SETTLE_S = 3.0
_LEASED = "id IN (SELECT head FROM lane WHERE token IS NOT NULL)"
_BACK = (
    "UPDATE message SET uncertain = CASE WHEN state = 'sending' THEN 1 ELSE uncertain END,"
    f" state = CASE WHEN state = 'leased' THEN 'ready' ELSE state END WHERE {_LEASED}"
)


@dataclass(frozen=True, slots=True)
class Recovered:
    """returned: messages that were in work when the process died. dead: those condemned for killing it."""

    returned: int
    dead: int


def recover(c: sqlite3.Connection, *, now: float, wipe: bool) -> Recovered:
    """Return what was leased, counting the crash. A third crash condemns, and acquits whatever ran beside it."""
    crash = encode_steps([Step(now, "crash", {})])
    returned = c.execute(f"UPDATE message SET crashes = crashes + 1, {APPEND_TRAIL} WHERE {_LEASED}", (crash,)).rowcount
    c.execute(_BACK)
    # Due times were of another process's clock, and a restart is a good moment to try everything again.
    c.execute("UPDATE lane SET token = NULL, suspect = 0, due = min(due, ?)", (now,))
    guilty = c.execute(
        "SELECT id, lane, outcome FROM message WHERE finished_at IS NULL AND crashes >= ?", (CRASHES_DEAD,)
    ).fetchall()
    for row, lane, outcome in guilty:
        if outcome == Outcome.DEAD:  # even telling its asker kills the process
            work.end(c, row, State.DEAD, Outcome.DEAD, "telling its asker kills the process", now=now, wipe=wipe)
            work.advance(c, lane, row, now=now)
        else:
            _condemn(c, row, now)
    if guilty:
        c.execute("UPDATE message SET crashes = 0 WHERE finished_at IS NULL AND crashes > 0")
    c.execute(
        "UPDATE lane SET suspect = 1, due = ?"
        " WHERE head IN (SELECT id FROM message WHERE finished_at IS NULL AND crashes >= ?)",
        (now + SETTLE_S, CRASHES_ALONE),
    )
    return Recovered(returned=returned, dead=len(guilty))


def _condemn(c: sqlite3.Connection, row: int, now: float) -> None:
    """Not worked on again; the empty answer stands for the text its asker is told."""
    c.execute(
        "UPDATE message SET state = 'answered', outcome = 'dead', answer = ?, answered_at = ?, part = 0,"
        " uncertain = 0, reason = 'the process died three times while working on it', cause = 'crash.thrice'"
        " WHERE id = ?",
        (encode_answer(Answer("")), now, row),
    )


def release_all(c: sqlite3.Connection, *, now: float) -> int:
    """At a planned stop: what is leased goes back and counts as no crash."""
    stopped = encode_steps([Step(now, "given_back", {})])
    c.execute(f"UPDATE message SET {APPEND_TRAIL} WHERE {_LEASED}", (stopped,))
    c.execute(_BACK)
    return c.execute("UPDATE lane SET token = NULL WHERE token IS NOT NULL").rowcount


def forget(c: sqlite3.Connection, batch: int, *, now: float) -> int:
    """Drop up to `batch` rows that ended more than seven days ago; how many there were."""
    c.execute("DELETE FROM webhook WHERE expires < ?", (now,))
    return c.execute(
        "DELETE FROM message WHERE id IN (SELECT id FROM message WHERE finished_at < ? LIMIT ?)",
        (now - SEEN_S, batch),
    ).rowcount
