"""What the daemons of one store share beside the inbox: buckets, and DingTalk's token. Statements for PostgreSQL only.

None of it has to outlive a crash of the database, so nobody waits for its disk.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dingbridge.bucket import Bucket, Step
from dingbridge.model import Secret
from dingbridge.store.engine import Connection, Engine

_ONLY = "access"  # of the one robot


@dataclass(frozen=True, slots=True)
class HeldToken:
    """token: empty where there is none to use. left_s: how long it may be used. yours: to fetch one is on the caller.

    Neither a token nor one's own to fetch: somebody else is fetching it.
    """

    token: Secret = Secret()  # noqa: RUF009 - frozen and empty
    left_s: float = 0.0
    yours: bool = False


class Shared:
    """clock: the store's, in seconds. Every method raises StoreError."""

    def __init__(self, engine: Engine, clock: Callable[[], float]) -> None:
        self._engine = engine
        self._clock = clock

    async def change(self, name: str, step: Step) -> tuple[float, Bucket]:
        """What `step` makes of the bucket of that name, which nobody else changes meanwhile."""
        return await self._engine.run(lambda c: _change(c, name, step))

    async def token(self, refused: Secret, *, claim_s: float) -> HeldToken:
        """The token, if there is one that lives and is not the refused one. To fetch it falls to one for `claim_s`."""
        return await self._engine.run(lambda c: _token(c, refused, now=self._clock(), claim_s=claim_s))

    async def keep_token(self, token: Secret, lasts_s: float) -> None:
        """What was fetched."""
        until = self._clock() + lasts_s
        await self._engine.run(lambda c: _keep_token(c, token, until))

    async def release_token(self) -> None:
        """It was not to be had: the next one may try."""
        await self._engine.run(lambda c: c.execute("UPDATE token SET claimed_until = 0"))


def _change(c: Connection, name: str, step: Step) -> tuple[float, Bucket]:
    c.execute("SET LOCAL synchronous_commit = off")
    select = "SELECT level, at, turns FROM bucket WHERE name = ? FOR UPDATE"
    if (found := c.execute(select, (name,)).fetchone()) is None:
        new = Bucket()
        c.execute("INSERT INTO bucket VALUES (?, ?, 0, '{}', 0) ON CONFLICT DO NOTHING", (name, new.left))
        found = c.execute(select, (name,)).fetchone()
    level, at, turns = found
    wait_s, bucket = step(Bucket(level, at, json.loads(turns)))
    c.execute(
        "UPDATE bucket SET level = ?, at = ?, turns = ?, idle_at = ? WHERE name = ?",
        (bucket.left, bucket.at, json.dumps(dict(bucket.turns)), bucket.idle_at, name),
    )
    return wait_s, bucket


def _token(c: Connection, refused: Secret, *, now: float, claim_s: float) -> HeldToken:
    c.execute("SET LOCAL synchronous_commit = off")
    c.execute("INSERT INTO token VALUES (?, '', 0, 0) ON CONFLICT DO NOTHING", (_ONLY,))
    value, until, claimed_until = c.execute("SELECT value, until, claimed_until FROM token FOR UPDATE").fetchone()
    token = Secret(value)
    if token and until > now and token != refused:
        return HeldToken(token, until - now)
    if claimed_until > now:
        return HeldToken()
    c.execute("UPDATE token SET value = '', claimed_until = ?", (now + claim_s,))
    return HeldToken(yours=True)


def _keep_token(c: Connection, token: Secret, until: float) -> None:
    c.execute("SET LOCAL synchronous_commit = off")
    c.execute(
        "INSERT INTO token VALUES (?, ?, ?, 0)"
        " ON CONFLICT (name) DO UPDATE SET value = excluded.value, until = excluded.until, claimed_until = 0",
        (_ONLY, token.reveal(), until),
    )


def forget(c: Any, *, now: float) -> None:
    """Buckets that are as good as new, and a token that has ended."""
    c.execute("DELETE FROM bucket WHERE idle_at < ?", (now,))
    c.execute("UPDATE token SET value = '' WHERE value <> '' AND until < ?", (now,))
