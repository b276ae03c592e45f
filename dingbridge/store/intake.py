"""How a message comes in: seen before, within its person's limits, stamped with its lane."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dingbridge.model import Message, Placed, State, Task, lane_key
from dingbridge.store.codec import APPEND_TRAIL, encode_message
from dingbridge.store.engine import Connection, Rows

# PostgreSQL locks a lane that is there although nothing is changed: whoever ends its last message meanwhile waits, and
# finds this one.
_OPEN = (
    "INSERT INTO lane (key, head, due, express) VALUES (?, {head}, ?, ?)"
    " ON CONFLICT (key) DO UPDATE SET express = excluded.express WHERE FALSE"
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a person is held to; 0 means no limit.

    idle_s: after such a pause a context begins anew. by_group: a group has one context for all of it.
    keep_s: ended messages are kept at least so long.
    """

    waiting_per_lane: int = 8
    per_user_per_minute: int = 10
    answer_deadline_s: float = 1800.0
    idle_s: float = 0.0
    by_group: bool = False
    keep_s: float = 0.0

    def context_of(self, message: Message) -> tuple[str, str, str]:
        """Robot, conversation and person; no person where the group has one context."""
        person = "" if self.by_group and message.conversation.is_group else message.sender.id
        return message.robot, message.conversation.id, person


def put(
    c: Connection, message: Message, task: Task, *, now: float, limits: Limits, fresh: bool, trail: str = ""
) -> Placed:
    """Insert a message and wake its lane; a message already there only renews its session webhook."""
    c.alone("person", message.robot, message.sender.id)  # their limits are counted, their lanes are in order
    remember_webhook(c, message)
    # All is asked before the first answer is read: that is one way to the database and back.
    found = c.execute(
        "SELECT id, lane, task, finished_at FROM message WHERE robot = ? AND key = ?", (message.robot, message.id)
    )
    within = _within_limits(c, message, now, limits) if task is Task.QUESTION else lambda: task
    context = limits.context_of(message)
    generation = _spoken(c, message, context, now, limits.idle_s) if task is Task.QUESTION else lambda: 0
    if (known := found.fetchone()) is not None:
        row, lane, known_task, finished_at = known
        if finished_at is None and message.webhook:
            expires = expires_at(message)
            c.execute(
                "UPDATE message SET webhook = ?, webhook_expires = ? WHERE id = ?"
                " AND (webhook = '' OR webhook_expires IS NULL OR coalesce(?, webhook_expires) >= webhook_expires)",
                (message.webhook.reveal(), expires, row, expires),
            )
        c.execute(f"UPDATE message SET {APPEND_TRAIL} WHERE id = ?", (trail, row))
        return Placed(row, lane, Task(known_task), duplicate=True)
    task = within()
    number = _raised(c, context, now) if fresh else generation()
    lane = lane_key(*context, number)
    deadline = now + limits.answer_deadline_s if limits.answer_deadline_s else None
    inserted = _insert(c, message, task, lane, now, deadline, trail)
    if task is not Task.QUESTION:  # a lane of its own: never behind an answer
        (row,) = inserted.fetchone()
        return Placed(row, open_express(c, row, now), task)
    c.execute(
        _OPEN.format(head="(SELECT id FROM message WHERE robot = ? AND key = ?)"),
        (lane, message.robot, message.id, now, False),
    )
    (row,) = inserted.fetchone()
    return Placed(row, lane, task)


def open_express(c: Connection, row: int, now: float) -> str:
    """A lane of its own for a message that never waits behind an answer."""
    lane = f"express-{row}"
    c.execute("UPDATE message SET lane = ? WHERE id = ?", (lane, row))
    open_lane(c, lane, row, due=now, express=True)
    return lane


def open_lane(c: Connection, lane: str, row: int, *, due: float, express: bool) -> None:
    """It stays as it is where it is there already."""
    c.execute(_OPEN.format(head="?"), (lane, row, due, express))


