"""The fault switches: what one can do to the link, to AnythingLLM and to the daemon."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from dingbridge.demo.board import Wire
from dingbridge.demo.room import Refused, Room, Watched
from dingbridge.demo.stage import Stage, live
from dingbridge.sim.anythingllm import Fault
from dingbridge.sim.gateway import Connection

BACKEND: Final[dict[str, Fault]] = {"slow": "slow", "failing": "http500", "down": "down"}
_SAID: Final = {
    "slow": "AnythingLLM 变慢",
    "failing": "AnythingLLM 一直返回 500",
    "down": "AnythingLLM 没有回应（连接被重置）",
}

NO_LINK: Final = "现在没有长连接。"

Action = Callable[[], Awaitable[None]]


class Switches:
    """`turn(name, on)`; without a stage (a gateway alone) only the link has switches."""

    def __init__(self, room: Room, gateway: Watched, stage: Stage | None = None) -> None:
        self._room = room
        self._gateway = gateway
        self._stage = stage
        room.switched = self._tell
        self._actions: dict[str, Action] = {
            "cut": self._cut,
            "disconnect": self._disconnect,
            "half_open": self._half_open,
            "redeliver": self._redeliver,
            "expire_webhooks": self._expire_webhooks,
        }
        if stage is not None:
            self._actions |= {"kill": self._kill, "start": stage.start_both}

    @property
    def state(self) -> dict[str, bool]:
        """Every switch there is, and whether it is on; an action is never on, but for what waits for a question."""
        state = dict.fromkeys(self._actions, False) | {"expire_webhooks": self._room.expire_next}
        if self._stage is not None and self._stage.backend is not None:
            state |= {name: self._stage.backend.fault == fault for name, fault in BACKEND.items()}
        return state

    async def turn(self, name: str, *, on: bool) -> None:
        """Act, or switch. Raises Refused."""
        if name not in self.state:
            raise Refused("没有这个开关。", 404)
        if name in BACKEND:
            self._switch_backend(name, on=on)
        elif on:
            await self._act(name)
        elif name == "expire_webhooks":
            self._room.expire_next = False
        self._tell()

    def _tell(self) -> None:
        self._room.board.tell("faults", self.state)

    async def _act(self, name: str) -> None:
        try:
            await self._actions[name]()
        except ConnectionError:  # it ended by itself at this very moment
            raise Refused(NO_LINK) from None

    def _switch_backend(self, name: str, *, on: bool) -> None:
        if self._stage is None or self._stage.backend is None:
            raise Refused("没有这个开关。", 404)
        backend = self._stage.backend
        if on:
            backend.fault = BACKEND[name]
            self._say(_SAID[name], ok=False)
        elif backend.fault == BACKEND[name]:
            backend.fault = None
            self._say("AnythingLLM 恢复正常")

    # ---- the link

    async def _cut(self) -> None:
        for connection in self._live():
            connection.cut()
        self._say("切断了长连接（RST）", ok=False)

    async def _disconnect(self) -> None:
        for connection in self._live():
            await connection.disconnect()

    async def _half_open(self) -> None:
        for connection in self._live():
            connection.half_open()
        self._say("长连接半开：TCP 还在，但不再有任何回应", ok=False)

    def _live(self) -> list[Connection]:
        if connections := live(self._gateway):
            return connections
        raise Refused(NO_LINK)

    async def _redeliver(self) -> None:
        if self._room.last is None:
            raise Refused("还没有消息可以重推，先问一个问题吧。")
        if await self._gateway.redeliver(self._room.last) is None:
            raise Refused("现在没有长连接，推不出去。")

    async def _expire_webhooks(self) -> None:
        """Those given so far at once, and that of the next question: an answer to it needs another way."""
        self._gateway.expire_webhooks()
        self._room.expire_next = True
        self._say("会话 webhook 全部失效，下一个问题的也一样", ok=False)

    # ---- the daemon

    async def _kill(self) -> None:
        if self._stage is None or not self._stage.daemon.running:
            raise Refused("守护进程没有在运行。")
        await self._stage.kill_both()

    def _say(self, title: str, *, ok: bool = True) -> None:
        self._room.board.note(Wire("fault", title, ok=ok))
