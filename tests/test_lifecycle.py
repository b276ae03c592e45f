"""The daemon as a process: signals, exit codes, draining, locking, health."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sqlite3
import sys
from pathlib import Path

import aiohttp
import pytest

from dingbridge.texts import Texts
from tests.house import House, until, write
from tests.stores import make_room

TOKEN = "a-long-admin-token"


async def get(url: str, token: str = "") -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as response:
        return response.status, await response.text()


async def verb(*arguments: str, stdin: bytes = b"", cwd: Path | None = None) -> tuple[int, str, str]:
    """A verb as a user calls it: exit code, stdout, stderr."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "dev", "-W", "error", "-m", "dingbridge", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=cwd,
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate(stdin)
    return process.returncode or 0, out.decode(), err.decode()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def test_sigterm_finishes_what_runs_and_exits_0(house: House) -> None:
    """An answer in work at SIGTERM is still delivered; the link is left with 1000; the exit code is 0."""
    house.backend.answer, house.backend.answer_delay_s = str, 0.5
    house.configure()
    daemon = await house.daemon()
    connection = await house.gateway.connected()
    sent = await house.gateway.say("甲")
    await until(lambda: house.backend.running)

    code = await daemon.stop()

    assert code == 0
    assert [post.text.split("\n")[0] for post in house.gateway.posts_in(sent)] == ["甲"]
    assert connection.closed_code == 1000


async def test_while_draining_messages_are_kept_for_the_next_start(house: House) -> None:
    """A message that comes during the drain is acknowledged, not worked on, and answered after the restart."""
    house.backend.answer, house.backend.answer_delay_s = str, 1.0
    house.configure()
    daemon = await house.daemon()
    await house.gateway.connected()
    await house.gateway.say("甲", user="u1")
    await until(lambda: house.backend.running)
    daemon.process.send_signal(signal.SIGTERM)
    await until(lambda: "daemon.draining" in daemon.events())
    late = await house.gateway.say("乙", user="u2")
    await house.gateway.acked(late)
    assert await daemon.stop(signal.SIGCONT) == 0
    assert not house.gateway.posts_in(late)

    again = await house.daemon()
    await house.gateway.wait_posts(late)
    assert await again.stop() == 0


async def test_what_does_not_end_within_drain_s_goes_back_and_is_no_crash(house: House) -> None:
    """After drain_s the running question returns to ready without a crash counted, and the exit code is 0."""
    house.backend.fault = "stall"
    house.configure(limits={"drain_s": 0.3})
    daemon = await house.daemon()
    await house.gateway.connected()
    await house.gateway.say("甲")
    await until(lambda: house.backend.running)

    assert await daemon.stop() == 0

    with sqlite3.connect(house.folder / "state" / "dingbridge.db") as store:
        assert store.execute("SELECT state, crashes FROM message").fetchall() == [("ready", 0)]
    store.close()


async def test_a_second_signal_leaves_at_once_with_1(house: House) -> None:
    """The second SIGTERM does not wait for the drain."""
    house.backend.fault = "stall"
    house.configure(limits={"drain_s": 60})
    daemon = await house.daemon()
    await house.gateway.connected()
    await house.gateway.say("甲")
    await until(lambda: house.backend.running)
    daemon.process.send_signal(signal.SIGTERM)
    await until(lambda: "daemon.draining" in daemon.events())

    assert await daemon.stop(signal.SIGINT, timeout_s=10) == 1


async def test_a_second_daemon_on_the_same_store_is_refused_with_1(house: House) -> None:
    """One store, one daemon: the second says so and leaves the first alone."""
    path = house.configure()
    daemon = await house.daemon()
    await house.gateway.connected()

    code, _, err = await verb("run", "--config", str(path))

    assert code == 1
    assert "another dingbridge is running" in err
    assert daemon.process.returncode is None
    assert await daemon.stop() == 0