def _insert(
    c: Connection, message: Message, task: Task, lane: str, now: float, deadline: float | None, trail: str
) -> Rows:
    """Gives its id."""
    return c.execute(
        "INSERT INTO message (robot, key, lane, conversation, person, task, state, body, webhook,"
        " webhook_expires, received_at, deadline_at, code, trail) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " RETURNING id",
        (
            *(message.robot, message.id, lane, message.conversation.id, message.sender.id, task, State.READY),
            *(encode_message(message), message.webhook.reveal(), expires_at(message), now, deadline),
            *(message.code, trail),
        ),
    )


def _within_limits(c: Connection, message: Message, now: float, limits: Limits) -> Callable[[], Task]:
    """Ask; what is given tells what becomes of the question."""
    asked = waiting = None
    if limits.per_user_per_minute:
        asked = c.execute(
            "SELECT count(*) FROM message WHERE person = ? AND received_at BETWEEN ? AND ?"
            " AND robot = ? AND task = 'question'",
            (message.sender.id, now - 60.0, now, message.robot),
        )
    if limits.waiting_per_lane:
        waiting = c.execute(
            "SELECT count(*), count(CASE WHEN state <> 'ready' THEN 1 END) FROM message"
            " WHERE person = ? AND conversation = ? AND finished_at IS NULL AND robot = ? AND task = 'question'",
            (message.sender.id, message.conversation.id, message.robot),
        )

    def within() -> Task:
        if asked is not None and asked.fetchone()[0] >= limits.per_user_per_minute:
            return Task.LIMITED
        unfinished, running = waiting.fetchone() if waiting is not None else (0, 0)
        # The first of them runs or is about to.
        too_many = limits.waiting_per_lane and unfinished - max(1, running) >= limits.waiting_per_lane
        return Task.BUSY if too_many else Task.QUESTION

    return within


def _spoken(
    c: Connection, message: Message, context: tuple[str, str, str], now: float, idle_s: float
) -> Callable[[], int]:
    """Something new is said in a context, which begins anew after a pause; what is given tells its generation."""
    found = c.execute(
        "INSERT INTO context (robot, conversation, person, generation, last_at) SELECT ?, ?, ?, 0, ?"
        " WHERE NOT EXISTS (SELECT 1 FROM message WHERE robot = ? AND key = ?)"
        " ON CONFLICT (robot, conversation, person) DO UPDATE SET last_at = excluded.last_at, generation ="
        " context.generation + CASE WHEN context.last_at > 0 AND context.last_at < ? THEN 1 ELSE 0 END"
        " RETURNING generation",
        (*context, now, message.robot, message.id, now - idle_s if idle_s else 0.0),
    )
    return lambda: int(found.fetchone()[0])


def _raised(c: Connection, context: tuple[str, str, str], now: float) -> int:
    """The generation of a context that begins anew."""
    (generation,) = c.execute(
        "INSERT INTO context (robot, conversation, person, generation, last_at) VALUES (?, ?, ?, 1, ?)"
        " ON CONFLICT (robot, conversation, person)"
        " DO UPDATE SET generation = context.generation + 1, last_at = excluded.last_at RETURNING generation",
        (*context, now),
    ).fetchone()
    return int(generation)


def remember_webhook(c: Connection, message: Message) -> None:
    """Keep the newest session webhook of a conversation, for replies that outlive their own."""
    if message.webhook:
        c.execute(
            "INSERT INTO webhook VALUES (?, ?, ?, ?) ON CONFLICT (robot, conversation) DO UPDATE"
            " SET url = excluded.url, expires = excluded.expires"
            " WHERE excluded.expires IS NULL OR webhook.expires IS NULL OR excluded.expires >= webhook.expires",
            (message.robot, message.conversation.id, message.webhook.reveal(), expires_at(message)),
        )


def expires_at(message: Message) -> float | None:
    return message.webhook_expires.timestamp() if message.webhook_expires else None
