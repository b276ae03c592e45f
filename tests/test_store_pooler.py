"""What stands between a daemon and its PostgreSQL must hand on what the connection asks for, or be refused."""

from __future__ import annotations

from dataclasses import replace

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from dingbridge.errors import StoreUnavailable
from dingbridge.model import Secret
from dingbridge.store.postgres_engine import PostgresEngine, address, explained
from tests.postgres import Server


@pytest.mark.parametrize("dropped", ["", "-c search_path=public", "-c synchronous_commit=off"])
async def test_a_connection_without_its_settings_is_refused(postgres: Server, dropped: str) -> None:
    """As behind pgbouncer with ignore_startup_parameters = options: no table is made in a foreign schema."""
    url = postgres.create_database()
    asked = address(Secret(url), Secret(), "dingbridge_robot")
    options = dropped and f"-c search_path={asked.schema} -c synchronous_commit=on {dropped}"
    engine = PostgresEngine(replace(asked, conninfo=Secret(make_conninfo(url, options=options))), threads=1)
    with pytest.raises(StoreUnavailable, match="a pooler in between"):
        await engine.open()
    await engine.close()
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE tablename = 'message'").fetchone() == (0,)


@pytest.mark.parametrize(
    ("said", "cause", "remedy"),
    [
        ("FATAL: unsupported startup parameter: options", "store.unreachable", "a pooler"),
        ("SSL error: certificate verify failed", "store.unreachable", "sslrootcert"),
        ('FATAL: password authentication failed for user "dingbridge"', "store.password", "pg_hba.conf"),
        ("session is read-only", "store.readonly", "leads"),
        ("Connection refused", "store.unreachable", "is the server up"),
        ('FATAL: database "password" does not exist', "store.unreachable", "createdb"),
        ('FATAL: role "authentication" does not exist', "store.password", "createuser"),
        ("server does not support SSL, but SSL was required", "store.unreachable", "switch ssl on"),
        ("failed to resolve host 'db': [Errno -2]", "store.unreachable", "host's name"),
        ("FATAL: sorry, too many clients already", "store.unreachable", "each has 7 connections"),
        ("FATAL: too many connections for role", "store.unreachable", "each has 7 connections"),
        ("FATAL: remaining connection slots are reserved", "store.unreachable", "each has 7 connections"),
        ('invalid gssencmode value: "x"', "store.unreachable", "correct it in [store] url"),
        ("FATAL: the database system is starting up", "store.unreachable", "wait until"),
        ("FATAL: something else", "store.unreachable", "PostgreSQL's log"),
    ],
)
def test_what_libpq_says_is_explained(said: str, cause: str, remedy: str) -> None:
    """Refusals of the connection lead to what an operator can do."""
    told = explained(psycopg.OperationalError(said), "here")
    assert told.cause == cause
    assert remedy in told.detail
    assert ("is the server up" in told.detail) == (said == "Connection refused")


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (psycopg.errors.AdminShutdown("terminating connection"), "is the server up"),
        (psycopg.errors.QueryCanceled("statement timeout"), "PostgreSQL's log"),
        (psycopg.errors.ProgramLimitExceeded("index row size"), "PostgreSQL's log"),
    ],
)
def test_a_server_that_answers_is_not_looked_for(error: psycopg.Error, remedy: str) -> None:
    """Only where the connection is lost the operator is sent to the network."""
    assert remedy in explained(error, "here").detail
