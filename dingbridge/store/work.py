"""How a message is worked on: leased under a token, fenced by it, and ended; then its lane moves on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dingbridge.errors import LeaseLost
from dingbridge.model import CardState, Delivery, Message, Outcome, State, Task
from dingbridge.store.codec import APPEND_TRAIL, decode_answer, decode_message
from dingbridge.store.engine import Connection

# Ends that an operator can take back: their text is kept.
RETRYABLE = frozenset({Outcome.FAILED, Outcome.DEAD, Outcome.UNDELIVERABLE})
# Question and answer are kept: somebody may want to see the passages, ask on, judge it, or hand it on.
ANSWERED = frozenset({Outcome.ANSWERED, Outcome.PARTIAL, Outcome.REFUSED})
AT_A_TIME = 500  # values in one statement
# Whoever worked on the lane does so no more.
FREE = "token = NULL, owner = '', suspect = FALSE"
# Another answer than that on the card.
UNSHOWN = "card = CASE card WHEN 'shown' THEN 'closed' ELSE card END"
_NO_ANSWER = "('failed', 'dead', 'cancelled')"
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, OSError)
# What an answer was kept for stays as it is.
_TAKE = """
    UPDATE message SET state = CASE WHEN state = 'ready' THEN 'leased' ELSE state END WHERE id = ?
    RETURNING id, lane, robot, key, body, webhook, webhook_expires, task, state, part, uncertain, answer, outcome,
              crashes, tries, received_at, deadline_at, answered_at, reason, route, card
