"""The pages on which answers are read: who knows a page's token sees it until it expires, and may vote once.

Of a token only its hash is stored. What a page shows is its message's row; when that is gone, so is the page.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from dingbridge.model import Told, Verdict
from dingbridge.store import answers
from dingbridge.store.engine import Connection, Engine

TOKEN_BYTES = 16
MAX_COMMENT = 500  # characters


@dataclass(frozen=True, slots=True)
class AnswerPage:
    """What one page shows. until: seconds of the store's clock. verdict: this page's vote, None without one."""

    told: Told
    until: float
    verdict: Verdict | None = None
    comment: str = ""


class AnswerPages:
    """clock: the store's. ttl_s: for how long a page can be opened. Every method raises StoreError."""

    def __init__(self, engine: Engine, clock: Callable[[], float], *, ttl_s: float) -> None:
        self._engine = engine
        self._clock = clock
        self._ttl_s = ttl_s

    async def issue(self, row: int) -> str:
        """A token of 128 random bits for the message of that row; each call gives another one."""
        token = secrets.token_urlsafe(TOKEN_BYTES)
        values = (_hash(token), row, self._clock() + self._ttl_s)
        await self._engine.run(
            lambda c: c.execute("INSERT INTO page (hash, message, until) VALUES (?, ?, ?)", values).rowcount
        )
        return token

    async def open(self, token: str) -> AnswerPage | None:
        """None where there is no such page, or no longer."""
        now = self._clock()
        return await self._engine.run(lambda c: _find(c, _hash(token), now))

    async def vote(self, token: str, verdict: Verdict, comment: str = "") -> bool:
        """The answer's one vote by its pages, instead of the one before. False where there is no such page."""
        now, digest = self._clock(), _hash(token)

        def run(c: Connection) -> bool:
            page = _find(c, digest, now)
            if page is None:
                return False
            answers.judge(c, page.told, _person(page.told), verdict, comment[:MAX_COMMENT], now=now, whole=True)
            return True

        return await self._engine.run(run)


def forget(c: Connection, *, now: float) -> None:
    """Drop what cannot be opened any more."""
    c.execute("DELETE FROM page WHERE until <= ?", (now,))


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _person(told: Told) -> str:
    """The same behind every link to an answer: whoever asks for more links has no more votes."""
    return f"page:{_hash(told.message.id)[:16]}"


def _find(c: Connection, digest: str, now: float) -> AnswerPage | None:
    page = c.execute("SELECT message, until FROM page WHERE hash = ? AND until > ?", (digest, now)).fetchone()
    if page is None:
        return None
    row, until = page
    # Gone, wiped, or asked again and not answered yet, there is nothing to show.
    found = c.execute(f"SELECT {answers.COLUMNS} FROM message WHERE id = ? AND {answers.GIVEN}", (row,)).fetchone()
    told = answers.read(found) if found is not None else None
    if told is None:
        return None
    vote = c.execute(
        "SELECT verdict, comment FROM vote WHERE robot = ? AND key = ? AND person = ?",
        (told.message.robot, told.message.id, _person(told)),
    ).fetchone()
    return AnswerPage(told, until, Verdict(vote[0]), vote[1]) if vote is not None else AnswerPage(told, until)
