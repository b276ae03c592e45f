"""A changed configuration without a restart: what counts from now on, what ends as it began, and what is refused."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import signal
import socket
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from dingbridge.app import App
from dingbridge.errors import BridgeError, ConfigError
from dingbridge.log import Redactor
from dingbridge.reloading import Reloaded
from dingbridge.sim.anythingllm import Workspace
from dingbridge.sim.gateway import Post
from tests.certificates import sloppy
from tests.house import Daemon, House, until
from tests.operating import as_json, verb

MORE = {"route": [{"workspace": "other"}]}


def with_other(house: House) -> None:
    """A second workspace; both answer with their question."""
    house.backend.workspaces["other"] = Workspace("别的", house.backend.workspaces["handbook"].documents)


async def changed(house: House, app: App, **tables: Any) -> Reloaded:
    house.configure(**tables)
    return await app.reload()


def first_line(post: Post) -> str:
    """Without the sources."""
    return post.text.partition("\n")[0]


def question(post: Post) -> str:
    """What was asked; a workspace that did not answer the one before is told of that, too."""
    return str(re.findall(r"问\d{3}", post.text.partition("来源")[0])[-1])


async def route_of(app: App, house: House, msg_id: str) -> str:
    row = await app.store.find(house.gateway.client_id, msg_id)
    assert row is not None
    return row.route


def events(path: Path, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


async def posted(house: House, count: int) -> None:
    await until(lambda: len(house.gateway.posts) >= count, 60)


async def ready(app: App) -> bool:
    assert app.web is not None
    assert app.web.address is not None
    host, port = app.web.address
    async with aiohttp.ClientSession() as http, http.get(f"http://{host}:{port}/readyz") as response:
        return response.status == 200


def open_sessions() -> int:
    gc.collect()
    return sum(isinstance(one, aiohttp.ClientSession) and not one.closed for one in gc.get_objects())


# -- what changes


async def test_each_section_counts_from_now_on(house: House) -> None:
    """Route, language, backend and limits: the next question goes by the new ones, and the keys are named."""
    with_other(house)
    async with house.app(limits={"waiting_per_lane": 5}) as app:
        before = await house.gateway.say("/help")
        assert "直接把问题发给我" in (await house.gateway.next_post(before)).text
        told = await changed(
            house, app, **MORE, reply={"locale": "en"}, limits={"waiting_per_lane": 1, "workers": 3, "drain_s": 4}
        )
        assert told.applied == ("limits.drain_s", "limits.waiting_per_lane", "limits.workers", "reply.locale", "route")
        assert told.restart == ()
        assert "Just type your question" in (await house.gateway.next_post(await house.gateway.say("/help"))).text
        sent = await house.gateway.say("年假有几天？")
        await house.gateway.next_post(sent)
        await until(lambda: not app.bridge.running)
        assert await route_of(app, house, sent.msg_id) == "other"
        assert app.store.limits.waiting_per_lane == 1


async def test_more_workers_take_up_what_waits_at_once(house: House) -> None:
    """The dispatcher that was full leases more as soon as it may."""
    house.backend.answer, house.backend.answer_delay_s = str, 30.0
    async with house.app(limits={"workers": 1, "drain_s": 0.1}) as app:
        for number in range(4):
            await house.gateway.say(f"问 {number}", user=f"u{number}")
        await until(lambda: house.backend.running == 1)
        await changed(house, app, limits={"workers": 4, "drain_s": 0.1})
        await until(lambda: house.backend.running == 4)


async def test_a_shorter_notice_and_none(house: House) -> None:
    """For questions that come from now on."""
    house.backend.answer, house.backend.answer_delay_s = str, 0.6
    async with house.app(reply={"notice_after_s": 60}) as app:
        await changed(house, app, reply={"notice_after_s": 0.1})
        first = await house.gateway.say("甲", user="u1")
        assert [first_line(post) for post in await house.gateway.wait_posts(first, 2)] == ["正在查询，请稍候…", "甲"]
        await changed(house, app, reply={"notice_after_s": 0.1, "notice": "off"})
        second = await house.gateway.say("乙", user="u2")
        assert [first_line(post) for post in await house.gateway.wait_posts(second)] == ["乙"]


async def test_a_backend_that_has_moved_and_a_key_that_was_wrong(house: House) -> None:
    """What the trace tells an operator to mend is mended without a restart."""
    good = house.backend.api_key
    async with house.app(anythingllm={"api_key": "wrong-key-0815"}) as app:
        await house.gateway.next_post(sent := await house.gateway.say("年假有几天？"))
        told = await changed(house, app, anythingllm={"api_key": good})
        assert told.applied == ("anythingllm.api_key",)
        row = await app.store.find(house.gateway.client_id, sent.msg_id)
        assert row is not None
        assert row.cause == "backend.key"
        await app.retry(row.row)
        assert "7 天" in (await house.gateway.next_post(sent)).text


async def test_a_new_secret_is_masked_from_then_on(house: House) -> None:
    """Also one that waits for a restart: an error may quote it before."""
    redactor = Redactor()
    async with house.app() as app:
        app._redactor = redactor
        assert redactor.text("said plainword") == "said plainword"
        await changed(house, app, web={"admin_token": "plainword"})
        assert redactor.text("said plainword") == "said ***"


async def test_a_handler_that_was_added(house: House) -> None:
    """A folder and a module that were not there at the start."""
    async with house.app() as app:
        folder = house.folder / "new"
        folder.mkdir()
        (folder / "sample_added.py").write_text("async def handle(message, reply):\n    return '新'\n")
        told = await changed(house, app, handlers={"path": [str(folder)]}, route=[{"handler": "sample_added:handle"}])
        assert told.applied == ("handlers.path", "route")
        assert (await house.gateway.next_post(await house.gateway.say("x"))).text.startswith("新")


@pytest.mark.parametrize(
    ("tables", "keys"),
    [
        ({"dingtalk": {"client_secret": "another-secret-1"}}, ("dingtalk.client_secret",)),
        ({"dingtalk": {"client_id": "dingother"}}, ("dingtalk.client_id",)),
        ({"web": {"listen": "127.0.0.1:1"}}, ("web.listen",)),
        ({"store": {"url": "/tmp/other.db"}}, ("store.url",)),
        (
            {"dingtalk": {"no_proxy": ["x"]}, "web": {"admin_token": "abcdefgh"}},
            ("dingtalk.no_proxy", "web.admin_token"),
        ),
    ],
)
async def test_what_waits_for_a_restart_is_named(house: House, tables: dict[str, Any], keys: tuple[str, ...]) -> None:
    """Link, store and web server stay as they are, whatever the file says, and all else is taken over."""
    async with house.app() as app:
        told = await changed(house, app, **tables, reply={"locale": "en"})
        assert (told.applied, told.restart) == (("reply.locale",), keys)
        assert (await app.reload()) == Reloaded((), keys)
        assert "Just type" in (await house.gateway.next_post(await house.gateway.say("/help"))).text
        assert await ready(app)


# -- what runs at that moment


async def test_a_running_answer_ends_by_the_old_setup(house: House) -> None:
    """The one in work keeps route, backend session and language; the one behind it takes the new ones; in order."""
    with_other(house)
    house.backend.answer, house.backend.answer_delay_s = str, 0.7
    async with house.app() as app:
        first = await house.gateway.say("甲")
        second = await house.gateway.say("乙")
        await until(lambda: house.backend.running)
        await changed(house, app, **MORE)
        posts = await house.gateway.wait_posts(second, 2)
        assert first_line(posts[0]) == "甲"
        assert "乙" in posts[1].text  # with what was said before, which the other workspace does not know
        await until(lambda: not app.bridge.running)
        assert [await route_of(app, house, one.msg_id) for one in (first, second)] == ["handbook", "other"]


async def test_what_is_not_used_any_more_is_closed(house: House) -> None:
    """Old sessions go when the last answer by them has ended, not before, and none is left."""
    house.backend.answer, house.backend.answer_delay_s = str, 0.5
    async with house.app() as app:
        before = open_sessions()
        sent = await house.gateway.say("甲")
        await until(lambda: house.backend.running)
        await app.reload()
        assert open_sessions() > before
        await house.gateway.next_post(sent)
        for _ in range(5):
            await app.reload()
        await until(lambda: open_sessions() == before)


async def test_nothing_is_lost_and_nothing_answered_twice_under_load(house: House) -> None:
    """A hundred questions of twenty people while the configuration is reloaded ten times."""
    with_other(house)
    house.backend.answer, house.backend.answer_delay_s = str, 0.02
    async with house.app(limits={"waiting_per_lane": 0, "workers": 8}) as app:
        said = []
        for number in range(100):
            said.append(await house.gateway.say(f"问{number:03}", user=f"u{number % 20}"))
            if number % 10 == 9:
                await posted(house, number - 4)
                await changed(
                    house,
                    app,
                    limits={"waiting_per_lane": 0, "workers": 4 + number % 7},
                    route=[{"workspace": "other" if number % 20 == 9 else "handbook"}],
                )
        await posted(house, 100)
        await until(lambda: not app.bridge.running)
        posts: list[Post] = list(house.gateway.posts)
        assert sorted(question(post) for post in posts) == [f"问{number:03}" for number in range(100)]
        for person in range(20):
            texts = [question(post) for post in house.gateway.posts_in(said[person])]
            assert texts == sorted(texts)
            assert len(texts) == 5
        assert {route for one in said if (route := await route_of(app, house, one.msg_id))} == {"handbook", "other"}
        assert (await app.store.depth()).by_state == {}


# -- what is refused


async def test_a_bad_file_keeps_the_old_one_and_says_every_fault(house: House, log_file: Path) -> None:
    """All faults at once, in the log too; answering goes on; the metric says that the last reload failed."""
    async with house.app() as app:
        with pytest.raises(ConfigError) as refused:
            await changed(house, app, reply={"locale": "fr"}, route=[{"workspce": "x"}])
        assert len(refused.value.faults) >= 2
        assert b"dingbridge_config_last_reload_successful 0.0" in app.metrics.text()
        assert "7 天" in (await house.gateway.next_post(await house.gateway.say("年假有几天？"))).text
        assert await ready(app)
        await changed(house, app)
        assert b"dingbridge_config_last_reload_successful 1.0" in app.metrics.text()
    (kept,) = events(log_file, "config.kept")
    assert kept["faults"] == refused.value.faults


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        ("[reply\n", "dingbridge.toml"),
        ("", "dingtalk.client_id: missing"),
        (None, "dingbridge.toml"),
        ("handler", "route[0].handler: importing broken_at_reload raised ZeroDivisionError"),
        ("exit", "route[0].handler: importing exits_at_reload raised SystemExit"),
    ],
)
async def test_whatever_is_wrong_the_daemon_lives(house: House, written: str | None, fault: str) -> None:
    """No TOML, nothing, no file, a module that raises, one that exits: refused as a configuration."""
    (house.folder / "broken_at_reload.py").write_text("1 / 0\n")
    (house.folder / "exits_at_reload.py").write_text("raise SystemExit(3)\n")
    async with house.app() as app:
        path = house.folder / "dingbridge.toml"
        if written is None:
            path.unlink()
        elif written in ("handler", "exit"):
            name = "broken_at_reload" if written == "handler" else "exits_at_reload"
            house.configure(handlers={"path": [str(house.folder)]}, route=[{"handler": f"{name}:handle"}])
        else:
            path.write_text(written)
        with pytest.raises(ConfigError, match=fault.replace("[", r"\[")):
            await app.reload()
        app.ask_to_reload()
        assert "7 天" in (await house.gateway.next_post(await house.gateway.say("年假有几天？"))).text


async def test_a_certificate_that_is_gone_is_a_fault_and_no_end(house: House) -> None:
    """The file's new path is for the next start; the old one is needed now, and was removed."""
    ca_file, _ = sloppy(house.folder, "localhost")
    async with house.app(dingtalk={"ca_file": str(ca_file)}) as app:
        ca_file.unlink()
        with pytest.raises(ConfigError, match="No such file"):
            await changed(house, app, reply={"locale": "en"})
        app.ask_to_reload()
        assert "7 天" in (await house.gateway.next_post(await house.gateway.say("年假有几天？"))).text


