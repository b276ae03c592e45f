"""Handlers, disks, pipes and clocks that misbehave: none of them costs anybody else an answer."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from dingbridge.app import App
from dingbridge.dingtalk.pace import Pace
from dingbridge.errors import StoreUnavailable
from dingbridge.texts import Texts
from tests.house import House, until

TEXTS = Texts("zh-CN")


@asynccontextmanager
async def answered_by(house: House, name: str, source: str) -> AsyncIterator[App]:
    """The daemon with a handler written for this test."""
    (house.folder / f"{name}.py").write_text(source)
    route = [{"handler": f"{name}:handle"}]
    async with house.app(route=route, handlers={"path": [str(house.folder)]}) as app:
        yield app


async def test_a_handler_that_lets_a_cancelled_tasks_error_out_is_a_failure_like_any(house: House) -> None:
    """Awaiting a task that somebody cancelled must not lock the asker's lane."""
    source = (
        "import asyncio\n"
        "async def handle(message, reply):\n"
        "    if message.text != 'bad':\n"
        "        return 'fine'\n"
        "    task = asyncio.create_task(asyncio.sleep(9))\n"
        "    task.cancel()\n"
        "    await task\n"
    )
    async with answered_by(house, "sample_cancelled", source):
        bad = await house.gateway.say("bad")
        good = await house.gateway.say("good")
        posts = await house.gateway.wait_posts(bad, 2)

    assert posts[0].text.startswith(TEXTS("failed"))
    assert posts[1].text.startswith("fine")
    assert good.acks[0].code == 200


async def test_a_progress_text_that_is_no_text_kills_nothing(house: House) -> None:
    """reply.update(42) is shown as text, and the answer follows."""
    source = (
        "import asyncio\n"
        "async def handle(message, reply):\n"
        "    await reply.update(42)\n"
        "    await asyncio.sleep(0.4)\n"
        "    return 'fine'\n"
    )
    (house.folder / "sample_update.py").write_text(source)
    async with house.app(
        route=[{"handler": "sample_update:handle"}],
        handlers={"path": [str(house.folder)]},
        reply={"notice_after_s": 0.1},
    ):
        sent = await house.gateway.say("x")
        posts = await house.gateway.wait_posts(sent, 2)

    assert [post.text.split("\n")[0] for post in posts] == ["42", "fine"]


@pytest.mark.parametrize(
    "body",
    [
        (
            "    while True:\n"
            "        try:\n"
            "            await asyncio.sleep(3600)\n"
            "        except BaseException:\n"
            "            pass\n"
        ),
        "    await asyncio.to_thread(time.sleep, 60)\n",
    ],
    ids=["ignores its cancellation", "sits in a thread"],
)
async def test_a_handler_that_will_not_end_does_not_hold_the_exit(house: House, body: str) -> None:
    """SIGTERM ends the daemon with 0 within the drain and a few seconds, whatever a handler does."""
    (house.folder / "sample_stubborn.py").write_text(
        "import asyncio, pathlib, time\n"
        "async def handle(message, reply):\n"
        f"    pathlib.Path({str(house.folder / 'begun')!r}).touch()\n" + body
    )
    house.configure(
        route=[{"handler": "sample_stubborn:handle"}],
        handlers={"path": [str(house.folder)]},
        limits={"drain_s": 0.3},
    )
    daemon = await house.daemon()
    await house.gateway.connected()
    await house.gateway.say("x")
    await until((house.folder / "begun").exists)

    assert await daemon.stop(timeout_s=25) == 0

    with sqlite3.connect(house.folder / "state" / "dingbridge.db") as store:
        assert store.execute("SELECT state, crashes FROM message").fetchall() == [("ready", 0)]
    store.close()


async def test_a_second_signal_counts_no_crash(house: House) -> None:
    """Whoever is in work when an impatient administrator presses twice must not be suspected of a crash."""
    house.backend.fault = "stall"
    house.configure(limits={"drain_s": 60})
    daemon = await house.daemon()
    await house.gateway.connected()
    await house.gateway.say("甲")
    await until(lambda: house.backend.running)
    daemon.process.send_signal(signal.SIGTERM)
    await until(lambda: "daemon.draining" in daemon.events())
    assert await daemon.stop(signal.SIGTERM) == 1

    with sqlite3.connect(house.folder / "state" / "dingbridge.db") as store:
        assert store.execute("SELECT state, crashes FROM message").fetchall() == [("ready", 0)]
    store.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the death that is planted
async def test_a_dead_store_thread_ends_the_process(house: House) -> None:
    """Without its store the daemon cannot keep anything: it ends, so that its supervisor starts it anew."""

    def die(_: sqlite3.Connection) -> None:
        raise SystemExit

    async def live() -> None:
        async with house.app() as app:
            with suppress(StoreUnavailable):
                await app.store._engine.run(die)
            await asyncio.sleep(2)

    with pytest.raises(BaseExceptionGroup) as raised:
        await live()
    assert raised.group_contains(StoreUnavailable)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
