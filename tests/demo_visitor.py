"""A visitor of the demo page: its API over real HTTP, with bounded waits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from dingbridge.demo.looks import Looks
from dingbridge.demo.page import Page
from dingbridge.demo.setting import Setting, for_page
from dingbridge.demo.stage import Stage, staged
from dingbridge.demo.switches import Switches
from dingbridge.demo.tour import Pace, Tour

WAIT_S = 60.0
HASTY = Pace(look_s=0.0, read_s=0.0)
Json = dict[str, Any]


@dataclass
class Visitor:
    """Reads and acts as the page's script does."""

    url: str
    http: aiohttp.ClientSession

    async def state(self) -> Json:
        async with self.http.get(f"{self.url}/api/state") as response:
            assert response.status == 200
            return dict(await response.json())

    async def post(self, path: str, **body: Any) -> tuple[int, Json]:
        async with self.http.post(f"{self.url}/api/{path}", json=body) as response:
            return response.status, dict(await response.json())

    async def act(self, path: str, **body: Any) -> Json:
        """As `post`, and it must be accepted."""
        status, answer = await self.post(path, **body)
        assert status == 200, answer
        return answer

    async def say(self, text: str, chat: str = "zhangsan", person: str = "zhangsan") -> str:
        return str((await self.act("say", chat=chat, text=text, **{"as": person}))["id"])

    async def until(self, look: Callable[[Json], Any], timeout_s: float = WAIT_S) -> Any:
        """What `look` finds in the state, as soon as it finds something."""
        state: Json = {}
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    state = await self.state()
                    if found := look(state):
                        return found
                    await asyncio.sleep(0.05)
        except TimeoutError:
            seen = [(one["chat"], one["text"][:30]) for one in state.get("messages", [])]
            raise AssertionError(f"not within {timeout_s:g} s; messages: {seen}, tour: {state.get('tour')}") from None

    async def answer(self, count: int = 1, chat: str = "zhangsan") -> Json:
        """The newest answer of a chat, as soon as it has `count` of them; waiting notices are none."""
        found = await self.until(lambda state: answers if len(answers := answers_in(state, chat)) >= count else None)
        return dict(found[-1])

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[Json]]:
        async with self.http.get(f"{self.url}/api/events", timeout=aiohttp.ClientTimeout(total=WAIT_S)) as response:
            assert response.content_type == "text/event-stream"

            async def told() -> AsyncIterator[Json]:
                async for line in response.content:
                    if line.startswith(b"data: "):
                        yield json.loads(line.removeprefix(b"data: "))

            assert await response.content.readline() == b": here\n"  # from here on nothing is missed
            yield told()


def answers_in(state: Json, chat: str) -> list[Json]:
    return [one for one in state["messages"] if one["chat"] == chat and one["from"] == "bot" and not one["notice"]]


@asynccontextmanager
async def visiting(url: str) -> AsyncIterator[Visitor]:
    async with aiohttp.ClientSession() as http:
        yield Visitor(url, http)


@asynccontextmanager
async def opened(setting: Setting | None = None, pace: Pace = HASTY) -> AsyncIterator[tuple[Stage, Visitor]]:
    """The demo in this process, its daemon as a process of its own, and a visitor on its page."""
    async with staged(for_page(setting or Setting())) as stage:
        await stage.connected(stage.gateway, stage.daemon)
        if stage.backend is not None:
            stage.backend.token_delay_s = 0.0  # nobody watches it type
        tour = Tour(stage, stage.backend, pace) if stage.backend is not None and stage.bare is not None else None
        page = Page(
            stage.room,
            Switches(stage.room, stage.gateway, stage),
            say=stage.say,
            daemon=stage.watch.look,
            tour=tour,
            reset=stage.reset,
            looks=Looks(stage),
        )
        async with page, visiting(page.url) as visitor:
            yield stage, visitor
