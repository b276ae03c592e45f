"""How a message comes in: seen before, within its person's limits, stamped with its lane."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from dingbridge.model import Message, Placed, State, Task, lane_key
from dingbridge.store.codec import APPEND_TRAIL, encode_message


@dataclass(frozen=True, slots=True)
class Limits:
    """What a person is held to; 0 means no limit."""

    waiting_per_lane: int = 8
    per_user_per_minute: int = 10
    answer_deadline_s: float = 1800.0


def put(
    c: sqlite3.Connection, message: Message, task: Task, *, now: float, limits: Limits, fresh: bool, trail: str = ""
) -> Placed:
    """Insert a message and wake its lane; a message already there only renews its session webhook."""
    remember_webhook(c, message)
    known = c.execute(
        "SELECT id, lane, task, finished_at FROM message WHERE robot = ? AND key = ?", (message.robot, message.id)
    ).fetchone()
    if known is not None:
        row, lane, known_task, finished_at = known
        if finished_at is None and message.webhook:
            expires = expires_at(message)
            c.execute(
                "UPDATE message SET webhook = ?, webhook_expires = ? WHERE id = ?"
                " AND (webhook = '' OR ? IS NULL OR webhook_expires IS NULL OR ? >= webhook_expires)",
                (message.webhook.reveal(), expires, row, expires, expires),
            )
        c.execute(f"UPDATE message SET {APPEND_TRAIL} WHERE id = ?", (trail, row))
        return Placed(row, lane, Task(known_task), duplicate=True)
    if task is Task.QUESTION:
        task = _within_limits(c, message, now, limits)
    generation = _generation(c, message, fresh=fresh)
    lane = lane_key(message.robot, message.conversation.id, message.sender.id, generation)
    deadline = now + limits.answer_deadline_s if limits.answer_deadline_s else None
    row = _insert(c, message, task, lane, now, deadline, trail)
    express = task is not Task.QUESTION
    if express:  # a lane of its own: never behind an answer
        lane = f"express-{row}"
        c.execute("UPDATE message SET lane = ? WHERE id = ?", (lane, row))
    c.execute(
        "INSERT INTO lane (key, head, due, express) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (lane, row, now, express),
    )
    return Placed(row, lane, task)


def _insert(
    c: sqlite3.Connection, message: Message, task: Task, lane: str, now: float, deadline: float | None, trail: str
) -> int:
    row = c.execute(
        "INSERT INTO message (robot, key, lane, conversation, person, task, state, body, webhook,"
        " webhook_expires, received_at, deadline_at, code, trail) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(message.robot, message.id, lane, message.conversation.id, message.sender.id, task, State.READY),
            *(encode_message(message), message.webhook.reveal(), expires_at(message), now, deadline),
            *(message.code, trail),
        ),
    ).lastrowid
    assert row is not None
    return row


def _within_limits(c: sqlite3.Connection, message: Message, now: float, limits: Limits) -> Task:
    if limits.per_user_per_minute:
        (asked,) = c.execute(
            "SELECT count(*) FROM message WHERE person = ? AND received_at BETWEEN ? AND ?"
            " AND robot = ? AND task = 'question'",
            (message.sender.id, now - 60.0, now, message.robot),
        ).fetchone()
        if asked >= limits.per_user_per_minute:
            return Task.LIMITED
    if limits.waiting_per_lane:
        unfinished, running = c.execute(
            "SELECT count(*), count(CASE WHEN state <> 'ready' THEN 1 END) FROM message"
            " WHERE person = ? AND conversation = ? AND finished_at IS NULL AND robot = ? AND task = 'question'",
            (message.sender.id, message.conversation.id, message.robot),
        ).fetchone()
        # The first of them runs or is about to.
        if unfinished - max(1, running) >= limits.waiting_per_lane:
            return Task.BUSY
    return Task.QUESTION


def _generation(c: sqlite3.Connection, message: Message, *, fresh: bool) -> int:
    who = (message.robot, message.conversation.id, message.sender.id)
    if fresh:
        c.execute("INSERT INTO context VALUES (?, ?, ?, 1) ON CONFLICT DO UPDATE SET generation = generation + 1", who)
    found = c.execute(
        "SELECT generation FROM context WHERE robot = ? AND conversation = ? AND person = ?", who
    ).fetchone()
    return int(found[0]) if found else 0


def remember_webhook(c: sqlite3.Connection, message: Message) -> None:
    """Keep the newest session webhook of a conversation, for replies that outlive their own."""
    if message.webhook:
        c.execute(
            "INSERT INTO webhook VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE"
            " SET url = excluded.url, expires = excluded.expires"
            " WHERE excluded.expires IS NULL OR expires IS NULL OR excluded.expires >= expires",
            (message.robot, message.conversation.id, message.webhook.reveal(), expires_at(message)),
        )


def expires_at(message: Message) -> float | None:
    return message.webhook_expires.timestamp() if message.webhook_expires else None
