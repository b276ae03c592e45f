"""How a message is worked on: leased under a token, fenced by it, and ended; then its lane moves on."""

from __future__ import annotations

import secrets
import sqlite3
from typing import Any

from dingbridge.errors import LeaseLost
from dingbridge.model import Delivery, Message, Outcome, State, Task
from dingbridge.store.codec import APPEND_TRAIL, decode_answer, decode_message

# Ends that an operator can take back: their text is kept.
RETRYABLE = frozenset({Outcome.FAILED, Outcome.DEAD, Outcome.UNDELIVERABLE})
_NO_ANSWER = "('failed', 'dead', 'cancelled')"
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, OSError)
_HEAD = """
    SELECT m.id, l.token, m.lane, m.robot, m.key, m.body, m.webhook, m.webhook_expires, m.task, m.state, m.part,
           m.uncertain, m.answer, m.outcome, m.crashes, m.tries, m.received_at, m.deadline_at, m.answered_at,
           m.reason, m.route
    FROM lane l JOIN message m ON m.id = l.head WHERE l.key = ?
"""


def lease(c: sqlite3.Connection, count: int, *, now: float, express: bool) -> tuple[list[Delivery], bool]:
    """Up to `count` heads that are due, the longest waiting lane first; and whether a suspect holds others back.

    A suspect (in work at two crashes) is leased when nothing else is, and nothing beside it: whose fault a third
    crash is must be certain.
    """
    if c.execute("SELECT 1 FROM lane WHERE suspect = 1 AND token IS NOT NULL").fetchone():
        return [], True
    suspect = c.execute(
        "SELECT key, express FROM lane WHERE suspect = 1 AND due <= ? ORDER BY due, head LIMIT 1", (now,)
    ).fetchone()
    if suspect is not None:
        key, is_express = suspect
        others = c.execute("SELECT 1 FROM lane WHERE token IS NOT NULL LIMIT 1").fetchone()
        mine = others is None and bool(is_express) is express
        return (_leased(c, [key], now) if mine else []), True
    lanes = c.execute(
        "SELECT key FROM lane WHERE token IS NULL AND express = ? AND due <= ? ORDER BY due, head LIMIT ?",
        (express, now, count),
    ).fetchall()
    return _leased(c, [key for (key,) in lanes], now), False


def _leased(c: sqlite3.Connection, lanes: list[str], now: float) -> list[Delivery]:
    deliveries = []
    for lane in lanes:
        c.execute("UPDATE lane SET token = ? WHERE key = ?", (secrets.token_hex(8), lane))
        c.execute(
            "UPDATE message SET state = 'leased' WHERE state = 'ready' AND id = (SELECT head FROM lane WHERE key = ?)",
            (lane,),
        )
        found = c.execute(_HEAD, (lane,)).fetchone()
        try:
            deliveries.append(_delivery(found, now))
        except UNREADABLE:  # of a later version, or damaged: it must not stop the others
            end(c, found[0], State.DEAD, Outcome.DEAD, "the row cannot be read", now=now, wipe=False)
            advance(c, lane, found[0], now=now)
    return deliveries


def check(c: sqlite3.Connection, delivery: Delivery) -> None:
    """The fence: only the holder of the lease may write."""
    held = c.execute(
        "SELECT 1 FROM lane WHERE key = ? AND head = ? AND token = ?", (delivery.lane, delivery.row, delivery.token)
    ).fetchone()
    if held is None:
        raise LeaseLost(f"message {delivery.row} was cancelled or taken over")


def give_back(
    c: sqlite3.Connection, delivery: Delivery, due: float, *, sent: int, uncertain: bool, cause: str, trail: str
) -> None:
    """Return the lease until `due`; the message stays its lane's head."""
    check(c, delivery)
    c.execute(
        "UPDATE message SET state = CASE WHEN answer IS NULL THEN 'ready' ELSE 'answered' END,"
        f" tries = tries + 1, crashes = 0, part = ?, uncertain = ?, cause = nullif(?, ''), {APPEND_TRAIL} WHERE id = ?",
        (sent, uncertain, cause, trail, delivery.row),
    )
    c.execute("UPDATE lane SET token = NULL, suspect = 0, due = ? WHERE key = ?", (due, delivery.lane))


