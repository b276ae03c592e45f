"""The daemon's state on the demo page, from a real socket where the daemon's control socket will be."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from aiohttp import web

from dingbridge.demo.board import Board
from dingbridge.demo.process import Process
from dingbridge.demo.watch import MOST, DaemonWatch

STATUS = {"ready": True, "pid": 7, "lanes": [{"person": "p-1"}], "dingtalk": {"client_secret": "s3cret"}}
PAD = "x" * 300_000  # more than one read of a socket


@asynccontextmanager
async def control(path: Path, answers: dict[str, Any]) -> AsyncIterator[None]:
    """A server on a unix socket that knows these paths."""

    async def answer(request: web.Request) -> web.Response:
        return web.json_response(answers[request.path]) if request.path in answers else web.Response(status=404)

    app = web.Application()
    app.router.add_get("/{_:.*}", answer)
    runner = web.AppRunner(app)
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
        yield DaemonWatch(board, process, folder / "d.sock", 1), board, process
    finally:
        await process.stop()


async def test_status_and_trace_come_from_the_control_socket(tmp_path: Path) -> None:
    """Readiness and status are what /status says, masked; a trace is found by its code, and None where unknown."""
    answers = {"/status": STATUS | {"pad": PAD}, "/trace/AB12": {"code": "AB12", "why": "renew the key"}}
    async with watching(tmp_path) as (watch, _, process), control(tmp_path / "d.sock", answers):
        state = await watch.look()
        assert (state["running"], state["ready"], state["pid"]) == (True, True, process.pid)
        assert state["status"]["lanes"] == STATUS["lanes"]
        assert "s3cret" not in json.dumps(state)
        assert await watch.trace("AB12") == answers["/trace/AB12"]
        assert await watch.trace("../status") is None


async def test_a_control_socket_that_cannot_be_used_is_none(tmp_path: Path) -> None:
    """One that nobody serves, or that answers far too much, says nothing; the page does without."""
    async with watching(tmp_path) as (watch, _, _process):
        assert await watch.ask("/status") is None
        async with control(tmp_path / "d.sock", {"/status": "x" * (MOST + 1)}):
            assert await watch.ask("/status") is None
        (tmp_path / "d.sock").touch()
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
