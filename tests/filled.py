"""An SQLite store as weeks of work leave it: ended messages and trails, some that wait, some cut short by a crash."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from dingbridge.model import Answer, lane_key, trace_code
from dingbridge.store.codec import encode_answer, encode_message, encode_steps
from dingbridge.store.schema import migrate
from dingbridge.trail import Step
from tests.stores import START, message

ROBOT = "ding1"
_COLUMNS = (
    *("id", "robot", "key", "lane", "conversation", "person", "task", "state", "body", "webhook", "webhook_expires"),
    *("received_at", "deadline_at", "crashes", "tries", "answer", "part", "uncertain", "answered_at", "outcome"),
    *("reason", "route", "finished_at", "code", "trail", "cause"),
)


def fill(path: Path, rows: int, *, waiting: int = 0, held: int = 0, people: int = 1000) -> None:
    """Of `rows` messages the last `waiting` are unfinished; the first `held` lanes of those were in work at a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = OFF")  # until it is filled
        connection.execute("PRAGMA synchronous = OFF")
        migrate(connection)
        connection.execute("BEGIN")
        connection.executemany(
            f"INSERT INTO message ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})",
            _messages(rows, waiting, people),
        )
        connection.execute(
            "INSERT INTO lane (key, head, due, express) SELECT lane, min(id), ?, 0 FROM message"
            " WHERE finished_at IS NULL GROUP BY lane",
            (START,),
        )
        _hold(connection, held)
        who = [(ROBOT, f"c{one}", f"u{one}") for one in range(people)]
        connection.executemany("INSERT INTO context VALUES (?, ?, ?, 1, 0)", who)
        hooks = [(ROBOT, f"c{one}", f"https://oapi.example/session/{one:032x}", START + 5400) for one in range(people)]
        connection.executemany("INSERT INTO webhook VALUES (?, ?, ?, ?)", hooks)
        if rows:
            _beside(connection)
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL")


def _beside(connection: sqlite3.Connection) -> None:
    """Three rows of what else there is."""
    for one in range(3):
        connection.execute("INSERT INTO person VALUES (?, ?, ?)", (ROBOT, f"u{one}", START))
        connection.execute(
            "INSERT INTO vote VALUES (?, ?, ?, 'R9RSHDCY', 'bad', '太旧', ?, '人事', '年假有几天？', '{}')",
            (ROBOT, f"k{one}", f"u{one}", START),
        )
        connection.execute(
            "INSERT INTO handover VALUES (?, ?, 'R9RSHDCY', 'u9', ?, ?, '见新规定', '人事', '{}', '{}', 'k:contact')",
            (ROBOT, f"k{one}", START, START + 60 if one else None),
        )
        connection.execute("INSERT INTO page VALUES (?, ?, ?)", (f"{one:064x}", one + 1, START + 86400))
        connection.execute("INSERT INTO spent VALUES (?, '2026-11', ?, 'api', '甲', 7)", (ROBOT, 9 + one))


def _hold(connection: sqlite3.Connection, count: int) -> None:
    """Every other one was being sent."""
    heads = connection.execute("SELECT key, head FROM lane ORDER BY head LIMIT ?", (count,)).fetchall()
    for number, (lane, head) in enumerate(heads):
        connection.execute(
            "UPDATE lane SET token = ?, leased_until = ? WHERE key = ?", (f"{number:016x}", START + 30, lane)
        )
        if number % 2:
            connection.execute(
                "UPDATE message SET state = 'sending', part = 1, answer = ?, outcome = 'answered' WHERE id = ?",
                (encode_answer(Answer("答")), head),
            )
        else:
            connection.execute("UPDATE message SET state = 'leased' WHERE id = ?", (head,))


def _messages(rows: int, waiting: int, people: int) -> Iterator[tuple[Any, ...]]:
    draw = random.Random(rows)
    trails = [_trail(START + n, draw) for n in range(min(rows, 500))]
    for row in range(1, rows + 1):
        who, key, at = draw.randrange(people), f"msg{row:08d}", START + row / 10
        one = message(key, person=f"u{who}", conversation=f"c{who}", robot=ROBOT, text=f"第 {row} 个问题：年假有几天？")
        lane = lane_key(ROBOT, f"c{who}", f"u{who}", 1)
        first = (row, ROBOT, key, lane, f"c{who}", f"u{who}", "question")
        trail, code = draw.choice(trails), trace_code(ROBOT, key)
        if row > rows - waiting:
            body = encode_message(one)
            yield (*first, "ready", body, "", None, at, at + 1800, 0, 0, None, 0, 0, *([None] * 5), code, trail, None)
        elif row % 20 == 0:
            body, reason = encode_message(one), "AnythingLLM answered 500"
            yield (
                *(*first, "dead", body, "", None, at, at + 1800, 0, 4, None, 0, 0, at + 60, "failed", reason),
                *("handbook", at + 61, code, trail, "backend.failed"),
            )
        else:
            yield (
                *(*first, "done", "", "", None, at, at + 1800, 0, 0, None, 1, 0, at + 5, "answered", None),
                *("handbook", at + 6, code, trail, None),
            )


def _trail(at: float, draw: random.Random) -> str:
    """About a kilobyte, as of an answer in one part."""
    frame = f"{draw.getrandbits(128):032x}"
    return encode_steps(
        [
            Step(at, "received", {"kind": "text", "chat": "group", "frame": frame}),
            Step(at + 0.1, "leased", {"waited_s": round(draw.random(), 3), "tries": 0, "crashes": 0}),
            Step(at + 0.1, "route.matched", {"route": "handbook", "rule": "open", "workspace": "handbook"}),
            *(
                Step(
                    at + 1 + n,
                    "backend.attempt",
                    {
                        "attempt": n,
                        "workspace": "handbook",
                        "ok": n == 3,
                        "ms": 912.4,
                        "error": "" if n == 3 else "AnythingLLM answered 502 Bad Gateway; is its container up?",
                    },
                )
                for n in (1, 2, 3)
            ),
            *(Step(at + 2 + n, "backend.wait", {"delay_s": round(draw.random(), 3)}) for n in (1, 2)),
            Step(at + 5, "send.tried", {"part": 1, "rung": "webhook", "ok": True, "ms": round(draw.random() * 90, 1)}),
        ]
    )
