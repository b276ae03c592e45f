"""`dingbridge demo` with its page: from the options to a served page and its orderly end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from typing import TextIO

from dingbridge.demo.looks import Looks
from dingbridge.demo.opening import PORT, open_browser, welcome
from dingbridge.demo.page import Page
from dingbridge.demo.setting import Setting, for_page
from dingbridge.demo.stage import NotStarted, Stage, staged
from dingbridge.demo.switches import Switches
from dingbridge.demo.tour import Tour
from dingbridge.errors import ConfigError


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
    async with staged(for_page(setting)) as stage:
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

    page = Page(
        stage.room,
        switches,
        port=port,
        say=stage.say,
        daemon=stage.watch.look,
        tour=tour,
        reset=reset,
        looks=Looks(stage),
        facts=stage.setting.facts,
    )
    async with page:
        _say(welcome(page.port, port, os.environ))
        if stage.setting.own and not stage.setting.verbose:
            _say(f"守护进程的日志：{stage.daemon.log}")
        if browser:
            open_browser(page.url)
        await asyncio.Event().wait()  # until a signal cancels it


def _say(text: str, to: TextIO | None = None) -> None:
    print(text, file=to or sys.stdout, flush=True)
