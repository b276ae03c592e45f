"""A PostgreSQL store for one command alone: no daemon holds it, and none starts meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from dingbridge.errors import StoreLocked
from dingbridge.store import replicas
from dingbridge.store.postgres_engine import Address, explained
from dingbridge.store.postgres_wire import lock_number
from dingbridge.store.store import LEASE_S

WAIT_S = 5.0  # so long the server may take to see that the command before has died
AGAIN_S = 0.2
_OTHERS = "another `dingbridge store` works on it, or a daemon starts or stops just now; try again after that"


@contextmanager
def connected(where: Address) -> Iterator[psycopg.Connection[Any]]:
    """A connection in autocommit whose statements may take long; PostgreSQL's errors are explained.

    Raises StoreError.
    """
    try:
        with psycopg.connect(where.conninfo.reveal(), autocommit=True) as raw:
            raw.execute("SET statement_timeout = 0")
            raw.execute("SET idle_in_transaction_session_timeout = 0")
            yield raw
    except psycopg.Error as error:
        raise explained(error, where.place) from None


@contextmanager
def alone_on(where: Address) -> Iterator[psycopg.Connection[Any]]:
    """The same, with the lock that daemons share. Raises StoreLocked, which names them."""
    with connected(where) as raw:
        until = time.monotonic() + WAIT_S
        number = lock_number(where.schema, "use")
        while not _one(raw, "SELECT pg_try_advisory_lock(%s)", number):
            if (live := _live(raw)) or time.monotonic() > until:
                raise StoreLocked(f"store {where.place}: {live or _OTHERS}")
            time.sleep(AGAIN_S)
        yield raw


def now(raw: psycopg.Connection[Any]) -> float:
    """The database's clock, which counts for all daemons."""
    return float(_one(raw, f"SELECT {replicas.NOW}"))


def _live(raw: psycopg.Connection[Any]) -> str:
    """The daemons that were heard of within the time of a lease."""
    if not _one(raw, "SELECT to_regclass('replica') IS NOT NULL"):
        return ""
    live = (one for one in replicas.listed(raw, LEASE_S) if one.live)
    names = ", ".join(f"{one.name} (process {one.pid} on {one.host})" for one in live)
    return f"these daemons are running on it: {names}; stop them first" if names else ""


def _one(raw: psycopg.Connection[Any], statement: str, *values: Any) -> Any:
    found = raw.execute(statement, values).fetchone()
    return found[0] if found else None
