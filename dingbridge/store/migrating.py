"""The tables brought to this version by an operator, before daemons with fewer rights start."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from dingbridge.errors import StoreUnavailable
from dingbridge.store.lock import take_lock
from dingbridge.store.schema import migrate, version_of
from dingbridge.store.sqlite_engine import connect, explained

if TYPE_CHECKING:
    from dingbridge.store.postgres_engine import Address


def migrate_sqlite(path: Path) -> tuple[int, int]:
    """From which version to which. Raises StoreLocked while a daemon runs, StoreUnavailable where there is no file."""
    require_file(path)
    with take_lock(path):
        try:
            with closing(connect(path)) as connection:
                before = version_of(connection)
                connection.execute("PRAGMA synchronous = FULL")
                migrate(connection)
                return before, version_of(connection)
        except sqlite3.Error as error:
            raise explained(error, path) from error


def migrate_postgres(where: Address) -> tuple[int, int]:
    """As for SQLite; the tables are made where there are none. Raises StoreLocked, which names the daemons."""
    from dingbridge.store.alone import alone_on  # noqa: PLC0415 - 20 MiB that SQLite does not need
    from dingbridge.store.postgres_schema import bring_up  # noqa: PLC0415

    with alone_on(where) as raw:
        return bring_up(raw, where.schema)


def require_file(path: Path) -> None:
    if not path.is_file():
        raise StoreUnavailable(f"there is no store at {path}: name the SQLite file of a daemon", retryable=False)