async def test_a_store_that_cannot_be_opened_is_1_with_its_remedy(house: House) -> None:
    """A folder that cannot be made is named, with what to do."""
    (house.folder / "file").write_text("no folder")
    path = house.configure(store={"url": str(house.folder / "file" / "x.db")})

    code, _, err = await verb("run", "--config", str(path))

    assert code == 1
    assert "may the service's user write to it" in err


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"route": [{"workspce": "x"}]}, "route[0].workspce: unknown key, did you mean workspace"),
        ({"route": [{"handler": "no_such_module:handle"}]}, "route[0].handler: no module no_such_module"),
        ({"route": [{"handler": "json:dumps"}]}, "route[0].handler: json:dumps must be an `async def`"),
    ],
)
async def test_configuration_faults_are_78(house: House, change: dict[str, object], fault: str) -> None:
    """What is wrong in the configuration is one line each on stderr, and exit code 78."""
    path = house.configure(**change)

    code, out, err = await verb("run", "--config", str(path))

    assert code == 78
    assert fault in err
    assert not out


async def test_usage_is_2_and_a_missing_file_is_78(tmp_path: Path) -> None:
    """An unknown verb is a usage error; no configuration file is a configuration error."""
    assert (await verb("fly"))[0] == 2
    code, _, err = await verb("run", "--config", str(tmp_path / "none.toml"))
    assert code == 78
    assert "none.toml" in err


async def test_health_and_readiness_follow_store_and_link(house: House) -> None:
    """/healthz lives always; /readyz is 200 with a link and names the link when it is gone."""
    async with house.app() as app:
        assert app.web is not None
        await until(lambda: app.web is not None and app.web.address)
        base = f"http://127.0.0.1:{(app.web.address or ('', 0))[1]}"
        await until(lambda: app.stream.state.connected)
        assert (await get(base + "/healthz"))[0] == 200
        assert (await get(base + "/readyz"))[0] == 200
        house.gateway.open_fault = 500
        house.gateway.connections[0].cut()
        await until(lambda: not app.stream.state.connected)
        status, body = await get(base + "/readyz")
        page = await get(base + "/")
        metrics = await get(base + "/metrics")

    assert status == 503
    found = json.loads(body)
    assert found["ready"] is False
    assert found["parts"]["link"]["ok"] is False
    assert found["parts"]["link"]["why"]
    assert found["parts"]["store"]["ok"] is True
    assert page[0] == 200
    assert "link" in page[1]
    assert 'dingbridge_messages_total{result="answered"} 0.0' in metrics[1]


async def test_the_admin_token_guards_metrics_and_status_only(house: House) -> None:
    """With a token, /metrics and / want it as a bearer; health and readiness never do."""
    async with house.app(web={"listen": "127.0.0.1:0", "admin_token": TOKEN}) as app:
        await until(lambda: app.web is not None and app.web.address)
        assert app.web is not None
        assert app.web.address is not None
        base = f"http://127.0.0.1:{app.web.address[1]}"
        codes = {path: (await get(base + path))[0] for path in ("/healthz", "/readyz", "/metrics", "/")}
        wrong = await get(base + "/metrics", "wrong")
        right = await get(base + "/metrics", TOKEN)

    assert codes["/healthz"] == 200
    assert codes["/readyz"] == 200
    assert codes["/metrics"] == codes["/"] == wrong[0] == 401
    assert right[0] == 200


async def test_a_taken_web_port_is_told_and_retried_and_does_not_stop_the_bot(house: House) -> None:
    """Questions are answered while the port is taken; when it is free the pages come up."""
    house.backend.answer = str
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        house.configure(web={"listen": f"127.0.0.1:{port}"})
        daemon = await house.daemon()
        sent = await house.gateway.say("甲")
        await house.gateway.wait_posts(sent)
        await until(lambda: "web.not_listening" in daemon.events())
    await until(lambda: "web.listening" in daemon.events())
    assert await daemon.stop() == 0


