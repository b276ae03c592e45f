"""The pages on which answers are read: who knows a page's token sees it until it expires, and may vote once.

Of a token only its hash is stored. What a page shows is its message's row; when that is gone, so is the page.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from dingbridge.model import Answer
from dingbridge.store.codec import decode_answer, decode_message
from dingbridge.store.engine import Connection, Engine
from dingbridge.store.work import UNREADABLE

TOKEN_BYTES = 16
MAX_COMMENT = 500  # characters
Verdict = Literal["good", "bad"]

_FIND = """
    SELECT m.robot, m.key, m.code, m.route, m.body, m.answer, m.answered_at, p.until, v.verdict, v.comment
    FROM page p JOIN message m ON m.id = p.message
    LEFT JOIN vote v ON v.robot = m.robot AND v.key = m.key AND v.person = ?
    WHERE p.hash = ? AND p.until > ? AND m.outcome IN ('answered', 'partial', 'refused')
"""
_VOTE = """
    INSERT INTO vote (robot, key, person, code, verdict, comment, voted_at, route, question, answer)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (robot, key, person)
    DO UPDATE SET verdict = excluded.verdict, comment = excluded.comment, voted_at = excluded.voted_at
"""


@dataclass(frozen=True, slots=True)
class AnswerPage:
    """What one page shows. Times are seconds of the store's clock. verdict: this page's vote, empty without one."""

    code: str
    route: str
    question: str
    answer: Answer
    answered_at: float
    until: float
    verdict: str = ""
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
        found = await self._engine.run(lambda c: _find(c, _hash(token), now))
        return found[2] if found is not None else None

    async def vote(self, token: str, verdict: Verdict, comment: str = "") -> bool:
        """This page's one vote, instead of the one before; nobody is named. False where there is no such page."""
        now, digest = self._clock(), _hash(token)

        def run(c: Connection) -> bool:
            found = _find(c, digest, now)
            if found is None:
                return False
            message, answer, page = found
            c.execute(
                _VOTE,
                (
                    *(*message, _person(digest), page.code, verdict, comment[:MAX_COMMENT], now, page.route),
                    *(page.question, answer),
                ),
            )
            return True

        return await self._engine.run(run)


def forget(c: Connection, *, now: float) -> None:
    """Drop what cannot be opened any more."""
    c.execute("DELETE FROM page WHERE until <= ?", (now,))


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _person(digest: str) -> str:
    return f"page:{digest[:16]}"


def _find(c: Connection, digest: str, now: float) -> tuple[tuple[str, str], str, AnswerPage] | None:
    """(robot, key), the answer as it is stored, and the page."""
    found = c.execute(_FIND, (_person(digest), digest, now)).fetchone()
    if found is None:
        return None
    robot, key, code, route, body, answer, answered_at, until, verdict, comment = found
    try:
        message = decode_message(robot=robot, key=key, body=body, webhook="", webhook_expires=None)
        page = AnswerPage(
            code=code,
            route=route or "",
            question=message.text,
            answer=decode_answer(answer),
            answered_at=float(answered_at),
            until=until,
            verdict=verdict or "",
            comment=comment or "",
        )
    except UNREADABLE:  # wiped, or asked again and not answered yet
        return None
    return (robot, key), answer, page
