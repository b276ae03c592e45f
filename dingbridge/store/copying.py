"""From an SQLite file into PostgreSQL: every row, in batches that survive a kill, and in the end each one compared.

While the copy is not finished a note in the table `copied` keeps daemons away. It goes on behind the greatest id that
is there already. A text keeps everything but the character 0, which PostgreSQL cannot hold.
"""

from __future__ import annotations

import hashlib
import json
import socket
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from dingbridge.errors import StoreError, StoreUnavailable
from dingbridge.store import recovery
from dingbridge.store.alone import alone_on, now
from dingbridge.store.lock import take_lock
from dingbridge.store.migrating import require_file
from dingbridge.store.postgres_engine import Address
from dingbridge.store.postgres_schema import bring_up
from dingbridge.store.postgres_wire import PostgresConnection
from dingbridge.store.schema import MIGRATIONS, version_of
from dingbridge.store.sqlite_engine import explained

BATCH = 5000  # rows in a transaction
FETCH = 500  # rows at once from the server
# What a table's rows are in order of; only the first may be large.
TABLES: dict[str, tuple[str, ...]] = {
    "message": ("id",),
    "lane": ("key",),
    "context": ("robot", "conversation", "person"),
    "webhook": ("robot", "conversation"),
    "person": ("robot", "person"),
    "vote": ("robot", "key", "person"),
    "handover": ("robot", "key"),
    "page": ("hash",),
    "spent": ("robot", "month", "day", "pool", "kind"),
}
_BOOLEAN, _TEXT = 16, 25  # PostgreSQL's numbers of the types
Raw = psycopg.Connection[Any]
Tell = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Copied:
    """rows: of each table. returned: messages that were in work when their daemon died, due again.

    done: False where it had all been done before.
    """

    source: Path
    rows: dict[str, int]
    digest: str
    returned: int = 0
    done: bool = True


@dataclass(frozen=True, slots=True)
class _Table:
    name: str
    columns: tuple[str, ...]
    flags: tuple[int, ...]  # places of the booleans, which SQLite keeps as numbers
    texts: frozenset[str]  # columns that hold text

    @property
    def order(self) -> tuple[str, ...]:
        return TABLES[self.name]


def copy(source: Path, where: Address, robot: str, tell: Tell = lambda *_: None) -> Copied:
    """No daemon may run on either; both are locked.

    robot: whose messages they must be, some at least.
    tell: "copy" or "verify", rows done, rows in all.

    Raises:
        StoreLocked: a daemon runs on one of them.
        StoreUnavailable: the file is no store of this version; the target holds something else; rows differ.
    """
    require_file(source)
    with take_lock(source), _reading(source) as lite, alone_on(where) as raw:
        bring_up(raw, where.schema)
        tables = [_table(raw, name) for name in TABLES]
        total = _require_robot(lite, source, robot)
        if before := _begin(raw, where, source, lambda: _digest(lite, tables)):
            return before
        for table in tables:
            _fill(lite, raw, table, lambda done: tell("copy", done, total))
        rows, digest = _compare_all(lite, raw, tables, lambda done: tell("verify", done, total))
        returned = _finish(lite, raw, where, rows, digest)
        raw.execute("ANALYZE " + ", ".join(TABLES))
        return Copied(source, rows, digest, returned)


# -- the file


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)) as lite:
            lite.text_factory = _text
            lite.create_function("kept", 1, lambda text: text.replace("\0", "�"), deterministic=True)
            _require_this_version(lite, path)
            lite.execute("BEGIN")
            yield lite
    except sqlite3.Error as error:
        raise explained(error, path) from error


def _text(stored: bytes) -> str:
    """As PostgreSQL can hold it, and as the daemon writes it there."""
    return stored.decode("utf-8", "replace").replace("\0", "�")


def _require_this_version(lite: sqlite3.Connection, path: Path) -> None:
    version = version_of(lite)
    if not version:
        raise StoreUnavailable(f"{path} is no store of dingbridge", retryable=False)
    if version > len(MIGRATIONS):
        raise StoreUnavailable(
            f"{path} is of a newer dingbridge (schema {version}, this one knows {len(MIGRATIONS)}): use that one",
            retryable=False,
            cause="store.newer",
        )
    if version < len(MIGRATIONS):
        raise StoreUnavailable(
            f"{path} is of an older dingbridge (schema {version}, this one needs {len(MIGRATIONS)}): first call "
            "`dingbridge store migrate` with the configuration whose [store] url names this file",
            retryable=False,
        )


