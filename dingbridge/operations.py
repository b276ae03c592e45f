"""What an operator may see and do. The same words whether a daemon runs or not; a running one knows more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Protocol

import structlog

from dingbridge import __version__, bucket
from dingbridge.dingtalk import rate
from dingbridge.errors import BridgeError, StoreError
from dingbridge.journal.budget import Budget
from dingbridge.log import pseudonym
from dingbridge.reloading import Reloaded
from dingbridge.store.operate import Row, Which
from dingbridge.store.replicas import Replica
from dingbridge.store.store import Store
from dingbridge.trail import Step

log = structlog.get_logger("dingbridge.budget")

LANES = 20
FAILURES = 10
STORE_S = 3.0  # who asks waits for it; the store itself may try for longer


class NotFound(BridgeError):
    """No message is known by that code or msgId."""


class NotPossible(BridgeError):
    """The message is not in a state for that."""


class Live(Protocol):
    """A running daemon, seen from here."""

    def facts(self) -> dict[str, Any]:
        """pid, uptime_s, ready, parts, link, backend, running and quota, as `status` shows them."""

    def steps(self, row: int) -> tuple[Step, ...]:
        """What has happened to a message in work since its last write."""

    def unkept(self, wanted: str) -> Mapping[str, Any] | None:
        """A message that the store did not take, so that it was not acknowledged either."""

    async def retry(self, row: int) -> bool: ...

    async def drop(self, row: int, *, tell: bool) -> None: ...

    async def reload(self) -> Reloaded:
        """Raises ConfigError: then the old one stays."""

    async def support(self) -> dict[str, Any]:
        """Findings of `check`, and the last lines of the log."""


class Operations:
    """Answers are values for JSON: people and conversations as pseudonyms, texts only where asked for."""

    def __init__(
        self, store: Store, *, robot: str, config: str, live: Live | None = None, budget: Budget | None = None
    ) -> None:
        self._store = store
        self._robot = robot
        self._config = config
        self.live = live
        self._budget = budget

    async def status(self) -> dict[str, Any]:
        """Where the store cannot be read in time, a running daemon tells what it knows without, and why.

        Raises StoreError where none is running.
        """
        try:
            async with asyncio.timeout(STORE_S if self.live is not None else None):
                peers, stored = await self._store.peers(), await self._stored()
        except (StoreError, TimeoutError) as error:
            if self.live is None:
                raise
            why = error.detail if isinstance(error, StoreError) else self._store.trouble
            peers = self._store.peers_last_seen
            stored = {
                "queue": None,
                "lanes": [],
                "failures": [],
                "store_why": why or f"no answer within {STORE_S:.0f} s",
            }
        facts = self.live.facts() if self.live is not None else {"running": None, **await self._quota()}
        return {
            "version": __version__,
            "config": self._config,
            "store": self._store.place,
            "daemons": [self._daemon(peer, facts) for peer in peers],
            "limits": self._limits(max(1, sum(peer.live for peer in peers))),
            **stored,
            **facts,
        }

    async def _quota(self) -> dict[str, Any]:
        """As the store knows it."""
        if self._budget is None:
            return {}
        await self._budget.read()
        return {"quota": self._budget.facts()}

    async def set_used(self, used: Mapping[str, int]) -> dict[str, Any]:
        """By pool, what DingTalk's console says of this month. How both are then. Raises NotPossible, StoreError."""
        if self._budget is None:
            raise NotPossible("nothing is counted here")
        await self._budget.set_used(used)
        if self.live is not None:
            log.info("budget.corrected", **used)
        return self._budget.facts()

    async def _stored(self) -> dict[str, Any]:
        depth, now = await self._store.depth(), time.time()
        queue = {state: depth.by_state.get(state, 0) for state in ("ready", "leased", "answered", "sending")}
        failed = await self._store.listed("failed", FAILURES)
        return {
            "queue": {**queue, "dead": depth.dead, "oldest_s": round(depth.oldest_age_s, 1)},
            "lanes": [
                {
                    "lane": one.lane,
                    "person": pseudonym(one.robot, one.person),
                    "conversation": pseudonym(one.robot, one.conversation),
                    "code": one.code,
                    "state": one.state,
                    "tries": one.tries,
                    "waiting": one.waiting,
                    "oldest_s": round(max(0.0, now - one.received_at), 1),
                    "due_s": round(max(0.0, one.due_at - now), 1),
                }
                for one in await self._store.lanes(LANES)
            ],
            "failures": [
                {"code": row.code, "at": row.finished_at, "outcome": row.outcome, "cause": row.cause, "why": row.reason}
                for row in failed
            ],
            "store_why": "",
        }

    def _daemon(self, peer: Replica, facts: Mapping[str, Any]) -> dict[str, Any]:
        """As it told with its last heartbeat; the one that answers as it is now."""
        told = {key: peer.facts.get(key) for key in ("version", "ready", "link", "running", "why", "clock_s")}
        return {
            "name": peer.name,
            "host": peer.host,
            "pid": peer.pid,
            "live": peer.live,
            "silent_s": round(peer.silent_s, 1),
            "uptime_s": round(max(0.0, peer.beat_at - peer.started_at), 1),
            **told,
            "on_duty": peer.live and bool(peer.facts.get("on_duty")),
            "answers": peer.name == self._store.owner,
            **(_now(facts) if self.live is not None and peer.name == self._store.owner else {}),
        }

    def _limits(self, live: int) -> dict[str, Any]:
        """Of the robot, however many daemons it has; the calls of an API are divided by those that live."""
        limits = self._store.limits
        return {
            "chat_per_minute": bucket.PER_MINUTE,
            "per_user_per_minute": limits.per_user_per_minute,
            "waiting_per_lane": limits.waiting_per_lane,
            "api_per_second": {"all": rate.PER_SECOND, "divided_by": live},
        }

    async def trace(self, wanted: str) -> dict[str, Any]:
        """Raises NotFound."""
        row = await self._store.find(self._robot, wanted)
        if row is None:
            unkept = self.live.unkept(wanted) if self.live is not None else None
            if unkept is None:
                raise NotFound(f"no message of the last seven days has the code or msgId {wanted[:80]!r}")
            return dict(unkept)
        steps = [*row.steps, *(self.live.steps(row.row) if self.live is not None else ())]
        causes = [row.cause, *(str(step.facts.get("cause", "")) for step in steps)]
        return {
            **_seen(row),
            "lane": row.lane,
            "causes": list(dict.fromkeys(filter(None, causes))),
            "steps": [{"at": step.at, "name": step.name, **step.facts} for step in steps],
        }

    async def inbox(self, which: Which, limit: int) -> list[dict[str, Any]]:
        return [_seen(row) for row in await self._store.listed(which, limit)]

    async def show(self, wanted: str, *, texts: bool) -> dict[str, Any]:
        """One message with all its columns; the question and the answer only with `texts`. Raises NotFound."""
        row = await self._found(wanted)
        told = {"question": row.question, "answer": row.answer} if texts else {}
        kept = {"question_kept": row.text_kept, "answer_kept": bool(row.answer)}
        return {**_seen(row), "lane": row.lane, "part": row.part, "uncertain": row.uncertain, **kept, **told}

    async def retry(self, wanted: str) -> dict[str, Any]:
        """Raises NotFound, NotPossible."""
        row = await self._found(wanted)
        retry = self.live.retry if self.live is not None else self._store.retry
        if not await retry(row.row):
            if row.finished_at is None:
                raise NotPossible(f"{row.code} is not ended yet (it is {row.state}): it is tried by itself")
            raise NotPossible(f"{row.code} ended as {row.outcome}, and its text is forgotten: it cannot be asked again")
        return _seen(await self._found(row.code))

    async def drop(self, wanted: str, *, tell: bool) -> dict[str, Any]:
        """Raises NotFound, NotPossible."""
        row = await self._found(wanted)
        if row.finished_at is not None and not row.retryable:
            raise NotPossible(f"{row.code} ended as {row.outcome}: there is nothing to drop")
        if self.live is not None:
            await self.live.drop(row.row, tell=tell)
        else:
            await self._store.drop(row.row, tell=tell)
        return _seen(await self._found(row.code))

    async def reload(self) -> dict[str, Any]:
        """Raises ConfigError, NotPossible."""
        return asdict(await self._running().reload())

    async def support(self) -> dict[str, Any]:
        """What only a running daemon knows of itself. Raises NotPossible."""
        return await self._running().support()

    def _running(self) -> Live:
        if self.live is None:
            raise NotPossible("no daemon is running on this store")
        return self.live

    async def _found(self, wanted: str) -> Row:
        row = await self._store.find(self._robot, wanted)
        if row is None:
            raise NotFound(f"no message of the last seven days has the code or msgId {wanted[:80]!r}")
        return row


def _now(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "silent_s": 0.0,
        **{key: facts[key] for key in ("uptime_s", "ready", "running")},
        "link": facts["link"]["connected"],
        "why": "; ".join(f"{name}: {part['why']}" for name, part in facts["parts"].items() if not part["ok"]),
    }


def _seen(row: Row) -> dict[str, Any]:
    return {
        "code": row.code,
        "message": row.id,
        "task": row.task,
        "state": row.state,
        "outcome": row.outcome,
        "why": row.reason,
        "cause": row.cause,
        "route": row.route,
        "person": pseudonym(row.robot, row.person),
        "conversation": pseudonym(row.robot, row.conversation),
        "tries": row.tries,
        "crashes": row.crashes,
        "received_at": row.received_at,
        "answered_at": row.answered_at,
        "finished_at": row.finished_at,
        "deadline_at": row.deadline_at,
        "due_at": row.due_at,
        "owner": row.owner,
        "retryable": row.retryable,
    }
