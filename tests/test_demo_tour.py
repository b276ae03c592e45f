"""The tour: what it promises is what happened, and it can be left at any point."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from dingbridge.demo import scenes
from dingbridge.demo.scenes import SCENES
from dingbridge.demo.tour import Pace
from tests.demo_visitor import Visitor, answers_in, opened

Json = dict[str, Any]


async def _step(visitor: Visitor, number: int) -> Json:
    """The tour when this step is over, by whatever end."""

    def over(state: Json) -> Json | None:
        tour = state["tour"]
        return tour if tour and tour["step"] == number and tour["status"] != "running" else None

    return dict(await visitor.until(over))


def _went(tour: Json) -> list[tuple[str, bool]]:
    return [(line["chat"], line["ok"]) for line in tour["result"]["lines"]]


async def test_the_tour_from_start_to_end() -> None:
    """Eight steps: sources, contexts, a kill, a card, its passage, a colleague, an honest refusal, a traced code."""
    async with opened() as (stage, visitor):
        await visitor.act("tour", action="start")
        first = await _step(visitor, 1)
        assert (first["status"], first["of"], first["chats"]) == ("waiting", 8, ["zhangsan"])
        assert _went(first) == [("zhangsan", True)] * 3

        await visitor.act("tour", action="next")
        assert _went(await _step(visitor, 2)) == [("lisi", True)]

        await visitor.act("tour", action="next")
        third = await _step(visitor, 3)
        assert third["chats"] == ["bare", "zhangsan"]
        assert _went(third) == [("bare", False), ("zhangsan", True)]
        assert {key: third["result"][key] for key in ("asked", "bare", "ours")} == {"asked": 2, "bare": 1, "ours": 2}
        _check_the_kill_was_fair(await visitor.state())

        stage.backend.token_delay_s = 0.03  # type: ignore[union-attr]
        await visitor.act("tour", action="next")
        assert _went(await _step(visitor, 4)) == [("zhangsan", True)] * 3
        card = answers_in(await visitor.state(), "zhangsan")[-1]
        assert (card["kind"], card["card"]["views"]) == (
            "card",
            {"zhangsan": {"vote": "good", "note": "谢谢，已记下。"}},
        )

        await visitor.act("tour", action="next")
        assert _went(await _step(visitor, 5)) == [("zhangsan", True)]

        await visitor.act("tour", action="next")
        assert _went(await _step(visitor, 6)) == [("lisi", True), ("zhangsan", True)]

        await visitor.act("tour", action="next")
        assert _went(await _step(visitor, 7)) == [("wangwu", True)]

        await visitor.act("tour", action="next")
        last = await _step(visitor, 8)
        assert (last["status"], last["panel"]) == ("done", "operator")
        code = last["result"]["code"]
        assert f"编号 {code}" in answers_in(await visitor.state(), "wangwu")[-1]["text"]
        assert last["result"]["command"] == f"dingbridge trace {code} --config {stage.config}"
        await _check_the_trace(last["result"])

        await visitor.act("tour", action="stop")
        state = await visitor.state()
        assert (state["tour"], state["robot"]["cards"]) == (None, False)


async def _check_the_trace(result: Json) -> None:
    """The page tells the whole way in sentences, with cause and remedy, and its command tells the same."""
    trace = result["trace"]
    assert trace["words"] == "失败（已结束）"
    assert [cause["cause"] for cause in trace["causes"]] == ["backend.key"]
    texts = [step["text"] for step in trace["steps"]]
    for number, beginning in enumerate(
        ("收到消息（文字，单聊）", "开始处理", "在聊天里打开卡片", "路由 handbook", "第 1 次问 AnythingLLM")
    ):
        assert texts[number].startswith(beginning)
    assert result["status"]["failures"][0]["code"] == result["code"]
    command = ["-m", *result["command"].split()]
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(60):
        told = (await process.communicate())[0].decode()
    assert process.returncode == 0
    for words in (*texts, trace["causes"][0]["what"], trace["causes"][0]["remedy"]):
        assert words in told


def _check_the_kill_was_fair(state: Json) -> None:
    """Both got both questions once, both were killed and started, both answer the second question."""
    for bot, chat in (("ours", "zhangsan"), ("bare", "bare")):
        rows = [row for row in state["wire"] if row["bot"] == bot]
        titles = [row["title"] for row in rows]
        assert titles.count("消息：张三「年假有几天？」") == 1
        assert titles.count("消息：张三「会议室怎么预订？」") == 1
        kill = next(at for at, title in enumerate(titles) if "信号 9" in title)
        assert titles.index("问 AnythingLLM：「年假有几天？」") < kill
        assert any("已启动" in title for title in titles[kill:])
        assert "会议室" in answers_in(state, chat)[-1]["text"]
    states = {message["chat"]: message["state"] for message in state["messages"] if message["text"] == "年假有几天？"}
    assert states["bare"] == "lost"
    assert states["zhangsan"] == "acked"


async def test_the_bare_bot_loses_and_ours_answers_three_times_in_a_row() -> None:
    """Started anew and going on by itself, each run asks both twice: one loses a question, the other none."""
    async with opened() as (_, visitor):
        for _ in range(3):
            third = await _side_by_side(visitor)
            assert third["lines"] == [
                {"chat": "bare", "ok": False, "text": "问了 2 个，答上 1 个；丢了：年假有几天？"},
                {"chat": "zhangsan", "ok": True, "text": "问了 2 个，答上 2 个"},
            ]
            _check_the_kill_was_fair(await visitor.state())
        assert _went(await _step(visitor, 8))[0] == ("wangwu", True)


async def _side_by_side(visitor: Visitor) -> Json:
    """The third step's result of a tour that starts now and does not wait for its reader."""
    async with visitor.events() as events:
        await visitor.act("tour", action="start", auto=True)
        async for event in events:
            tour = event.get("tour")
            if tour and tour["step"] == 3 and tour["result"]:
                return dict(tour["result"])
    raise AssertionError("the page ended before the third step")


