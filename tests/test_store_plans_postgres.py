"""On PostgreSQL, too, what the store costs does not grow with what is stored: the planner takes the indexes."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from itertools import count
from typing import Any

import psycopg
import pytest

from benchmarks.lease import Size, filled
from dingbridge.model import Answer, Outcome, Task
from dingbridge.store.intake import Limits
from dingbridge.store.postgres import PostgresStore
from dingbridge.store.postgres_wire import Found, PostgresConnection
from dingbridge.store.recovery import forget, take_over
from dingbridge.store.store import Store
from tests.places import PostgresPlace
from tests.stores import Clock, finish, head, message

SIZE = Size(stored=20_000, waiting=2_000)
# Planned for any number of rows it would walk; as that costs more, PostgreSQL goes on planning it for each number.
BETTER_KNOWN = "DELETE FROM message WHERE id IN (SELECT id FROM message WHERE finished_at < ? LIMIT ?)"
WALKED = re.compile(r"Seq Scan on (message|lane)\b")


@pytest.fixture
async def store(postgres_place: PostgresPlace) -> AsyncIterator[PostgresStore]:
    """With many messages in it."""
    one = postgres_place.make(Clock(2_000_000_000.0), Limits())
    await one.open()
    await filled(one, SIZE)
    yield one
    await one.close()


async def _all(store: Store) -> None:
    """Once through everything that is done for a message, or every few seconds."""
    placed = await store.put(message("m1", webhook="https://a/1"))
    await store.put(message("m1", webhook="https://a/2"))
    await store.put(message("m2"))
    await store.put(message("new"), Task.COMMAND, fresh=True)
    await store.claim_notice(placed.row)
    delivery = await head(store)
    await store.claim_trouble(delivery)
    await store.renew([delivery.token])
    await store.later(delivery, 0.0)
    await finish(store, await head(store))
    await store.done(await head(store, express=True), Outcome.COMMAND)
    failed = await head(store)
    await store.answered(failed, Answer("抱歉"), Outcome.FAILED, sending=True)
    await store.dead(failed, Outcome.FAILED, "")
    await store.retry(failed.row)
    await store.drop(failed.row, tell=True)
    await store.cancel(message("x"), before=10**9)
    await store.find("ding1", "m1")
    await store.webhook("ding1", "c1")
    await store.waiting(message("m1"))
    await store.depth()
    await store._engine.run(lambda c: take_over(c, owner=store.owner, now=store._clock(), wipe=True))
    await store._engine.run(lambda c: forget(c, 10, now=store._clock() - 10**9))
    await store.release_all()


@pytest.mark.parametrize("kind", ["for these values", "for any"])
async def test_the_planner_reads_no_whole_table(
    postgres_place: PostgresPlace, store: PostgresStore, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Every statement finds messages and lanes by an index, planned for its values or, as after some uses, for any."""
    asked: dict[str, Sequence[Any]] = {}
    original = PostgresConnection.execute

    def execute(self: PostgresConnection, statement: str, values: Sequence[Any] = ()) -> Found:
        asked.setdefault(statement, values)
        return original(self, statement, values)

    monkeypatch.setattr(PostgresConnection, "execute", execute)
    await _all(store)
    told = [one for one in asked if one.split(maxsplit=1)[0] in {"SELECT", "UPDATE", "DELETE", "INSERT"}]
    assert len(told) > 30
    with postgres_place.beside() as connection:
        if kind == "for any":
            if connection.info.server_version < 160_000:
                pytest.skip("this PostgreSQL cannot tell the plan for any values")
            plans = {one: _plan(connection, f"EXPLAIN (GENERIC_PLAN) {_numbered(one)}") for one in told}
        else:
            plans = {one: _plan(connection, f"EXPLAIN {one.replace('?', '%s')}", asked[one]) for one in told}
    walked = [f"{one}\n{plan}" for one, plan in plans.items() if WALKED.search(plan)]
    walked = [one for one in walked if kind != "for any" or not one.startswith(BETTER_KNOWN)]
    assert "\n\n".join(walked) == ""


def _plan(connection: psycopg.Connection[Any], explain: str, values: Sequence[Any] | None = None) -> str:
    return "\n".join(line for (line,) in connection.execute(explain.encode(), values))


def _numbered(statement: str) -> str:
    numbers = count(1)
    return re.sub(r"\?", lambda _: f"${next(numbers)}", statement)
