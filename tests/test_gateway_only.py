"""`dingbridge demo --gateway-only` as a process: bots on both official SDKs, driven from a pipe and by HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import socket
import sys
import textwrap
import tomllib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from dingbridge.sim.anythingllm import AnythingLLM
from dingbridge.sim.gateway import Gateway
from tests.demo_visitor import Visitor, answers_in, visiting
from tests.gateway_client import BOT, JSON, OPEN
from tests.house import NOTICE, House, settings, until, write
from tests.sdk_bots import endpoint, install_node_sdk, interceptor, node_bot, python_bot

WHO = {"client_id": "dingsimulated0001", "client_secret": "simulated-secret"}
START_S = 60.0
SCREENS = {"DISPLAY", "WAYLAND_DISPLAY", "BROWSER", "SSH_CONNECTION"}


@dataclass
class Alone:
    """The command; `printed` is what it said before the first line."""

    process: asyncio.subprocess.Process
    http: aiohttp.ClientSession
    printed: str = ""

    @property
    def url(self) -> str:
        found = re.search(r"http://127\.0\.0\.1:\d+", self.printed)
        assert found, self.printed
        return found[0]

    async def line(self, timeout_s: float = START_S) -> str:
        """The next line of its stdout."""
        assert self.process.stdout is not None
        async with asyncio.timeout(timeout_s):
            return (await self.process.stdout.readline()).decode().rstrip("\n")

    async def lines(self, until: str) -> AsyncIterator[str]:
        while (line := await self.line()) != until:
            yield line

    def say(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{text}\n".encode())

    async def ask(self, verb: str, **body: Any) -> dict[str, Any]:
        """A POST of the control API."""
        async with self.http.post(f"{self.url}/_sim/{verb}", json=body) as response:
            assert response.status == 200, await response.text()
            return dict(await response.json())

    async def show(self, what: str) -> str:
        async with self.http.get(f"{self.url}/_sim/{what}") as response:
            assert response.status == 200
            return await response.text()

    async def posted(self, text: str, times: int) -> None:
        """Wait until the bot has posted it so often."""
        seen, texts = 0, list[str]()
        async with asyncio.timeout(START_S):
            while texts.count(text) < times:
                posts = json.loads(await self.show(f"posts?after={seen}&wait_s=30"))["posts"]
                texts += [post["text"] for post in posts]
                seen = posts[-1]["number"] if posts else seen

    async def state(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        async with asyncio.timeout(START_S):
            while not holds(state := dict(json.loads(await self.show("state")))):
                await asyncio.sleep(0.05)
        return state

    async def ended(self, timeout_s: float = START_S) -> int:
        async with asyncio.timeout(timeout_s):
            return await self.process.wait()


@asynccontextmanager
async def alone(
    http: aiohttp.ClientSession,
    *arguments: str,
    stdin: int = asyncio.subprocess.PIPE,
    environ: dict[str, str] | None = None,
) -> AsyncIterator[Alone]:
    """Started and listening. Its hints come on stderr where stdin is a pipe, else on stdout."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "dev", "-W", "error", "-m", "dingbridge", "demo", "--gateway-only", *arguments),
        stdin=stdin,
        env={key: value for key, value in os.environ.items() if key not in SCREENS} | (environ or {}),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE if stdin == asyncio.subprocess.PIPE else asyncio.subprocess.STDOUT,
    )
    running = Alone(process, http)
    source = process.stderr or process.stdout
    assert source is not None
    try:
        async with asyncio.timeout(START_S):
            while "/_sim/state" not in running.printed and (line := await source.readline()):
                running.printed += line.decode()
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@asynccontextmanager
async def bot(which: str, one: Alone, folder: Path) -> AsyncIterator[None]:
    """An official SDK's bot, pointed there as the command prints it."""
    if which == "python":
        assert f"DINGTALK_OPENAPI_ENDPOINT={one.url} NO_PROXY=127.0.0.1" in one.printed
        async with python_bot(one.url, **WHO):
            yield
        return
    install_node_sdk()
    lines = interceptor(one.printed) if which == "node with axios" else endpoint(one.printed)
    async with node_bot(lines, folder, **WHO):
        yield


