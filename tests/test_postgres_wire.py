"""The connection to PostgreSQL: statements that go out together, and what is left after one of them fails."""

from __future__ import annotations

import select
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from dingbridge.store.postgres_wire import MOST_PREPARED, PostgresConnection
from tests.postgres import Server


@pytest.fixture
def wire(postgres: Server) -> Iterator[PostgresConnection]:
    """In a database of its own, with one table."""
    with psycopg.connect(postgres.create_database(), autocommit=True) as raw:
        raw.execute("CREATE TABLE note (id bigint PRIMARY KEY, text text, at double precision, seen boolean)")
        yield PostgresConnection(raw, "test")


def _notes(c: Any) -> list[Any]:
    found: list[Any] = c.execute("SELECT id, text, at, seen FROM note ORDER BY id").fetchall()
    return found


def test_values_come_back_as_they_were(wire: PostgresConnection) -> None:
    """Texts, big numbers, fractions, truth and nothing are what they were; the character 0 is replaced."""
    put = "INSERT INTO note VALUES (?, ?, ?, ?)"
    rows = [(1, "问\0题 'a' %s", 0.1, True), (2**40, None, None, False), (3, "", 1e300, None)]

    def write(c: Any) -> None:
        for row in rows:
            c.execute(put, row)

    wire.transact(write)
    assert wire.wrote
    assert wire.transact(_notes) == [(1, "问�题 'a' %s", 0.1, True), (3, "", 1e300, None), (2**40, None, None, False)]
    assert not wire.wrote


def test_a_statement_that_fails_unsaid_undoes_everything(wire: PostgresConnection) -> None:
    """An error that nobody waited for is raised at the end, by its name, and the connection goes on."""

    def twice(c: Any) -> None:
        for _ in range(3):
            c.execute("INSERT INTO note VALUES (?, ?, ?, ?)", (1, "x", 0.0, True))

    with pytest.raises(psycopg.errors.UniqueViolation):
        wire.transact(twice)
    assert wire.transact(_notes) == []
    assert wire.raw.execute("SELECT 1").fetchone() == (1,)


def test_a_statement_that_cannot_be_prepared_is_tried_anew(wire: PostgresConnection) -> None:
    """What failed to be prepared, or stood behind that, is prepared the next time."""

    def run(c: Any) -> list[Any]:
        c.execute("SELECT wrong FROM nowhere")
        return _notes(c)

    for _ in range(2):
        with pytest.raises(psycopg.errors.UndefinedTable):
            wire.transact(run)
        assert wire.transact(_notes) == []


def test_work_that_raises_is_undone(wire: PostgresConnection) -> None:
    """Statements that nobody has waited for yet, too."""

    def run(c: Any) -> None:
        c.execute("INSERT INTO note VALUES (1)")
        raise LookupError

    with pytest.raises(LookupError):
        wire.transact(run)
    assert wire.transact(_notes) == []


def test_more_than_the_socket_takes_at_once_arrives(wire: PostgresConnection) -> None:
    """Megabytes in both directions, in statements that are sent before the first is read."""
    text = "长" * 1_000_000

    def run(c: Any) -> list[int]:
        found = [c.execute("SELECT CAST(? AS text)", (text,)) for _ in range(6)]
        return [len(one.fetchone()[0]) for one in found]

    assert wire.transact(run) == [len(text)] * 6


def test_long_lists_of_values_are_not_kept_on_the_server(wire: PostgresConnection) -> None:
    """Each length would be a statement of its own, for as long as the connection lasts."""

    def run(c: Any, count: int) -> int:
        return len(c.execute(f"SELECT 1 FROM note WHERE id IN ({', '.join('?' * count)})", range(count)).fetchall())

    for count in range(MOST_PREPARED - 1, MOST_PREPARED + 3):
        wire.transact(lambda c, count=count: run(c, count))  # type: ignore[misc]
    kept = wire.raw.execute("SELECT 1 FROM pg_prepared_statements WHERE statement LIKE '%FROM note%'").fetchall()
    assert len(kept) == 2


def test_a_transaction_that_stands_still_is_ended_by_the_server(wire: PostgresConnection) -> None:
    """The locks of a daemon that was stopped between two statements do not outlive its time."""
    wire.raw.execute("SET idle_in_transaction_session_timeout = '100ms'")

    def run(c: Any) -> None:
        c.execute("INSERT INTO note VALUES (1)").rowcount  # noqa: B018 - waits for the server
        assert _ended_within(wire, 10.0)
        c.execute("SELECT 1").fetchone()

    with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout):
        wire.transact(run)
    assert wire.raw.closed


def _ended_within(wire: PostgresConnection, seconds: float) -> bool:
    """The server has something to say, or has hung up."""
    return bool(select.select([wire.raw.fileno()], [], [], seconds)[0])


def test_a_connection_that_is_cut_says_so(wire: PostgresConnection) -> None:
    """Whoever waits gets an OperationalError, and the connection is closed."""

    def run(c: Any) -> None:
        wire.abort()
        c.execute("SELECT 1").fetchone()

    with pytest.raises(psycopg.OperationalError):
        wire.transact(run)
    assert wire.raw.closed
