"""The operator's verbs as an operator calls them: real processes against a real daemon, and against its store."""

from __future__ import annotations

import asyncio
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from dingbridge.model import trace_code
from dingbridge.sim.gateway import Sent
from tests.house import Daemon, House, until
from tests.operating import DINGBRIDGE, as_json, in_language, verb

ALL = (
    ("status",),
    ("trace", "x"),
    ("inbox", "list"),
    ("inbox", "show", "x"),
    ("inbox", "retry", "x"),
    ("inbox", "drop", "x"),
    ("reload",),
    ("support",),
)


async def started(house: House, **tables: Any) -> Daemon:
    house.configure(**tables)
    daemon = await house.daemon()
    await house.gateway.connected()
    return daemon


async def answered(house: House, **how: Any) -> Sent:
    sent = await house.gateway.say("年假有几天？", **how)
    await house.gateway.next_post(sent)
    return sent


async def failed(house: House, **how: Any) -> Sent:
    house.backend.faults.append("bad_key")
    return await answered(house, **how)


def config(house: House) -> tuple[str, str]:
    return "--config", str(house.folder / "dingbridge.toml")


async def ended(house: House, sent: Sent) -> dict[str, Any]:
    """The message's row once it is closed, a moment after its post."""
    while True:
        row: dict[str, Any] = await as_json("inbox", "show", sent.msg_id, *config(house))
        if row["finished_at"] is not None:
            return row


# -- status


async def test_status_of_a_daemon_that_works(house: House) -> None:
    """Link, queue and backend on one screen in both languages; 0 while it runs."""
    daemon = await started(house)
    await answered(house)
    code, out, err = await verb("status", *config(house))
    assert (code, err) == (0, "")
    for line in (
        r"守护进程 .*进程 \d+",
        r"就绪 +正常",
        r"连接 +已连上 .*第 1 次打开",
        r"AnythingLLM +正常",
        "没有失败的问题",
    ):
        assert re.search(line, out), out
    _, out, _ = await verb("status", "--config", str(in_language(house, "en")))
    for line in (
        r"daemon .*process \d+",
        r"ready +ok",
        r"link +up for .*opened 1 times",
        r"AnythingLLM +ok",
        "No failed",
    ):
        assert re.search(line, out), out
    assert str(daemon.process.pid) in out
    assert await daemon.stop() == 0


async def test_status_of_a_daemon_in_trouble(house: House) -> None:
    """Who waits, for how long, what failed lately, and cause with remedy; people only as pseudonyms."""
    daemon = await started(house, limits={"drain_s": 0.1})
    bad = await failed(house, user="u-bad")
    house.backend.fault = "stall"
    running = await house.gateway.say("机密的问题", user="u-slow")
    await house.gateway.say("又一个", user="u-slow")
    await until(lambda: len(house.backend.asked) >= 2)
    code, out, _ = await verb("status", *config(house))
    assert code == 0
    assert "AnythingLLM 不接受 API 密钥" in out
    assert re.search(rf"{trace_code(house.gateway.client_id, running.msg_id)} +正在回答 +后面还有 1 个", out)
    assert re.search(rf"{trace_code(house.gateway.client_id, bad.msg_id)} +失败 +backend.key", out)
    assert not [private for private in ("u-slow", "u-bad", "机密", "张三") if private in out]
    await daemon.stop()


async def test_status_without_a_daemon_tells_what_its_store_holds(house: House) -> None:
    """Exit 1, said in words, and the failures are there."""
    daemon = await started(house)
    sent = await failed(house)
    await daemon.stop()
    code, out, err = await verb("status", *config(house))
    assert (code, err) == (1, "")
    assert "没有运行的 dingbridge" in out
    assert trace_code(house.gateway.client_id, sent.msg_id) in out
    told = await as_json("status", *config(house), expected=1)
    assert told["running"] is None
    assert "pid" not in told


