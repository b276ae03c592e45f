"""`dingbridge demo --gateway-only`: DingTalk's stand-in alone, for a bot of any make. Its output is for people.

Each line of stdin is said to the bot as a user. From a pipe or a file: it ends after the last answer. On a terminal, or
with /dev/null as stdin: it runs until a signal, and a page with the chats and the wire stands beside it.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NoReturn, TextIO

from dingbridge.demo.opening import open_browser, welcome
from dingbridge.demo.page import Page
from dingbridge.demo.people import cast
from dingbridge.demo.room import Room, Watched
from dingbridge.demo.stage import live
from dingbridge.demo.switches import Switches
from dingbridge.sim.gateway import Gateway, Post, Sent
from dingbridge.texts import NOTICE, Texts

PORT = 8786
PORTS_TRIED = 20
KEEP = 2_000
CONNECT_S = 60.0
ANSWER_S = 200.0
QUIET_S = 1.0
LINE_LIMIT = 64 * 1024
AHEAD = 16
BOT_NAME = "我的机器人"
QUICK = ("你好", "北京出差住宿标准是多少？", "/help")
_NUMBERED = re.compile(r"\((\d+)/(\d+)\)\s*$")
HINTS = """\
钉钉替身：{url}（只有本机能连；这里没有真的钉钉）
  Client ID      {client_id}
  Client Secret  {client_secret}

Python SDK（dingtalk-stream，代码不用改）：
  export DINGTALK_OPENAPI_ENDPOINT={url} NO_PROXY=127.0.0.1
  python bot.py

Node SDK（dingtalk-stream，地址写死在包里；在 client.connect() 之前加上其一）：
  import axios from 'axios';
  axios.interceptors.request.use((request) => {{
    request.url = request.url.replace(/^https:\\/\\/o?api\\.dingtalk\\.com/, '{url}');
    return request;
  }});
或者，机器人自己没有装 axios 时：
  client.getEndpoint = async () => {{
    const {{ clientId, clientSecret, ua, subscriptions }} = client.getConfig();
    const r = await fetch('{url}/v1.0/gateway/connections/open', {{ method: 'POST',
      headers: {{ 'Content-Type': 'application/json', Accept: 'application/json' }},
      body: JSON.stringify({{ clientId, clientSecret, ua, subscriptions }}) }});
    const {{ endpoint, ticket }} = await r.json();
    client.dw_url = `${{endpoint}}?ticket=${{ticket}}`;
  }};

dingbridge（dingbridge.toml）：
  [dingtalk]
  client_id = "{client_id}"
  client_secret = "{client_secret}"
  api_base = "{url}"
  oapi_base = "{url}"

另一个终端里可以：
  curl -d '{{"text":"你好"}}' {url}/_sim/say
  curl -d '{{}}' {url}/_sim/rotate
  curl -d '{{"at":"connection","fault":"half_open"}}' {url}/_sim/fault
  curl {url}/_sim/state
"""


async def run(*, port: int | None, record: Path | None, browser: bool) -> int:
    """port: of the gateway; the page takes the next one.

    0 after a signal, or when each line of a pipe was answered; 1 where it could not start or no answer came.
    """
    alone = asyncio.create_task(_run(PORT if port is None else port, record, browser=browser))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, alone.cancel)
    await asyncio.wait({alone})
    return 0 if alone.cancelled() else alone.result()


async def _run(port: int, record: Path | None, *, browser: bool) -> int:
    stays, room = _stays(), Room(cast(bare=False, bot=BOT_NAME))
    async with AsyncExitStack() as stack:
        try:
            gateway = await _open(stack, room, port, record)
            page = await stack.enter_async_context(_page(room, gateway, port)) if stays else None
        except OSError as error:
            _say(f"不能启动：{error}", sys.stderr)
            return 1
        hints = HINTS.format(url=gateway.url, client_id=gateway.client_id, client_secret=gateway.client_secret)
        _say(hints, sys.stdout if stays else sys.stderr)
        if page is not None:
            _say(welcome(page.port, page.port, os.environ, "聊天页面"))
            if browser:
                open_browser(page.url)
        code = await (_serve(gateway) if stays else _converse(gateway))
        if gateway.tape is not None and gateway.tape.error:
            _say(f"记录写不下去：{gateway.tape.error}", sys.stderr)
            return 1
        return code


async def _open(stack: AsyncExitStack, room: Room, port: int, record: Path | None) -> Watched:
    """On that port, or the next free one. OSError: none is free, or the record cannot be written."""
    last = min(port + PORTS_TRIED, 65_535)
    for candidate in range(port, last + 1):
        try:
            return await stack.enter_async_context(room.gateway(port=candidate, control=True, record=record, keep=KEEP))
        except OSError as error:
            if error.errno != errno.EADDRINUSE or candidate == last:
                raise
    raise AssertionError


def _page(room: Room, gateway: Watched, port: int) -> Page:
    """The chats beside it, on the port after the gateway's, or any where that was any."""

    def outlet() -> dict[str, Any]:
        return {
            "url": gateway.url,
            "client_id": gateway.client_id,
            "client_secret": gateway.client_secret,
            "connections": len(live(gateway)),
        }

    room.linked = lambda: room.board.tell("gateway", outlet())
    return Page(
        room,
        Switches(room, gateway),
        port=gateway.port + 1 if port else 0,
        facts=lambda: {"gateway": outlet(), "quick": list(QUICK)},
    )


def _stays() -> bool:
    """Whether stdin says nothing about when to end: a terminal, /dev/null, or closed."""
    if sys.stdin is None:
        return True
    with suppress(OSError):
        return os.isatty(0) or os.path.samestat(os.fstat(0), Path(os.devnull).stat())
    return True


