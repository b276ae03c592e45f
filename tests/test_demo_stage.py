"""The fault switches of the demo do what they say, and the daemon gets over each of them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dingbridge.demo import stage as stage_module
from dingbridge.demo.people import cast
from dingbridge.demo.setting import Look, Setting
from dingbridge.sim.gateway_link import State
from tests.demo_visitor import Visitor, answers_in, opened

QUESTION = "年假有几天？"
OTHER = "会议室怎么预订？"


async def _switch(visitor: Visitor, name: str, *, on: bool = True) -> None:
    await visitor.act("fault", name=name, on=on)


def _titles(state: dict[str, Any], kind: str) -> list[str]:
    return [row["title"] for row in state["wire"] if row["kind"] == kind]


@pytest.mark.parametrize("name", ["cut", "disconnect"])
async def test_the_link_recovers(name: str) -> None:
    """After a cut or a rotation there is a new connection, over which a question is answered."""
    async with opened() as (stage, visitor):
        before = stage.gateway.accepted[-1]
        await _switch(visitor, name)
        await stage.gateway.until(lambda: len(stage.gateway.accepted) > 1, 60)
        assert stage.gateway.accepted[-1] is not before

        await visitor.say(QUESTION)
        assert "年假" in (await visitor.answer())["text"]
        titles = {kind: len(_titles(await visitor.state(), kind)) for kind in ("open", "connected")}
        assert titles == {"open": 2, "connected": 2}


async def test_a_half_open_link_looks_alive() -> None:
    """Nobody is told that it is broken: the daemon believes in it until its heartbeat fails, some twelve seconds."""
    async with opened() as (stage, visitor):
        (connection,) = stage.gateway.connections
        await _switch(visitor, "half_open")
        assert connection.state is State.HALF_OPEN
        await visitor.say(QUESTION)
        state = await visitor.until(lambda state: state if state["daemon"]["status"] else None)
        assert state["daemon"]["status"]["link"]["connected"]
        assert state["messages"][0]["state"] == "held"


async def test_a_slow_answer_is_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the model thinks the chat shows a waiting notice, then the answer."""
    monkeypatch.setattr(stage_module, "SLOW_S", 4.0)
    async with opened() as (stage, visitor):
        await _switch(visitor, "slow")
        assert (await visitor.state())["faults"]["slow"]
        await visitor.say(QUESTION)
        await visitor.until(lambda state: [one for one in state["messages"] if one["notice"]])
        assert not answers_in(await visitor.state(), "zhangsan")
        assert "年假" in (await visitor.answer())["text"]
        await _switch(visitor, "slow", on=False)
        assert stage.backend is not None
        assert stage.backend.fault is None


async def test_a_question_outlives_a_backend_that_fails() -> None:
    """The asker is told that the question is kept, and it is answered when AnythingLLM is back."""
    async with opened() as (_, visitor):
        await _switch(visitor, "failing")
        await visitor.say(QUESTION)
        assert "恢复后我会自动回答" in (await visitor.answer())["text"]
        assert not all(row["ok"] for row in (await visitor.state())["wire"])
        backend = (await visitor.state())["daemon"]["status"]["backend"]
        assert (backend["ok"], backend["cause"]) == (False, "backend.failed")

        await _switch(visitor, "down")
        await visitor.say(QUESTION, "lisi", "lisi")
        assert "恢复后我会自动回答" in (await visitor.answer(chat="lisi"))["text"]

        await _switch(visitor, "down", on=False)
        assert "年假" in (await visitor.answer(2))["text"]


async def test_one_fault_of_the_backend_at_a_time() -> None:
    """Switching one on switches the other off, and a switch that is off already leaves the other alone."""
    async with opened() as (_, visitor):
        await _switch(visitor, "slow")
        await _switch(visitor, "down")
        await _switch(visitor, "slow", on=False)
        faults = (await visitor.state())["faults"]
        assert (faults["slow"], faults["failing"], faults["down"]) == (False, False, True)


