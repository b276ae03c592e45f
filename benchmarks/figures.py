"""What is measured, and how. Every figure is a median of runs that take turns with those of the baselines."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import stage
from benchmarks.stage import CHUNKS, MIB, Subject
from benchmarks.table import Bound, Figure
from dingbridge.sim.anythingllm import AnythingLLM

COMMITS = "relay, same commits"
BARE = "bare relay"
IMPORT = "import of 4 packages"
IMPORTING = "import aiohttp, dingtalk_stream, structlog, tenacity; print(open('/proc/self/status').read(), flush=True)"


@dataclass(frozen=True, slots=True)
class Effort:
    """How much of everything. Many short runs in turns see the same machine, even where others use it too."""

    runs: int = 5
    long_runs: int = 3
    short_runs: int = 10
    one_by_one: int = 50
    paced_s: float = 10.0
    flood: int = 2000
    in_flight: int = 2000
    soak: int = 0
    engines: bool = True
    engines_flood: int = 600
    engines_paced_s: float = 4.0


Once = Callable[[Subject], Awaitable[dict[str, float]]]
Runs = dict[str, dict[str, list[float]]]
"""By subject, by name of the value."""


class Course:
    """The figures in order; each is told as soon as it is there."""

    def __init__(self, folder: Path, effort: Effort, tell: Callable[[str], None]) -> None:
        self._folder = folder
        self._effort = effort
        self._tell = tell
        self._number = 0

    async def figures(self) -> list[Figure]:
        async with stage.backend() as server:
            found = await self._starts(server)
            async with self._all_three(server) as subjects:
                found += await self._overhead(subjects)
                found += await self._at_once(server, subjects)
                found += await self._acks(server, subjects)
                found += await self._flat_out(subjects)
            found += await self._many_in_flight(server)
            if self._effort.soak:
                found += await self._soak(server)
                found += await self._black_hole(server)
        return found

    def _place(self) -> Path:
        self._number += 1
        folder = self._folder / str(self._number)
        folder.mkdir()
        return folder

    @asynccontextmanager
    async def _all_three(self, server: AnythingLLM) -> AsyncIterator[Sequence[Subject]]:
        async with AsyncExitStack() as stack:
            yield [
                await stack.enter_async_context(stage.dingbridge(server, self._place())),
                await stack.enter_async_context(stage.relay(COMMITS, server, self._place(), store=True)),
                await stack.enter_async_context(stage.relay(BARE, server, self._place(), store=False)),
            ]

    async def _in_turns(self, what: str, runs: int, subjects: Sequence[Subject], once: Once) -> Runs:
        values: Runs = {subject.name: {} for subject in subjects}
        for number in range(runs):
            self._tell(f"{what}: run {number + 1} of {runs}")
            for subject in subjects:
                subject.forget()
                for name, value in (await once(subject)).items():
                    values[subject.name].setdefault(name, []).append(value)
        return values

    def _user(self, number: int) -> str:
        """DingTalk takes about 20 messages a minute in a chat; each run has chats of its own."""
        return f"{self._number}-{number}"

    async def _starts(self, server: AnythingLLM) -> list[Figure]:
        own: dict[str, list[float]] = {"s": [], "MiB": []}
        imports: dict[str, list[float]] = {"s": [], "MiB": []}
        for number in range(self._effort.runs):
            self._tell(f"start: run {number + 1} of {self._effort.runs}")
            async with stage.dingbridge(server, self._place()) as subject:
                await asyncio.sleep(1.0)  # until what runs once after the start has ended
                own["s"].append(subject.started_s)
                own["MiB"].append(subject.rss() / MIB)
            seconds, size = await _import()
            imports["s"].append(seconds)
            imports["MiB"].append(size / MIB)
        return [
            Figure("start to connected", "s", own["s"], IMPORT, imports["s"], Bound(1.0)),
            Figure("idle RSS, connected", "MiB", own["MiB"], IMPORT, imports["MiB"], Bound(70)),
        ]

    async def _overhead(self, subjects: Sequence[Subject]) -> list[Figure]:
        runs = await self._in_turns("overhead of one question", self._effort.short_runs, subjects, self._one_by_one)
        return [
            *_against(runs, "p50", "overhead of a question, p50", "ms", {COMMITS: _times(1.5), BARE: _times(3)}),
            *_against(runs, "p95", "overhead of a question, p95", "ms", {COMMITS: None, BARE: None}),
        ]

    async def _one_by_one(self, subject: Subject) -> dict[str, float]:
        self._number += 1
        for number in range(self._effort.one_by_one):
            await subject.push(self._user(number))
            await subject.answered(number + 1)
            await asyncio.sleep(0.01)  # what follows the answer, like the last commit, is not the next one's cost
        return _spread(subject.latencies(), 0.5, 0.95)

    async def _at_once(self, server: AnythingLLM, subjects: Sequence[Subject]) -> list[Figure]:
        async def once(subject: Subject) -> dict[str, float]:
            self._number += 1
            for number in range(60):
                await subject.push(self._user(number))
            await subject.answered(60)
            return {"p95": _percentile(subject.latencies(), 0.95) * 1000}

        server.token_delay_s = 1.0 / CHUNKS
        runs = await self._in_turns("60 users at once", self._effort.runs, subjects, once)
        server.token_delay_s = 0.0
        return _against(runs, "p95", "60 users at once, answers of 1 s, p95", "ms", {COMMITS: None, BARE: Bound(1200)})

    async def _acks(self, server: AnythingLLM, subjects: Sequence[Subject]) -> list[Figure]:
        async def once(subject: Subject) -> dict[str, float]:
            return await self._at_pace(subject, self._effort.paced_s)

        server.answer_delay_s = 0.2
        runs = await self._in_turns("acks at 100 messages/s", self._effort.long_runs, subjects, once)
        server.answer_delay_s = 0.0
        return [
            *_against(runs, "p50", "ack at 100 messages/s, p50", "ms", {COMMITS: None}),
            *_against(runs, "p99", "ack at 100 messages/s, p99", "ms", {COMMITS: Bound(5)}),
        ]

    async def _at_pace(self, subject: Subject, seconds: float) -> dict[str, float]:
        """100 messages a second."""
        self._number += 1
        count, began = int(seconds * 100), time.monotonic()
        for number in range(count):
            await asyncio.sleep(began + number / 100 - time.monotonic())
            await subject.push(self._user(number % 200))
        await subject.answered(count)
        return _spread(subject.ack_latencies(), 0.5, 0.99)

    async def _flat_out(self, subjects: Sequence[Subject]) -> list[Figure]:
        async def once(subject: Subject) -> dict[str, float]:
            self._number += 1
            return await self._flood(subject, self._effort.flood)

        runs = await self._in_turns("flat out", self._effort.long_runs, subjects, once)
        return [
            *_against(runs, "rate", "durable questions/s, 200 lanes", "/s", {COMMITS: Bound(300, least=True)}),
            *_against(runs, "rate", "the same, nothing kept", "/s", {BARE: None}),
            *_against(runs, "cpu", "CPU a question, flat out", "ms", {COMMITS: None, BARE: None}),
        ]

    async def _flood(self, subject: Subject, count: int) -> dict[str, float]:
        cpu, began = subject.cpu_s(), time.monotonic()
        for number in range(count):
            await subject.push(self._user(number % 200))
        await subject.answered(count, timeout_s=120)
        took = time.monotonic() - began
        return {"rate": count / took, "cpu": (subject.cpu_s() - cpu) / count * 1000}

    async def _many_in_flight(self, server: AnythingLLM) -> list[Figure]:
        """The peak of the process's life; every question is with AnythingLLM before the first answer comes."""
        count = self._effort.in_flight

        async def once(subject: Subject) -> float:
            server.peak = 0
            for number in range(count):
                await subject.push(f"{number}")
            await subject.answered(count, timeout_s=120)
            if server.peak < count:
                raise RuntimeError(f"only {server.peak} of {count} answers were in flight at once")
            return subject.peak_rss() / MIB

        server.answer_delay_s = 2.0 + count / 200
        self._tell(f"{count} answers in flight")
        async with stage.dingbridge(server, self._place(), workers=0) as subject:
            own = await once(subject)
        async with stage.relay(BARE, server, self._place(), store=False) as subject:
            bare = await once(subject)
        server.answer_delay_s = 0.0
        return [Figure(f"{count} answers in flight, peak RSS", "MiB", [own], BARE, [bare], Bound(150))]

    async def _soak(self, server: AnythingLLM) -> list[Figure]:
        """RSS once 20 000 messages have warmed everything up, and at the end."""
        batch, warm = 2000, 20_000
        sizes = []
        async with stage.dingbridge(server, self._place()) as subject:
            for done in range(0, self._effort.soak, batch):
                self._tell(f"{done} of {self._effort.soak} messages")
                self._number += 1
                await self._flood(subject, batch)
                subject.forget()
                if done + batch >= warm:
                    sizes.append(subject.rss() / MIB)
        grown = (sizes[-1] - sizes[0]) / (self._effort.soak - warm) * 100_000
        return [Figure("RSS growth per 100 000 messages", "MiB", [grown], bound=Bound(2))]

    async def _black_hole(self, server: AnythingLLM) -> list[Figure]:
        """From the network swallowing everything until the next connection is up."""
        seconds = []
        async with stage.dingbridge(server, self._place()) as subject:
            for number in range(self._effort.long_runs):
                self._tell(f"black hole: run {number + 1} of {self._effort.long_runs}")
                await asyncio.sleep(3.0 * number)  # at another moment of the heartbeat
                began = time.monotonic()
                subject.gateway.connections[-1].half_open()
                again = await subject.gateway.connected(timeout_s=60)
                seconds.append(again.opened_at - began)
        return [Figure("black hole noticed, link up again", "s", seconds, bound=Bound(15))]


async def _import() -> tuple[float, float]:
    """Seconds and bytes of a process that imports what every daemon of this kind needs."""
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", IMPORTING), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    await process.stdout.readline()
    took = time.monotonic() - began
    rest, _ = await process.communicate()
    size = next(line.split()[1] for line in rest.decode().splitlines() if line.startswith("VmRSS:"))
    return took, int(size) * 1024.0


def _times(limit: float) -> Bound:
    return Bound(limit, of_baseline=True)


def _percentile(values: Sequence[float], share: float) -> float:
    """The nearest rank."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def _spread(seconds: Sequence[float], *shares: float) -> dict[str, float]:
    return {f"p{share * 100:g}": _percentile(seconds, share) * 1000 for share in shares}


def _against(runs: Runs, value: str, name: str, unit: str, bounds: dict[str, Bound | None]) -> list[Figure]:
    """A line for each baseline, which is named beside what it is a bound for."""
    own = runs["dingbridge"][value]
    return [Figure(name, unit, own, other, runs[other][value], bound) for other, bound in bounds.items()]
