"""The inbox, on either database. Every method is one durable transaction.

A message goes ready → leased → answered → sending(part) → done, or ends dead with a reason. Only a lane's head can
be leased; the lease's token fences every later write, so that a cancelled message's worker cannot send, nor one
whose lease was taken over.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from dingbridge.model import Answer, CardState, Delivery, Message, Outcome, Placed, Secret, State, Task, typed_code
from dingbridge.store import intake, operate, recovery, work
from dingbridge.store.answers import Answers, meet
from dingbridge.store.codec import APPEND_TRAIL, encode_answer, encode_steps
from dingbridge.store.engine import Connection, Engine
from dingbridge.store.intake import Limits
from dingbridge.store.operate import Depth, LaneSeen, Row, Waiting, Which
from dingbridge.store.pages import AnswerPages
from dingbridge.store.recovery import Recovered
from dingbridge.store.replicas import Replica
from dingbridge.store.shared import Shared
from dingbridge.store.spent import Spent
from dingbridge.store.work import Leased
from dingbridge.trail import Step

PROBE_BYTES = 64 * 1024
LEASE_S = 30.0
Steps = Sequence[Step]


class Crew(Protocol):
    """Who works here."""

    def held(self) -> dict[int, str]:
        """The token of each row that is worked on."""

    def cease(self, row: int) -> None:
        """Stop working on it."""

    def wake(self) -> None:
        """There may be something to lease."""


class Store:
    """What both databases share; `SQLiteStore` and `PostgresStore` open it and close it.

    clock: seconds that go forward within a process, but where several daemons bring theirs together.
    wipe: forget the question, the answer and the webhook of a finished message.
    redact: masks what a message's steps and its reason should not have held.
    owner: who leases; the daemons of one store have different ones.
    shared: what they share beside the inbox; None where there can be only one.
    steps, wherever it stands: what has happened to the message since its last write.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        clock: Callable[[], float],
        limits: Limits | None = None,
        wipe: bool = True,
        redact: Callable[[str], str] = str,
        owner: str = "",
        lease_s: float = LEASE_S,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self.limits = limits or Limits()
        self._wipe = wipe
        self._redact = redact
        self.owner = owner
        self._lease_s = lease_s
        self._settled_at = 0.0
        self.shared: Shared | None = None
        self.spent = Spent(engine)
        self.answers = Answers(engine, clock)
        self.pages = AnswerPages(engine, clock, ttl_s=self.limits.keep_s)

    @property
    def place(self) -> str:
        """Where it is, as an operator names it; without a password."""
        return self._engine.place

    @property
    def beside(self) -> Path:
        """In whose name the control socket stands."""
        raise NotImplementedError

    async def open(self) -> Recovered:
        """For a daemon: what a crash left leased goes back, and is counted."""
        raise NotImplementedError

    async def open_beside(self) -> None:
        """For an operator: everything is left as it is, old tables too."""
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError

    async def attend(self, crew: Crew, facts: Callable[[], Mapping[str, Any]]) -> None:
        """For as long as the daemon runs: what has to be done beside the work. facts: told to the other daemons."""

    async def peers(self) -> list[Replica]:
        """The daemons of this store; none where there can be only one."""
        return []

    @property
    def peers_last_seen(self) -> list[Replica]:
        """Those of the last heartbeat, without asking for them."""
        return []

    @property
    def replicas(self) -> int:
        """How many live, this one counted."""
        return max(1, sum(peer.live for peer in self.peers_last_seen))

    @property
    def on_duty(self) -> bool:
        """Whether this daemon does what one has to do for all: forgetting, and whatever must happen once."""
        return True

    def call_others(self) -> None:
        """There is more to do than this daemon can take."""

    @property
    def trouble(self) -> str | None:
        """Why the last transaction failed; None while the store works."""
        error = self._engine.last_error
        return error.detail if error is not None else None

    # -- intake

    async def put(
        self, message: Message, task: Task = Task.QUESTION, *, fresh: bool = False, steps: Steps = ()
    ) -> Placed:
        """Keep a message. A question beyond the limits is kept as BUSY or LIMITED, to be told on the express path.

        fresh: raise the context's generation in the same transaction (`/new`), unless this is a duplicate.
        """
        trail = self._trail(steps)
        return await self._engine.run(
            lambda c: intake.put(c, message, task, now=self._clock(), limits=self.limits, fresh=fresh, trail=trail)
        )

    # -- work

    async def lease(self, count: int, *, express: bool = False) -> Leased:
        """Up to `count` messages to work on. What is leased by a commit whose answer is lost, `reclaim` gives back."""

        def run(c: Connection) -> Leased:
            now = self._clock()
            drawn = secrets.token_hex(8 * count)  # others, where it has to be run again; most are not needed
            tokens = tuple(drawn[at : at + 16] for at in range(0, len(drawn), 16))
            holder = work.Holder(self.owner, now + self._lease_s, self._settled_at, tokens)
            return work.lease(c, count, now=now, express=express, holder=holder)

        return await self._engine.run(run)

    async def renew(self, tokens: Collection[str]) -> set[str]:
        """Keep leases for their whole time again; those that are still held."""
        return await self._engine.run(
            lambda c: work.renew(c, tuple(tokens), work.Holder(self.owner, self._clock() + self._lease_s))
        )

    async def answered(
        self,
        delivery: Delivery,
        answer: Answer,
        outcome: Outcome,
        *,
        reason: str = "",
        cause: str = "",
        route: str = "",
        sending: bool = False,
        steps: Steps = (),
    ) -> None:
        """The answer is kept: from here on a restart sends it instead of asking again.

        sending: its first part goes out at once, so one commit says both.
        """
        state, part = (State.SENDING, 1) if sending else (State.ANSWERED, 0)
        await self._held(
            delivery,
            "UPDATE message SET answer = ?, outcome = ?, reason = ?, cause = nullif(?, ''), route = ?, answered_at = ?,"
            f" state = ?, part = ?, uncertain = FALSE, {work.UNSHOWN}, {APPEND_TRAIL} WHERE id = ?",
            (
                *(encode_answer(answer), outcome, self._redact(reason), cause, route, self._clock(), state, part),
                self._trail(steps),
            ),
            *((lambda c: meet(c, delivery.message, self._clock()),) if answer.first else ()),
        )

    async def card(self, delivery: Delivery, state: CardState) -> None:
        """What its card shows from now on."""
        await self._held(delivery, "UPDATE message SET card = ? WHERE id = ?", (state,))

    async def sending(self, delivery: Delivery, part: int, *, uncertain: bool = False, steps: Steps = ()) -> None:
        """Part `part` (from 1) goes out now; the parts before it have arrived."""
        await self._held(
            delivery,
            f"UPDATE message SET state = 'sending', part = ?, uncertain = ?, {APPEND_TRAIL} WHERE id = ?",
            (part, uncertain, self._trail(steps)),
        )

    async def later(
        self,
        delivery: Delivery,
        delay_s: float,
        *,
        sent: int = 0,
        uncertain: bool = False,
        cause: str = "",
        steps: Steps = (),
    ) -> None:
        """Give the lease back for `delay_s`; the message keeps its place at its lane's head.

        sent: parts that have arrived; uncertain: the next one may have, too.
        """
        trail = self._trail(steps)
        await self._engine.run(
            lambda c: work.give_back(
                c, delivery, self._clock() + delay_s, sent=sent, uncertain=uncertain, cause=cause, trail=trail
            )
        )

    async def claim_trouble(self, delivery: Delivery) -> bool:
        """True when this lane's asker is to be told of trouble: once, until the lane is empty."""
        return await self._engine.run(lambda c: work.claim_trouble(c, delivery))

    async def done(
        self, delivery: Delivery, outcome: Outcome, reason: str = "", *, cause: str = "", steps: Steps = ()
    ) -> bool:
        """The end; True where its lane has another message, which is due now."""
        return await self._end(delivery, State.DONE, outcome, reason, cause, steps)

    async def dead(
        self,
        delivery: Delivery,
        outcome: Outcome,
        reason: str,
        *,
        uncertain: bool = False,
        cause: str = "",
        steps: Steps = (),
    ) -> bool:
        """The end without success; like `done`. uncertain: what was sent last may have arrived all the same."""
        return await self._end(delivery, State.DEAD, outcome, reason, cause, steps, uncertain=uncertain)

    async def _end(
        self,
        delivery: Delivery,
        state: State,
        outcome: Outcome,
        reason: str,
        cause: str,
        steps: Steps,
        *,
        uncertain: bool = False,
    ) -> bool:
        reason, trail = self._redact(reason), self._trail(steps)

        def run(c: Connection) -> bool:
            work.check(c, delivery)
            now = self._clock()
            work.end(
                *(c, delivery.row, state, outcome, reason),
                now=now,
                wipe=self._wipe,
                cause=cause,
                trail=trail,
                uncertain=uncertain,
            )
            return work.advance(c, delivery.lane, delivery.row, now=now)

        return await self._engine.run(run)

    def _trail(self, steps: Steps) -> str:
        return encode_steps(steps, self._redact)

    async def _held(
        self, delivery: Delivery, statement: str, values: tuple[Any, ...], *also: Callable[[Connection], None]
    ) -> None:
        def run(c: Connection) -> None:
            work.check(c, delivery)
            c.execute(statement, (*values, delivery.row))
            for one in also:
                one(c)

        await self._engine.run(run)

    async def cancel(self, message: Message, *, before: int) -> dict[int, Message | None]:
        """End the sender's unanswered questions older than row `before`, the running one too; those by row."""
        trail = self._trail((Step(self._clock(), "cancelled", {"by": "asker"}),))
        return await self._engine.run(
            lambda c: work.cancel(c, message, before, now=self._clock(), wipe=self._wipe, trail=trail)
        )

    async def claim_notice(self, row: int) -> Message | None:
        """The unanswered message whose asker is to get the notice; once per lane until it is empty.

        Who has been told of trouble is not asked to wait a moment, nor who has a card that says so or has answered.
        """
        trail = self._trail((Step(self._clock(), "notice", {}),))

        def run(c: Connection) -> Message | None:
            found = c.execute("SELECT lane FROM message WHERE id = ?", (row,)).fetchone()
            if found is None or work.lock_lane(c, found[0]) is None:
                return None
            claimed = c.execute(
                "UPDATE lane SET noticed = TRUE WHERE key = ? AND NOT noticed AND NOT troubled"
                " AND (SELECT state IN ('ready', 'leased') AND card NOT IN ('open', 'shown') FROM message WHERE id=?)",
                (found[0], row),
            )
            if not claimed.rowcount:
                return None
            c.execute(f"UPDATE message SET {APPEND_TRAIL} WHERE id = ?", (trail, row))
            return work.message(c, row)

        return await self._engine.run(run)

    # -- upkeep

    async def release_all(self) -> int:
        """At a planned stop: what is leased goes back and counts as no crash."""
        return await self._engine.run(lambda c: recovery.release_all(c, owner=self.owner, now=self._clock()))

    async def forget(self, *, batch: int = 500) -> int:
        """Drop up to `batch` rows that ended more than seven days ago, or `keep_s`; how many there were."""
        keep_s = self.limits.keep_s
        return await self._engine.run(lambda c: recovery.forget(c, batch, now=self._clock(), keep_s=keep_s))

    async def probe(self) -> None:
        """Write as much as a message may need and forget it, so that a store that failed is seen working again."""
        padding = secrets.token_hex(PROBE_BYTES // 2)  # what PostgreSQL would compress takes no room

        def write(c: Connection) -> None:
            c.execute(
                "INSERT INTO webhook VALUES ('', '', ?, 0)"
                " ON CONFLICT (robot, conversation) DO UPDATE SET url = excluded.url",
                (padding,),
            )

        def forget(c: Connection) -> None:
            c.execute("DELETE FROM webhook WHERE robot = ''")

        await self._engine.run(write)
        # In a second transaction: what is deleted before its commit is never written to the disk.
        await self._engine.run(forget)

    # -- looking

    async def webhook(self, robot: str, conversation: str) -> tuple[Secret, float | None]:
        """The newest session webhook of a conversation and its expiry; an empty secret when there is none."""
        found = await self._engine.run(
            lambda c: c.execute(
                "SELECT url, expires FROM webhook WHERE robot = ? AND conversation = ?", (robot, conversation)
            ).fetchone()
        )
        return (Secret(found[0]), found[1]) if found else (Secret(), None)

    async def waiting(self, message: Message | None = None) -> list[Waiting]:
        """Unanswered questions in order; of one person in one conversation where a message is given."""
        return await self._engine.run(lambda c: operate.waiting(c, message))

    async def find(self, robot: str, wanted: str) -> Row | None:
        """The message an operator means: by 编号 as written in a chat, or by DingTalk's msgId."""
        return await self._engine.run(lambda c: operate.find(c, robot, wanted.strip(), typed_code(wanted)))

    async def lane_of(self, row: int) -> str:
        """Empty where the row is gone."""
        found = await self._engine.run(lambda c: c.execute("SELECT lane FROM message WHERE id = ?", (row,)).fetchone())
        return found[0] if found else ""

    async def listed(self, which: Which, limit: int) -> list[Row]:
        return await self._engine.run(lambda c: operate.listed(c, which, limit))

    async def lanes(self, limit: int) -> list[LaneSeen]:
        return await self._engine.run(lambda c: operate.lanes(c, limit))

    async def retry(self, row: int) -> bool:
        """Work on an ended message again, with a deadline of its own; False where that cannot be."""
        now = self._clock()
        limit_s = self.limits.answer_deadline_s
        trail = self._trail((Step(now, "retried", {"by": "operator"}),))
        return await self._engine.run(
            lambda c: operate.retry(c, row, now=now, deadline=now + limit_s if limit_s else None, trail=trail)
        )

    async def drop(self, row: int, *, tell: bool) -> Message | None:
        """Give a message up; `tell`: its asker hears of it. The message, where this has ended it."""
        now = self._clock()
        trail = self._trail((Step(now, "dropped", {"by": "operator"}),))
        return await self._engine.run(lambda c: operate.drop(c, row, now=now, wipe=self._wipe, tell=tell, trail=trail))

    async def depth(self) -> Depth:
        return await self._engine.run(lambda c: operate.depth(c, now=self._clock()))
