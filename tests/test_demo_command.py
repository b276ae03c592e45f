"""`dingbridge demo` as its user starts it: a page or answers on stdout, one's own configuration, and a clean end."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from dingbridge.demo import opening
from dingbridge.sim.anythingllm import AnythingLLM, Workspace, handbook_folder
from tests.demo_visitor import Visitor, visiting

PAGE = re.compile(r"http://127\.0\.0\.1:(\d+)")
HANDLER = """
from dingbridge import Answer


async def greet(message, reply):
    return Answer(f"自己的处理器收到：{message.text}")
"""


@dataclass
class Demo:
    """A running `dingbridge demo` and its page."""

    process: asyncio.subprocess.Process
    visitor: Visitor
    port: int
    said: str

    async def end(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        async with asyncio.timeout(60):
            return await self.process.wait()


async def start(
    *arguments: str,
    environ: Mapping[str, str] | None = None,
    stdin: int = asyncio.subprocess.DEVNULL,
) -> asyncio.subprocess.Process:
    kept = {key: value for key, value in os.environ.items() if key not in {"SSH_CONNECTION", "DISPLAY", "BROWSER"}}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "dev", "-W", "error", "-m", "dingbridge", "demo", *arguments),
        stdin=stdin,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**kept, **(environ or {})},
    )


@asynccontextmanager
async def demo(*arguments: str, environ: Mapping[str, str] | None = None) -> AsyncIterator[Demo]:
    process = await start(*arguments, environ=environ)
    try:
        said = b""
        async with asyncio.timeout(60):
            while not PAGE.search(said.decode()):
                line = await process.stdout.readline()  # type: ignore[union-attr]
                assert line, (said + await process.stderr.read()).decode()  # type: ignore[union-attr]
                said += line
        port = int(PAGE.search(said.decode())[1])  # type: ignore[index]
        async with visiting(f"http://127.0.0.1:{port}") as visitor:
            yield Demo(process, visitor, port, said.decode())
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def rest_of(process: asyncio.subprocess.Process) -> tuple[int, str, str]:
    try:
        async with asyncio.timeout(60):
            out, err = await process.communicate()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
    return process.returncode or 0, out.decode(), "\n".join(complaints(err.decode()))


def complaints(err: str) -> list[str]:
    """Lines of stderr without asyncio's remarks, in development mode, that the machine is busy."""
    return [line for line in err.splitlines() if not line.startswith("Executing <")]


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(40):
        while not holds():
            await asyncio.sleep(0.05)


def pids(wire: list[dict[str, object]]) -> list[int]:
    return [int(found[1]) for row in wire if (found := re.search(r"pid (\d+)", str(row["title"])))]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_everything(number: int) -> None:
    """Exit code 0, nothing on stderr, and neither the daemon nor the bot beside it is left."""
    async with demo("--port", "0", "--no-browser") as running:
        await running.visitor.say("年假有几天？", "bare")
        await running.visitor.answer(chat="bare")
        children = pids((await running.visitor.state())["wire"])
        assert len(children) == 2
        assert not any(map(is_gone, children))

        assert await running.end(number) == 0

        assert all(map(is_gone, children))
        assert complaints((await running.process.stderr.read()).decode()) == []  # type: ignore[union-attr]


async def test_an_open_page_does_not_hold_the_end() -> None:
    """Ctrl-C ends the demo while a browser still listens for events."""
    async with demo("--port", "0", "--no-browser") as running, running.visitor.events():
        assert await running.end() == 0


async def test_a_killed_demo_leaves_no_daemon() -> None:
    """Even SIGKILL of the demo ends its children."""
    async with demo("--port", "0", "--no-browser") as running:
        (daemon,) = pids((await running.visitor.state())["wire"])
        assert await running.end(signal.SIGKILL) == -signal.SIGKILL
        await until(lambda: is_gone(daemon))


async def test_a_second_signal_does_not_wait_for_the_daemon(tmp_path: Path) -> None:
    """Where the daemon would still finish an answer for minutes, a second Ctrl-C ends it at once."""
    key, own = tmp_path / "key", tmp_path / "mine.toml"
    key.write_text("REAL-KEY\n", encoding="utf-8")
    own.write_text('[[route]]\nworkspace = "handbook"\n[limits]\ndrain_s = 600\n', encoding="utf-8")
    async with AnythingLLM(api_key="REAL-KEY") as server:
        server.answer_delay_s = 600.0
        arguments = ("--config", str(own), "--anythingllm", server.url, "--api-key-file", str(key))
        async with demo("--port", "0", "--no-browser", *arguments) as running:
            await running.visitor.say("年假有几天？")
            async with asyncio.timeout(40):
                await server.until(lambda: server.running > 0)
            (daemon,) = pids((await running.visitor.state())["wire"])
            running.process.send_signal(signal.SIGINT)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(running.process.wait(), 3.0)
            assert not is_gone(daemon)
            running.process.send_signal(signal.SIGINT)
            async with asyncio.timeout(20):
                assert await running.process.wait() == 0
            assert is_gone(daemon)