def _stand(path: Path) -> str:
    """Another one after every write to the file; reading it changes nothing."""
    stands = []
    for one in (path, path.with_name(path.name + "-wal")):
        stat = one.stat() if one.exists() else None
        stands.append([stat.st_size, stat.st_mtime_ns] if stat and stat.st_size else [])
    return json.dumps(stands)


def _require_robot(lite: sqlite3.Connection, path: Path, robot: str) -> int:
    """How many messages there are. The answers would be sent by the wrong one."""
    (count,) = lite.execute("SELECT count(*) FROM message").fetchone()
    if count and not lite.execute("SELECT 1 FROM message WHERE robot = ? LIMIT 1", (robot,)).fetchone():
        (other,) = lite.execute("SELECT robot FROM message ORDER BY id DESC LIMIT 1").fetchone()
        raise StoreUnavailable(
            f"{path} holds the messages of robot {other}, and the configuration is of {robot}: "
            "copy with the configuration of that robot",
            retryable=False,
        )
    return int(count)


def _digest(lite: sqlite3.Connection, tables: Sequence[_Table]) -> str:
    digest = hashlib.sha256()
    for row in chain.from_iterable(_stored(lite, table) for table in tables):
        digest.update(repr(row).encode())
    return digest.hexdigest()


def _stored(lite: sqlite3.Connection, table: _Table, behind: int = 0) -> Iterator[tuple[Any, ...]]:
    """In order, as PostgreSQL is to hold them; messages from behind this id on."""
    order = ", ".join(f"kept({one})" if one in table.texts else one for one in table.order)
    where = f"WHERE id > {behind}" if table.name == "message" else ""
    flags = table.flags
    for row in lite.execute(f"SELECT {', '.join(table.columns)} FROM {table.name} {where} ORDER BY {order}"):
        if not flags:
            yield row
            continue
        changed = list(row)
        for place in flags:
            changed[place] = bool(changed[place])
        yield tuple(changed)


# -- the target


def _table(raw: Raw, name: str) -> _Table:
    columns = raw.execute(sql.SQL("SELECT * FROM {} LIMIT 0").format(sql.Identifier(name))).description or []
    flags = tuple(place for place, column in enumerate(columns) if column.type_code == _BOOLEAN)
    texts = frozenset(column.name for column in columns if column.type_code == _TEXT)
    return _Table(name, tuple(column.name for column in columns), flags, texts)


def _begin(raw: Raw, where: Address, source: Path, digest_of: Callable[[], str]) -> Copied | None:
    """Note that a copy is under way; what was done where one has ended. What a stale one has brought is thrown away."""
    stand = _stand(source)
    named = f"{socket.gethostname()}:{source.absolute()}"
    found = raw.execute("SELECT source, stand, ended_at, rows, digest FROM copied").fetchone()
    if found is None:
        with raw.transaction():
            _require_empty(raw, where)
            raw.execute("INSERT INTO copied VALUES (%s, %s, %s)", (named, stand, now(raw)))
        return None
    known, known_stand, ended_at, rows, digest = found
    if known != named:
        what = "holds a copy" if ended_at is not None else "holds the beginning of a copy"
        raise StoreUnavailable(f"store {where.place}: {what} of {known}; {_emptied(where)}", retryable=False)
    if ended_at is not None and (stand == known_stand or digest_of() == digest):
        return Copied(source, json.loads(rows), digest, done=False)
    if ended_at is not None:
        raise StoreUnavailable(
            f"store {where.place}: {source} was copied here already and has been used since; what came into both "
            f"cannot be put together. To copy it anew: {_emptied(where)}",
            retryable=False,
        )
    if stand != known_stand:
        with raw.transaction():
            for table in TABLES:
                raw.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))
            raw.execute("UPDATE copied SET stand = %s", (stand,))
    return None


def _require_empty(raw: Raw, where: Address) -> None:
    for table in TABLES:
        if raw.execute(sql.SQL("SELECT 1 FROM {} LIMIT 1").format(sql.Identifier(table))).fetchone():
            raise StoreUnavailable(
                f"store {where.place}: holds other data already (table {table}); {_emptied(where)}", retryable=False
            )


