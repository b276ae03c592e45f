"""The daemon's state on the demo page, from a socket in the place of the daemon's."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from dingbridge.demo import watch as demo_watch
from dingbridge.demo.board import Board
from dingbridge.demo.process import Process
from dingbridge.demo.watch import DaemonWatch

STATUS = {"ready": True, "pid": 7, "lanes": [{"person": "p-1"}], "dingtalk": {"client_secret": "s3cret"}}
FAILED = {"at": 1.79e9, "ok": False, "why": "HTTP 403", "cause": "backend.key"}
TRACE = {
    "code": "AB12",
    "outcome": "failed",
    "state": "done",
    "causes": ["backend.key", "no.such.cause"],
    "steps": [
        {"at": 1.79e9, "name": "received", "kind": "text", "chat": "group", "frame": "f1"},
        FAILED | {"name": "backend.attempt", "attempt": 1, "workspace": "hr", "ms": 20},
        FAILED | {"name": "gave_up"},
        {"at": 1.79e9, "name": "never.heard.of", "ok": True, "x": 1},
    ],
}
HANGS = object()
PAD = "x" * 300_000  # more than one read of a socket


@asynccontextmanager
async def control(path: Path, answers: dict[str, Any]) -> AsyncIterator[None]:
    """A server on a unix socket that knows these paths."""

    async def answer(request: web.Request) -> web.Response:
        if answers.get(request.path) is HANGS:
            await asyncio.sleep(60)
        return (
            web.json_response(answers[request.path]) if request.path in answers else web.json_response({}, status=404)
        )

    app = web.Application()
    app.router.add_get("/{_:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(path)).start()
    try:
        yield
    finally:
        await runner.cleanup()


def children() -> set[int]:
    """Processes whose parent is this one."""
    found: set[int] = set()
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(file.read_text("utf-8").rpartition(")")[2].split()[1]) == os.getpid():
                found.add(int(file.parent.name))
    return found


@asynccontextmanager
async def watching(folder: Path) -> AsyncIterator[tuple[DaemonWatch, Board, Process]]:
    """A watch over a process that runs and serves nothing."""
    board, process = Board(), Process("http.server", "0", "--bind", "127.0.0.1", log=folder / "log")
    await process.start()
    try:
        yield DaemonWatch(board, process, folder / "d.db"), board, process
    finally:
        await process.stop()


async def test_the_status_comes_from_the_control_socket(tmp_path: Path) -> None:
    """Readiness and status are what /status says, masked."""
    async with watching(tmp_path) as (watch, _, process):
        async with control(tmp_path / "d.db.sock", {"/status": STATUS | {"pad": PAD}}):
            state = await watch.look()
        assert (state["running"], state["ready"], state["pid"]) == (True, True, process.pid)
        assert state["status"]["lanes"][0]["person"] == "p-1"
        assert "s3cret" not in json.dumps(state)


async def test_a_status_is_explained(tmp_path: Path) -> None:
    """Wherever a cause stands its meaning and remedy do too, and states and outcomes are words."""
    told = {
        "link": {"connected": False, "cause": "link.rejected"},
        "backend": {"ok": True, "cause": ""},
        "lanes": [{"state": "ready", "due_s": 5.0}, {"state": "ready", "due_s": 0.0}, {"state": "new_one"}],
        "failures": [{"code": "AB12", "outcome": "failed", "cause": "backend.key"}],
    }
    async with watching(tmp_path) as (watch, _, _process), control(tmp_path / "d.db.sock", {"/status": told}):
        status = await watch.status()
    assert status is not None
    assert "凭据" in status["link"]["explained"]["what"]
    assert status["backend"]["explained"] is None
    assert [lane["words"] for lane in status["lanes"]] == ["稍后再试", "排队中", "new_one"]
    assert status["failures"][0]["words"] == "失败"
    assert "api_key_file" in status["failures"][0]["explained"]["remedy"]


async def test_a_trace_is_told_in_sentences(tmp_path: Path) -> None:
    """Each step is one, with its time; a reason is told once; what is unknown is shown as it is, not left out."""
    async with watching(tmp_path) as (watch, _, _process), control(tmp_path / "d.db.sock", {"/trace/AB12": TRACE}):
        trace = await watch.trace("AB12")
        assert await watch.trace("ZZ99") is None
        assert await watch.trace("../status") is None
    assert trace is not None
    assert trace["words"] == "失败（已结束）"
    assert [cause["cause"] for cause in trace["causes"]] == ["backend.key"]
    assert [step["text"] for step in trace["steps"]] == [
        "收到消息（文字，群聊），存盘后确认；帧 f1",
        "第 1 次问 AnythingLLM（hr）：失败，20 ms",
        "不再试，告诉提问者",
        "never.heard.of  x=1",
    ]
    assert [step["why"] for step in trace["steps"]] == ["", "HTTP 403", "", ""]
    assert [step["ok"] for step in trace["steps"]] == [True, False, False, True]
    assert all(re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3}", step["clock"]) for step in trace["steps"])


async def test_a_control_socket_that_cannot_be_used_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that nobody serves, or that does not answer, says nothing; the page does without."""
    monkeypatch.setattr(demo_watch, "ANSWER_S", 0.2)
    async with watching(tmp_path) as (watch, _, _process):
        assert (await watch.look())["status"] is None
        async with control(tmp_path / "d.db.sock", {"/status": HANGS}):
            assert await watch.status() is None
        (tmp_path / "d.db.sock").touch()
        assert (await watch.look())["status"] is None


async def test_pages_are_told_of_changes_only(tmp_path: Path) -> None:
    """The same state twice is one event; the process's end is another."""
    async with watching(tmp_path) as (watch, board, process):
        with board.listen() as told:
            await watch.look()
            await watch.look()
            await process.kill()
            await watch.look()
            assert [told.get_nowait()["daemon"]["running"] for _ in range(told.qsize())] == [True, False]


async def test_two_starts_at_once_are_one_process(tmp_path: Path) -> None:
    """A double click starts one daemon."""
    async with watching(tmp_path) as (_, _board, process):
        await process.stop()
        before = children()
        assert sorted(await asyncio.gather(process.start(), process.start())) == [False, True]
        assert children() - before == {process.pid}
        await process.kill()
        assert process.returncode == -9