@pytest.mark.parametrize("which", ["python", "node with axios", "node without axios"])
async def test_an_sdk_receives_acks_and_survives_a_rotation(
    http: aiohttp.ClientSession, tmp_path: Path, which: str
) -> None:
    """A line is answered, also after a rotation and once more when redelivered; the end of the pipe is 0."""
    async with alone(http, "--port", "0") as one:
        one.say("年假有几天？")  # before there is a bot
        async with bot(which, one, tmp_path):
            assert await one.line() == "echo: 年假有几天？"
            assert len((await one.ask("rotate", close_after_s=0.3))["rotated"]) == 1
            one.say("还在吗")
            shown = [line async for line in one.lines(until="echo: 还在吗")]
            assert shown == (["**张三**"] if which == "python" else [])
            assert (await one.ask("redeliver"))["deliveries"] == 2
            await one.posted("echo: 还在吗", times=2)
            state = await one.state(lambda state: state["acks"] >= 3 + (which == "python"))  # it acks `disconnect` too
            traffic = [json.loads(line) for line in (await one.show("traffic")).splitlines()]
            assert one.process.stdin is not None
            one.process.stdin.close()
            assert await one.ended() == 0
    assert (state["opens"], state["ack_on_wrong_connection"]) == (2, 0)
    kinds = [entry["kind"] for entry in traffic]
    assert kinds.count("connected") == 2
    frames = [entry["frame"] for entry in traffic if entry["kind"] == "frame"]
    said = [frame["headers"]["messageId"] for frame in frames if frame["type"] == "CALLBACK"]
    acked = [entry["message_id"] for entry in traffic if entry["kind"] == "ack"]
    assert len(said) == 3
    assert sorted(said) == sorted(set(acked) & set(said))
    assert "simulated-secret" not in json.dumps(traffic)


async def test_an_empty_pipe_is_0(http: aiohttp.ClientSession) -> None:
    """There was nothing to say."""
    async with alone(http, "--port", "0") as one:
        assert one.process.stdin is not None
        one.process.stdin.close()
        assert await one.ended() == 0


@pytest.mark.parametrize(("connects", "why"), [(False, "没有等到机器人连接"), (True, "没有等到回答")])
async def test_no_bot_or_no_answer_is_1(*, connects: bool, why: str) -> None:
    """A pipe does not wait for ever: it says what it waited for."""
    quick = "import asyncio, sys; from dingbridge.demo import gateway_only as one; one.CONNECT_S = one.ANSWER_S = {}; "
    silent = "sys.exit(asyncio.run(one.run(port=0, record=None, browser=False)))"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "dev", "-W", "error", "-c", quick.format(3 if connects else 0.3) + silent),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write("你好\n".encode())
    async with asyncio.timeout(START_S), aiohttp.ClientSession() as http:
        url = (await process.stderr.readline()).decode().partition("：")[2].partition("（")[0]
        if connects:
            bot = {"clientId": WHO["client_id"], "clientSecret": WHO["client_secret"], "subscriptions": BOT}
            async with http.post(url + OPEN, json=bot, headers=JSON) as response:
                ticket = await response.json()
            await http.ws_connect(f"{ticket['endpoint']}?ticket={ticket['ticket']}")
        out, err = await process.communicate()
    assert (process.returncode, out) == (1, b"")
    assert why in err.decode()


async def test_with_nothing_on_stdin_it_runs_until_a_signal(http: aiohttp.ClientSession) -> None:
    """With /dev/null it stays, shows what happens, and SIGTERM ends it with 0."""
    async with alone(http, "--port", "0", stdin=asyncio.subprocess.DEVNULL) as one:
        async with python_bot(one.url, **WHO):
            while "机器人已连接" not in (line := await one.line()):
                assert line or not one.process.stdout.at_eof()  # type: ignore[union-attr]
            answered = await one.ask("say", text="你好", wait_s=30)
            assert answered["posts"][0]["text"] == "echo: 你好"
            shown = [await one.line() for _ in range(2)]
        one.process.send_signal(signal.SIGTERM)
        assert await one.ended() == 0
    assert [line.partition(" ")[2] for line in shown] == ["→ 张三：你好", "← echo: 你好"]


