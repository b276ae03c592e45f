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


@dataclass(frozen=True, slots=True)
class Replica:
    """facts: what it told of itself. Times are seconds of the store's clock."""

    name: str
    host: str
    pid: int
    started_at: float
    beat_at: float
    facts: Mapping[str, Any]

    def live(self, now: float, lease_s: float) -> bool:
        """Heard of within the time of a lease."""
        return self.beat_at > now - lease_s


def beat(c: Connection, name: str, *, started_at: float, now: float, facts: Mapping[str, Any]) -> None:
    """Tell that this one lives; who has been silent for a day is forgotten."""
    c.execute(
        "INSERT INTO replica VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET host = excluded.host,"
        " pid = excluded.pid, started_at = excluded.started_at,"
        " beat_at = excluded.beat_at, facts = excluded.facts",
        (name, socket.gethostname(), os.getpid(), started_at, now, json.dumps(facts, ensure_ascii=False)),
    )
    c.execute("DELETE FROM replica WHERE beat_at < ?", (now - GONE_S,))


def listed(c: Connection) -> list[Replica]:
    rows = c.execute("SELECT id, host, pid, started_at, beat_at, facts FROM replica ORDER BY id").fetchall()
    return [
        Replica(name, host, pid, started_at, beat_at, json.loads(facts))
        for name, host, pid, started_at, beat_at, facts in rows
    ]


def leave(c: Connection, name: str) -> None:
    c.execute("DELETE FROM replica WHERE id = ?", (name,))
