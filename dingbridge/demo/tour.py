"""The three-minute tour: the scenes one after another, each waiting for its reader."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any, Final

from dingbridge.demo.room import Refused
from dingbridge.demo.scenes import SCENES, Play, Scene
from dingbridge.demo.stage import NotStarted, Stage
from dingbridge.errors import ConfigError
from dingbridge.sim.anythingllm import AnythingLLM


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds: to look before something happens, and to read a step that goes on by itself."""

    look_s: float = 2.5
    read_s: float = 14.0


READABLE: Final = Pace()


class Tour:
    """`act("start" | "next" | "stop")`; `state` is the page's Tour, None without one."""

    def __init__(self, stage: Stage, backend: AnythingLLM, pace: Pace = READABLE) -> None:
        self._stage = stage
        self._backend = backend
        self._pace = pace
        self._task: asyncio.Task[None] | None = None
        self._goes_on = asyncio.Event()
        self._changing = asyncio.Lock()
        self._look = stage.look  # as it was before the tour
        self.state: dict[str, Any] | None = None

    async def act(self, action: str, *, auto: bool = False) -> None:
        """Raises Refused for what cannot be done now."""
        if action == "start":
            async with self._changing:
                await self._stop()
                self._look = self._stage.look
                self._task = self._stage.spawn(self._play(auto=auto))
        elif action == "next":
            if self.state is None or self.state["status"] == "running":
                raise Refused("这一步还没有演完。")
            self._goes_on.set()
        elif action == "stop":
            await self.stop()
        else:
            raise Refused("不认识这个动作。", 400)

    async def stop(self) -> None:
        """Leave the stage as somebody finds it who was never on the tour."""
        async with self._changing:
            await self._stop()

    async def _stop(self) -> None:
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.wait({task})
        self._tell(None)
        self._backend.faults.clear()
        self._backend.answer_delay_s = None
        await self._stage.choose(self._look)
        await self._stage.start_daemon()

    async def _play(self, *, auto: bool) -> None:
        play = Play(self._stage, self._backend, self._pace.look_s, self._doing)
        for number, scene in enumerate(SCENES, start=1):
            self._show(number, scene, "running")
            result, went_well = await self._played(play, scene, fresh=number == 1)
            last = number == len(SCENES)
            self._goes_on.clear()
            self._show(number, scene, ("done" if last else "waiting") if went_well else "failed", result)
            if last:
                return
            await self._until_read(auto=auto)

    async def _played(self, play: Play, scene: Scene, *, fresh: bool) -> tuple[dict[str, Any], bool]:
        try:
            if fresh:
                await self._set_up()
            result = (await scene.play(play)).as_json()
        except (TimeoutError, ConnectionError, Refused, NotStarted, ConfigError) as error:
            why = error.sentence if isinstance(error, Refused) else "等了太久，没有等到应有的结果。"
            return {"lines": [{"chat": scene.chats[-1], "ok": False, "text": why}]}, False
        return result, True

    async def _set_up(self) -> None:
        """Nothing said before, nothing broken: what is told below is what happens."""
        self._backend.fault = None
        self._backend.faults.clear()
        self._stage.room.expire_next = False
        self._stage.room.switched()
        await self._stage.choose(replace(self._look, cards=False))
        if self._stage.room.board.messages:
            await self._stage.reset()
        await self._stage.start_daemon()
        await self._stage.connected(self._stage.gateway, self._stage.daemon)

    async def _until_read(self, *, auto: bool) -> None:
        try:
            async with asyncio.timeout(self._pace.read_s if auto else None):
                await self._goes_on.wait()
        except TimeoutError:
            return

    def _show(self, number: int, scene: Scene, status: str, result: dict[str, Any] | None = None) -> None:
        self._tell(
            {
                "step": number,
                "of": len(SCENES),
                "title": scene.title,
                "text": scene.text,
                "status": status,
                "chats": list(scene.chats),
                "panel": scene.panel,
                "result": result,
                "doing": "",
            }
        )

    def _doing(self, words: str) -> None:
        """What a step that takes long is at."""
        if self.state is not None:
            self._tell(self.state | {"doing": words})

    def _tell(self, state: dict[str, Any] | None) -> None:
        self.state = state
        self._stage.room.board.tell("tour", state)