# ---- from a pipe: one line, one answer


async def _converse(gateway: Gateway) -> int:
    lines = Lines()
    waits_for, shown = "", 0
    try:
        while (line := await lines.get()) is not None:
            if not line.strip():
                continue
            waits_for = "机器人连接"
            await gateway.connected(timeout_s=CONNECT_S)
            waits_for = "回答"
            shown = await _show_answer(gateway, await gateway.say(line.strip(), user="zhangsan", nick="张三"), shown)
    except TimeoutError:
        _say(f"没有等到{waits_for}。", sys.stderr)
        return 1
    return 0


async def _show_answer(gateway: Gateway, sent: Sent, shown: int) -> int:
    """Print what the chat would show, until nothing more comes; the number of the last post that is shown.

    TimeoutError where nothing comes at all. What came late for the line before is shown too, and answers nothing.
    """
    whole = False

    def news() -> list[Post]:
        return [post for post in gateway.posts_in(sent.conversation) if post.number > shown]

    async with asyncio.timeout(ANSWER_S):
        while True:
            for post in news():
                _say(post.text)
                shown = post.number
                whole = post.at >= sent.at and _is_whole(post.text)
            try:
                await gateway.until(news, QUIET_S if whole else ANSWER_S)
            except TimeoutError:
                if whole:
                    return shown
                raise


def _is_whole(text: str) -> bool:
    """Neither dingbridge's waiting notice nor a part before the last."""
    numbered = _NUMBERED.search(text)
    return text != Texts("zh-CN")(NOTICE) and (numbered is None or numbered[1] == numbered[2])


# ---- until a signal: everything is shown


async def _serve(gateway: Gateway) -> NoReturn:
    async with asyncio.TaskGroup() as tasks:
        if sys.stdin is not None and os.isatty(0):
            tasks.create_task(_say_lines(gateway))
        seen = 0
        while True:
            for entry in await gateway.until(lambda seen=seen: gateway.since(seen), None):  # type: ignore[misc]
                seen = entry["number"]
                if line := _line(entry):
                    _say(f"{datetime.now().astimezone():%H:%M:%S} {line}")


async def _say_lines(gateway: Gateway) -> None:
    lines = Lines()
    while (line := await lines.get()) is not None:
        if line.strip():
            await gateway.say(line.strip(), user="zhangsan", nick="张三")


def _line(entry: dict[str, Any]) -> str:
    """What a developer wants to see of an entry; empty for the rest."""
    show = SHOWN.get(entry["kind"])
    return show(entry) if show is not None else ""


def _frame_line(frame: dict[str, Any]) -> str:
    topic = frame["headers"]["topic"]
    try:
        message = json.loads(frame["data"])
        text = message["text"]["content"].strip()
    except (ValueError, TypeError, LookupError):
        return f"→ {frame['type']} {topic}"
    return f"→ {message.get('senderNick', '')}：{text}"


def _post_text(body: dict[str, Any]) -> str:
    try:
        part = json.loads(body["msgParam"]) if "msgParam" in body else body[body["msgtype"]]
        return str(part.get("content") or part.get("text") or part)
    except (ValueError, TypeError, LookupError, AttributeError):
        return json.dumps(body, ensure_ascii=False)


def _short(entry: dict[str, Any]) -> str:
    return str(entry["connection"])[:8]


SHOWN: Final[dict[str, Callable[[dict[str, Any]], str]]] = {
    "open": lambda entry: "" if entry["outcome"] == "ticket" else f"✗ 申请连接被拒绝：{entry['outcome']}",
    "handshake": lambda entry: f"✗ 握手失败：{entry['outcome']}",
    "live": lambda entry: f"● 机器人已连接 {_short(entry)}",
    "closed": lambda entry: f"○ 连接已断开 {_short(entry)}（{entry['code']}）",
    "fault": lambda entry: f"⚡ {entry['fault']} {_short(entry)}",
    "held": lambda _: "… 还没有机器人连接，消息会等它",
    "frame": lambda entry: _frame_line(entry["frame"]),
    "ack": lambda entry: f"✓ 已确认 {entry['code']}",
    "post": lambda entry: f"← {_post_text(entry['body'])}",
    "webhook": lambda entry: f"✗ {entry['path']} 没有成功：{entry['outcome']}",
    "openapi": lambda entry: f"✗ {entry['path']} 没有成功：{entry['outcome']}",
}


class Lines:
    """Lines of stdin, read ahead by a thread: a terminal, a pipe and a file all may stand there.

    The thread reads the descriptor itself: a reader inside `sys.stdin` would hold its lock when the process ends.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        self._room = threading.Semaphore(AHEAD)
        threading.Thread(target=self._read, daemon=True, name="stdin").start()

    async def get(self) -> str | None:
        """The next line; None at the end."""
        line = await self._lines.get()
        self._room.release()
        return line

    def _read(self) -> None:
        rest = b""
        with suppress(OSError):
            while chunk := os.read(0, LINE_LIMIT):
                *whole, rest = (rest + chunk).split(b"\n")
                for line in whole:
                    self._put(line)
                if len(rest) > LINE_LIMIT:
                    self._put(rest)
                    rest = b""
        if rest:
            self._put(rest)
        self._put(None)

    def _put(self, line: bytes | None) -> None:
        self._room.acquire()
        text = None if line is None else line.decode(errors="replace")
        with suppress(RuntimeError):  # the loop is closed: nobody asks any more
            self._loop.call_soon_threadsafe(self._lines.put_nowait, text)


def _say(text: str, to: TextIO | None = None) -> None:
    print(text, file=to or sys.stdout, flush=True)
