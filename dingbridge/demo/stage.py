"""Everything that runs in a demo: the stand-ins, the real daemon between them, a bot without dingbridge beside it."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp

from dingbridge.demo import people, setting, wire
from dingbridge.demo.board import Wire
from dingbridge.demo.people import BARE
from dingbridge.demo.process import Process
from dingbridge.demo.room import Refused, Room, Watched
from dingbridge.demo.setting import CARD_KEY, CARD_TEMPLATE, Look, Ports, Setting
from dingbridge.demo.watch import DaemonWatch
from dingbridge.errors import ConfigError
from dingbridge.sim.anythingllm import AnythingLLM, Asked
from dingbridge.sim.gateway import Connection, Sent

START_S: Final = 30.0
TOKEN_DELAY_S: Final = 0.02
TYPING_DELAY_S: Final = 0.06  # with cards, whose text somebody watches growing
SLOW_S: Final = 6.0
KEEP: Final = 500  # of what the stand-ins remember of each kind; a page shows less
CONFIGURATION: Final = 78
# What an organisation on DingTalk's standard edition has a month.
CAPS: Final = {"api": 5_000, "webhook_stream": 3_000}


class NotStarted(Exception):
    """The daemon ended or did not connect; the text is the end of its log."""


@dataclass
class Stage:
    """What page, switches and tour act on. `backend` is None where a real AnythingLLM answers.

    write: the daemon's configuration anew, for a look.
    """

    room: Room
    setting: Setting
    config: Path
    gateway: Watched
    backend: AnythingLLM | None
    daemon: Process
    bare: Process | None
    watch: DaemonWatch
    write: Callable[[Look], Path]
    look: Look
    _choosing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _group: asyncio.TaskGroup | None = None

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task of the stage, cancelled with it."""
        if self._group is None:
            work.close()
            raise RuntimeError("the stage is not open")
        task = self._group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as self._group:
            try:
                self.spawn(self.watch.run())
                if self.backend is not None:
                    self.spawn(self._follow_backend(self.backend))
                yield
            finally:
                for task in list(self._tasks):
                    task.cancel()

    # ---- the processes

    async def start_daemon(self) -> None:
        await self._start(self.daemon, "ours", "dingbridge 守护进程")

    async def start_bare(self) -> None:
        if self.bare is not None:
            await self._start(self.bare, BARE, "普通机器人")

    async def start_both(self) -> None:
        """The daemon, and the bot beside it where somebody has already talked to it."""
        await self.start_daemon()
        if self.bare is not None and self.bare.returncode is not None:
            await self.start_bare()

    async def kill_both(self) -> None:
        """SIGKILL to both at the same moment; until both are gone and the gateways see it."""
        processes = [process for process in (self.daemon, self.bare) if process is not None]
        for process in processes:
            process.kill_now()
        await asyncio.gather(*(process.kill() for process in processes))
        for gateway in self.room.gateways.values():
            await gateway.until(lambda gateway=gateway: not live(gateway))  # type: ignore[misc]
        await self.watch.look()

    async def say(self, chat: str, person: str, text: str) -> tuple[str, Sent]:
        """As `Room.say`; the bot beside ours is started by the first word to it."""
        if chat == BARE and self.bare is not None and self.bare.returncode is None and not self.bare.running:
            await self.start_bare()
            await self._up(self.room.gateways[BARE], self.bare)
        return await self.room.say(chat, person, text)

    async def _start(self, process: Process, bot: str, name: str) -> None:
        if not await process.start():
            return
        self.room.board.note(Wire("process", f"{name}已启动（pid {process.pid}）", bot=bot))
        self.spawn(self._until_it_ends(process, bot, name))
        await self.watch.look()

    async def _until_it_ends(self, process: Process, bot: str, name: str) -> None:
        code = await process.ended()
        how = f"被信号 {-code} 结束" if code < 0 else f"已结束（退出码 {code}）"
        self.room.board.note(Wire("process", f"{name}{how}", ok=code == 0, bot=bot))
        await self.watch.look()

    async def connected(self, gateway: Watched, process: Process, timeout_s: float = START_S) -> None:
        """Until the process has its connection. Raises ConfigError for a faulty configuration, NotStarted else."""
        link = asyncio.create_task(gateway.connected(timeout_s=timeout_s))
        end = asyncio.create_task(process.ended())
        try:
            await asyncio.wait({link, end}, return_when=asyncio.FIRST_COMPLETED)
            if link.done() and link.exception() is None:
                return
            if end.done() and end.result() == CONFIGURATION:
                lines = process.last_words().splitlines()
                raise ConfigError([line for line in lines if not line.startswith("{")])
            raise NotStarted(process.last_words())
        finally:
            for task in (link, end):
                task.cancel()
            await asyncio.wait({link, end})

    def hurry(self) -> None:
        """End the children at once, for somebody who does not want to wait for them."""
        self.daemon.kill_now()
        if self.bare is not None:
            self.bare.kill_now()

    # ---- how the robot shows itself

    async def choose(self, look: Look) -> None:
        """From now on the robot shows itself so: a reload.

        Raises Refused.
        """
        async with self._choosing:
            if look == self.look:
                return
            self.write(look)
            self.look = look
            if self.backend is not None:
                self.backend.token_delay_s = _delay_s(look, self.backend.token_delay_s)
            await self.watch.reload()
            self.room.board.note(Wire("process", "配置改了，守护进程已重新读取"))
            self.room.board.tell("robot", self.look_told)

    @property
    def look_told(self) -> dict[str, Any]:
        """For the page, with what holds where nothing was chosen."""
        reply = self.setting.document.get("reply")
        written = reply if isinstance(reply, dict) else {}
        return {
            "cards": self.look.cards,
            "quick_replies": self.look.quick_replies or written.get("quick_replies", "commands"),
            "notice": self.look.notice or written.get("notice", "text"),
        }

    # ---- starting afresh

    async def reset(self) -> None:
        """New conversations: nothing said so far is known to anybody. Takes a restart of the daemon."""
        await self.daemon.stop()
        if self.bare is not None:
            await self.bare.stop()
        for file in self.config.parent.glob(f"{setting.STORE}*"):
            file.unlink(missing_ok=True)
        if self.backend is not None:
            await _forget(self.backend)
        for gateway in self.room.gateways.values():
            gateway.held.clear()
            gateway.meter.reset()
        self.room.board.tell("quota", self.room.quota)
        self.room.last = None
        self.room.expire_next = False
        self.room.switched()
        self.room.board.clear()
        await self.start_daemon()
        await self._up(self.gateway, self.daemon)

    async def _up(self, gateway: Watched, process: Process) -> None:
        """As `connected`, for somebody at the page. Raises Refused."""
        try:
            await self.connected(gateway, process)
        except (ConfigError, NotStarted):
            raise Refused("它没有启动成功，请看看它的日志。") from None

    # ---- what the backend is asked

    async def _follow_backend(self, backend: AnythingLLM) -> None:
        seen = len(backend.asked)
        open_asks: list[Asked] = []
        while True:
            await backend.until(lambda: len(backend.asked) > seen or any(map(_is_over, open_asks)))  # noqa: B023
            for asked in backend.asked[seen:]:
                self._note_ask(asked, "asked")
                open_asks.append(asked)
            if len(backend.asked) > 2 * KEEP:
                del backend.asked[:-KEEP]
            seen = len(backend.asked)
            for asked in filter(_is_over, open_asks):
                self._note_ask(asked, _ending(asked))
            open_asks = [asked for asked in open_asks if not _is_over(asked)]

    def _note_ask(self, asked: Asked, state: str) -> None:
        self.room.board.note(wire.backend(asked, state))