"""
_DUE = "SELECT key, head FROM lane WHERE token IS NULL AND express = ? AND due <= ? AND NOT suspect"
_LONGEST = "ORDER BY due, head LIMIT ? FOR UPDATE SKIP LOCKED"


@dataclass(frozen=True, slots=True)
class Holder:
    """Who leases, until when. Seconds of the store's clock; on SQLite there is one, and a lease does not end.

    settled_at: until then no suspect is taken; what dies sooner was not killed by it.
    tokens: for what is leased.
    """

    owner: str
    until: float
    settled_at: float = 0.0
    tokens: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Leased:
    """wait_s: seconds until the next lane is due; None where none is, or where more may be had at once.

    held: a suspect waits for whatever runs to end, or runs alone.
    """

    deliveries: list[Delivery]
    wait_s: float | None
    held: bool = False


def lease(c: Connection, count: int, *, now: float, express: bool, holder: Holder) -> Leased:
    """What is due, and when there will be more."""
    deliveries, held = _due(c, count, now=now, express=express, holder=holder)
    if len(deliveries) == count:
        return Leased(deliveries, None, held)
    (due,) = c.execute(
        "SELECT min(due) FROM lane WHERE token IS NULL AND express = ? AND due > ?", (express, now)
    ).fetchone()
    if now < holder.settled_at and c.execute("SELECT 1 FROM lane WHERE suspect AND token IS NULL").fetchone():
        due = min(due or holder.settled_at, holder.settled_at)
    return Leased(deliveries, None if due is None else due - now, held)


def _due(c: Connection, count: int, *, now: float, express: bool, holder: Holder) -> tuple[list[Delivery], bool]:
    """Up to `count` heads that are due, the longest waiting lane first; and whether a suspect holds others back.

    A suspect (in work at two crashes) is leased when this daemon works on nothing else, and nothing beside it: whose
    fault a third crash is must be certain. It is kept for the daemon that waits for that, so that the others go on.
    """
    if lanes := c.execute(
        f"{_DUE} AND NOT EXISTS (SELECT 1 FROM lane WHERE suspect) {_LONGEST}", (express, now, count)
    ).fetchall():
        return _leased(c, lanes, now, holder), False
    if not c.execute("SELECT 1 FROM lane WHERE suspect LIMIT 1").fetchone():
        return [], False
    mine = "SELECT 1 FROM lane WHERE token IS NOT NULL AND owner = ?"
    c.alone("lease", holder.owner)  # what another thread leases just now is not to be overlooked
    if c.execute(f"{mine} AND suspect", (holder.owner,)).fetchone():
        return [], True
    suspect = c.execute(
        "SELECT key, head, express FROM lane WHERE suspect AND token IS NULL AND due <= ?"
        " AND (owner IN ('', ?) OR leased_until < ?) ORDER BY due, head LIMIT 1 FOR UPDATE SKIP LOCKED",
        (now, holder.owner, now),
    ).fetchone()
    if suspect is not None and now >= holder.settled_at:
        key, head, is_express = suspect
        if bool(is_express) is express and not c.execute(f"{mine} LIMIT 1", (holder.owner,)).fetchone():
            return _leased(c, [(key, head)], now, holder), True
        c.execute("UPDATE lane SET owner = ?, leased_until = ? WHERE key = ?", (holder.owner, holder.until, key))
        return [], True
    return _leased(c, c.execute(f"{_DUE} {_LONGEST}", (express, now, count)).fetchall(), now, holder), False


def _leased(c: Connection, lanes: list[tuple[str, int]], now: float, holder: Holder) -> list[Delivery]:
    """All is sent before the first is read."""
    taken = []
    for token, (lane, head) in zip(holder.tokens, lanes, strict=False):
        c.execute(
            "UPDATE lane SET token = ?, owner = ?, leased_until = ? WHERE key = ?",
            (token, holder.owner, holder.until, lane),
        )
        taken.append((lane, head, token, c.execute(_TAKE, (head,))))
    deliveries = []
    for lane, head, token, returned in taken:
        found = returned.fetchone()
        try:
            deliveries.append(_delivery(found, token, now))
        except UNREADABLE:  # of a later version, or damaged: it must not stop the others
            end(c, head, State.DEAD, Outcome.DEAD, "the row cannot be read", now=now, wipe=False)
            advance(c, lane, head, now=now)
    return deliveries


def renew(c: Connection, tokens: Sequence[str], holder: Holder) -> set[str]:
    """Keep these leases until `holder.until`; those that are still held. What is kept for later is renewed, too."""
    c.execute(
        "UPDATE lane SET leased_until = ? WHERE suspect AND token IS NULL AND owner = ?", (holder.until, holder.owner)
    )
    held: set[str] = set()
    for start in range(0, len(tokens), AT_A_TIME):
        some = tokens[start : start + AT_A_TIME]
        found = c.execute(
            f"UPDATE lane SET leased_until = ? WHERE token IN ({', '.join('?' * len(some))}) RETURNING token",
            (holder.until, *some),
        )
        held.update(token for (token,) in found.fetchall())
    return held


def lock_lane(c: Connection, lane: str) -> tuple[int, str | None] | None:
    """Its head and token; nobody else changes it until this transaction ends. None where it is gone."""
    found = c.execute("SELECT head, token FROM lane WHERE key = ? FOR UPDATE", (lane,)).fetchone()
    return (found[0], found[1]) if found is not None else None


def check(c: Connection, delivery: Delivery) -> None:
    """The fence: only the holder of the lease may write."""
    if lock_lane(c, delivery.lane) != (delivery.row, delivery.token):
        raise LeaseLost(f"message {delivery.row} was cancelled or taken over")


def give_back(
    c: Connection, delivery: Delivery, due: float, *, sent: int, uncertain: bool, cause: str, trail: str
) -> None:
    """Return the lease until `due`; the message stays its lane's head."""
    check(c, delivery)
    c.execute(
        "UPDATE message SET state = CASE WHEN answer IS NULL THEN 'ready' ELSE 'answered' END,"
        f" tries = tries + 1, crashes = 0, part = ?, uncertain = ?, cause = nullif(?, ''), {APPEND_TRAIL} WHERE id = ?",
        (sent, uncertain, cause, trail, delivery.row),
    )
    c.execute(f"UPDATE lane SET {FREE}, due = ? WHERE key = ?", (due, delivery.lane))


def claim_trouble(c: Connection, delivery: Delivery) -> bool:
    """Is this lane's asker to be told of trouble? Once, until the lane is empty."""
    check(c, delivery)
    claimed = c.execute("UPDATE lane SET troubled = TRUE WHERE key = ? AND NOT troubled", (delivery.lane,))
    return claimed.rowcount == 1