async def test_systemd_hears_ready_status_watchdog_and_stopping(house: House) -> None:
    """READY comes after the store is open, WATCHDOG while things move, STOPPING at the end."""
    heard: list[str] = []
    path = house.folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.setblocking(False)
        house.configure()
        daemon = await house.daemon(environ={"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "600000"})

        def listen() -> bool:
            while True:
                try:
                    heard.append(listener.recv(4096).decode())
                except BlockingIOError:
                    return sum("WATCHDOG=1" in line for line in heard) >= 3

        await until(listen)
        await house.gateway.connected()
        assert await daemon.stop() == 0
        listen()

    assert heard[0].startswith("READY=1")
    assert any("STOPPING=1" in line for line in heard)
    assert any("STATUS=connected" in line for line in heard)


async def test_ask_prints_the_answer_and_its_sources(house: House) -> None:
    """`ask` needs no DingTalk: the answer and its documents are on stdout; 1 when the backend fails."""
    path = house.configure()

    code, out, err = await verb("ask", "北京出差住宿标准是多少？", "--config", str(path))
    house.backend.fault = "bad_key"
    failed, nothing, why = await verb("ask", "年假？", "--config", str(path))

    assert code == 0
    assert "600" in out
    assert "差旅报销标准" in out.split("来源：")[1]
    # With -X dev, asyncio tells of callbacks that a busy machine made slow.
    assert not [line for line in err.splitlines() if "Executing <" not in line]
    assert failed == 1
    assert not nothing
    assert "key" in why


async def test_check_names_each_hop_and_its_fault(house: House) -> None:
    """`check` is 0 when all is well, 1 with the fault named; --json gives the same to machines."""
    path = house.configure()
    code, out, _ = await verb("check", "--config", str(path))
    assert code == 0, out
    assert "一切正常" in out

    path = house.configure(
        route=[{"workspace": "handbok", "deep_workspace": "depe"}], dingtalk={"client_secret": "wrong-secret"}
    )
    code, out, _ = await verb("check", "--json", "--config", str(path))
    found = {finding["part"]: finding for finding in json.loads(out)["findings"]}
    assert code == 1
    assert found["dingtalk"]["level"] == "failure"
    assert "Client ID" in found["dingtalk"]["detail"]
    assert found["workspace handbok"]["level"] == found["workspace depe"]["level"] == "failure"
    assert "wrong-secret" not in out


async def test_check_beside_a_live_daemon_takes_a_ticket_only(house: House) -> None:
    """No second connection is opened while a daemon runs: it would be handed users' messages."""
    path = house.configure()
    daemon = await house.daemon()
    await house.gateway.connected()

    code, out, _ = await verb("check", "--config", str(path))

    assert code == 0, out
    assert len(house.gateway.accepted) == 1
    assert await daemon.stop() == 0


async def test_the_demo_answers_piped_lines_and_exits_0() -> None:
    """Each line of a pipe is answered on stdout with its source, then the demo ends in order."""
    code, out, err = await verb("demo", stdin="北京出差住宿标准是多少？\n那国外呢？\n".encode())

    assert code == 0, err
    assert out.count("来源：") == 2
    assert "600" in out
    assert "美元" in out


async def test_a_workspace_that_anythingllm_does_not_know_is_a_warning_in_run(house: House) -> None:
    """The daemon starts all the same, and says so."""
    house.configure(route=[{"workspace": "not-yet"}])
    daemon = await house.daemon()
    await house.gateway.connected()
    await until(lambda: "workspace.unknown" in daemon.events())
    assert await daemon.stop() == 0


async def test_no_secret_ticket_or_webhook_reaches_the_log(house: House) -> None:
    """Through failures of every hop, the daemon's log shows none of the secrets it was given."""
    secrets = {"client_secret": "s3cr3t-client-value", "api_key": "K3Y-AAAA-BBBB-CCCC"}
    house.gateway.client_secret = secrets["client_secret"]
    house.backend.api_key = secrets["api_key"]
    house.configure(dingtalk={"client_secret": secrets["client_secret"]}, anythingllm={"api_key": secrets["api_key"]})
    daemon = await house.daemon()
    await house.gateway.connected()
    house.gateway.webhook_faults.extend([300001, "html", "lost_response"])
    house.gateway.openapi_faults.extend([(403, "Forbidden.AccessDenied.QpsLimitForApi"), 500])
    house.backend.faults.extend(["abort_401", "cut"])
    for number in range(6):
        await house.gateway.say(f"问{number}", user=f"u{number}")
    await house.gateway.say("外", user="u9", sessionWebhook="https://evil.example/robot?session=abcdef0123456789")
    await until(lambda: daemon.events().count("message.handled") >= 5)
    house.gateway.connections[0].cut()
    house.gateway.open_faults.append(500)
    await until(lambda: daemon.events().count("stream.connected") >= 2)
    await daemon.stop()

    log = daemon.events()
    assert house.gateway.tickets
    hidden = [*secrets.values(), *house.gateway.sessions, *house.gateway.tickets, "abcdef0123456789"]
    assert not [secret for secret in hidden if secret and str(secret) in log]


async def test_a_message_that_kills_the_process_is_dead_after_its_third_crash_and_told(
    house: House, tmp_path: Path
) -> None:
    """A handler that ends the process three times is not run a fourth time; its asker and everybody else hear."""
    (tmp_path / "sample_poison.py").write_text(
        "import asyncio, os\n"
        "async def handle(message, reply):\n"
        "    if message.text == 'poison':\n"
        "        await asyncio.sleep(0.05)\n"
        "        os._exit(9)\n"
        "    return 'fine: ' + message.text\n"
    )
    house.configure(
        route=[{"handler": "sample_poison:handle"}],
        handlers={"path": [str(tmp_path)]},
        reply={"notice": "off"},
    )
    poison = await house.gateway.say("poison", user="u1")
    others = [await house.gateway.say(f"q{number}", user=f"v{number}") for number in range(5)]
    crashes = 0
    while True:
        daemon = await house.daemon()
        ended = asyncio.create_task(daemon.process.wait())
        told = asyncio.create_task(house.gateway.wait_posts(poison, timeout_s=30))
        await asyncio.wait({ended, told}, return_when=asyncio.FIRST_COMPLETED)
        if told.done():
            ended.cancel()
            break
        told.cancel()
        crashes += 1
    for other in others:
        await house.gateway.wait_posts(other)
    await daemon.stop()

    assert crashes == 3
    assert house.gateway.posts_in(poison)[0].text.startswith(Texts("zh-CN")("dead"))


async def test_a_full_disk_is_told_and_nothing_accepted_is_lost(house: House) -> None:
    """A store that cannot grow acknowledges nothing, turns unready, and answers everything once there is room."""
    house.backend.answer = str
    house.gateway.redeliver_after_s = 0.3
    async with house.app() as app:
        first = await house.gateway.say("甲")
        await house.gateway.wait_posts(first)
        pages = await app.store._engine.run(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
        await app.store._engine.run(lambda c: c.execute(f"PRAGMA max_page_count = {pages}").fetchone())
        sent = [await house.gateway.say("乙" * 3000, user=f"u{number}") for number in range(8)]
        await until(lambda: app.store.trouble)
        assert not app.vitals.parts()["store"].ok
        await make_room(app.store)
        for one in sent:
            await house.gateway.wait_posts(one)
        await until(lambda: app.vitals.parts()["store"].ok)


def test_the_written_configuration_is_what_was_meant(tmp_path: Path) -> None:
    """The tests' own TOML writer escapes what it must."""
    path = write(tmp_path / "x.toml", {"a": {"b": 'q"\\', "c": [1, "x"], "d": True}})
    assert path.read_text() == '[a]\nb = "q\\"\\\\"\nc = [1, "x"]\nd = true\n'
