"""Kill the daemon while people ask, and count. `python -m tests.kills --kills 300` for the long one.

Every accepted question is answered, or its asker is told; a repeat is marked; order holds within a person's chat.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from dingbridge.model import trace_code
from dingbridge.sim.anythingllm import AnythingLLM
from dingbridge.sim.gateway import Gateway
from dingbridge.sim.gateway_records import Sent
from dingbridge.texts import Texts
from tests.house import REPEAT, Daemon, House

TROUBLE = Texts("zh-CN")("trouble")
LANES = 20
ANSWER_S = 0.2


@dataclass
class Count:
    """What came of it."""

    questions: int = 0
    kills: int = 0
    answered: int = 0
    told: int = 0
    lost: list[str] = field(default_factory=list)
    repeats: int = 0
    unmarked_repeats: list[str] = field(default_factory=list)
    disorder: list[str] = field(default_factory=list)
    redelivered: int = 0
    asked: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.kills} kills, {self.questions} questions in {self.seconds:.0f} s: {self.answered} answered, "
            f"{self.told} told instead, {len(self.lost)} lost, {self.repeats} repeats "
            f"({len(self.unmarked_repeats)} unmarked), {len(self.disorder)} out of order, "
            f"{self.redelivered} redelivered frames, {self.asked} asks of the backend"
        )


async def run(folder: Path, *, kills: int, questions: int, seed: int, lanes: int = LANES) -> Count:
    draw = random.Random(seed)
    count = Count(questions=questions, kills=kills)
    started = time.monotonic()
    async with (
        Gateway() as gateway,
        AnythingLLM() as backend,
    ):
        gateway.redeliver_after_s = 1.0
        backend.answer, backend.answer_delay_s = _answer, ANSWER_S
        house = House(gateway, backend, folder)
        house.configure(
            limits={"waiting_per_lane": 0, "per_user_per_minute": 0},
            reply={"notice": "off"},
            web={"listen": ""},
        )
        sent: list[Sent] = []
        killing = asyncio.create_task(_kill(house, kills, draw))
        for number in range(questions):
            lane = number % lanes
            sent.append(await gateway.say(f"问题{number:05d}", user=f"u{lane:03d}", msg_id=f"msg-{seed}-{number:05d}"))
            await asyncio.sleep(draw.uniform(0.0, 2.0) * kills * 0.9 / questions)
        daemon = await killing
        try:
            async with asyncio.timeout(120):
                while not all(_outcomes(gateway, one) for one in sent):
                    await asyncio.sleep(0.2)
        except TimeoutError:
            pass
        count.kills = kills
        await daemon.stop()
        _judge(gateway, sent, count, lanes)
        count.asked = len(backend.asked)
    count.seconds = time.monotonic() - started
    return count


def _answer(question: str) -> str:
    return f"答：{question}"


async def _kill(house: House, kills: int, draw: random.Random) -> Daemon:
    daemon = await house.daemon()
    for _ in range(kills):
        await house.gateway.connected(timeout_s=30)
        await asyncio.sleep(draw.uniform(0.02, 1.2))
        await daemon.kill()
        daemon = await house.daemon()
    return daemon


def _outcomes(gateway: Gateway, sent: Sent) -> list[str]:
    """What the chat saw for one question: answers, marked or not, and failure texts by their code."""
    code = trace_code(gateway.client_id, sent.msg_id)
    seen = []
    for post in gateway.posts:
        if post.conversation != sent.conversation:
            continue
        if f"答：{sent.text}" in post.text:
            seen.append("repeat" if REPEAT in post.text else "answer")
        elif code in post.text and not post.text.startswith(TROUBLE):
            seen.append("told")
    return seen


def _judge(gateway: Gateway, sent: list[Sent], count: Count, lanes: int) -> None:
    for one in sent:
        outcomes = Counter(_outcomes(gateway, one))
        shown = outcomes["answer"] + outcomes["repeat"]
        count.answered += bool(shown)
        count.told += bool(outcomes["told"] and not shown)
        if not outcomes:
            count.lost.append(one.text)
        count.repeats += max(0, shown - 1)
        if outcomes["answer"] > 1:
            count.unmarked_repeats.append(one.text)
        count.redelivered += one.deliveries - 1
    for lane in range(lanes):
        mine = [one for one in sent[lane::lanes] if one.deliveries == 1]
        firsts = [
            next((n for n, post in enumerate(gateway.posts) if f"答：{one.text}" in post.text), None) for one in mine
        ]
        known = [first for first in firsts if first is not None]
        if known != sorted(known):
            count.disorder.append(f"u{lane:03d}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--questions", type=int, default=0, help="default: ten a kill")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        count = asyncio.run(
            run(
                Path(folder),
                kills=options.kills,
                questions=options.questions or options.kills * 10,
                seed=options.seed,
                lanes=max(LANES, options.kills * 2 // 3),
            )
        )
    print(f"seed {options.seed}: {count}")
    for name in ("lost", "unmarked_repeats", "disorder"):
        if found := getattr(count, name):
            print(f"{name}: {', '.join(found[:20])}")
    return 1 if count.lost or count.unmarked_repeats or count.disorder else 0


if __name__ == "__main__":
    sys.exit(main())