async def test_on_a_terminal_lines_are_said_and_ctrl_d_does_not_end_it(http: aiohttp.ClientSession) -> None:
    """A typed line reaches the bot; after Ctrl-D it goes on until SIGINT, which is 0."""
    ours, theirs = pty.openpty()
    try:
        async with alone(http, "--port", "0", stdin=theirs) as one, python_bot(one.url, **WHO):
            while "机器人已连接" not in await one.line():
                pass
            os.write(ours, "你好\n\x04".encode())
            assert "→ 张三：你好" in await one.line()
            assert "← echo: 你好" in await one.line()
            assert one.process.returncode is None
            one.process.send_signal(signal.SIGINT)
            assert await one.ended() == 0
    finally:
        os.close(ours)
        os.close(theirs)


async def test_each_printed_call_works(http: aiohttp.ClientSession) -> None:
    """What it says can be done from another terminal can be done."""
    async with alone(http, "--port", "0", stdin=asyncio.subprocess.DEVNULL) as one, python_bot(one.url, **WHO):
        while "机器人已连接" not in await one.line():
            pass
        calls = re.findall(r"^  curl (?:-d '(.*)' )?(\S+)$", one.printed, flags=re.MULTILINE)
        for body, url in calls:
            if url.endswith("/fault"):  # the rotation before it leaves nobody there for a moment
                await one.state(lambda state: any(link["state"] == "live" for link in state["connections"]))
            async with http.request("POST" if body else "GET", url, data=body or None) as response:
                assert response.status == 200, await response.text()
    assert [url.rpartition("/")[2] for _, url in calls] == ["say", "rotate", "fault", "state"]


@asynccontextmanager
async def page_of(one: Alone) -> AsyncIterator[Visitor]:
    """A visitor on the page that it prints after its hints."""
    while not (found := re.search(r"聊天页面：(\S+)", await one.line())):
        pass
    async with visiting(found[1]) as visitor:
        yield visitor


async def test_a_page_stands_beside_it(http: aiohttp.ClientSession) -> None:
    """Its visitor sees the bot come and go, talks to it, hears what is said elsewhere, and can break the link."""
    async with alone(http, "--port", "0", stdin=asyncio.subprocess.DEVNULL) as one, page_of(one) as visitor:
        state = await visitor.state()
        assert (state["mode"], state["gateway"]["url"], state["gateway"]["connections"]) == ("gateway-only", one.url, 0)
        assert state["chats"][0]["title"] == "我的机器人（张三）"
        await one.ask("say", text="早", user="lisi", nick="李四")
        waits = await visitor.until(lambda state: state["messages"])
        assert [(each["chat"], each["text"], each["state"]) for each in waits] == [("lisi", "早", "held")]
        async with visitor.events() as events:
            async with python_bot(one.url, **WHO):
                await visitor.say("你好")
                assert (await visitor.until(lambda state: answers_in(state, "zhangsan")))[0]["text"] == "echo: 你好"
                assert (await visitor.until(lambda state: answers_in(state, "lisi")))[0]["text"] == "echo: 早"
                await visitor.act("fault", name="cut")
                await visitor.until(lambda state: not state["gateway"]["connections"])
            told = [event["gateway"]["connections"] async for event in first(events, "gateway", 2)]
        assert told == [1, 0]
        one.process.send_signal(signal.SIGTERM)
        assert await one.ended() == 0


async def first(events: AsyncIterator[dict[str, Any]], kind: str, count: int) -> AsyncIterator[dict[str, Any]]:
    """The first `count` events of a kind."""
    async with asyncio.timeout(START_S):
        async for event in events:
            if event["type"] == kind:
                yield event
                count -= 1
            if not count:
                return


