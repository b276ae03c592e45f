"""What becomes of messages whose daemon died, what a planned stop gives back, and what is forgotten with time."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from dingbridge.model import Answer, Outcome, State
from dingbridge.store import pages, spent, work
from dingbridge.store.codec import APPEND_TRAIL, encode_answer, encode_steps
from dingbridge.store.engine import Connection
from dingbridge.trail import Step

SEEN_S = 7 * 24 * 3600.0
JUDGED_S = 400 * 24 * 3600.0  # a year can be looked back on
CRASHES_ALONE = 2
CRASHES_DEAD = 3
# A suspect waits until this start has proved to last: what dies sooner was not killed by it, and with many suspects
# in a row the next power cut would otherwise condemn whoever runs just then.
SETTLE_S = 3.0
AT_A_TIME = 200
_HELD = "FROM lane WHERE token IS NOT NULL AND owner = ?"


@dataclass(frozen=True, slots=True)
class Recovered:
    """returned: messages that were in work when their process died. dead: those condemned for killing it."""

    returned: int
    dead: int


def recover(c: Connection, *, owner: str, now: float, wipe: bool) -> Recovered:
    """Return what this daemon had leased before it died."""
    lanes = c.execute(f"SELECT key {_HELD} ORDER BY head FOR UPDATE", (owner,)).fetchall()
    crash = Step(now, "crash", {})
    return _returned(c, {key: crash for (key,) in lanes}, now=now, wipe=wipe)


def hurry(c: Connection, *, now: float) -> None:
    """Everything that waits is due now: for a start of the only daemon, or another clock.

    Due times were of the clock before, and a restart is a good moment to try everything again.
    """
    c.execute("UPDATE lane SET due = ? WHERE due > ? AND NOT suspect", (now, now))
    c.execute("UPDATE lane SET due = ? WHERE suspect", (now + SETTLE_S,))


def set_back(c: Connection, *, now: float, lease_s: float) -> None:
    """The clock of all daemons goes back: nothing waits, and no lease lasts, for as long as it went."""
    hurry(c, now=now)
    c.execute("UPDATE lane SET leased_until = ? WHERE leased_until > ?", (now + lease_s, now + lease_s))


def take_over(c: Connection, *, owner: str, now: float, wipe: bool) -> Recovered:
    """Return what was leased by a daemon that does not renew its leases any more; `owner` sees to that."""
    lanes = c.execute(
        "SELECT key, owner FROM lane WHERE token IS NOT NULL AND leased_until < ?"
        " ORDER BY head LIMIT ? FOR UPDATE SKIP LOCKED",
        (now, AT_A_TIME),
    ).fetchall()
    steps = {key: Step(now, "taken_over", {"from": silent, "by": owner}) for key, silent in lanes}
    return _returned(c, steps, now=now, wipe=wipe)


def _returned(c: Connection, lanes: Mapping[str, Step], *, now: float, wipe: bool) -> Recovered:
    """Count the crash; lanes: how it is told. A third one condemns, and acquits whatever ran beside it."""
    guilty = 0
    for lane, step in lanes.items():
        (head,) = c.execute("SELECT head FROM lane WHERE key = ?", (lane,)).fetchone()
        crashes, outcome = c.execute(
            f"UPDATE message SET crashes = crashes + 1, {_BACK}, {APPEND_TRAIL} WHERE id = ?"
            " RETURNING crashes, outcome",
            (encode_steps([step]), head),
        ).fetchone()
        c.execute(f"UPDATE lane SET {work.FREE}, due = least(due, ?) WHERE key = ?", (now, lane))
        if crashes < CRASHES_DEAD:
            continue
        guilty += 1
        if outcome == Outcome.DEAD:  # even telling its asker kills the process
            work.end(c, head, State.DEAD, Outcome.DEAD, "telling its asker kills the process", now=now, wipe=wipe)
            work.advance(c, lane, head, now=now)
        else:
            _condemn(c, head, now)
    if guilty:
        c.execute("UPDATE message SET crashes = 0 WHERE finished_at IS NULL AND crashes > 0")
        c.execute("UPDATE lane SET suspect = FALSE WHERE suspect")
    for lane in lanes:
        c.execute(
            "UPDATE lane SET suspect = TRUE, due = ? WHERE key = ? AND head IN"
            " (SELECT id FROM message WHERE lane = ? AND finished_at IS NULL AND crashes >= ?)",
            (now + SETTLE_S, lane, lane, CRASHES_ALONE),
        )
    return Recovered(returned=len(lanes), dead=guilty)


_BACK = (
    "uncertain = CASE WHEN state = 'sending' THEN TRUE ELSE uncertain END,"
    " state = CASE WHEN state = 'leased' THEN 'ready' ELSE state END"
)


def _condemn(c: Connection, row: int, now: float) -> None:
    """Not worked on again; the empty answer stands for the text its asker is told."""
    c.execute(
        "UPDATE message SET state = 'answered', outcome = 'dead', answer = ?, answered_at = ?, part = 0,"
        f" uncertain = FALSE, reason = 'the process died three times while working on it', cause = 'crash.thrice',"
        f" {work.UNSHOWN}"
        " WHERE id = ?",
        (encode_answer(Answer("")), now, row),
    )


def reclaim(c: Connection, *, owner: str, held: Collection[str], before: float) -> int:
    """Return what this daemon has leased without knowing, for the answer to a commit may be lost; no crash either."""
    leased = c.execute(
        "SELECT key, head, token FROM lane WHERE token IS NOT NULL AND owner = ? AND leased_until < ? FOR UPDATE",
        (owner, before),
    ).fetchall()
    unknown = [(lane, head) for lane, head, token in leased if token not in held]
    for lane, head in unknown:
        c.execute(f"UPDATE message SET {_BACK} WHERE id = ?", (head,))
        c.execute("UPDATE lane SET token = NULL, owner = '' WHERE key = ?", (lane,))
    return len(unknown)


def release_all(c: Connection, *, owner: str, now: float) -> int:
    """At a planned stop: what is leased goes back and counts as no crash."""
    stopped = encode_steps([Step(now, "given_back", {})])
    leased = c.execute(f"SELECT key, head {_HELD} ORDER BY head FOR UPDATE", (owner,)).fetchall()
    for lane, head in leased:
        c.execute(f"UPDATE message SET {_BACK}, {APPEND_TRAIL} WHERE id = ?", (stopped, head))
        c.execute("UPDATE lane SET token = NULL, owner = '' WHERE key = ?", (lane,))
    c.execute("UPDATE lane SET owner = '' WHERE suspect AND token IS NULL AND owner = ?", (owner,))
    return len(leased)


def forget(c: Connection, batch: int, *, now: float, keep_s: float = 0.0) -> int:
    """Drop up to `batch` rows that ended more than seven days ago, or `keep_s`; how many there were."""
    c.execute("DELETE FROM webhook WHERE expires < ?", (now,))
    pages.forget(c, now=now)
    spent.forget(c, now=now)
    c.execute("DELETE FROM vote WHERE voted_at < ?", (now - JUDGED_S,))
    c.execute("DELETE FROM handover WHERE opened_at < ?", (now - JUDGED_S,))
    before = now - max(SEEN_S, keep_s)
    # Asked twice: PostgreSQL, having waited for who brings one of them back, looks at the outer condition again.
    return c.execute(
        "DELETE FROM message WHERE finished_at < ? AND id IN (SELECT id FROM message WHERE finished_at < ? LIMIT ?)",
        (before, before, batch),
    ).rowcount
