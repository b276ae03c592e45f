"""The daemons of one store: who they are, and when each was last heard of. Statements for PostgreSQL only."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dingbridge import __version__
from dingbridge.store.engine import Connection

GONE_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Replica:
    """facts: what it told of itself. Times are seconds of the store's clock."""

    name: str
    host: str
    pid: int
    version: str
    started_at: float
    beat_at: float
    facts: Mapping[str, Any]

    def live(self, now: float, lease_s: float) -> bool:
        """Heard of within the time of a lease."""
        return self.beat_at > now - lease_s


def beat(c: Connection, name: str, *, started_at: float, now: float, facts: Mapping[str, Any]) -> None:
    """Tell that this one lives; who has been silent for a day is forgotten."""
    c.execute(
        "INSERT INTO replica VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET host = excluded.host,"
        " pid = excluded.pid, version = excluded.version, started_at = excluded.started_at,"
        " beat_at = excluded.beat_at, facts = excluded.facts",
        (name, socket.gethostname(), os.getpid(), __version__, started_at, now, json.dumps(facts, ensure_ascii=False)),
    )
    c.execute("DELETE FROM replica WHERE beat_at < ?", (now - GONE_S,))


def listed(c: Connection) -> list[Replica]:
    rows = c.execute("SELECT id, host, pid, version, started_at, beat_at, facts FROM replica ORDER BY id").fetchall()
    return [Replica(*rest, json.loads(facts)) for *rest, facts in rows]


def leave(c: Connection, name: str) -> None:
    c.execute("DELETE FROM replica WHERE id = ?", (name,))
