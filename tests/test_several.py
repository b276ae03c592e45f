"""Real daemons on one PostgreSQL: what an operator sees of them, and does through any of them."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import Any

import aiohttp
import psycopg
import pytest

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
    sent = await house.gateway.say("年假有几天？")
    await house.gateway.next_post(sent)
    (leased,) = [step for step in await ended(sent.msg_id, house) if step["name"] == "leased"]
    assert leased["by"] in {d["name"] for d in told["daemons"]}
    assert told["limits"]["api_per_second"] == {"all": 20, "divided_by": 2}
    for language, sentences in (
        ("zh-CN", ("共用这个数据库的守护进程", "由它回答本命令", "值班", "由 2 个守护进程均分")),
        ("en", ("Daemons of this store:", "answers this", "on duty", "are divided by 2")),
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