async def test_next_waits_for_the_step_to_be_over() -> None:
    """While a step is acted 继续 is refused, so that a double click skips nothing; no tour, no 继续."""
    async with opened(pace=Pace(look_s=60.0)) as (_, visitor):
        assert (await visitor.post("tour", action="next"))[0] == 409
        await visitor.act("tour", action="start")
        await visitor.until(lambda state: state["tour"])
        assert (await visitor.post("tour", action="next"))[0] == 409
        assert (await visitor.state())["tour"]["step"] == 1
        assert (await visitor.post("tour", action="dance"))[0] == 400


async def test_a_tour_that_is_left_leaves_a_working_stage() -> None:
    """Left in the middle of the third step, between kill and start: the daemon runs and answers all the same."""
    async with opened(pace=Pace(look_s=1.0)) as (stage, visitor):
        await visitor.act("tour", action="start")
        await _step(visitor, 1)
        await visitor.act("tour", action="next")
        await _step(visitor, 2)
        await visitor.act("tour", action="next")
        await visitor.until(lambda state: not state["daemon"]["running"])
        await visitor.act("tour", action="stop")

        assert stage.daemon.running
        assert stage.backend is not None
        assert stage.backend.answer_delay_s is None
        assert (await visitor.state())["tour"] is None
        await visitor.say("忘记密码怎么办？", "lisi", "lisi")
        assert "密码" in (await visitor.answer(2, "lisi"))["text"]


async def test_a_step_that_fails_says_so_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A question without an answer ends its step as failed; 继续 leads to the next one."""
    monkeypatch.setattr(scenes, "ANSWER_S", 2.0)
    async with opened() as (stage, visitor):
        await visitor.act("tour", action="start")
        await _step(visitor, 1)
        stage.gateway.webhook_fault = stage.gateway.openapi_fault = "reset"
        await visitor.act("tour", action="next")
        second = await _step(visitor, 2)
        assert second["status"] == "failed"
        assert _went(second) == [("lisi", False)]
        stage.gateway.webhook_fault = stage.gateway.openapi_fault = None
        await visitor.act("tour", action="next")
        assert await visitor.until(lambda state: state["tour"]["step"] == 3)


def test_every_scene_is_told_in_one_to_three_sentences() -> None:
    """A reader takes in a title and a few sentences."""
    for scene in SCENES:
        assert 4 <= len(scene.title) <= 16, scene.title
        assert 1 <= scene.text.count("。") + scene.text.count("？」") <= 4, scene.text