def live(gateway: Watched) -> list[Connection]:
    """Connections that may be chosen for a message; a half-open one is never seen to end."""
    return [connection for connection in gateway.connections if connection.state.value in {"greeting", "live"}]


def _is_over(asked: Asked) -> bool:
    return asked.finished or asked.cancelled or asked.fault in {"down", "cut"}


def _ending(asked: Asked) -> str:
    if asked.cancelled:
        return "left"
    return "answered" if asked.fault in {None, "slow"} else "failed"


async def _forget(backend: AnythingLLM) -> None:
    """Without a session AnythingLLM hides the histories of the whole workspace."""
    headers = {"Authorization": f"Bearer {backend.api_key}"}
    async with aiohttp.ClientSession(headers=headers) as http:
        for name in backend.workspaces:
            async with http.post(f"{backend.url}/api/v1/workspace/{name}/chat", json={"reset": True}) as response:
                await response.read()


@asynccontextmanager
async def staged(chosen: Setting, *, bare: bool = True) -> AsyncIterator[Stage]:
    """A stage whose daemon has been started.

    Raises ConfigError for a faulty configuration, BridgeError where a real server cannot be used.
    """
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dingbridge-demo-")))
        backend = None
        if chosen.remote is None:
            server = AnythingLLM(workspaces=chosen.workspaces, slow_s=SLOW_S)
            server.token_delay_s = _delay_s(chosen.look, TOKEN_DELAY_S)
            backend = await stack.enter_async_context(server)
        bare = bare and backend is not None and not chosen.own
        room = Room(people.cast(chosen.users, chosen.conversations, bare=bare))
        gateway = await stack.enter_async_context(room.gateway(keep=KEEP))
        gateway.add_template(CARD_TEMPLATE, markdown=(CARD_KEY,))
        gateway.meter.caps |= CAPS
        ports = Ports(_free_port(), _free_port())
        config = setting.write(chosen, folder, gateway, backend, ports, chosen.look)
        if chosen.remote is not None and not chosen.own:
            chosen = await setting.with_first_workspace(chosen, config)
            config = setting.write(chosen, folder, gateway, backend, ports, chosen.look)
            room.board.note(Wire("process", f"问这个 AnythingLLM 的第一个工作区：{chosen.workspace}"))
        log = None if chosen.verbose else folder / "daemon.log"
        daemon = Process("dingbridge", "run", "--config", str(config), log=log)
        stack.push_async_callback(daemon.stop)
        bot = None
        if bare and backend is not None:
            other = await stack.enter_async_context(room.gateway(BARE, keep=KEEP))
            bot = Process("dingbridge.sim.bare_bot", log=folder / "bare.log", environ=_bare_environ(other, backend))
            stack.push_async_callback(bot.stop, 5.0)
        watch = DaemonWatch(room.board, daemon, folder / setting.STORE)

        def write(look: Look) -> Path:
            return setting.write(chosen, folder, gateway, backend, ports, look)

        stage = Stage(room, chosen, config, gateway, backend, daemon, bot, watch, write, chosen.look)
        await stack.enter_async_context(stage.running())
        await stage.start_daemon()
        yield stage


def _bare_environ(gateway: Watched, backend: AnythingLLM) -> dict[str, str]:
    return {
        "DINGTALK_OPENAPI_ENDPOINT": gateway.url,
        "CLIENT_ID": gateway.client_id,
        "CLIENT_SECRET": gateway.client_secret,
        "ANYTHINGLLM_URL": backend.url,
        "ANYTHINGLLM_KEY": backend.api_key,
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


def _delay_s(look: Look, now_s: float) -> float:
    """Nobody watches it type where it types at once."""
    if now_s == 0.0:
        return 0.0
    return TYPING_DELAY_S if look.cards else TOKEN_DELAY_S


def _free_port() -> int:
    """The daemon's own pages keep one address over its restarts."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