def claim_trouble(c: sqlite3.Connection, delivery: Delivery) -> bool:
    """Is this lane's asker to be told of trouble? Once, until the lane is empty."""
    check(c, delivery)
    claimed = c.execute("UPDATE lane SET troubled = 1 WHERE key = ? AND troubled = 0", (delivery.lane,))
    return claimed.rowcount == 1


def end(
    c: sqlite3.Connection,
    row: int,
    state: State,
    outcome: Outcome,
    reason: str,
    *,
    now: float,
    wipe: bool,
    cause: str = "",
    trail: str = "",
) -> None:
    """Close the row; with `wipe` the webhook is forgotten, and the text unless an operator may want to retry it."""
    # An answer that could not be delivered can be sent again; a text that only said why there is none, not.
    c.execute(
        "UPDATE message SET webhook = CASE WHEN ? THEN '' ELSE webhook END, body = CASE WHEN ? THEN '' ELSE body END,"
        f" answer = CASE WHEN ? OR (? AND outcome NOT IN {_NO_ANSWER}) THEN answer END,"
        " state = ?, outcome = ?, reason = coalesce(nullif(?, ''), reason), finished_at = ?,"
        f" cause = coalesce(nullif(?, ''), cause), {APPEND_TRAIL} WHERE id = ?",
        (
            *(wipe, wipe and outcome not in RETRYABLE),
            *(not wipe and outcome not in RETRYABLE, outcome is Outcome.UNDELIVERABLE),
            *(state, outcome, reason, now, cause, trail, row),
        ),
    )


def advance(c: sqlite3.Connection, lane: str, head: int, *, now: float) -> bool:
    """The lane's head has ended: the next one becomes head and True is returned, or the lane goes."""
    (following,) = c.execute("SELECT min(id) FROM message WHERE lane = ? AND finished_at IS NULL", (lane,)).fetchone()
    if following is None:
        c.execute("DELETE FROM lane WHERE key = ? AND head = ?", (lane, head))
        return False
    # Due from now, behind the lanes that wait already: one person's backlog does not starve the others.
    c.execute(
        "UPDATE lane SET head = ?, due = ?, token = NULL, suspect = 0 WHERE key = ? AND head = ?",
        (following, now, lane, head),
    )
    return True


def cancel(
    c: sqlite3.Connection, by: Message, before: int, *, now: float, wipe: bool, trail: str = ""
) -> dict[int, Message | None]:
    """End the sender's unanswered questions that came before row `before` in this conversation; those by row."""
    found = c.execute(
        "SELECT id, lane FROM message WHERE robot = ? AND conversation = ? AND person = ? AND task = 'question'"
        " AND state IN ('ready', 'leased') AND finished_at IS NULL AND id < ?",
        (by.robot, by.conversation.id, by.sender.id, before),
    ).fetchall()
    ended = {row: message(c, row) for row, _ in found}
    for row in ended:
        end(c, row, State.DONE, Outcome.CANCELLED, "cancelled by the asker", now=now, wipe=wipe, trail=trail)
    for lane in {lane for _, lane in found}:
        (head,) = c.execute("SELECT head FROM lane WHERE key = ?", (lane,)).fetchone()
        if head in ended:  # only then: a lane whose head still runs must stay closed
            advance(c, lane, head, now=now)
    return ended


def message(c: sqlite3.Connection, row: int) -> Message | None:
    """An unfinished row's message; None where it cannot be read."""
    robot, key, body, webhook, expires = c.execute(
        "SELECT robot, key, body, webhook, webhook_expires FROM message WHERE id = ?", (row,)
    ).fetchone()
    try:
        return decode_message(robot=robot, key=key, body=body, webhook=webhook, webhook_expires=expires)
    except UNREADABLE:
        return None


def _delivery(found: tuple[Any, ...], now: float) -> Delivery:
    row, token, lane, robot, key, body, webhook, expires, task, state, part, uncertain, answer, outcome = found[:14]
    crashes, tries, received_at, deadline_at, answered_at, reason, route = found[14:]
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
    )
