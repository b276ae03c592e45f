"""A few threads, each with a connection to PostgreSQL and a transaction for each piece of work.

PostgreSQL flushes what commits at the same time together. A connection that breaks is made anew; whoever asks
meanwhile is told at once, and tries again as with a full disk.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
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
_AGAIN = (errors.SerializationFailure, errors.DeadlockDetected, errors.UniqueViolation)


_ENCODE = "write @ : / ? # % and blanks of a password as %40 %3A %2F %3F %23 %25 %20, or use [store] password"
_ELSEWHERE = (errors.ReadOnlySqlTransaction, errors.AdminShutdown, errors.CrashShutdown)


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
        text = re.sub('"[^"]*"', '"…"', " ".join(str(error).split()))  # it quotes what may be the password
        raise ConfigError([f"store.url: {text}; {_ENCODE}"]) from None
    astray = (str(given.get("host") or "")[1:], str(given.get("dbname") or ""))
    if any("@" in part for part in astray) or re.search(r"[^\d,]", str(given.get("port") or "")):
        raise ConfigError([f"store.url: a part of its password would be taken for host, port or database; {_ENCODE}"])
    settings = {
        "search_path": f'"{schema}"',
        "synchronous_commit": "on",  # acknowledged means kept, whatever the server's default
        "default_transaction_isolation": r"read\ committed",
        "statement_timeout": f"{RUN_S:.0f}s",
        "idle_in_transaction_session_timeout": "60s",
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


class PostgresEngine(Engine):
    """prepared_by: what is done with the tables when the first connection is open."""

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
        self.prepared_by: Callable[[Any, str], None] = migrate

    async def run(self, work: Callable[[Any], T]) -> T:
        """Not longer than `run_s`; what is stuck then is torn off. Whether it has been done is not known."""
        job = self._submit(work)
        try:
            async with asyncio.timeout(self._run_s):
                result: T = await asyncio.shield(job.future)
                return result
        except TimeoutError:
            if job.future.done():
                raise  # work's own
            job.given_up = True
            if job.connection is not None:
                job.connection.abort()
            hangs = StoreUnavailable(
                f"store {self.place}: no answer within {self._run_s:.0f} s; is the server stopped, or its network cut?",
                cause="store.unreachable",
            )
            fail(job.future, hangs)
            self._trouble(hangs)
            raise hangs from None

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
                if not job.given_up:
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
                connection = connection or self._connect()
                self._once(connection, job)
            except psycopg.Error as error:
                job.error = failed = self._explained(error)
                again = isinstance(error, _AGAIN)
                if connection is not None and (connection.raw.closed or isinstance(error, _ELSEWHERE)):
                    connection.raw.close()
                    connection = None
                    again = tries == 1
                if not again or tries == TRIES or job.given_up:
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
        job.connection, job.error = connection, None
        started = time.perf_counter()
        job.result = connection.transact(job.work)
        self.commits += 1
        self._on_commit(time.perf_counter() - started)
        if connection.wrote:  # reading works on a full disk too and proves nothing
            self._trouble(None)

    def _connect(self) -> PostgresConnection:
        """Refused once, it is refused at once for a moment."""
        if self._refused is not None and time.monotonic() - self._refused[0] < AGAIN_S:
            raise self._refused[1].with_traceback(None)
        try:
            raw = psycopg.connect(self._where.conninfo.reveal(), autocommit=True)
        except psycopg.Error as error:
            self._refused = (time.monotonic(), error)
            raise
        self._refused = None
        return PostgresConnection(raw, self._where.schema)

    def _explained(self, error: psycopg.Error) -> StoreError:
        return explained(error, self.place)


def explained(error: psycopg.Error, place: str) -> StoreError:
    """The operator's words for what PostgreSQL says; its own never hold the password."""
    text = " ".join(str(error).split()) or type(error).__name__
    for kinds, remedy, cause in _KINDS:
        if isinstance(error, kinds):
            return StoreUnavailable(f"store {place}: {text}; {remedy}", cause=cause)
    if "password" in text or "no pg_hba.conf entry" in text or "authentication" in text:
        remedy = "see [store] password, and the server's pg_hba.conf"
        return StoreUnavailable(f"store {place}: {text}; {remedy}", cause="store.password")
    if "session is read-only" in text or "hot standby" in text:
        return StoreUnavailable(f"store {place}: {text}; name the server that leads", cause="store.readonly")
    if isinstance(error, psycopg.OperationalError):
        remedy = "is the server up, and does the network let this machine reach it?"
        return StoreUnavailable(f"store {place}: {text}; {remedy}", cause="store.unreachable")
    return StoreUnavailable(f"store {place}: {text}; see PostgreSQL's log")


_KINDS: tuple[tuple[tuple[type[psycopg.Error], ...], str, str], ...] = (
    ((errors.DiskFull,), "the server's disk is full: free some space, nothing accepted is lost", "store.full"),
    ((errors.ReadOnlySqlTransaction,), "this server only reads: name the one that leads", "store.readonly"),
    (
        (errors.InsufficientPrivilege,),
        "give this role the right to: let it own the database, or the schema",
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
    ((errors.TooManyConnections,), "raise max_connections, or start fewer daemons", "store.unreachable"),
)
