"""The same promises at their real durations; `make slow` runs them, once in a while."""

from __future__ import annotations

import asyncio

import pytest

from dingbridge.app import Timings
from dingbridge.texts import Texts
from tests.house import NOTICE, House

DOWN_S = 300.0


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_five_minutes_without_a_backend(house: House) -> None:
    """AnythingLLM is away for five minutes: asked once, told once, and answered in order when it is back."""
    house.backend.answer, house.backend.fault = str, "down"
    async with house.app(timings=Timings(), anythingllm={"attempts": 4}):
        for number in range(3):
            for user in ("u1", "u2"):
                await house.gateway.say(f"{user}-{number}", user=user)
        await asyncio.sleep(DOWN_S)
        meanwhile = [post.text for post in house.gateway.posts]
        house.backend.fault = None
        await house.gateway.wait_posts(n=len(meanwhile) + 6, timeout_s=90)

    trouble = Texts("zh-CN")("trouble")
    assert sum(text.startswith(trouble) for text in meanwhile) == 2
    assert all(text == NOTICE or text.startswith(trouble) for text in meanwhile)
    answers = [post.text.split("\n")[0] for post in house.gateway.posts[len(meanwhile) :]]
    for user in ("u1", "u2"):
        assert [text for text in answers if text.startswith(user)] == [f"{user}-{number}" for number in range(3)]
