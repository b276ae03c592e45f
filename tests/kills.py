"""Kill the daemon while people ask, and count. `python -m tests.kills --kills 300` for the long one."""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from dingbridge.sim.anythingllm import AnythingLLM
from dingbridge.sim.gateway import Gateway
from dingbridge.sim.gateway_records import Sent
from tests.house import Daemon, House
from tests.kills_judge import TEMPLATE, Count, all_seen, answer, arguments, cardless, judge, told

LANES = 20
ANSWER_S = 0.2


async def run(folder: Path, *, kills: int, questions: int, seed: int, lanes: int = LANES) -> Count:
    draw = random.Random(seed)
    count = Count(questions=questions, kills=kills)
    started = time.monotonic()
    async with (
        Gateway() as gateway,
        AnythingLLM() as backend,
    ):
        gateway.redeliver_after_s = 1.0
        backend.answer, backend.answer_delay_s = answer, ANSWER_S
        gateway.add_template(TEMPLATE)
        house = House(gateway, backend, folder)
        house.configure(
            dingtalk={"card_template_id": TEMPLATE},
            limits={"waiting_per_lane": 0, "per_user_per_minute": 0},
            reply={"notice": "off"},
            web={"listen": ""},
        )
        sent: list[Sent] = []
        killing = asyncio.create_task(_kill(house, kills, draw))
        for number in range(questions):
            lane = number % lanes
            how: dict[str, Any] = {"user": f"u{lane:03d}", "msg_id": f"msg-{seed}-{number:05d}", **cardless(lane)}
            sent.append(await gateway.say(f"问题{number:05d}", **how))
            await asyncio.sleep(draw.uniform(0.0, 2.0) * kills * 0.9 / questions)
        daemon = await killing
        await all_seen(gateway, sent)
        await daemon.stop()
        judge(gateway, sent, count)
        count.asked = len(backend.asked)
    count.seconds = time.monotonic() - started
    return count


async def _kill(house: House, kills: int, draw: random.Random) -> Daemon:
    daemon = await house.daemon()
    for _ in range(kills):
        await house.gateway.connected(timeout_s=30)
        await asyncio.sleep(draw.uniform(0.02, 1.2))
        await daemon.kill()
        daemon = await house.daemon()
    return daemon


def main() -> int:
    parser = arguments(__doc__)
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
    return told(count, options.seed)


if __name__ == "__main__":
    sys.exit(main())