async def test_watch_goes_on_through_a_restart_and_ends_with_0(house: House) -> None:
    """Anew each second: with the daemon, without it, and with the next one; Ctrl-C is no failure."""
    daemon = await started(house)
    process = await asyncio.create_subprocess_exec(
        *(*DINGBRIDGE, "status", "--watch", *config(house)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None

    async def seen(words: str) -> None:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            while words not in (await process.stdout.readline()).decode():
                pass

    await seen(f"进程 {daemon.process.pid}")
    await daemon.stop()
    await seen("没有运行的 dingbridge")
    daemon = await house.daemon()
    while await _lost_the_lock(daemon):
        daemon = await house.daemon()
    await seen(f"进程 {daemon.process.pid}")
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert process.returncode == 0
    assert b"Traceback" not in err
    await daemon.stop()


async def _lost_the_lock(daemon: Daemon) -> bool:
    """Whether it came while the watcher looked into the store; systemd would start it again, too."""
    until_up = asyncio.create_task(until(lambda: daemon.events().count("stream.connected") >= 2))
    gone = asyncio.create_task(daemon.process.wait())
    await asyncio.wait({until_up, gone}, return_when=asyncio.FIRST_COMPLETED)
    until_up.cancel()
    return gone.done()


# -- trace


async def test_trace_tells_the_whole_way(house: House) -> None:
    """Frame, wait, route, call with its first token, send, each with its time, in both languages; no text, no name."""
    daemon = await started(house)
    sent = await answered(house, user="u-private")
    await ended(house, sent)
    code, out, err = await verb("trace", sent.msg_id, *config(house))
    assert (code, err) == (0, "")
    lines = [line for line in out.splitlines() if re.match(r"\d\d:\d\d:\d\d\.\d{3}  ", line)]
    ways = [
        *("收到消息（文字，单聊），存盘后确认；帧 ", "开始处理", "路由 handbook 符合"),
        *("第 1 次问 AnythingLLM（handbook）：成功", "发送第 1 段，走会话地址：成功"),
    ]
    assert len(lines) == len(ways), out
    assert [way for way, line in zip(ways, lines, strict=True) if way not in line] == []
    assert sent.pushes[0].message_id in lines[0]
    assert "第一个字" in lines[3]
    assert "没有发现故障。" in out
    assert not [private for private in ("u-private", "年假", "张三", "7 天") if private in out]
    _, out, _ = await verb("trace", sent.msg_id, "--config", str(in_language(house, "en")))
    assert "AnythingLLM asked, attempt 1 (handbook): ok" in out
    assert "No fault found." in out
    await daemon.stop()


async def test_a_running_question_is_traced_as_it_stands(house: House) -> None:
    """What has happened since its last write is known to the daemon alone; its notice is there, too."""
    house.backend.fault = "stall"
    async with house.app(reply={"notice_after_s": 0.1}, limits={"drain_s": 0.1}):
        sent = await house.gateway.say("年假有几天？")
        await house.gateway.next_post(sent)
        told = await as_json("trace", sent.msg_id, *config(house))
        steps = [step["name"] for step in told["steps"]]
        assert sorted(steps) == sorted(["received", "leased", "route.matched", "notice", "notice.sent"])
        assert (told["state"], told["finished_at"]) == ("leased", None)
        code, out, _ = await verb("trace", sent.msg_id, *config(house))
        assert code == 0
        assert "还没有结束" in out


async def test_a_repeated_why_is_said_once(house: House) -> None:
    """The same sentence is handed on from step to step; one is enough to read."""
    daemon = await started(house)
    sent = await failed(house)
    _, out, _ = await verb("trace", sent.msg_id, *config(house))
    assert out.count("does not accept the API key") == 1
    await daemon.stop()


@pytest.mark.parametrize("running", [True, False])
async def test_an_unknown_code_is_1_and_no_code_is_2(house: House, *, running: bool) -> None:
    """The same words with and without a daemon."""
    daemon = await started(house)
    if not running:
        await daemon.stop()
    said = "no message of the last seven days has the code or msgId 'ZZZZZZZZ'\n"
    for arguments in (("trace",), ("inbox", "show"), ("inbox", "retry"), ("inbox", "drop")):
        assert await verb(*arguments, "ZZZZZZZZ", *config(house)) == (1, "", said)
        code, out, err = await verb(*arguments, *config(house))
        assert (code, out) == (2, "")
        assert "CODE|MSGID" in err
    for strange in ("..", "../status", "", "%", "💥"):
        code, out, err = await verb("trace", strange, *config(house))
        assert (code, out) == (1, "")
        assert "Traceback" not in err
    if running:
        await daemon.stop()


# -- inbox


async def test_the_inbox_is_listed_and_shown(house: House) -> None:
    """One line a message; all columns of one; texts only where they are asked for."""
    daemon = await started(house)
    bad, good = await failed(house, user="u1"), await answered(house, user="u2")
    await ended(house, good)
    codes = [trace_code(house.gateway.client_id, one.msg_id) for one in (good, bad)]
    _, out, _ = await verb("inbox", "list", "--which", "all", *config(house))
    assert [line.split()[0] for line in out.splitlines()] == ["编号", *codes]
    _, out, _ = await verb("inbox", "list", "--which", "failed", "--limit", "1", *config(house))
    assert re.fullmatch(rf"编号 .*\n{codes[1]}  .*  失败 .*backend.key\n", out)
    assert await verb("inbox", "list", *config(house)) == (0, "没有这样的消息。\n", "")

    _, out, _ = await verb("inbox", "show", codes[1], *config(house))
    assert "年假" not in out
    assert "加 --text 才显示" in out
    _, out, _ = await verb("inbox", "show", "--text", codes[1], *config(house))
    assert "问题：年假有几天？" in out
    _, out, _ = await verb("inbox", "show", "--text", codes[0], *config(house))
    assert "问题：年假有几天？" in out
    assert "7 天" in out
    assert (await verb("inbox", "list", "--which", "none", *config(house)))[0] == 2
    assert (await verb("inbox", "list", "--limit", "0", *config(house)))[0] == 2
    await daemon.stop()


@pytest.mark.parametrize("running", [True, False])
async def test_a_failed_question_is_retried(house: House, *, running: bool) -> None:
    """By the running daemon at once; without one by the next that starts; the asker gets the answer."""
    daemon = await started(house, reply={"notice": "off"})
    sent = await failed(house)
    row = await ended(house, sent)
    if not running:
        await daemon.stop()
    code = row["code"]
    assert await verb("inbox", "retry", f"编号 {code.lower()}", *config(house)) == (
        0,
        f"{code} 已放回队列，由运行中的（没有时由下次启动的）dingbridge 再答；结果看 dingbridge trace {code}。\n",
        "",
    )
    if not running:
        daemon = await house.daemon()
    assert "7 天" in (await house.gateway.next_post(sent)).text
    row = await ended(house, sent)
    assert (row["outcome"], row["why"], row["cause"]) == ("answered", "", "")
    out, err = (await verb("inbox", "retry", code, *config(house)))[1:]
    assert (out, err) == ("", f"{code} ended as answered, and its text is forgotten: it cannot be asked again\n")
    names = [step["name"] for step in (await as_json("trace", code, *config(house)))["steps"]]
    assert names.index("gave_up") < names.index("retried") < len(names) - 1
    await daemon.stop()


@pytest.mark.parametrize("lost", [False, True])
async def test_an_answer_that_could_not_be_delivered_is_sent_again(house: House, *, lost: bool) -> None:
    """After its cause was mended; nothing is asked again; it is marked only where it may have arrived before."""
    gateway = house.gateway
    gateway.webhook_fault, gateway.openapi_fault = 300001, (403, "Forbidden.AccessDenied.AccessTokenPermissionDenied")
    if lost:
        gateway.webhook_faults.append("lost_response")
    async with house.app(reply={"notice": "off"}):
        sent = await gateway.say("年假有几天？")
        row = await ended(house, sent)
        assert row["outcome"] == "undeliverable"
        before = len(gateway.posts)
        gateway.webhook_fault = gateway.openapi_fault = None
        await gateway.say("/help", conversation=sent.conversation)  # brings a webhook that lives
        await gateway.wait_posts(sent, before + 1)
        assert (await verb("inbox", "retry", row["code"], *config(house)))[0] == 0
        (again,) = (await gateway.wait_posts(sent, before + 2))[before + 1 :]
        assert ("（可能重复）" in again.text) == lost
        assert "7 天" in again.text
        assert (await ended(house, sent))["outcome"] == "answered"
    assert len(house.backend.asked) == 1


@pytest.mark.parametrize("quiet", [False, True])
async def test_a_running_question_is_dropped(house: House, *, quiet: bool) -> None:
    """Nothing of it is answered; its asker is told, unless --quiet; its line is in the log; the next one goes on."""
    house.backend.answer, house.backend.answer_delay_s = str, 20.0
    daemon = await started(house, reply={"notice": "off"})
    sent = await house.gateway.say("甲")
    await until(lambda: house.backend.running)
    following = await house.gateway.say("乙")
    house.backend.answer_delay_s = 0.0
    code = trace_code(house.gateway.client_id, sent.msg_id)
    extra = ("--quiet",) if quiet else ()
    assert await verb("inbox", "drop", *extra, code, *config(house)) == (0, f"{code} 已移除。\n", "")
    await until(lambda: house.backend.asked[0].cancelled)
    posts = await house.gateway.wait_posts(following, 1 if quiet else 2)
    await ended(house, following)
    texts = [post.text for post in posts]
    assert texts[-1].startswith("乙")
    assert len(texts) == len(house.gateway.posts)
    if not quiet:
        assert "被管理员从队列里移除了" in texts[0]
        assert code in texts[0]
    row = await ended(house, sent)
    assert (row["outcome"], row["why"], row["question_kept"]) == ("cancelled", "dropped by an operator", False)
    handled = [line for line in daemon.events().splitlines() if "message.handled" in line and code in line]
    assert len(handled) == 1
    code_, _, err = await verb("inbox", "drop", code, *config(house))
    assert (code_, err) == (1, f"{code} ended as cancelled: there is nothing to drop\n")
    await daemon.stop()


# -- JSON


async def test_what_is_changed_is_given_as_it_is_then(house: House) -> None:
    """Each verb on one message prints that message as a list would; show and trace have more of it."""
    async with house.app(reply={"notice": "off"}):
        sent = await failed(house)
        shown = await ended(house, sent)
        (listed,) = await as_json("inbox", "list", "--which", "all", *config(house))
        assert set(listed) < set(shown)
        assert {key: shown[key] for key in listed} == listed
        texts = await as_json("inbox", "show", "--text", sent.msg_id, *config(house))
        assert (texts["question"], set(texts) - set(shown)) == ("年假有几天？", {"question", "answer"})
        traced = await as_json("trace", sent.msg_id, *config(house))
        assert set(traced) - set(listed) == {"lane", "causes", "steps"}
        house.backend.fault = "stall"
        retried = await as_json("inbox", "retry", sent.msg_id, *config(house))
        dropped = await as_json("inbox", "drop", sent.msg_id, *config(house))
    assert set(retried) == set(dropped) == set(listed)
    assert (retried["outcome"], retried["finished_at"]) == ("", None)
    assert dropped["outcome"] == "cancelled"


# -- the configuration


@pytest.mark.parametrize("arguments", ALL, ids=" ".join)
async def test_toml_that_cannot_be_read_is_78(house: House, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """And so are a file that is not there and a store that nobody can find; without a traceback."""
    path = tmp_path / "broken.toml"
    for written in ("[reply\n", '[store]\nurl = "mysql://x"\n', "[store]\nurl = 5\n", 'store = "x"\n', None):
        path.unlink(missing_ok=True)
        if written is not None:
            path.write_text(written)
        code, out, err = await verb(*arguments, "--config", str(path))
        assert (code, out) == (78, ""), written
        assert err
        assert "Traceback" not in err


async def test_a_fault_elsewhere_hinders_nobody(house: House) -> None:
    """At 3 am the file may be half edited: what runs can still be looked at."""
    daemon = await started(house)
    sent = await answered(house)
    await ended(house, sent)
    path = house.folder / "dingbridge.toml"
    path.write_text(path.read_text() + '\n[limits2]\nx = 1\n[web2]\n[[route]]\nworkspce = "x"\n')
    broken = (
        path.read_text().replace('listen = "127.0.0.1:0"', 'listen = ["x"]').replace("[reply]", "[reply]\nlocale = []")
    )
    path.write_text(broken)
    for arguments in (("status",), ("trace", sent.msg_id), ("inbox", "list"), ("inbox", "show", sent.msg_id)):
        code, out, err = await verb(*arguments, *config(house))
        assert (code, err) == (0, "")
        assert out
    assert (await verb("reload", *config(house)))[0] == 78
    assert (await verb("check", *config(house)))[0] == 78
    await daemon.stop()


# -- route


ROUTES = [
    {"name": "finance", "workspace": "fin", "users": ["zhang"], "conversations": ["cid1"]},
    {"name": "it", "workspace": "it", "conversations": ["cid2"]},
    {"name": "hr", "workspace": "hr", "users": ["li"]},
    {"name": "all", "workspace": "handbook"},
]


@pytest.mark.parametrize(
    ("arguments", "route", "rules"),
    [
        (("--as", "zhang"), "finance", ["person", "groups_only", "person_not_named", "open"]),
        (("--as", "li"), "hr", ["person_not_named", "groups_only", "person", "open"]),
        (("--as", "li", "--in", "cid2"), "it", ["group_not_named", "group", "no_groups", "open"]),
        (("--as", "zhang", "--in", "cid9"), "all", ["group_not_named", "group_not_named", "no_groups", "open"]),
        ((), "all", ["person_not_named", "groups_only", "person_not_named", "open"]),
    ],
)
async def test_each_rule_of_a_route_is_explained(
    house: House, arguments: tuple[str, ...], route: str, rules: list[str]
) -> None:
    """Which route, and why each of them; 0 where it is the expected one, 1 where it is another."""
    house.configure(route=ROUTES)
    told = await as_json("route", "年假？", *arguments, *config(house))
    assert (told["route"], [rule["rule"] for rule in told["rules"]]) == (route, rules)
    assert set(told) == {"command", "route", "matched", "rules"}
    code, out, err = await verb("route", "年假？", *arguments, "--expect", route, *config(house))
    assert (code, err) == (0, "")
    assert f"由 {route} 回答" in out
    code, _, err = await verb("route", "年假？", *arguments, "--expect", "other", *config(house))
    assert (code, err) == (1, f"应为 other，实际是 {route}。\n")


async def test_no_route_and_a_command_can_be_expected(house: House) -> None:
    """An empty name means none; it needs neither secrets nor a daemon."""
    house.configure(route=ROUTES[:3])
    path = house.folder / "dingbridge.toml"
    text = re.sub(r"(client_secret|api_key) = .*", "", path.read_text())
    path.write_text(text)
    assert (await verb("route", "x", "--expect", "", *config(house)))[0] == 0
    assert "没有符合的路由" in (await verb("route", "x", *config(house)))[1]
    told = await as_json("route", "/help", "--as", "zhang", "--expect", "", *config(house))
    assert (told["command"], told["route"], told["matched"]) == ("help", None, ["finance"])