async def test_a_taken_port_gives_the_next_one() -> None:
    """The page is served one port further, and says so."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with demo("--port", str(port), "--no-browser") as running:
            assert running.port != port
            assert f"端口 {port} 已被占用" in (await running.process.stdout.readline()).decode()  # type: ignore[union-attr]
            assert (await running.visitor.state())["mode"] == "demo"


async def test_over_ssh_it_says_how_to_reach_the_page() -> None:
    """With SSH_CONNECTION the forwarding command for the other machine is printed."""
    environ = {"SSH_CONNECTION": "10.0.0.5 51234 10.0.0.9 2222"}
    async with demo("--port", "0", environ=environ) as running:
        await running.process.stdout.readline()  # type: ignore[union-attr]
        command = (await running.process.stdout.readline()).decode().strip()  # type: ignore[union-attr]
        assert command.startswith(f"ssh -N -L {running.port}:127.0.0.1:{running.port} -p 2222 ")
        assert command.endswith("@10.0.0.9")


@pytest.mark.parametrize("option", [(), ("--no-browser",)])
async def test_the_browser_is_opened_at_the_page(option: tuple[str, ...], tmp_path: Path) -> None:
    """The user's browser gets the page's address, unless --no-browser says no."""
    browser, asked = tmp_path / "browser", tmp_path / "asked"
    browser.write_text(f'#!/bin/sh\necho "$1" > {asked}.new && mv {asked}.new {asked}\n', encoding="utf-8")
    browser.chmod(0o755)
    async with demo("--port", "0", *option, environ={"BROWSER": str(browser)}) as running:
        if option:
            assert (await running.visitor.state())["mode"] == "demo"
            assert await running.end() == 0
            assert not asked.exists()
        else:
            await until(asked.exists)
            assert asked.read_text("utf-8").strip() == f"http://127.0.0.1:{running.port}"
            assert await running.end() == 0


def test_a_browser_is_opened_only_where_somebody_sits() -> None:
    """Not over ssh, not without a screen: a text browser would take the terminal."""
    assert opening.opens_a_browser({"DISPLAY": ":0"})
    assert not opening.opens_a_browser({"DISPLAY": ":0", "SSH_CONNECTION": "a 1 b 22"})
    assert not opening.opens_a_browser({}) or sys.platform == "darwin"


async def test_without_questions_it_serves_a_page() -> None:
    """/dev/null is neither a pipe nor a person: the page is served, on the usual port or the next free one."""
    async with demo() as running:
        assert running.port >= opening.PORT
        assert (await running.visitor.state())["mode"] == "demo"
        assert await running.end() == 0


async def test_a_chat_in_the_terminal() -> None:
    """--chat on a terminal greets, answers what is typed, and ends with Ctrl-D."""
    ours, theirs = os.openpty()
    try:
        process = await start("--chat", stdin=theirs)
        os.write(ours, "年假有几天？\n".encode())
        said = b""
        async with asyncio.timeout(60):
            while "来源：" not in said.decode():
                said += await process.stdout.readline()  # type: ignore[union-attr]
        os.write(ours, b"\x04")
        code, _, err = await rest_of(process)
    finally:
        os.close(ours)
        os.close(theirs)
    assert (code, err) == (0, "")
    assert "/help 看命令" in said.decode()


async def test_questions_from_a_file_are_answered_on_stdout(tmp_path: Path) -> None:
    """A regular file as stdin is read like a pipe, nothing is served; a question may be longer than the page's."""
    questions = tmp_path / "questions.txt"
    questions.write_text("年假" * 3_000 + "？\n年假有几天？\n", encoding="utf-8")
    with questions.open() as stdin:
        code, out, err = await rest_of(await start(stdin=stdin.fileno()))
    assert (code, err) == (0, "")
    assert out.count("来源：") == 2
    assert not PAGE.search(out)


async def test_ones_own_routes_and_handlers_run_in_it(tmp_path: Path) -> None:
    """A file made for the real thing runs as it is: its secrets and addresses are not needed, its paths are its own."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "demo_own_handler.py").write_text(HANDLER, encoding="utf-8")
    (tmp_path / "mine.toml").write_text(
        """
