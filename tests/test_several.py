"""Real daemons on one PostgreSQL: what an operator sees of them, and does through any of them."""

from __future__ import annotations

import asyncio
import json
import signal
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import psycopg
import pytest

from dingbridge.store.seat import is_anyone_seated, take_seat
from tests.house import House, until
from tests.operating import as_json, in_language, verb
from tests.postgres import Server
from tests.several import configuration, configured, started, status_of


async def test_status_lists_the_daemons(house: House, postgres: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who there is, who is ready, who answers, who is on duty, and who has died, in JSON and in both languages."""
    await configured(house, postgres, monkeypatch)
    one, two = await started(house, 2)
    told = await status_of(house, 2)
    assert [(d["live"], d["link"], d["running"], d["why"]) for d in told["daemons"]] == [(True, True, 0, "")] * 2
    assert {d["pid"] for d in told["daemons"]} == {one.process.pid, two.process.pid}
    assert len({d["name"] for d in told["daemons"]}) == 2
    assert sum(d["answers"] for d in told["daemons"]) == 1
    assert sum(d["on_duty"] for d in told["daemons"]) == 1
    assert [d["silent_s"] for d in told["daemons"] if d["answers"]] == [0.0]
    assert [d["uptime_s"] for d in told["daemons"] if d["answers"]] == [told["uptime_s"]]
    sent = await house.gateway.say("年假有几天？")
    await house.gateway.next_post(sent)
    (leased,) = [step for step in await ended(sent.msg_id, house) if step["name"] == "leased"]
    assert leased["by"] in {d["name"] for d in told["daemons"]}
    assert told["limits"]["api_per_second"] == {"all": 20, "divided_by": 2}
    for language, sentences in (
        (
            "zh-CN",
            (
                f"进程 {two.process.pid}，已运行",
                "前）",
                "共用这个数据库的守护进程",
                "由它回答本命令",
                "值班",
                "由 2 个守护进程均分",
            ),
        ),
        (
            "en",
            (
                f"process {two.process.pid}, up for",
                " ago)",
                "Daemons of this store:",
                "answers this",
                "on duty",
                "are divided by 2",
            ),
        ),
    ):
        code, out, _ = await verb("status", "--config", str(in_language(house, language)))
        assert code == 0
        assert [sentence for sentence in sentences if sentence not in out] == []
        assert all(d["name"] in out for d in told["daemons"])
    assert await one.stop() == 0
    told = await as_json("status", *configuration(house))
    assert [d["pid"] for d in told["daemons"]] == [two.process.pid]
    await two.kill()
    code, out, _ = await verb("status", *configuration(house), "--json")
    assert code == 1
    assert [d["pid"] for d in json.loads(out)["daemons"]] == [two.process.pid]


async def ended(msg_id: str, house: House) -> list[dict[str, Any]]:
    """The steps of a message, when it has ended."""
    async with asyncio.timeout(30):
        while (trace := await as_json("trace", msg_id, *configuration(house)))["state"] != "done":
            await asyncio.sleep(0.1)
    steps: list[dict[str, Any]] = trace["steps"]
    return steps


async def test_a_dead_daemon_makes_no_other_unready(
    house: House, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that is left stays ready, and goes on being the one on duty or becomes it."""
    await configured(house, postgres, monkeypatch)
    one, two = await started(house, 2)
    await status_of(house, 2)
    await one.kill()
    port = web_port(two.events())
    async with asyncio.timeout(60), aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"http://127.0.0.1:{port}/metrics") as response:
                metrics = await response.text()
            if "dingbridge_on_duty 1.0" in metrics:
                break
            await asyncio.sleep(0.2)
        async with session.get(f"http://127.0.0.1:{port}/readyz") as response:
            assert response.status == 200
            assert set((await response.json())["parts"]) == {"store", "link"}
        async with session.get(f"http://127.0.0.1:{port}/") as response:
            page = await response.text()
    assert "2 daemons" in page
    assert "this one" in page
    assert await two.stop() == 0


def web_port(events: str) -> int:
    (line,) = [json.loads(one) for one in events.splitlines() if '"web.listening"' in one]
    return int(str(line["address"]).rpartition(":")[2])


