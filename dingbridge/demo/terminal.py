"""`dingbridge demo`: a chat in the terminal with a real daemon, whose two servers are stand-ins in this process."""

from __future__ import annotations

import asyncio
import ctypes
import os
import re
import signal
import sys
import tempfile
import threading
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import TextIO

from dingbridge.sim.anythingllm import AnythingLLM
from dingbridge.sim.gateway import Gateway
from dingbridge.sim.gateway_records import Sent
from dingbridge.texts import NOTICE, Texts

START_S = 30.0
ANSWER_S = 200.0
TOKEN_DELAY_S = 0.02
EXAMPLES = ("北京出差住宿标准是多少？", "那国外呢？", "年假有几天？", "忘记密码怎么办？")
_NUMBERED = re.compile(r"\((\d+)/(\d+)\)\s*$")


async def run(*, verbose: bool) -> int:
    """Answer each line of stdin on stdout until its end or a signal; 0, or 1 where the daemon did not answer."""
    chat = asyncio.create_task(_run(verbose=verbose))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, chat.cancel)
    await asyncio.wait({chat})
    return 0 if chat.cancelled() else chat.result()


async def _run(*, verbose: bool) -> int:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dingbridge-demo-")))
        gateway = await stack.enter_async_context(Gateway())
        backend = await stack.enter_async_context(AnythingLLM(token_delay_s=TOKEN_DELAY_S))
        daemon = await _start(folder, gateway, backend, verbose=verbose)
        stack.push_async_callback(_stop, daemon)
        try:
            await gateway.connected(timeout_s=START_S)
            return await _chat(gateway, daemon, interactive=sys.stdin.isatty())
        except TimeoutError:
            _say("机器人没有回应。守护进程的日志：", to=sys.stderr)
            _say(_log(folder), to=sys.stderr)
            return 1


async def _start(folder: Path, gateway: Gateway, backend: AnythingLLM, *, verbose: bool) -> asyncio.subprocess.Process:
    config = folder / "dingbridge.toml"
    config.write_text(
        f"""
[dingtalk]
client_id = "{gateway.client_id}"
client_secret = "{gateway.client_secret}"
api_base = "{gateway.url}"
oapi_base = "{gateway.url}"
[anythingllm]
base_url = "{backend.url}"
api_key = "{backend.api_key}"
[[route]]
workspace = "handbook"
[limits]
per_user_per_minute = 0
[store]
url = "dingbridge.db"
[web]
listen = "127.0.0.1:0"
""",
        encoding="utf-8",
    )
    with (folder / "daemon.log").open("wb") as log:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "dingbridge", "run", "--config", str(config)),
            stdin=asyncio.subprocess.DEVNULL,
            stderr=None if verbose else log,
            start_new_session=True,  # Ctrl-C is for the chat, which then stops the daemon in order
            preexec_fn=_end_with_parent,
            env={key: value for key, value in os.environ.items() if not key.startswith("DINGBRIDGE_")},
        )


def _end_with_parent() -> None:
    """Even if the demo is killed, its daemon is told to stop: Linux, prctl(2), PR_SET_PDEATHSIG."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


async def _stop(daemon: asyncio.subprocess.Process) -> None:
    if daemon.returncode is None:
        daemon.terminate()
        try:
            async with asyncio.timeout(30.0):
                await daemon.wait()
        except TimeoutError:
            daemon.kill()
            await daemon.wait()


async def _chat(gateway: Gateway, daemon: asyncio.subprocess.Process, *, interactive: bool) -> int:
    if interactive:
        _say("这是真的 dingbridge，接着两个替身：一个扮演钉钉，一个扮演 AnythingLLM（只会摘抄员工手册，不是大模型）。")
        _say("输入问题后回车；/help 看命令；Ctrl-D 结束。可以试试：")
        _say("".join(f"  {example}\n" for example in EXAMPLES))
    lines = _lines(interactive=interactive)
    while (line := await lines.get()) is not None:
        if not line.strip():
            continue
        sent = await gateway.say(line.strip(), user="zhangsan", nick="张三")
        await _show_answer(gateway, sent, daemon)
    return 0


async def _show_answer(gateway: Gateway, sent: Sent, daemon: asyncio.subprocess.Process) -> None:
    """Print what the chat would show, until the answer is whole."""
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
            if daemon.returncode is not None:
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
    print(text, file=to or sys.stdout, flush=True)


def _log(folder: Path) -> str:
    lines = (folder / "daemon.log").read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(lines[-20:])
