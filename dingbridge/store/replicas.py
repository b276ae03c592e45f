"""The daemons of one store: who they are, and when each was last heard of. Statements for PostgreSQL only."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dingbridge.store.engine import Connection

GONE_S = 24 * 3600.0
# The database's clock, which counts for all daemons, in seconds since the epoch.
NOW = "extract(epoch FROM clock_timestamp())::double precision"


@dataclass(frozen=True, slots=True)
class Replica:
    """facts: what it told of itself; `clock_s`: so much is its machine's clock ahead of the store's.

    Times are seconds of the store's clock. silent_s: how long nothing was heard of it. live: shorter than a lease.
    """

    name: str
    host: str
    pid: int
    started_at: float
    beat_at: float
    facts: Mapping[str, Any]
    silent_s: float
    live: bool


def beat(c: Connection, name: str, *, started_at: float, now: float, facts: Mapping[str, Any]) -> None:
    """Tell that this one lives; who has been silent for a day is forgotten."""
    c.execute(
        "INSERT INTO replica VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET host = excluded.host,"
        " pid = excluded.pid, started_at = excluded.started_at,"
        " beat_at = excluded.beat_at, facts = excluded.facts",
        (name, socket.gethostname(), os.getpid(), started_at, now, json.dumps(facts, ensure_ascii=False)),
    )
    c.execute("DELETE FROM replica WHERE beat_at < ?", (now - GONE_S,))


def listed(c: Any, lease_s: float) -> list[Replica]:
    """By the database's clock: who looks may have another one. c: a Connection, or psycopg's."""
    rows = c.execute(
        f"SELECT id, host, pid, started_at, beat_at, facts, greatest(0, {NOW} - beat_at) FROM replica ORDER BY id"
    ).fetchall()
    return [
        Replica(name, host, pid, started_at, beat_at, json.loads(facts), silent_s, silent_s < lease_s)
        for name, host, pid, started_at, beat_at, facts, silent_s in rows
    ]


def leave(c: Connection, name: str) -> None:
    c.execute("DELETE FROM replica WHERE id = ?", (name,))
