"""A few threads, each with a connection to PostgreSQL and a transaction for each piece of work.

PostgreSQL flushes what commits at the same time together. A connection that breaks is made anew; whoever asks
meanwhile is told at once, and tries again as with a full disk.
"""

from __future__ import annotations

import asyncio
import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, TypeVar

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from dingbridge.errors import ConfigError, StoreError, StoreUnavailable
from dingbridge.model import Secret
from dingbridge.store.engine import Engine, Job, fail
from dingbridge.store.postgres_schema import migrate
from dingbridge.store.postgres_wire import PostgresConnection

T = TypeVar("T")
THREADS = 6
CONNECT_S = 5
RUN_S = 20.0  # a database that hangs
TRIES = 6
AGAIN_S = 0.5
CLOSE_S = 3.0
_AGAIN = (errors.SerializationFailure, errors.DeadlockDetected, errors.UniqueViolation)


_ENCODE = "write @ : / ? # % and blanks of a password as %40 %3A %2F %3F %23 %25 %20, or use [store] password"
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
# Another connection may do better: to the server that leads now, or without statements prepared for other tables.
_ELSEWHERE = (
    errors.ReadOnlySqlTransaction,
    errors.AdminShutdown,
    errors.CrashShutdown,
    errors.FeatureNotSupported,
    errors.InvalidSqlStatementName,
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where the tables are. conninfo: what libpq takes, with the password. place: how it is named, without."""

    conninfo: Secret
    schema: str
    place: str


def address(url: Secret, password: Secret, schema: str) -> Address:
    """Raises ConfigError for what libpq does not understand."""
    try:
        given = conninfo_to_dict(url.reveal())
    except psycopg.ProgrammingError as error:
        raise ConfigError([f"store.url: {_misread(str(error))}"]) from None
    astray = (str(given.get("host") or "")[1:], str(given.get("dbname") or ""))
    wrong_port = re.search(r"[^\d,]", str(given.get("port") or ""))
    in_two = any("@" in part for part in astray)
    if wrong_port and not in_two and not given.get("password"):
        raise ConfigError(["store.url: the port must be a number"])
    if in_two or wrong_port:
        raise ConfigError([f"store.url: a part of its password would be taken for host, port or database; {_ENCODE}"])
    if given.get("sslmode", _SSL_MODES[0]) not in _SSL_MODES:
        raise ConfigError([f"store.url: sslmode must be one of {', '.join(_SSL_MODES)}"])
    settings = {
        "search_path": f'"{schema}"',
        "synchronous_commit": "on",  # acknowledged means kept, whatever the server's default
        "default_transaction_isolation": r"read\ committed",
        "statement_timeout": f"{RUN_S:.0f}s",
        "idle_in_transaction_session_timeout": "10s",  # of a daemon that is stopped; others wait for its locks
        # Of a daemon whose machine is gone: by the system's default its name and its chores stay taken for two hours.
        "tcp_keepalives_idle": "5",
        "tcp_keepalives_interval": "3",
        "tcp_keepalives_count": "3",
    }
    options = " ".join([str(given.get("options") or ""), *(f"-c {name}={value}" for name, value in settings.items())])
    defaults: dict[str, str | int] = {
        "connect_timeout": CONNECT_S,
        "keepalives_idle": 5,
        "keepalives_interval": 3,
        "keepalives_count": 3,
        "tcp_user_timeout": 15_000,
        "target_session_attrs": "read-write",  # of several hosts the one that leads
        "application_name": "dingbridge",
        "client_encoding": "UTF8",
    }
    wanted = {key: value for key, value in defaults.items() if not given.get(key)}
    if password:
        wanted["password"] = password.reveal()
    whole = make_conninfo(url.reveal(), **wanted, options=options)
    shown = {**given, "password": None, "options": None}
    where = " ".join(f"{k}={v}" for k, v in shown.items() if v and k in ("host", "port", "dbname", "user"))
    return Address(Secret(whole), schema, f"PostgreSQL {where or 'of libpq'}, schema {schema}")


def _misread(said: str) -> str:
    """What libpq quotes may be the password; a parameter's name is shown where it is like one that there is."""
    if found := re.search('invalid URI query parameter: "([^"]*)"', said):
        known = [option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()]
        near = get_close_matches(found[1], known, 1)
        return f"unknown parameter {found[1]}, did you mean {near[0]}?" if near else "unknown parameter behind the ?"
    text = re.sub('"[^"]*"', '"…"', " ".join(said.split()))
    return f"{text}; {_ENCODE}"


class PostgresEngine(Engine):
    """prepared_by: what is done with the tables when the first connection is open.

    run_s: what takes longer is torn off. Whether it has been done is not known.
    """

    def __init__(
        self,
        where: Address,
        *,
        threads: int = THREADS,
        on_commit: Callable[[float], None] = lambda _: None,
        on_trouble: Callable[[StoreError | None], None] = lambda _: None,
        run_s: float = RUN_S,
    ) -> None:
        super().__init__(where.place, threads=threads, on_commit=on_commit, on_trouble=on_trouble)
        self._where = where
        self._run_s = run_s
        self._refused: tuple[float, psycopg.Error] | None = None
        self._connections: dict[int, PostgresConnection] = {}  # by thread
        self._torn = False
        self.prepared_by: Callable[[Any, str], None] = migrate

    def _submit(self, work: Callable[[Any], Any]) -> Job:
        job = super()._submit(work)
        limit = job.future.get_loop().call_later(self._run_s, self._give_up, job)
        job.future.add_done_callback(lambda _: limit.cancel())
        return job

    def _give_up(self, job: Job) -> None:
        """Who waits is told. It is torn off also where nobody waits any more, or its thread would hang for ever."""
        if job.future.done():  # after all: both at once, where this process was stopped for a while
            return
        job.given_up = True
        if job.connection is not None:
            job.connection.abort()
        hangs = StoreUnavailable(
            f"store {self.place}: no answer within {self._run_s:.0f} s; is the server stopped, its network cut, "
            "or a synchronous standby missing (SELECT * FROM pg_stat_replication)?",
            cause="store.unreachable",
        )
        self._trouble(hangs)
        fail(job.future, hangs)

    async def close(self) -> None:
        """What hangs is torn off after a moment; whether it has been done is not known."""
        tearing = asyncio.get_running_loop().call_later(CLOSE_S, self._tear)
        try:
            await super().close()
        finally:
            tearing.cancel()

    def _tear(self) -> None:
        self._torn = True
        for connection in list(self._connections.values()):
            connection.abort()

    def prepare(self) -> PostgresConnection:
        try:
            connection = self._connect()
            try:
                self.prepared_by(connection.raw, self._where.schema)
            except BaseException:
                connection.raw.close()
                raise
        except psycopg.Error as error:
            raise self._explained(error) from None
        return connection

    def serve(self, prepared: PostgresConnection | None) -> None:
        connection = prepared
        try:
            while (job := self._jobs.get()) is not None:
                if self._torn:
                    job.error = self._refusal()
                    self._resolve([job])
                elif not job.given_up:
                    connection = self._do(connection, job)
                    job.connection = None
                    self._resolve([job])
            self._jobs.put(None)  # for the next thread
        finally:
            if connection is not None:
                connection.raw.close()

    def _do(self, connection: PostgresConnection | None, job: Job) -> PostgresConnection | None:
        """Work may be done anew: it was undone, or whether it was is not known and every piece bears it twice."""
        for tries in range(1, TRIES + 1):
            try:
                connection = job.connection = connection or self._connect(job)
                if job.given_up or self._torn:  # just now
                    job.error = self._refusal()
                    break
                self._once(connection, job)
            except psycopg.Error as error:
                job.error = failed = self._explained(error)
                again = isinstance(error, _AGAIN)
                if connection is not None and (connection.raw.closed or isinstance(error, _ELSEWHERE)):
                    connection.raw.close()
                    connection = None
                    again = tries == 1
                if not again or tries == TRIES or job.given_up or self._torn:
                    self._trouble(failed)
                    break
                time.sleep(random.uniform(0, 0.01) * tries if isinstance(error, _AGAIN) else 0)  # noqa: S311 - spreads
            except Exception as error:  # noqa: BLE001 - work's own, for its caller
                job.error = error
                break
            else:
                break
        return connection

    def _once(self, connection: PostgresConnection, job: Job) -> None:
        job.error = None
        started = time.perf_counter()
        job.result = connection.transact(job.work)
        self.commits += 1
        self._on_commit(time.perf_counter() - started)
        if connection.wrote and (connection.put or _is_unreachable(self.last_error)):
            self._trouble(None)

    def _connect(self, job: Job | None = None) -> PostgresConnection:
        """Refused once, it is refused at once for a moment. job: with whom it is torn off."""
        if self._refused is not None and time.monotonic() - self._refused[0] < AGAIN_S:
            raise self._refused[1].with_traceback(None)
        try:
            raw = psycopg.connect(self._where.conninfo.reveal(), autocommit=True)
        except psycopg.Error as error:
            self._refused = (time.monotonic(), error)
            raise
        self._refused = None
        connection = self._connections[threading.get_ident()] = PostgresConnection(raw, self._where.schema)
        if job is not None:
            job.connection = connection
        if self._torn or (job is not None and job.given_up):  # while it connected
            connection.abort()
        try:
            self._expect_settings(raw)
        except BaseException:
            raw.close()
            raise
        return connection

    def _expect_settings(self, raw: psycopg.Connection[Any]) -> None:
        """A pooler may drop what a connection asked for; then tables would be looked for, and made, elsewhere."""
        found = raw.execute("SELECT current_setting('search_path'), current_setting('synchronous_commit')").fetchone()
        if found != (f'"{self._where.schema}"', "on"):
            raise StoreUnavailable(f"store {self.place}: {_POOLER}", retryable=False, cause="store.unreachable")

    def _explained(self, error: psycopg.Error) -> StoreError:
        return explained(error, self.place)


def _is_unreachable(error: StoreError | None) -> bool:
    """Over as soon as anything is written; every other trouble when a message could be kept again.

    Reading proves nothing, it works on a full disk too; nor does a heartbeat, where one table may not be written.
    """
    return error is not None and error.cause == "store.unreachable"


def explained(error: psycopg.Error, place: str) -> StoreError:
    """The operator's words for what PostgreSQL says; its own never hold the password."""
    text = _ASKED.sub("", " ".join(str(error).split())) or type(error).__name__
    for kinds, remedy, cause in _KIND_CAUSES:
        if isinstance(error, kinds):
            return StoreUnavailable(f"store {place}: {text}; {remedy}", cause=cause)
    if isinstance(error, psycopg.OperationalError) and (error.sqlstate or _LOST[0]).startswith(_LOST):
        remedy, cause = _remedy_and_cause(text)
        return StoreUnavailable(f"store {place}: {text}; {remedy}", cause=cause)
    return StoreUnavailable(f"store {place}: {text}; see PostgreSQL's log")


def _remedy_and_cause(text: str) -> tuple[str, str]:
    """By the words of libpq, whose errors have no kinds, and of a server that hangs up."""
    for said, remedy, cause in _SAID_CAUSES:
        if re.search(said, text):
            return remedy, cause
    if "FATAL:" in text:  # said by a server, so that it is up and reached
        return "see PostgreSQL's log", "store.unreachable"
    return "is the server up, and does the network let this machine reach it?", "store.unreachable"


_LOST = ("08", "57P")  # classes of SQLSTATE; what has another was said by a server that is there
_POOLER = "a pooler in between drops the connection's settings: name PostgreSQL itself in [store] url"
_TOO_MANY = f"raise max_connections, or start fewer daemons: each has {THREADS + 1} connections"
_ASKED = re.compile(r" Is the server running (on that host|locally) and accepting [^?]*\?")
_SAID_CAUSES = (
    (
        'database "[^"]*" does not exist',
        "make it (createdb --encoding=UTF8 --template=template0), or correct its name in [store] url",
        "store.unreachable",
    ),
    ('role "[^"]*" does not exist', "make it (createuser), or correct its name in [store] url", "store.password"),
    ("does not support SSL", "switch ssl on there, or write another sslmode in [store] url", "store.unreachable"),
    ("[Cc]ertificate", "see sslmode, sslrootcert and the host's name in [store] url", "store.unreachable"),
    (
        "password|no pg_hba.conf entry|authentication",
        "see [store] password, and the server's pg_hba.conf",
        "store.password",
    ),
    ("session is read-only|hot standby", "name the server that leads", "store.readonly"),
    ("startup parameter", _POOLER, "store.unreachable"),
    ("too many c|connection slots", _TOO_MANY, "store.unreachable"),
    (r"invalid [\w ]*value", "correct it in [store] url", "store.unreachable"),
    ("database system is", "wait until it has started", "store.unreachable"),
    (
        "failed to resolve host",
        "correct the host's name in [store] url, or see this machine's DNS",
        "store.unreachable",
    ),
)
_KIND_CAUSES: tuple[tuple[tuple[type[psycopg.Error], ...], str, str], ...] = (
    ((errors.DiskFull,), "the server's disk is full: free some space, nothing accepted is lost", "store.full"),
    ((errors.ReadOnlySqlTransaction,), "this server only reads: name the one that leads", "store.readonly"),
    (
        (errors.InsufficientPrivilege,),
        "grant this role its rights on the schema and its tables, or let it own the database",
        "store.readonly",
    ),
    (
        (errors.InvalidPassword, errors.InvalidAuthorizationSpecification),
        "see [store] password, and the server's pg_hba.conf",
        "store.password",
    ),
    ((errors.IoError,), "the server's disk reports errors: look at its log", "store.disk"),
    ((errors.DataCorrupted, errors.IndexCorrupted), "the tables are damaged: restore a backup", "store.corrupt"),
    (
        (errors.UndefinedTable, errors.UndefinedColumn),
        "the tables are missing or of another version: call `dingbridge store migrate`",
        "store.corrupt",
    ),
    ((errors.TooManyConnections,), _TOO_MANY, "store.unreachable"),
)