async def test_two_at_once_come_one_after_the_other(house: House) -> None:
    """Each reads the file by itself; the last one counts; nothing is left open."""
    async with house.app() as app:
        before = open_sessions()
        house.configure(reply={"locale": "en"})
        told = await asyncio.gather(*(app.reload() for _ in range(5)))
        assert sorted(one.applied for one in told) == [(), (), (), (), ("reply.locale",)]
        for _ in range(9):
            app.ask_to_reload()
        await until(lambda: open_sessions() == before)


async def test_who_reloads_while_it_stops_is_refused(house: House) -> None:
    """The end is not held up, and a reload that had begun is finished."""
    house.backend.answer, house.backend.answer_delay_s = str, 0.7
    async with house.app() as app:
        sent = await house.gateway.say("甲")
        await until(lambda: house.backend.running)
        begun = asyncio.create_task(app.reload())
        await asyncio.sleep(0)
        app.stop()
        assert await begun == Reloaded((), ())
        await until(lambda: app._stopping)
        with pytest.raises(BridgeError, match="the daemon is stopping"):
            await app.reload()
        app.ask_to_reload()
        assert first_line(await house.gateway.next_post(sent)) == "甲"


# -- as a process


async def started(house: House, **environ: str) -> Daemon:
    daemon = await house.daemon(environ=environ)
    await house.gateway.connected()
    return daemon