def end(
    c: Connection,
    row: int,
    state: State,
    outcome: Outcome,
    reason: str,
    *,
    now: float,
    wipe: bool,
    cause: str = "",
    trail: str = "",
    uncertain: bool | None = None,
) -> None:
    """Close the row; with `wipe` the webhook is forgotten, and the text of what nobody will come back to.

    uncertain: what was sent last may have arrived; None leaves that as it is.
    """
    # An answer that could not be delivered can be sent again; a text that only said why there is none, not.
    c.execute(
        "UPDATE message SET webhook = CASE WHEN ? THEN '' ELSE webhook END, body = CASE WHEN ? THEN '' ELSE body END,"
        f" answer = CASE WHEN ? OR (? AND outcome NOT IN {_NO_ANSWER}) THEN answer END,"
        " state = ?, outcome = ?, reason = coalesce(nullif(?, ''), reason), finished_at = ?,"
        f" cause = coalesce(nullif(?, ''), cause), uncertain = coalesce(?, uncertain), {APPEND_TRAIL} WHERE id = ?",
        (
            *(wipe, wipe and outcome not in RETRYABLE | ANSWERED),
            *(outcome in ANSWERED or (not wipe and outcome not in RETRYABLE), outcome is Outcome.UNDELIVERABLE),
            *(state, outcome, reason, now, cause, uncertain, trail, row),
        ),
    )


def advance(c: Connection, lane: str, head: int, *, now: float) -> bool:
    """The lane's head has ended: the next one becomes head and True is returned, or the lane goes."""
    (following,) = c.execute("SELECT min(id) FROM message WHERE lane = ? AND finished_at IS NULL", (lane,)).fetchone()
    if following is None:
        c.execute("DELETE FROM lane WHERE key = ? AND head = ?", (lane, head))
        return False
    # Due from now, behind the lanes that wait already: one person's backlog does not starve the others.
    c.execute(
        f"UPDATE lane SET head = ?, due = ?, {FREE} WHERE key = ? AND head = ?",
        (following, now, lane, head),
    )
    return True


def cancel(
    c: Connection, by: Message, before: int, *, now: float, wipe: bool, trail: str = ""
) -> dict[int, Message | None]:
    """End the sender's unanswered questions that came before row `before` in this conversation; those by row."""
    where = (
        "robot = ? AND conversation = ? AND person = ? AND task = 'question' AND state IN ('ready', 'leased')"
        " AND finished_at IS NULL AND id < ?"
    )
    who = (by.robot, by.conversation.id, by.sender.id, before)
    # Lanes first, in order, as everybody does; what is found then cannot change any more.
    for (lane,) in c.execute(f"SELECT DISTINCT lane FROM message WHERE {where} ORDER BY lane", who).fetchall():
        lock_lane(c, lane)
    found = sorted(c.execute(f"SELECT id, lane FROM message WHERE {where}", who).fetchall())
    ended = {row: message(c, row) for row, _ in found}
    for row in ended:
        end(c, row, State.DONE, Outcome.CANCELLED, "cancelled by the asker", now=now, wipe=wipe, trail=trail)
    for lane in {lane for _, lane in found}:
        (head,) = c.execute("SELECT head FROM lane WHERE key = ?", (lane,)).fetchone()
        if head in ended:  # only then: a lane whose head still runs must stay closed
            advance(c, lane, head, now=now)
    return ended


def message(c: Connection, row: int) -> Message | None:
    """An unfinished row's message; None where it cannot be read."""
    robot, key, body, webhook, expires = c.execute(
        "SELECT robot, key, body, webhook, webhook_expires FROM message WHERE id = ?", (row,)
    ).fetchone()
    try:
        return decode_message(robot=robot, key=key, body=body, webhook=webhook, webhook_expires=expires)
    except UNREADABLE:
        return None


def _delivery(found: tuple[Any, ...], token: str, now: float) -> Delivery:
    row, lane, robot, key, body, webhook, expires, task, state, part, uncertain, answer, outcome = found[:13]
    crashes, tries, received_at, deadline_at, answered_at, reason, route, card = found[13:]
    return Delivery(
        row=row,
        token=token,
        lane=lane,
        message=decode_message(robot=robot, key=key, body=body, webhook=webhook, webhook_expires=expires),
        task=Task(task),
        state=State(state),
        part=part,
        uncertain=bool(uncertain),
        answer=decode_answer(answer) if answer is not None else None,
        outcome=Outcome(outcome) if outcome else None,
        crashes=crashes,
        tries=tries,
        received_at=received_at,
        leased_at=now,
        deadline_at=deadline_at,
        answered_at=answered_at,
        reason=reason or "",
        route=route or "",
        card=CardState(card),
    )