[dingtalk]
client_id = "dingreal"
client_secret_file = "not-here"
proxy = "http://user:password@10.255.0.1:3128"
[anythingllm]
base_url = "http://10.255.0.2:3001"
attempts = 1
[[route]]
handler = "demo_own_handler:greet"
users = ["manager807"]
[[route]]
workspace = "hr-docs"
conversations = ["cidAbc=="]
[handlers]
path = ["own"]
[reply]
locale = "en"
[store]
url = "/nowhere/to/be/written.db"
[web]
listen = "0.0.0.0:80"
""",
        encoding="utf-8",
    )
    async with demo("--port", "0", "--no-browser", "--config", str(tmp_path / "mine.toml")) as running:
        visitor = running.visitor
        await visitor.say("在吗", "zhangsan", "zhangsan")
        assert "自己的处理器收到：在吗" in (await visitor.answer())["text"]
        await visitor.say("年假有几天？", "group", "wangwu")
        assert "Sources:" in (await visitor.answer(chat="group"))["text"]
        await visitor.say("年假有几天？", "wangwu", "wangwu")
        assert "/whoami" in (await visitor.answer(chat="wangwu"))["text"]
        assert (await visitor.post("tour", action="start"))[0] == 409
        state = await visitor.state()
        assert (state["own"], state["real_anythingllm"]) == (True, False)
        assert state["people"][0]["role"] == "配置里的用户 manager807"
        assert await running.end() == 0


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        ('[[route]]\nworkspce = "hr"\n', "route[0].workspce: unknown key, did you mean workspace"),
        ('[dingtalk]\nclient = "x"\n[[route]]\nworkspace = "hr"\n', "dingtalk.client: unknown key"),
        ('[[route]]\nworkspace = "hr"\n[anythingllm]\nattempts = 0\n', "anythingllm.attempts: must be from 1"),
        ('[[route]]\nworkspace = "hr"\n[handlers]\npath = ["none"]\n', "handlers.path[0]: {folder}/none: not there"),
        ('[[route]]\nhandler = "no_such_module:f"\n', "route[0].handler: no module no_such_module"),
        ("[[route]\n", "{folder}/mine.toml: line 1"),
    ],
)
async def test_a_faulty_file_is_told_like_everywhere(tmp_path: Path, written: str, fault: str) -> None:
    """The same lines as `check` and `run` print, and exit code 78."""
    path = tmp_path / "mine.toml"
    path.write_text(written, encoding="utf-8")
    code, out, err = await rest_of(await start("--port", "0", "--no-browser", "--config", str(path)))
    assert (code, out) == (78, "")
    assert err.startswith(fault.format(folder=tmp_path))
    assert len(err.splitlines()) == 1


async def test_a_real_server_answers_in_the_place_of_the_stand_in(tmp_path: Path) -> None:
    """--anythingllm with its key: the first workspace is asked; the backend's switches and the tour are not offered."""
    key = tmp_path / "key"
    key.write_text("REAL-KEY\n", encoding="utf-8")
    async with AnythingLLM(api_key="REAL-KEY", workspaces={"docs": Workspace("资料", handbook_folder())}) as server:
        arguments = ("--port", "0", "--no-browser", "--anythingllm", server.url, "--api-key-file", str(key))
        async with demo(*arguments) as running:
            await running.visitor.say("年假有几天？")
            assert "来源" in (await running.visitor.answer())["text"]
            assert server.asked[-1].workspace == "docs"
            state = await running.visitor.state()
            assert (state["own"], state["real_anythingllm"]) == (False, True)
            assert "slow" not in state["faults"]
            assert not state["tour_available"]
            assert "REAL-KEY" not in str(state)
            assert await running.end() == 0

        server.workspaces["hr-docs"] = Workspace("人事", handbook_folder())
        own = tmp_path / "mine.toml"
        own.write_text('[[route]]\nworkspace = "hr-docs"\n', encoding="utf-8")
        async with demo(*arguments, "--config", str(own)) as running:
            await running.visitor.say("年假有几天？")
            assert "来源" in (await running.visitor.answer())["text"]
            assert server.asked[-1].workspace == "hr-docs"
            assert await running.end() == 0

        key.write_text("WRONG-KEY\n", encoding="utf-8")
        code, _, err = await rest_of(await start(*arguments))
        assert code == 1
        assert "does not accept the API key" in err
        assert "WRONG-KEY" not in err


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (("--anythingllm", "http://127.0.0.1:1"), "needs --api-key-file"),
        (("--api-key-file", "key"), "needs --anythingllm"),
        (("--port", "99999"), "65535"),
    ],
)
async def test_options_that_do_not_fit_are_usage_errors(arguments: tuple[str, ...], remedy: str) -> None:
    """Exit code 2, with what is missing."""
    code, _, err = await rest_of(await start(*arguments))
    assert code == 2
    assert remedy in err