async def test_a_message_delivered_again_is_answered_once() -> None:
    """A redelivery is acknowledged like the first delivery and has no second answer."""
    async with opened() as (stage, visitor):
        await visitor.say(QUESTION)
        await visitor.answer()
        await _switch(visitor, "redeliver")
        sent = stage.gateway.sent[-1]
        await stage.gateway.until(lambda: len(sent.acks) == 2)
        await visitor.say(OTHER)
        await visitor.answer(2)
        assert len(answers_in(await visitor.state(), "zhangsan")) == 2


async def test_a_killed_daemon_answers_after_its_start() -> None:
    """The question that was being answered at the SIGKILL is answered by the next process."""
    async with opened() as (stage, visitor):
        assert stage.backend is not None
        backend = stage.backend
        backend.answer_delay_s = 60.0
        await visitor.say(QUESTION)
        async with asyncio.timeout(30):
            await backend.until(lambda: backend.running > 0)
        await _switch(visitor, "kill")
        state = await visitor.state()
        assert not state["daemon"]["running"]
        assert any("信号 9" in title for title in _titles(state, "process"))
        backend.answer_delay_s = None

        status, refusal = await visitor.post("fault", name="kill")
        assert (status, refusal["error"]) == (409, "守护进程没有在运行。")
        status, _ = await visitor.post("fault", name="cut")
        assert status == 409

        await _switch(visitor, "start")
        assert "年假" in (await visitor.answer())["text"]
        assert (await visitor.state())["messages"][0]["state"] == "acked"


async def test_what_is_said_without_a_daemon_waits() -> None:
    """A message that finds no connection is shown as held, and answered when there is one."""
    async with opened() as (_, visitor):
        await _switch(visitor, "kill")
        await visitor.say(QUESTION)
        assert (await visitor.state())["messages"][0]["state"] == "held"
        await _switch(visitor, "start")
        assert "年假" in (await visitor.answer())["text"]


async def test_an_expired_webhook_takes_the_other_way() -> None:
    """The next question's webhook is refused, its answer comes through the OpenAPI; the one after is as always."""
    async with opened() as (_, visitor):
        await _switch(visitor, "expire_webhooks")
        assert (await visitor.state())["faults"]["expire_webhooks"]
        await visitor.say(QUESTION)
        answer = await visitor.answer()
        state = await visitor.state()

        assert "OpenAPI" in answer["note"]
        assert any("300001" in title for title in _titles(state, "webhook"))
        assert any("单聊" in title for title in _titles(state, "openapi"))
        assert not state["faults"]["expire_webhooks"]
        question = state["messages"][0]
        assert question["webhook_expires_at"] - question["at"] < 60_000

        await _switch(visitor, "expire_webhooks")
        await _switch(visitor, "expire_webhooks", on=False)
        await visitor.say(OTHER)
        assert (await visitor.answer(2))["note"] == ""


async def test_pages_are_told_when_a_switch_goes_off_by_itself() -> None:
    """The question that used up the expired webhooks, and the tour that mends what was broken, show it everywhere."""
    async with opened() as (_, visitor), visitor.events() as events:
        await _switch(visitor, "expire_webhooks")
        await visitor.say(QUESTION)
        await _switch(visitor, "slow")
        await visitor.act("tour", action="start")
        told: list[tuple[bool, bool]] = []
        async with asyncio.timeout(60):
            async for event in events:
                if event["type"] == "faults":
                    told.append((event["faults"]["expire_webhooks"], event["faults"]["slow"]))
                if told[-1:] == [(False, False)] and len(told) > 2:
                    break
        assert told == [(True, False), (False, False), (False, True), (False, False)]


async def test_reset_forgets_what_was_said() -> None:
    """After it the page is empty, and a follow-up has nothing to lean on."""
    async with opened() as (_, visitor):
        await visitor.say("北京出差住宿标准是多少？")
        await visitor.answer()
        await visitor.act("reset")
        assert (await visitor.state())["messages"] == []
        await visitor.say("那国外呢？")
        assert "没有找到" in (await visitor.answer())["text"]


