"""What one answer costs of DingTalk's two monthly quotas, by reply style: `python -m tests.cost`.

Each style is played by a daemon of its own against the stand-in, whose meter counts as DingTalk bills, as far as is
known: see `dingbridge/sim/gateway_meter.py`. The READMEs show the table; `test_docs_cost.py` holds them to it.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dingbridge.control import call
from dingbridge.journal.thrift import Level
from dingbridge.sim.anythingllm import AnythingLLM
from dingbridge.sim.gateway import Gateway
from dingbridge.sim.gateway_meter import API, WEBHOOK_STREAM
from dingbridge.sim.gateway_records import Sent
from tests.house import House, until

TEMPLATE = "answer.schema"
LARGE = 10**6
QUESTION = "年假有几天？"
CARD = {"dingtalk": {"card_template_id": TEMPLATE}}
Act = Callable[[House], Awaitable[object]]


async def ask(house: House) -> Sent:
    """A question, one to one, and the end of its answer."""
    sent = await house.gateway.say(QUESTION, user="zhangsan")
    await _answered(house, sent)
    return sent


async def _answered(house: House, sent: Sent) -> None:
    gateway = house.gateway
    await until(
        lambda: (
            any(not post.text.startswith("正在查询") for post in gateway.posts_in(sent))
            or any(card.state in ("finished", "failed") for card in gateway.cards_in(sent))
        )
    )


async def _file(house: House) -> None:
    await _answered(house, await house.gateway.send_file("年假 5 天".encode(), "制度.txt", user="zhangsan"))


async def _press(house: House) -> None:
    await ask(house)
    (card,) = house.gateway.cards_in(None)
    house.gateway.meter.reset()
    await house.gateway.press(card, "good", user="zhangsan")


async def _command(house: House) -> None:
    await ask(house)
    house.gateway.meter.reset()
    await _answered(house, await house.gateway.say("/good", user="zhangsan"))


async def _saving(house: House) -> None:
    """So far ahead of an even pace that a card shows its last text only."""
    store, low, high = Path(house.tables["store"]["url"]), 0, LARGE
    while True:
        used = (low + high) // 2
        level = await _level(store, used)
        if level is Level.FINAL_ONLY:
            break
        assert high - low > 1, f"at {used} it is {level.name}"
        low, high = (used, high) if level < Level.FINAL_ONLY else (low, used)
    await ask(house)


async def _level(store: Path, used: int) -> Level:
    told = await call(store, "POST", "/quota", **{API: str(used)})
    return Level[told["pools"][API]["level"].upper()]


@dataclass(frozen=True, slots=True)
class Style:
    """slow: the backend takes a second. frames: of a card, at one a second; 0 where the backend answers at once."""

    name: str
    tables: Mapping[str, Any] = field(default_factory=dict)
    act: Act = ask
    slow: bool = False
    frames: int = 0


WEBHOOK = {"budget": {"reply_path": "webhook"}}
DEEP = [{"workspace": "handbook", "deep_workspace": "handbook-deep"}]
STYLES = (
    Style("markdown by webhook", WEBHOOK),
    Style("the same, with a text notice", {**WEBHOOK, "reply": {"notice_after_s": 0}}, slow=True),
    Style("the same, with an emotion", {**WEBHOOK, "reply": {"notice": "emotion", "notice_after_s": 0}}, slow=True),
    Style("the same, with buttons", {**WEBHOOK, "reply": {"quick_replies": "buttons"}}),
    Style("the same, about a file or picture", WEBHOOK, _file),
    Style("markdown by OpenAPI (one to one)", {"budget": {"reply_path": "openapi"}}),
    Style("card, the whole text only (when saving)", {**CARD, "budget": {"api_calls_per_month": LARGE}}, _saving),
    Style("card, an answer found at once", CARD),
    Style("card, an answer of 10 s", CARD, frames=10),
    Style("card, at once, with page or deeper answer", {**CARD, "route": DEEP}),
    Style("👍 pressed on a card", CARD, _press),
    Style("a command, or a tapped button", WEBHOOK, _command),
)


@asynccontextmanager
async def stage() -> AsyncIterator[House]:
    with tempfile.TemporaryDirectory() as folder:
        async with Gateway() as gateway, AnythingLLM() as backend:
            gateway.add_template(TEMPLATE)
            yield House(gateway, backend, Path(folder))


async def measured(house: House, style: Style) -> tuple[int, int]:
    """(API calls, messages by webhook and Stream); the daemon is connected."""
    backend, meter = house.backend, house.gateway.meter
    backend.answer_delay_s = 1.0 if style.slow else None
    if style.frames:
        text = "年假按工龄计算。" * (style.frames * 5)
        backend.answer = lambda _: text
        backend.token_delay_s = (style.frames - 0.5) / (len(text) / backend.chunk_chars)
    meter.reset()
    await style.act(house)
    if "emotion" in style.tables.get("reply", {}).values():
        await until(lambda: meter.used[API]["emotion.recall"])
    if "route" in style.tables:
        await until(lambda: meter.used[API]["card.update"])
    return meter.total(API), meter.total(WEBHOOK_STREAM)


async def _played(style: Style) -> tuple[int, int]:
    async with stage() as house:
        house.configure(**style.tables)
        daemon = await house.daemon()
        try:
            await house.gateway.connected()
            return await measured(house, style)
        finally:
            await daemon.stop()


async def main() -> None:
    print(f"{'one question, answered by':40}{'API':>6}{'webhook & Stream':>20}")
    for style in STYLES:
        api, webhook_stream = await _played(style)
        print(f"{style.name:40}{api:>6}{webhook_stream:>20}")


if __name__ == "__main__":
    asyncio.run(main())
