"""AnythingLLM's stand-in with the sample handbook: `anythingllm.py PORT SECONDS_PER_ANSWER`, until SIGTERM."""

from __future__ import annotations

import asyncio
import sys

from dingbridge.sim.anythingllm import AnythingLLM


async def main(port: int, answer_s: float) -> None:
    async with AnythingLLM(port=port, model_delay_s=answer_s):
        await asyncio.Event().wait()


asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
