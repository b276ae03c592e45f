"""Is a store whole? Its file, and what always holds in its tables. Nothing is changed; daemons may run meanwhile."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dingbridge.model import Outcome, State, Task, trace_code
from dingbridge.store import schema
from dingbridge.store.codec import decode_answer, decode_message
from dingbridge.store.migrating import require_file
from dingbridge.store.sqlite_engine import explained
from dingbridge.store.store import LEASE_S
from dingbridge.store.work import UNREADABLE

if TYPE_CHECKING:
    from dingbridge.store.postgres_engine import Address

EXAMPLES = 5
LOOK_EVERY = 1000  # rows, steps of SQLite
LATE_S = 30.0  # a lease that has ended is taken over sooner, where a daemon lives
Tell = Callable[[int, int], None]
Execute = Callable[..., Iterable[tuple[Any, ...]]]
_ENDED = frozenset({State.DONE, State.DEAD})


@dataclass(frozen=True, slots=True)
class Finding:
    """rule: which one does not hold. count: how often. examples: codes, lanes or SQLite's words, some of them."""

    rule: str
    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Checked:
    """states: how many messages are in each. rows: how many there are in each table."""

    version: int
    states: dict[str, int]
    rows: dict[str, int]
    findings: list[Finding]


@dataclass(slots=True)
class _Findings:
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, rule: str, example: str) -> None:
        self.counts[rule] += 1
        some = self.examples.setdefault(rule, [])
        if len(some) < EXAMPLES:
            some.append(example)

    def listed(self) -> list[Finding]:
        return [Finding(rule, count, tuple(self.examples[rule])) for rule, count in self.counts.items()]


def check_sqlite(path: Path, tell: Tell = lambda *_: None) -> Checked:
    """Raises StoreUnavailable where there is no file, or one that cannot be read at all."""
    require_file(path)
    findings = _Findings()
    try:
        # Only reading: a second one that wrote beside the daemon could meet SQLite's WAL-reset corruption.
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)) as lite:
            schema.require(lite)
            lite.set_progress_handler(lambda: tell(0, 0), 1_000_000)
            for (text,) in lite.execute(f"PRAGMA integrity_check({EXAMPLES})").fetchall():
                if text != "ok":
                    findings.add("file", text)
            lite.set_progress_handler(None, 0)
            lite.execute("BEGIN")
            return _checked(lite.execute, len(schema.MIGRATIONS), findings, tell)
    except sqlite3.Error as error:
        raise explained(error, path) from error


def check_postgres(where: Address, tell: Tell = lambda *_: None) -> Checked:
    """All of it as at one moment. Raises StoreError where it cannot be reached, or is of another version."""
    from dingbridge.store.alone import connected, now  # noqa: PLC0415 - 20 MiB that SQLite does not need
    from dingbridge.store.postgres_schema import NEWEST, require_version, unfinished  # noqa: PLC0415

    findings = _Findings()
    with connected(where) as raw, raw.transaction():
        raw.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        require_version(raw, where.schema)
        if source := unfinished(raw):
            findings.add("copy", source)
        _leases(raw.execute, now(raw), findings)

        def execute(statement: str) -> Iterator[tuple[Any, ...]]:
            with raw.cursor(name="checked") as cursor:
                cursor.itersize = LOOK_EVERY
                yield from cursor.execute(statement.encode())

        return _checked(execute, NEWEST, findings, tell)


# -- what always holds

_LANES = {
    "lane_without_head": (
        "SELECT l.key FROM lane l WHERE NOT EXISTS"
        " (SELECT 1 FROM message m WHERE m.id = l.head AND m.lane = l.key AND m.finished_at IS NULL)"
    ),
    # One that was retried came back before the head, and waits until that has ended.
    "lane_out_of_order": (
        "SELECT l.key FROM lane l WHERE EXISTS (SELECT 1 FROM message m WHERE m.lane = l.key AND m.id < l.head"
        ' AND m.finished_at IS NULL AND m.trail NOT LIKE \'%"name": "retried"%\')'
    ),
    "message_without_lane": (
        "SELECT m.code FROM message m WHERE m.finished_at IS NULL"
        " AND NOT EXISTS (SELECT 1 FROM lane l WHERE l.key = m.lane)"
    ),
    "leased_without_lease": (
        "SELECT m.code FROM message m WHERE m.finished_at IS NULL AND m.state = 'leased' AND NOT EXISTS"
        " (SELECT 1 FROM lane l WHERE l.key = m.lane AND l.head = m.id AND l.token IS NOT NULL)"
    ),
}
RULES = frozenset({"file", "copy", "lease_without_owner", "unknown_name", "half_ended", "wrong_code", "unreadable"})
RULES |= frozenset(_LANES)
_MESSAGE = "id, robot, key, code, task, state, outcome, finished_at, body, webhook_expires, answer"


def _leases(execute: Execute, at: float, findings: _Findings) -> None:
    late = execute(
        "SELECT key FROM lane WHERE token IS NOT NULL AND leased_until < %s"
        " AND owner NOT IN (SELECT id FROM replica WHERE beat_at > %s)",
        (at - LATE_S, at - LEASE_S),
    )
    for (lane,) in late:
        findings.add("lease_without_owner", lane)


def _checked(execute: Execute, version: int, findings: _Findings, tell: Tell) -> Checked:
    for rule, statement in _LANES.items():
        for (example,) in execute(statement):
            findings.add(rule, example)
    rows = {table: _count(execute, table) for table in ("message", "lane", "context", "webhook")}
    states: Counter[str] = Counter()
    for number, row in enumerate(execute(f"SELECT {_MESSAGE} FROM message ORDER BY id"), start=1):
        states[row[5]] += 1
        for rule in _broken(*row):
            findings.add(rule, row[3] or f"row {row[0]}")
        if number % LOOK_EVERY == 0:
            tell(number, rows["message"])
    return Checked(version, dict(sorted(states.items())), rows, findings.listed())


def _count(execute: Execute, table: str) -> int:
    ((count,),) = execute(f"SELECT count(*) FROM {table}")
    return int(count)


def _broken(
    _: int,
    robot: str,
    key: str,
    code: str,
    task: str,
    state: str,
    outcome: str | None,
    finished_at: float | None,
    body: str,
    webhook_expires: float | None,
    answer: str | None,
) -> Iterator[str]:
    if state not in set(State) or task not in set(Task) or (outcome is not None and outcome not in set(Outcome)):
        yield "unknown_name"
    elif (finished_at is not None) != (state in _ENDED) or (finished_at is not None and outcome is None):
        yield "half_ended"
    # The character 0, of which the code was made, became another one in PostgreSQL.
    if code not in {trace_code(robot, key), trace_code(robot.replace("�", "\0"), key.replace("�", "\0"))}:
        yield "wrong_code"
    try:
        if body or finished_at is None:
            decode_message(robot=robot, key=key, body=body, webhook="", webhook_expires=webhook_expires)
        if answer is not None:
            decode_answer(answer)
    except UNREADABLE:
        yield "unreadable"