async def test_reset_drops_what_was_not_answered_yet() -> None:
    """A question that waits for AnythingLLM belongs to what was said before."""
    async with opened() as (_, visitor):
        await _switch(visitor, "failing")
        await visitor.say(QUESTION)
        await visitor.answer()
        await visitor.act("reset")
        await _switch(visitor, "failing", on=False)
        await visitor.say(OTHER)
        assert "会议室" in (await visitor.answer())["text"]
        assert len(answers_in(await visitor.state(), "zhangsan")) == 1


async def test_the_bare_bot_starts_with_the_first_word_to_it() -> None:
    """It answers too; it acknowledges only when it has answered."""
    async with opened() as (stage, visitor):
        await visitor.say(QUESTION, "bare")
        assert "年假" in (await visitor.answer(chat="bare"))["text"]
        state = await visitor.until(lambda state: state if state["messages"][0]["state"] == "acked" else None)
        order = [row["kind"] for row in state["wire"] if row["bot"] == "bare"]
        assert order.index("webhook") < order.index("ack")
        assert len(stage.gateway.sent) == 0


def test_people_play_the_roles_a_configuration_names() -> None:
    """张三 and 李四 are the first users routes name, the group their first group; 王五 stays unknown to them."""
    everybody = cast(["manager807", "042", "043"], ["cidAbc=="])
    assert [person.user for person in everybody.people] == ["manager807", "042", "wangwu"]
    group = everybody.chat("group")
    assert group is not None
    assert group.conversation == "cidAbc=="
    assert everybody.names["manager807"] == "张三"


async def test_cards_and_quota_that_fail_leave_nobody_without_an_answer() -> None:
    """Without its template a card is a message; without API calls, too; without Stream the asker is told why."""
    async with opened(Setting(look=Look(cards=True))) as (_, visitor):
        await _switch(visitor, "card_template")
        await visitor.say(QUESTION)
        assert ((first := await visitor.answer())["kind"], "年假" in first["text"]) == ("markdown", True)
        await _switch(visitor, "card_template", on=False)

        await _switch(visitor, "quota_api")
        state = await visitor.state()
        assert state["quota"]["api"]["total"] == state["quota"]["api"]["cap"]
        await visitor.say(OTHER)
        assert "会议室" in (await visitor.answer(2))["text"]
        await _switch(visitor, "quota_api", on=False)

        await _switch(visitor, "quota_stream")
        await visitor.say(QUESTION, "lisi", "lisi")
        assert "额度已经用完" in (await visitor.answer(chat="lisi"))["text"]
        await _switch(visitor, "quota_stream", on=False)
        quota = (await visitor.state())["quota"]
        assert (quota["api"]["cap"], quota["webhook_stream"]["cap"]) == (5000, 3000)


async def test_the_robot_shows_itself_as_it_is_told() -> None:
    """Each choice is in force when the page says so: buttons, an emotion and cards after a reload."""
    async with opened() as (stage, visitor):
        assert stage.backend is not None
        pid = stage.daemon.pid
        await visitor.act("robot", name="quick_replies", value="buttons")
        await visitor.act("robot", name="notice", value="emotion")
        assert stage.daemon.pid == pid
        stage.backend.answer_delay_s = 5.0
        asked = await visitor.say(QUESTION)
        told = await visitor.until(lambda state: next((one for one in state["messages"] if one["emotion"]), None))
        assert told["id"] == asked
        stage.backend.answer_delay_s = None
        answer = await visitor.answer()
        assert [one["title"] for one in answer["buttons"]][:3] == ["👍", "👎", "再深入"]
        await visitor.act("tap", message=answer["id"], title="👍", **{"as": "zhangsan"})
        assert "谢谢" in (await visitor.answer(2))["text"]

        await visitor.act("robot", name="cards", value=True)
        assert stage.daemon.pid == pid
        await visitor.say(OTHER)
        card = await visitor.until(lambda state: next((one for one in state["messages"] if one["card"]), None))
        assert card["kind"] == "card"
        for name, value, status in (("cards", "yes", 404), ("cards", 1, 404), ("colour", "red", 404)):
            assert (await visitor.post("robot", name=name, value=value))[0] == status
