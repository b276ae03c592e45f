"""Kill one of three daemons again and again while people ask, and count. `python -m tests.kills_replicas --kills 300`.

A random one is killed every second and a half and started again; some stand still for a moment before, as behind a
dead line. Now and then one is stopped and another one is killed and stays away, both past the end of their leases,
while the third goes on.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dingbridge.sim.anythingllm import AnythingLLM
from dingbridge.sim.gateway import Gateway
from dingbridge.sim.gateway_records import Sent
from dingbridge.store.store import LEASE_S
from tests.fleet import Fleet, Member, fleet
from tests.house import until
from tests.kills_judge import TEMPLATE, Count, all_seen, answer, arguments, cardless, judge, told
from tests.postgres import Server

EVERY_S = 1.5
ANSWER_S = 0.5
SEND_S = 0.1
FREEZES = 0.2  # share of kills with a dead line before
DEAD_LINE_S = 0.5
ABSENCE_EACH = 100  # kills


@dataclass
class FleetCount(Count):
    """in_flight: sends that were going out when their daemon was killed or stopped; each may be seen twice."""

    in_flight: int = 0
    stops: int = 0
    takeovers: int = 0
    taken_over: int = 0
    recovered: int = 0
    condemned: int = 0
    members: list[str] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)

    @property
    def faults(self) -> dict[str, list[str]]:
        found = super().faults
        if any(self.codes):
            found["codes"] = [str(code) for code in self.codes]
        if self.repeats > self.in_flight:
            found["repeats"] = [f"{self.repeats} repeats, but only {self.in_flight} sends in flight"]
        return found

    def __str__(self) -> str:
        return (
            f"{super().__str__()}; {self.in_flight} sends in flight at a kill or stop, {self.stops} stops and as many"
            f" absences past the lease, {self.taken_over} messages taken over in {self.takeovers} goes, "
            f"{self.recovered} found again by a restart, {self.condemned} condemned; {'; '.join(self.members)}"
        )


async def run(
    folder: Path,
    *,
    kills: int,
    questions: int,
    seed: int,
    lanes: int,
    absences: int = 1,
    together: bool = True,
    every_s: float = EVERY_S,
) -> FleetCount:
    """absences: how often one is stopped and one stays away. every_s: between kills."""
    count = FleetCount(questions=questions)
    started = time.monotonic()
    with Server() as server:
        async with Gateway() as gateway, AnythingLLM() as backend:
            gateway.redeliver_after_s = 3.0
            backend.answer, backend.answer_delay_s = answer, ANSWER_S
            gateway.webhook_delay_s = SEND_S
            gateway.add_template(TEMPLATE)
            tables = {"dingtalk": {"card_template_id": TEMPLATE}}
            limits = {"waiting_per_lane": 0, "per_user_per_minute": 0}
            async with fleet(gateway, backend, folder, server.url, together=together, limits=limits, **tables) as ships:
                killing = asyncio.create_task(Killer(ships, count, random.Random(seed), every_s).run(kills, absences))
                seconds = kills * every_s + absences * (LEASE_S + 5.0)
                sent = await _ask(gateway, questions, seconds, lanes, seed)
                await killing
                await all_seen(gateway, sent)
                count.codes = await ships.stop()
                judge(gateway, sent, count)
                _sum_up(ships, count)
            count.asked = len(backend.asked)
    count.seconds = time.monotonic() - started
    return count


async def _ask(gateway: Gateway, questions: int, seconds: float, lanes: int, seed: int) -> list[Sent]:
    draw = random.Random(seed)
    sent = []
    for number in range(questions):
        lane = number % lanes
        how: dict[str, Any] = {"user": f"u{lane:03d}", "msg_id": f"msg-{seed}-{number:05d}", **cardless(lane)}
        sent.append(await gateway.say(f"问题{number:05d}", **how))
        await asyncio.sleep(draw.uniform(0.0, 2.0) * seconds / questions)
    return sent


class Killer:
    """Notes in `count` what it does, and what was going out just then."""

    def __init__(self, ships: Fleet, count: FleetCount, draw: random.Random, every_s: float) -> None:
        self._ships = ships
        self._count = count
        self._draw = draw
        self._every_s = every_s

    async def run(self, kills: int, absences: int) -> None:
        """The absences are spread over the kills."""
        for number in range(absences):
            share = kills * (number + 1) // absences - kills * number // absences
            await self._storm(share)
            await self._absence()
        if not absences:
            await self._storm(kills)

    async def _storm(self, kills: int) -> None:
        for _ in range(kills):
            due = time.monotonic() + self._every_s
            await until(lambda: self._ships.up, 60.0, "a daemon with a link")
            victim = self._draw.choice(self._ships.up)
            if self._draw.random() < FREEZES:
                victim.freeze()
                await asyncio.sleep(DEAD_LINE_S)
            await self._kill(victim)
            await victim.start()
            await asyncio.sleep(due - time.monotonic())

    async def _kill(self, victim: Member) -> None:
        await victim.kill()
        self._count.kills += 1
        self._count.in_flight += (await self._ships.held(victim.pid))[1]

    async def _absence(self) -> None:
        """One is stopped and one is away until all they had in hand is in the third one's."""
        await until(lambda: len(self._ships.up) == len(self._ships.members), 60.0, "all to be up")
        stopped, away, *_ = self._draw.sample(self._ships.members, len(self._ships.members))
        await self._freeze_at_work(stopped)
        await self._kill(away)
        self._count.stops += 1
        began = time.monotonic()
        while time.monotonic() - began < LEASE_S or any(await self._ships.held(stopped.pid, away.pid)):
            assert time.monotonic() - began < 4 * LEASE_S, "nobody has taken over"
            await asyncio.sleep(0.5)
        stopped.thaw()
        await away.start()

    async def _freeze_at_work(self, member: Member) -> None:
        while True:
            member.freeze()
            held, sending = await self._ships.held(member.pid)
            if held:
                self._count.in_flight += sending
                return
            member.thaw()
            await asyncio.sleep(0.1)


def _sum_up(ships: Fleet, count: FleetCount) -> None:
    for member in ships.members:
        taken = member.events("store.taken_over")
        started = member.events("daemon.started")
        handled = member.events("message.handled")
        count.takeovers += len(taken)
        count.taken_over += sum(event["returned"] for event in taken)
        count.recovered += sum(event["returned"] for event in started)
        count.condemned += sum(event["dead"] for event in (*taken, *started))
        count.members.append(f"daemon {member.number}: {member.kills} kills, {len(handled)} handled")


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--apart", action="store_true", help="each daemon has a STATE_DIRECTORY of its own")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        count = asyncio.run(
            run(
                Path(folder),
                kills=options.kills,
                questions=options.questions or options.kills * 10,
                seed=options.seed,
                lanes=max(20, options.kills * 2 // 3),
                absences=max(1, options.kills // ABSENCE_EACH),
                together=not options.apart,
            )
        )
    return told(count, options.seed)


if __name__ == "__main__":
    sys.exit(main())