def _emptied(where: Address) -> str:
    return (
        "name an empty database in [store] url; or, where nobody needs what is there, with psql: "
        f'DROP SCHEMA "{where.schema}" CASCADE (this deletes all messages in it; pg_dump before)'
    )


def _fill(lite: sqlite3.Connection, raw: Raw, table: _Table, tell: Callable[[int], None]) -> None:
    """Messages in batches, behind those that are there; what else there is in one transaction a table."""
    if table.name == "message":
        (greatest, done) = raw.execute("SELECT coalesce(max(id), 0), count(*) FROM message").fetchone() or (0, 0)
        size = BATCH
    elif raw.execute(sql.SQL("SELECT 1 FROM {} LIMIT 1").format(sql.Identifier(table.name))).fetchone():
        return
    else:
        greatest, done, size = 0, 0, None
    rows = _stored(lite, table, greatest)
    into = sql.SQL("COPY {} ({}) FROM STDIN").format(
        sql.Identifier(table.name), sql.SQL(", ").join(map(sql.Identifier, table.columns))
    )
    for first in rows:
        with raw.transaction(), raw.cursor().copy(into) as stream:
            for row in chain([first], islice(rows, size - 1 if size else None)):
                stream.write_row(row)
                done += 1
        if size:
            tell(done)


def _compare_all(
    lite: sqlite3.Connection, raw: Raw, tables: Sequence[_Table], tell: Callable[[int], None]
) -> tuple[dict[str, int], str]:
    digest = hashlib.sha256()
    counts = {}
    with raw.transaction():
        raw.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        for table in tables:
            count = 0
            for count, row in enumerate(_equal(lite, raw, table), start=1):
                digest.update(repr(row).encode())
                if count % FETCH == 0 and table.name == "message":
                    tell(count)
            counts[table.name] = count
    return counts, digest.hexdigest()


def _equal(lite: sqlite3.Connection, raw: Raw, table: _Table) -> Iterator[tuple[Any, ...]]:
    """The rows of both, one after another. Raises StoreUnavailable at the first one that differs."""
    order = ", ".join(f'{one} COLLATE "C"' if one in table.texts else one for one in table.order)
    with raw.cursor(name="kept") as kept:
        kept.itersize = FETCH
        kept.execute(f"SELECT {', '.join(table.columns)} FROM {table.name} ORDER BY {order}".encode())
        for mine, theirs in zip_longest(_stored(lite, table), kept):
            if mine != theirs:
                raise _differs(table, mine, theirs)
            yield mine


def _differs(table: _Table, mine: tuple[Any, ...] | None, theirs: tuple[Any, ...] | None) -> StoreError:
    """Which row and which columns; not what stands in them."""
    row = dict(zip(table.columns, mine or theirs or (), strict=True))
    where = ", ".join(f"{one} {row[one]}" for one in table.order)
    if (
        mine is None
        or theirs is None
        or any(mine[table.columns.index(one)] != theirs[table.columns.index(one)] for one in table.order)
    ):
        how = "is on one side only"
    else:
        differ = [one for one, a, b in zip(table.columns, mine, theirs, strict=True) if a != b]
        how = f"differs in {', '.join(differ)}"
    return StoreUnavailable(
        f"the copy is not like its source: {table.name} {where} {how}; something has changed it meanwhile. "
        "Throw the copy away (DROP SCHEMA … CASCADE), and copy again",
        retryable=False,
    )


def _finish(lite: sqlite3.Connection, raw: Raw, where: Address, rows: dict[str, int], digest: str) -> int:
    """What a start of the only daemon does: what was in work is due again, and a part in sending is uncertain."""
    (greatest,) = lite.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'message'").fetchone()

    def finish(c: PostgresConnection) -> int:
        recovered = recovery.recover(c, owner="", now=at, wipe=True)
        recovery.hurry(c, now=at)
        if greatest:
            c.execute("SELECT setval(pg_get_serial_sequence('message', 'id'), ?)", (greatest,))
        c.execute("UPDATE copied SET ended_at = ?, rows = ?, digest = ?", (at, json.dumps(rows), digest))
        return recovered.returned

    at = now(raw)
    return PostgresConnection(raw, where.schema).transact(finish)