async def test_a_question_is_dropped_through_any_daemon(
    house: House, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`trace` names who works on it; `drop` through a daemon that does not stops that one at once."""
    await configured(house, postgres, monkeypatch, reply={"notice": "off"})
    daemons = await started(house, 2)
    told = await status_of(house, 2)
    answers = {d["name"]: d["answers"] for d in told["daemons"]}
    house.backend.answer_delay_s = 300.0
    for number in range(40):  # until one is worked on by the daemon that does not answer the verbs
        asked = len(house.backend.asked)
        sent = await house.gateway.say("年假有几天？", user=f"u{number}")
        await until(partial(more_than, house, asked), what="somebody works on it")
        trace = await as_json("trace", sent.msg_id, *configuration(house))
        assert trace["owner"] in answers
        assert trace["steps"][0]["by"] in answers
        if not answers[trace["owner"]]:
            break
        await verb("inbox", "drop", "--quiet", sent.msg_id, *configuration(house))
    else:
        raise AssertionError("the other daemon never worked")
    _, out, _ = await verb("trace", sent.msg_id, "--config", str(in_language(house, "en")))
    assert f"worked on by  {trace['owner']}" in out.replace("   ", "  ").replace("   ", "  ")
    before = len(house.gateway.posts)
    code, _, err = await verb("inbox", "drop", sent.msg_id, *configuration(house))
    assert (code, err) == (0, "")
    post = await house.gateway.next_post(sent)
    assert trace["code"] in post.text
    await until(lambda: not house.backend.running, what="the other daemon has stopped asking")
    assert len(house.gateway.posts) == before + 1
    ended = await as_json("trace", sent.msg_id, *configuration(house))
    assert (ended["outcome"], ended["owner"]) == ("cancelled", "")
    house.backend.answer_delay_s = None
    for daemon in daemons:
        assert await daemon.stop() == 0


def more_than(house: House, asked: int) -> bool:
    return len(house.backend.asked) > asked


async def test_a_reload_reaches_every_daemon_here(
    house: House, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is named with what it took over; one that is elsewhere is named as not reached."""
    url = await configured(house, postgres, monkeypatch)
    daemons = await started(house, 2)
    told = await status_of(house, 2)
    names = sorted(d["name"] for d in told["daemons"])
    house.configure(store={"url": url}, limits={"workers": 7})
    reloaded = await as_json("reload", *configuration(house))
    assert reloaded["applied"] == ["limits.workers"]
    assert {one["name"]: one["applied"] for one in reloaded["daemons"]} == {one: ["limits.workers"] for one in names}
    assert reloaded["elsewhere"] == []
    elsewhere = house.folder / "elsewhere"
    elsewhere.mkdir()
    third = await house.daemon(environ={"STATE_DIRECTORY": str(elsewhere)}, log=house.folder / "daemon3.log")
    told = await status_of(house, 3)
    (other,) = {d["name"] for d in told["daemons"]} - set(names)
    code, out, _ = await verb("reload", "--config", str(in_language(house, "en")))
    assert code == 0
    assert f"On other machines, not reloaded, call it there: {other}" in out
    assert all(f"{name}: " in out for name in names)
    for daemon in (*daemons, third):
        assert await daemon.stop() == 0


async def test_faults_at_one_daemon_alone_end_in_78(
    house: House, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both read the same file, but not the same environment: who lacks a secret says so, the other goes on by it."""
    url = await configured(house, postgres, monkeypatch)
    (lacking,) = await started(house, 1)
    path = house.configure(store={"url": url}, limits={"workers": 7})
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if "api_key" not in line))
    secret = {"DINGBRIDGE_ANYTHINGLLM_API_KEY": house.backend.api_key, "STATE_DIRECTORY": str(house.folder)}
    having = await house.daemon(environ=secret, log=house.folder / "daemon9.log")
    names = {d["pid"]: d["name"] for d in (await status_of(house, 2))["daemons"]}
    told = await as_json("reload", *configuration(house), expected=78)
    faults = {one["name"]: len(one.get("faults", ())) for one in told["daemons"]}
    assert faults == {names[lacking.process.pid]: 1, names[having.process.pid]: 0}
    for daemon in (lacking, having):
        assert await daemon.stop() == 0


async def test_check_names_the_daemons(house: House, postgres: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store and the daemons that live on it; different versions and clocks are warnings, not failures."""
    url = await configured(house, postgres, monkeypatch)
    (daemon,) = await started(house, 1)
    told = await status_of(house, 1)
    findings = {f["part"]: f for f in (await as_json("check", *configuration(house)))["findings"]}
    assert findings["store"]["detail"].startswith("PostgreSQL ")
    assert findings["daemons"]["level"] == "ok"
    assert told["daemons"][0]["name"] in findings["daemons"]["detail"]
    assert "clock" not in findings
    await asyncio.to_thread(pretend_an_older_one, url)
    findings = {f["part"]: f for f in (await as_json("check", *configuration(house)))["findings"]}
    assert (findings["daemons"]["level"], findings["clock"]["level"]) == ("warning", "warning")
    assert "0.0.9" in findings["daemons"]["detail"]
    assert "older-host by +7.5 s" in findings["clock"]["detail"]
    assert await daemon.stop() == 0


def pretend_an_older_one(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as c:
        (schema,) = c.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'dingbridge%'").fetchone() or ("",)
        facts = json.dumps({"version": "0.0.9", "clock_s": 7.5})
        c.execute(
            f'INSERT INTO "{schema}".replica VALUES (%s, %s, 1, 0, extract(epoch FROM clock_timestamp()), %s)',
            ("older-1", "older-host", facts),
        )


async def test_a_stuck_daemon_keeps_no_verb(house: House, postgres: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one answers, at last the database itself; which one did not is said, and `reload` names it, too."""
    await configured(house, postgres, monkeypatch)
    one, two = await started(house, 2)
    told = await status_of(house, 2)
    names = {d["pid"]: d["name"] for d in told["daemons"]}
    one.process.send_signal(signal.SIGSTOP)
    try:
        english = str(in_language(house, "en"))
        code, out, err = await verb("status", "--config", english)
        assert (code, err) == (0, f"{names[one.process.pid]}: did not answer within 3 s, is it stuck?\n")
        assert f"process {two.process.pid}" in out
        reloaded = await as_json("reload", *configuration(house), expected=1)
        said = {d["name"]: d.get("error", "") for d in reloaded["daemons"]}
        assert said == {names[one.process.pid]: "3 秒内没有回答，是不是卡住了？", names[two.process.pid]: ""}
        two.process.send_signal(signal.SIGSTOP)
        code, out, err = await verb("inbox", "list", *configuration(house))
        assert code == 0
        assert all(f"{name}: 3 秒内没有回答" in err for name in names.values())
        code, _, err = await verb("reload", "--config", english)
        assert code == 1
        assert all(f"{name}: did not answer within 3 s" in err for name in names.values())
    finally:
        for daemon in (one, two):
            daemon.process.send_signal(signal.SIGCONT)
    for daemon in (one, two):
        assert await daemon.stop() == 0


@pytest.mark.parametrize("gone", ["killed", "hung"])
async def test_a_daemon_is_seen_while_its_store_is_away(
    house: House, postgres: Server, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    """`status` shows what the daemon knows without it, and the store's why; `reload` needs no store."""
    url = await configured(house, postgres, monkeypatch)
    (daemon,) = await started(house, 1)
    (peer,) = (await status_of(house, 1))["daemons"]
    away, back = (postgres.kill, postgres.start) if gone == "killed" else (postgres.pause, postgres.resume)
    await asyncio.to_thread(away)
    try:
        told = await as_json("status", *configuration(house))
        assert (told["queue"], told["lanes"], told["failures"]) == (None, [], [])
        assert told["store_why"] != ""
        assert (told["pid"], told["running"], told["link"]["connected"]) == (daemon.process.pid, 0, True)
        assert [one["name"] for one in told["daemons"]] == [peer["name"]]
        for language, sentence in (("zh-CN", "读不到数据库"), ("en", "the store cannot be read")):
            code, out, _ = await verb("status", "--config", str(in_language(house, language)))
            assert code == 0
            assert sentence in out
            assert str(daemon.process.pid) in out
        house.configure(store={"url": url}, limits={"workers": 7})
        told = await as_json("reload", *configuration(house))
        assert (told["applied"], [one["name"] for one in told["daemons"]]) == (["limits.workers"], [peer["name"]])
    finally:
        await asyncio.to_thread(back)
    await status_of(house, 1)
    assert await daemon.stop() == 0


async def test_check_takes_no_connection_from_a_daemon_it_cannot_see(
    house: House, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the database out of reach a daemon may live: no second connection, and no word of its web port."""
    await configured(house, postgres, monkeypatch)
    announced, daemon = await started(house, 2)
    await status_of(house, 2)
    assert await announced.stop() == 0

    async def checked() -> dict[str, Any]:
        await asyncio.to_thread(postgres.kill)
        try:
            told = await as_json("check", *configuration(house), expected=1)
        finally:
            await asyncio.to_thread(postgres.start)
        return {finding["part"]: finding for finding in told["findings"]}

    findings = await checked()
    assert findings["store"]["level"] == "failure"
    assert findings["dingtalk"]["detail"] == "a ticket only, because a daemon is running"
    assert "web" not in findings
    await status_of(house, 1)
    assert await daemon.stop() == 0
    findings = await checked()
    assert findings["dingtalk"]["detail"] == "a ticket only, because a daemon may be running"
    assert "web" not in findings


async def test_a_daemon_in_another_folder_is_named(
    house: House, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who looks in the wrong folder is told what runs, and what to export; not that nothing runs."""
    await configured(house, postgres, monkeypatch)
    (daemon,) = await started(house, 1)
    (peer,) = (await status_of(house, 1))["daemons"]
    elsewhere = {"STATE_DIRECTORY": str(house.folder / "elsewhere")}
    for language, sentence in (
        ("zh-CN", f"在 {house.folder / 'elsewhere'} 没有找到守护进程，但数据库里有这台机器的：{peer['name']}"),
        ("en", f"in {house.folder / 'elsewhere'}, but the database names these of this host: {peer['name']}"),
    ):
        path = str(in_language(house, language))
        code, out, _ = await verb("status", "--config", path, environ=elsewhere)
        assert code == 1
        assert sentence in out
        code, _, err = await verb("reload", "--config", path, environ=elsewhere)
        assert code == 1
        assert str(house.folder / "elsewhere") in err
        for said in (out, err):
            assert "export STATE_DIRECTORY=/var/lib/dingbridge" in said
    assert await daemon.stop() == 0


async def test_a_held_seat_is_seen(tmp_path: Path) -> None:
    """A lock file that was left behind is nobody; one that is held is somebody; looking takes no seat away."""
    path = tmp_path / "dingbridge"
    assert not is_anyone_seated(path)
    seat = take_seat(path)
    assert is_anyone_seated(path)
    seat.leave()
    assert not is_anyone_seated(path)
    again = take_seat(path)
    assert again.name == seat.name
    again.leave()
