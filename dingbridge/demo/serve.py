"""`dingbridge demo` with its page: from the options to a served page and its orderly end."""

from __future__ import annotations

import asyncio
import getpass
import os
import signal
import sys
import threading
import webbrowser
from collections.abc import Callable, Mapping
from typing import TextIO

from dingbridge.demo.page import Page
from dingbridge.demo.setting import Setting
from dingbridge.demo.stage import NotStarted, Stage, staged
from dingbridge.demo.switches import Switches
from dingbridge.demo.tour import Tour
from dingbridge.errors import ConfigError

PORT = 8787


async def run(setting: Setting, *, port: int = PORT, browser: bool = True) -> int:
    """Serve the page until a signal; 0, or 1 where the daemon did not start. Raises ConfigError.

    A second signal does not wait for the daemon to end in order.
    """
    stages: list[Stage] = []
    serving = asyncio.create_task(_run(setting, port, stages.append, browser=browser))

    def on_signal() -> None:
        if not serving.cancelling():
            serving.cancel()
        else:
            for stage in stages:
                stage.hurry()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, on_signal)
    await asyncio.wait({serving})
    return 0 if serving.cancelled() else serving.result()


async def _run(setting: Setting, port: int, opened: Callable[[Stage], None], *, browser: bool) -> int:
    failure: ConfigError | NotStarted
    async with staged(setting) as stage:
        opened(stage)
        try:
            await stage.connected(stage.gateway, stage.daemon)
        except (ConfigError, NotStarted) as error:
            failure = error
        else:
            await _serve(stage, port, browser=browser)
    if isinstance(failure, ConfigError):
        raise failure
    _say(f"守护进程没有启动成功，它的日志：\n{failure}", to=sys.stderr)
    return 1


async def _serve(stage: Stage, port: int, *, browser: bool) -> None:
    switches = Switches(stage.room, stage.gateway, stage)
    tour = None if stage.backend is None or stage.bare is None else Tour(stage, stage.backend)

    async def reset() -> None:
        if tour is not None:
            await tour.stop()
        await stage.reset()

    async with Page(
        stage.room, switches, port=port, say=stage.say, daemon=stage.watch.look, tour=tour, reset=reset
    ) as page:
        _say(welcome(page.port, port, os.environ))
        if stage.setting.own and not stage.setting.verbose:
            _say(f"守护进程的日志：{stage.daemon.log}")
        if browser and opens_a_browser(os.environ):
            threading.Thread(target=webbrowser.open, args=(page.url,), daemon=True, name="browser").start()
        await asyncio.Event().wait()  # until a signal cancels it


def welcome(port: int, wanted: int, environ: Mapping[str, str]) -> str:
    """Where the page is, and how to reach it from the machine one sits at."""
    lines = [f"演示页面：http://127.0.0.1:{port}    （Ctrl-C 结束）"]
    if wanted not in {0, port}:
        lines.append(f"端口 {wanted} 已被占用，改用 {port}。")
    connection = environ.get("SSH_CONNECTION", "").split()
    if len(connection) == 4:
        server, server_port = connection[2:]
        option = "" if server_port == "22" else f" -p {server_port}"
        lines.append("在您自己的电脑上运行下面这条命令，再用浏览器打开上面的地址：")
        lines.append(f"  ssh -N -L {port}:127.0.0.1:{port}{option} {getpass.getuser()}@{server}")
    return "\n".join(lines)


def opens_a_browser(environ: Mapping[str, str]) -> bool:
    """Where somebody sits at this machine's screen; a text browser would take the terminal."""
    if environ.get("SSH_CONNECTION"):
        return False
    return sys.platform == "darwin" or any(environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))


def _say(text: str, to: TextIO | None = None) -> None:
    print(text, file=to or sys.stdout, flush=True)
