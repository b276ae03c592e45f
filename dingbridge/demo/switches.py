"""The fault switches: what one can do to the link, to AnythingLLM and to the daemon."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from dingbridge.demo.board import Wire
from dingbridge.demo.room import Refused, Room, Watched
from dingbridge.demo.setting import CARD_KEY, CARD_TEMPLATE
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

# A first frame goes well. Then one fails, and three tries for the last one; what closes the card gets through.
CARD_FRAMES_OK: Final = 1
CARD_FRAMES_FAILING: Final = 4
SLOW_FILE: Final = "slow1.5"  # in ten pieces
MOST_CAP: Final = 1_000_000
POOLS: Final = {"quota_api": "api", "quota_stream": "webhook_stream"}
_POOL_NAMES: Final = {"api": "API", "webhook_stream": "Webhook 与 Stream"}

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
        self._card_midway = False
        self._caps = dict(gateway.meter.caps)
        self._toggles: dict[str, Callable[[bool], None]] = {}
        if stage is not None:
            self._actions |= {"kill": self._kill, "start": stage.start_both}
            room.card_made = self._plant_card_fault
            self._toggles = {
                "card_midway": self._switch_card_midway,
                "card_template": self._switch_template,
                "slow_files": self._switch_files,
                **{name: partial(self._switch_quota, name) for name in POOLS},
            }

    @property
    def state(self) -> dict[str, bool]:
        """Every switch there is, and whether it is on; an action is never on, but for what waits for a question."""
        state = dict.fromkeys(self._actions, False) | {"expire_webhooks": self._room.expire_next}
        if self._stage is not None:
            state |= {
                "card_midway": self._card_midway,
                "card_template": CARD_TEMPLATE not in self._gateway.templates,
                "slow_files": self._gateway.file_fault == SLOW_FILE,
                **{name: self._gateway.meter.spent(pool) for name, pool in POOLS.items()},
            }
        if self._stage is not None and self._stage.backend is not None:
            state |= {name: self._stage.backend.fault == fault for name, fault in BACKEND.items()}
        return state

    async def turn(self, name: str, *, on: bool) -> None:
        """Act, or switch. Raises Refused."""
        if name not in self.state:
            raise Refused("没有这个开关。", 404)
        if name in BACKEND:
            self._switch_backend(name, on=on)
        elif name in self._toggles:
            self._toggles[name](on)
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

    # ---- cards, files, quota

    def _switch_card_midway(self, on: bool) -> None:
        self._card_midway = on
        self._gateway.faults_of.pop("card.stream", None)
        self._say("卡片的流式更新会在中途失败" if on else "卡片的流式更新恢复正常", ok=not on)

    def _plant_card_fault(self) -> None:
        """For each new card again."""
        if self._card_midway:
            self._gateway.faults_of.pop("card.stream", None)
            self._gateway.plant("card.stream", 500, times=CARD_FRAMES_FAILING, after=CARD_FRAMES_OK)

    def _switch_template(self, on: bool) -> None:
        if on:
            self._gateway.templates.pop(CARD_TEMPLATE, None)
        else:
            self._gateway.add_template(CARD_TEMPLATE, markdown=(CARD_KEY,))
        self._say("卡片模板被删除" if on else "卡片模板恢复", ok=not on)

    def _switch_files(self, on: bool) -> None:
        self._gateway.file_fault = SLOW_FILE if on else None
        self._say("下载文件要十几秒" if on else "下载文件恢复正常", ok=not on)

    def _switch_quota(self, name: str, on: bool) -> None:
        """Used up means that the month had no more than what is used already."""
        pool, meter = POOLS[name], self._gateway.meter
        meter.caps[pool] = meter.total(pool) if on else self._caps[pool]
        self._say(f"{_POOL_NAMES[pool]} 的本月额度{'用完' if on else '恢复'}", ok=not on)
        self._room.board.tell("quota", self._room.quota)

    def cap(self, pool: str, cap: Any) -> None:
        """What the organisation has of a pool this month; None: no limit. Raises Refused."""
        if pool not in _POOL_NAMES:
            raise Refused("没有这种额度。", 404)
        if cap is not None and (not isinstance(cap, int) or isinstance(cap, bool) or not 0 <= cap <= MOST_CAP):
            raise Refused(f"额度是 0 到 {MOST_CAP} 的整数。", 400)
        self._gateway.meter.caps[pool] = cap
        self._room.board.tell("quota", self._room.quota)
        self._tell()

    # ---- the daemon

    async def _kill(self) -> None:
        if self._stage is None or not self._stage.daemon.running:
            raise Refused("守护进程没有在运行。")
        await self._stage.kill_both()

    def _say(self, title: str, *, ok: bool = True) -> None:
        self._room.board.note(Wire("fault", title, ok=ok))
