"""`dingbridge demo`: a chat in the terminal with a real daemon, whose two servers are stand-ins in this process."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import stat
import sys
import threading
from contextlib import suppress
from typing import TextIO

from dingbridge.demo.setting import Setting
from dingbridge.demo.stage import NotStarted, Stage, staged
from dingbridge.errors import ConfigError
from dingbridge.sim.gateway import Gateway
from dingbridge.sim.gateway_records import Sent
from dingbridge.texts import NOTICE, Texts

ANSWER_S = 200.0
EXAMPLES = ("北京出差住宿标准是多少？", "那国外呢？", "年假有几天？", "忘记密码怎么办？")
_NUMBERED = re.compile(r"\((\d+)/(\d+)\)\s*$")


def is_fed(stdin: TextIO | None) -> bool:
    """Whether questions come from a pipe or a file, and not from a person or from nowhere."""
    try:
        mode = os.fstat(stdin.fileno()).st_mode if stdin is not None else 0
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


async def run(setting: Setting) -> int:
    """Answer each line of stdin on stdout until its end or a signal; 0, or 1 where the daemon did not answer.

    Raises ConfigError.
    """
    chat = asyncio.create_task(_run(setting))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, chat.cancel)
    await asyncio.wait({chat})
    return 0 if chat.cancelled() else chat.result()


async def _run(setting: Setting) -> int:
    failure: Exception
    async with staged(setting, bare=False) as stage:
        try:
            await stage.connected(stage.gateway, stage.daemon)
            return await _chat(stage, interactive=sys.stdin.isatty())
        except (ConfigError, NotStarted) as error:
            failure = error
        except TimeoutError:
            failure = NotStarted(stage.daemon.last_words())
    if isinstance(failure, ConfigError):
        raise failure
    _say(f"机器人没有回应。守护进程的日志：\n{failure}", to=sys.stderr)
    return 1


async def _chat(stage: Stage, *, interactive: bool) -> int:
    if interactive:
        _say("这是真的 dingbridge，接着两个替身：一个扮演钉钉，一个扮演 AnythingLLM（只会摘抄员工手册，不是大模型）。")
        _say("输入问题后回车；/help 看命令；Ctrl-D 结束。可以试试：")
        _say("".join(f"  {example}\n" for example in EXAMPLES))
    lines = _lines(interactive=interactive)
    asker = stage.room.cast.people[0]
    while (line := await lines.get()) is not None:
        if not line.strip():
            continue
        sent = await stage.gateway.say(line.strip(), user=asker.user, nick=asker.nick)  # of any length, as in a chat
        await _show_answer(stage, sent)
    return 0


async def _show_answer(stage: Stage, sent: Sent) -> None:
    """Print what the chat would show, until the answer is whole."""
    gateway = stage.gateway
    notice = Texts("zh-CN")(NOTICE)
    seen = 0
    async with asyncio.timeout(ANSWER_S):
        while True:
            posts = [post for post in gateway.posts if post.at >= sent.at]
            for post in posts[seen:]:
                seen += 1
                _say(post.text)
                numbered = _NUMBERED.search(post.text)
                if post.text != notice and (numbered is None or numbered[1] == numbered[2]):
                    _say("")
                    return
            if not stage.daemon.running:
                raise TimeoutError
            await gateway.until(lambda seen=seen: len(_since(gateway, sent)) > seen or None, ANSWER_S)  # type: ignore[misc]


def _since(gateway: Gateway, sent: Sent) -> list[object]:
    return [post for post in gateway.posts if post.at >= sent.at]


def _lines(*, interactive: bool) -> asyncio.Queue[str | None]:
    """Lines of stdin, None at its end; read by a thread, because a terminal, a pipe and a file all may stand there."""
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str | None] = asyncio.Queue()

    def read() -> None:
        with suppress(EOFError, RuntimeError):  # RuntimeError: the loop is closed, nobody asks any more
            if interactive:
                while True:
                    loop.call_soon_threadsafe(lines.put_nowait, input())
            for line in sys.stdin:
                loop.call_soon_threadsafe(lines.put_nowait, line)
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(lines.put_nowait, None)

    if interactive:
        import readline  # noqa: F401, PLC0415 - gives input() line editing
    threading.Thread(target=read, daemon=True, name="stdin").start()
    return lines


def _say(text: str, to: TextIO | None = None) -> None:
    try:
        print(text, file=to or sys.stdout, flush=True)
    except BrokenPipeError:  # `| head`: nobody reads any more, which is no failure
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