async def test_a_log_that_cannot_be_written_stops_nothing(house: House) -> None:
    """With its log on a full disk, or in a pipe that nobody reads, the daemon answers on."""
    house.backend.answer = str
    house.configure(limits={"waiting_per_lane": 0})
    reader, writer = os.pipe()
    for stderr, questions in ((os.open("/dev/full", os.O_WRONLY), 3), (writer, 400)):
        command = [sys.executable, "-m", "dingbridge", "run", "--config", str(house.folder / "dingbridge.toml")]
        process = await asyncio.create_subprocess_exec(
            *command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr
        )
        os.close(stderr)
        before = len(house.gateway.posts)
        await house.gateway.connected()
        for number in range(questions):
            await house.gateway.say(f"问{number}", user=f"u{number}")
        await house.gateway.wait_posts(n=before + questions, timeout_s=60)
        process.terminate()
        async with asyncio.timeout(30):
            assert await process.wait() == 0
    os.close(reader)


async def test_check_sees_a_live_daemon_whatever_store_it_has(house: House) -> None:
    """With another store than the daemon's, check still takes a ticket only."""
    house.configure()
    daemon = await house.daemon()
    await house.gateway.connected()
    path = house.configure(store={"url": str(house.folder / "elsewhere.db")})

    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "dingbridge", "check", "--config", str(path)), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()

    assert "ticket only" in out.decode()
    assert len(house.gateway.accepted) == 1
    assert not (house.folder / "elsewhere.db").exists()
    assert await daemon.stop() == 0


async def test_trouble_is_told_before_the_answer_never_after(house: House) -> None:
    """With a slow webhook the trouble text still comes first, and the answer when the backend is back."""
    house.backend.answer, house.backend.fault = str, "down"
    house.gateway.webhook_delay_s = 0.5
    async with house.app():
        sent = await house.gateway.say("甲")
        await until(lambda: house.gateway.sessions)
        await asyncio.sleep(0.2)
        house.backend.fault = None
        posts = await house.gateway.wait_posts(sent, 2)

    assert posts[0].text.startswith(TEXTS("trouble"))
    assert posts[1].text.startswith("甲")


async def test_the_reason_of_a_failure_survives_a_later_delivery(house: House) -> None:
    """A failure text that is sent on the second try still leads the on-call engineer to its cause."""
    house.backend.fault = "bad_key"
    house.gateway.webhook_faults.append("http503")
    house.gateway.openapi_faults.append(503)
    async with house.app() as app:
        sent = await house.gateway.say("甲")
        await house.gateway.wait_posts(sent)
        await until(lambda: app.metrics.messages.labels("failed")._value.get() == 1)

    with sqlite3.connect(house.folder / "state" / "dingbridge.db") as store:
        ((state, reason),) = store.execute("SELECT state, reason FROM message").fetchall()
    store.close()
    assert state == "done"
    assert "key" in reason


async def test_a_handler_module_that_exits_on_import_is_a_configuration_fault(house: House) -> None:
    """sys.exit() in somebody's module is told as 78, like any import that fails."""
    (house.folder / "sample_exit.py").write_text("import sys\nsys.exit(3)\n")
    path = house.configure(route=[{"handler": "sample_exit:handle"}], handlers={"path": [str(house.folder)]})

    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "dingbridge", "run", "--config", str(path)), stderr=asyncio.subprocess.PIPE
    )
    _, err = await process.communicate()

    assert process.returncode == 78
    assert "route[0].handler: importing sample_exit raised SystemExit" in err.decode()


async def test_an_odd_token_is_a_refusal_with_the_same_headers(house: House) -> None:
    """Bytes that are no UTF-8 in Authorization are just a wrong token."""
    async with house.app(web={"listen": "127.0.0.1:0", "admin_token": "right-token"}) as app:
        await until(lambda: app.web is not None and app.web.address)
        assert app.web is not None
        assert app.web.address is not None
        reader, writer = await asyncio.open_connection(*app.web.address)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xfe\r\nConnection: close\r\n\r\n")
        answer = (await reader.read()).decode()
        writer.close()
        await writer.wait_closed()
        async with aiohttp.ClientSession() as session:
            base = f"http://127.0.0.1:{app.web.address[1]}"
            async with session.get(base + "/nowhere") as response:
                assert response.headers["X-Content-Type-Options"] == "nosniff"

    assert answer.startswith("HTTP/1.1 401")
    assert "nosniff" in answer


async def test_who_waits_for_a_turn_is_not_overtaken() -> None:
    """Beyond the burst each waiting message has a turn of its own, three seconds apart, in the order of asking."""
    now = [0.0]
    pace = Pace(lambda: now[0])
    waits = [await pace.take("c", f"m{number}") for number in range(23)]
    assert waits[:20] == [0.0] * 20
    assert waits[20:] == pytest.approx([3.0, 6.0, 9.0])

    now[0] = 3.0
    assert await pace.take("c", "m22") == pytest.approx(6.0)
    assert await pace.take("c", "m20") == 0.0
    assert await pace.take("c", "late") == pytest.approx(9.0)