async def test_sighup_reloads_and_says_so(house: House) -> None:
    """One line with what counts now; a fault is one line with what is wrong; the process goes on as it was."""
    house.configure()
    daemon = await started(house)
    house.configure(reply={"locale": "en"}, web={"listen": ""}, dingtalk={"client_secret": "another-secret-value"})
    daemon.process.send_signal(signal.SIGHUP)
    await until(lambda: events(daemon.log, "config.reloaded"))
    (told,) = events(daemon.log, "config.reloaded")
    assert (told["applied"], told["restart"]) == (["reply.locale"], ["dingtalk.client_secret", "web.listen"])
    house.configure(reply={"locale": "fr"})
    daemon.process.send_signal(signal.SIGHUP)
    await until(lambda: events(daemon.log, "config.kept"))
    assert "reply.locale" in events(daemon.log, "config.kept")[0]["faults"][0]
    assert "Just type" in (await house.gateway.next_post(await house.gateway.say("/help"))).text
    assert await daemon.stop() == 0
    assert not events(daemon.log, "process.uncaught")
    assert "Warning" not in daemon.events()


async def test_the_verb_tells_what_counts_now(house: House) -> None:
    """In the language of the file; as JSON; and with 78 and every fault where the old one stays."""
    path = house.configure()
    daemon = await started(house)
    config = ("--config", str(path))
    assert await verb("reload", *config) == (0, "已重新载入，没有变化。\n", "")
    house.configure(reply={"locale": "en"}, limits={"workers": 5}, web={"listen": ""})
    said = "Reloaded, in force now: limits.workers, reply.locale\nThese changes need a restart: web.listen\n"
    assert await verb("reload", *config) == (0, said, "")
    assert await as_json("reload", *config) == {"applied": [], "restart": ["web.listen"]}
    house.configure(reply={"locale": "fr"}, limits={"workers": -1})
    code, out, err = await verb("reload", *config)
    assert (code, out) == (78, "")
    assert [line.partition(":")[0] for line in err.splitlines()] == ["reply.locale", "limits.workers"]
    assert await daemon.stop() == 0
    code, out, err = await verb("reload", *config)
    assert (code, out, err) == (1, "", "no daemon is running on this store\n")


async def test_systemd_hears_of_it(house: House, tmp_path: Path) -> None:
    """RELOADING with its moment, then READY, also where the old configuration stays. (man sd_notify)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as notified:
        notified.bind(str(tmp_path / "notify"))
        house.configure()
        daemon = await started(house, NOTIFY_SOCKET=str(tmp_path / "notify"))
        heard: list[str] = []

        def hear() -> list[str]:
            try:
                while True:
                    heard.append(notified.recv(4096).decode())
            except BlockingIOError:
                return [one for one in heard if one.startswith(("RELOADING", "READY", "STOPPING"))]

        await until(lambda: len(hear()) == 1)
        daemon.process.send_signal(signal.SIGHUP)
        await until(lambda: len(hear()) == 3)
        house.configure(reply={"locale": "fr"})
        daemon.process.send_signal(signal.SIGHUP)
        await until(lambda: len(hear()) == 5)
        assert await daemon.stop() == 0
        told = hear()
    assert [one.partition("=")[0] for one in told] == ["READY", "RELOADING", "READY", "RELOADING", "READY", "STOPPING"]
    moment = int(told[1].partition("MONOTONIC_USEC=")[2])
    assert 0 < moment < int(told[3].partition("MONOTONIC_USEC=")[2])