async def test_a_pipe_needs_no_page(http: aiohttp.ClientSession) -> None:
    """It would be gone with the last answer: none is served, and stdout stays the answers'."""
    async with alone(http, "--port", "0") as one:
        assert one.process.stdin is not None
        one.process.stdin.close()
        out, err = await one.process.communicate()
        assert out == b""
        assert "聊天页面" not in one.printed + err.decode()


@pytest.mark.parametrize("option", [(), ("--no-browser",)])
async def test_the_page_is_opened_where_somebody_sits(
    http: aiohttp.ClientSession, tmp_path: Path, option: tuple[str, ...]
) -> None:
    """The user's browser gets the page's address, unless --no-browser says no."""
    browser, asked = tmp_path / "browser", tmp_path / "asked"
    browser.write_text(f'#!/bin/sh\necho "$1" > {asked}.new && mv {asked}.new {asked}\n', encoding="utf-8")
    browser.chmod(0o755)
    environ = {"BROWSER": str(browser)}
    async with alone(http, "--port", "0", *option, stdin=asyncio.subprocess.DEVNULL, environ=environ) as one:
        async with page_of(one) as visitor:
            assert (await visitor.state())["mode"] == "gateway-only"
            if not option:
                await until(asked.exists)
                assert asked.read_text("utf-8").strip() == visitor.url
        one.process.send_signal(signal.SIGTERM)
        assert await one.ended() == 0
    assert asked.exists() is (option == ())


async def test_a_port_that_is_taken_is_not_the_end(http: aiohttp.ClientSession) -> None:
    """The next free one is used, and printed."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with alone(http, "--port", str(port), stdin=asyncio.subprocess.DEVNULL) as one:
            assert int(one.url.rpartition(":")[2]) in range(port + 1, port + 21)
            assert json.loads(await one.show("state"))["url"] == one.url


async def test_dingbridge_is_pointed_there_as_printed(
    http: aiohttp.ClientSession, backend: AnythingLLM, tmp_path: Path
) -> None:
    """Its waiting notice is no answer: the line after it is."""
    backend.answer, backend.answer_delay_s = str, 2.5
    async with alone(http, "--port", "0") as one:
        block = re.search(r"^  \[dingtalk\]\n(?:  \w+ = .*\n)+", one.printed, flags=re.MULTILINE)
        assert block, one.printed
        tables = settings(Gateway(), backend, tmp_path, reply={"notice_after_s": 0.2})
        write(tmp_path / "dingbridge.toml", tables | tomllib.loads(textwrap.dedent(block[0])))
        daemon = await House(Gateway(), backend, tmp_path).daemon()
        try:
            one.say("北京住宿标准")
            lines = [await one.line() for _ in range(2)]
        finally:
            assert await daemon.stop() == 0
    assert lines[0] == NOTICE
    assert lines[1].startswith("北京住宿标准")


async def test_the_traffic_is_recorded(http: aiohttp.ClientSession, tmp_path: Path) -> None:
    """--record writes what a bug report needs, for the owner alone, and nothing secret."""
    path = tmp_path / "traffic.jsonl"
    async with alone(http, "--port", "0", "--record", str(path)) as one, python_bot(one.url, **WHO):
        one.say("你好")
        await one.line()
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert [line["kind"] for line in lines[:5]] == ["open", "connected", "live", "frame", "post"]
    assert path.stat().st_mode & 0o077 == 0
    assert "session=***" in lines[3]["frame"]["data"]
    assert lines[0]["body"]["clientSecret"] == "***"
    assert "simulated-secret" not in path.read_text("utf-8")


async def test_a_record_that_cannot_be_written_is_said_at_once(http: aiohttp.ClientSession, tmp_path: Path) -> None:
    """The exit code is 1, and stderr names the file."""
    async with alone(http, "--port", "0", "--record", str(tmp_path / "none" / "t.jsonl")) as one:
        assert await one.ended() == 1
    assert "t.jsonl" in one.printed


async def test_options_that_do_not_go_together_are_a_usage_error() -> None:
    """--record belongs to --gateway-only."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "dingbridge", "demo", "--record", "x"), stderr=asyncio.subprocess.PIPE
    )
    _, err = await process.communicate()
    assert process.returncode == 2
    assert b"--gateway-only" in err
