"""What people do with answers: passages, judgements, deeper, whole, a colleague. In both databases where it is kept."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dingbridge.model import trace_code
from dingbridge.sim.anythingllm import Workspace, handbook_folder
from dingbridge.sim.gateway import Post, Sent
from dingbridge.texts import Texts
from tests.house import House, until

TEXTS = Texts("zh-CN")
ROUTE = {"workspace": "handbook", "deep_workspace": "expert", "contact": "boss", "examples": ["年假有几天？"]}


@pytest.fixture
def tables(house: House) -> dict[str, Any]:
    """A route with all that can be offered."""
    house.backend.workspaces["expert"] = Workspace("专家", handbook_folder())
    return {"route": [ROUTE], "limits": {"drain_s": 2}}


async def said(house: House, text: str, **how: Any) -> Post:
    sent: Sent = await house.gateway.say(text, **how)
    return await house.gateway.next_post(sent.conversation)


def code_of(house: House, sent: Sent) -> str:
    return trace_code(house.gateway.client_id, sent.msg_id)


async def votes(app: Any) -> list[tuple[Any, ...]]:
    rows = await app.store._engine.run(
        lambda c: c.execute("SELECT person, verdict, comment, question FROM vote ORDER BY voted_at").fetchall()
    )
    return [tuple(row) for row in rows]


async def test_judgements_in_every_form(house: House, tables: dict[str, Any]) -> None:
    """The last answer or one with its code, with a reason or without; kept with its question, changeable."""
    async with house.app(**tables) as app:
        assert (await said(house, "/good")).text == TEXTS("nothing_told")
        first = await house.gateway.say("年假有几天？")
        await house.gateway.next_post("cid-042")
        await said(house, "差旅住宿标准？")
        code = code_of(house, first)
        assert (await said(house, f"/good {code}")).text == TEXTS("thanks_good")
        assert (await said(house, "/bad 数字不对")).text == TEXTS("thanks_reason")
        assert await votes(app) == [("042", "good", "", "年假有几天？"), ("042", "bad", "数字不对", "差旅住宿标准？")]
        assert (await said(house, f"/bad {code.lower()} 太短")).text == TEXTS("thanks_reason")
        assert (await said(house, "没用")).text == TEXTS("thanks_bad")
        assert (await said(house, "👍")).text == TEXTS("thanks_good")
        assert sorted(await votes(app)) == [
            ("042", "bad", "太短", "年假有几天？"),
            ("042", "good", "数字不对", "差旅住宿标准？"),
        ]
        assert (await said(house, f"/good {code}", user="043")).text == TEXTS("nothing_told")
        assert len(await votes(app)) == 2


async def test_passages(house: House, tables: dict[str, Any]) -> None:
    """The first, a numbered one in both spellings, one that is not there, one of an older answer by its code."""
    async with house.app(**tables):
        sent = await house.gateway.say("年假有几天？")
        await house.gateway.next_post("cid-042")
        for text in ("/出处", "/出处 1", "/出处1", "/sources 1", "/出处：1"):
            passage = await said(house, text)
            assert passage.text.startswith(TEXTS("passage", count=1)), text
            assert "> " in passage.text
        second = await said(house, "/出处2")
        assert second.text.startswith(TEXTS("passage", count=2)) or "来源" in second.text
        assert "1 到" in (await said(house, "/出处 99")).text or "只有 1 篇" in (await said(house, "/出处 99")).text
        await said(house, "差旅住宿标准？")
        assert "年" in (await said(house, f"/出处 1 {code_of(house, sent)}")).text


async def test_deeper_in_every_form(house: House, tables: dict[str, Any]) -> None:
    """Alone, with a code, with a new question; never what somebody else was told, nor a code as a question."""
    async with house.app(**tables):
        assert (await said(house, "/deep")).text == TEXTS("nothing_told")
        first = await house.gateway.say("年假有几天？")
        await house.gateway.next_post("cid-042")
        await said(house, "/deep")
        await said(house, "深入回答")
        await said(house, f"/deep {code_of(house, first)}")
        await said(house, "/deep 病假呢")
        code = next(code for n in range(50) if (code := trace_code("x", str(n)))[0].isdigit())
        for other in (code_of(house, first), code):
            if any(map(str.isdigit, other)):
                assert (await said(house, f"/deep {other}", user="043")).text == TEXTS("nothing_told")
    asked = house.backend.asked
    assert [one.workspace for one in asked] == ["handbook", *["expert"] * 4]
    assert [one.message.split("\n")[-1] for one in asked] == ["年假有几天？"] * 4 + ["病假呢"]


async def test_without_anything_deeper(house: House) -> None:
    """It says so, and offers nothing that is not there, after a refusal neither."""
    async with house.app():
        await said(house, "年假有几天？")
        assert (await said(house, "/deep")).text == TEXTS("deep_none")
        assert (await said(house, "转人工")).text == TEXTS("no_contact")
        house.backend.faults.append("refuse")
        refusal = await said(house, "食堂几点开门？")
        assert "/deep" not in refusal.text
        assert "转人工" not in refusal.text
        assert (await said(house, "/全文")).text == TEXTS("no_page")


async def test_a_refusal_says_what_else_can_be_done(house: House, tables: dict[str, Any]) -> None:
    """Deeper, a colleague and examples, where there are; help and an empty mention name examples, too."""
    async with house.app(**tables):
        house.backend.faults.append("refuse")
        refusal = await said(house, "食堂几点开门？")
        for text in (TEXTS("next_deep"), TEXTS("next_human"), "- 年假有几天？"):
            assert text in refusal.text
        for text in ("/help", "帮助"):
            assert "年假有几天？" in (await said(house, text)).text
        assert "年假有几天？" in (await said(house, " ", group=True)).text


async def test_a_hint_for_who_is_new(house: House) -> None:
    """Once a person, in whatever chat, over restarts, with the first answer: a refusal is none."""
    hint = TEXTS("hint")
    async with house.app():
        seen = [
            hint in (await said(house, "年假有几天？", user=user, group=group)).text
            for user, group in (("u1", False), ("u1", True), ("u2", True))
        ]
    async with house.app():
        seen.append(hint in (await said(house, "年假有几天？", user="u1")).text)
        refused_first = ("食堂几点开门？", "年假有几天？", "年假有几天？")
        seen += [hint in (await said(house, question, user="u3")).text for question in refused_first]
    assert seen == [True, False, True, False, False, True, False]


async def test_the_whole_on_a_page(house: House, tables: dict[str, Any]) -> None:
    """/全文 gives a link where there are pages."""
    pages = {"listen": "127.0.0.1:0", "public_url": "https://kb.corp.example"}
    async with house.app(pages=pages, **tables):
        answer = await said(house, "年假有几天？")
        assert "https://kb.corp.example/" in answer.text
        page = await said(house, "/全文")
        assert "https://kb.corp.example/" in page.text
        assert TEXTS("page_here", question="年假有几天？") in page.text


# -- to a colleague


@pytest.mark.parametrize("way", ["command", "quote", "quote_solved", "solved", "solved_reply"])
async def test_handed_over_and_back(house: House, tables: dict[str, Any], way: str) -> None:
    """Question and answer go to the contact, the reply to the asker; whoever else tries is told nothing of it."""
    question = "编号 12345678 的年假有几天？"
    async with house.app(**tables) as app:
        sent = await house.gateway.say(question)
        await house.gateway.next_post("cid-042")
        code = code_of(house, sent)
        assert (await said(house, "/转人工")).text == TEXTS("hand_over_done")
        told = await house.gateway.next_post("cid-boss")
        assert told.path == "oto"
        assert question in told.text
        assert (await said(house, "转人工")).text == TEXTS("hand_over_before")
        assert (await said(house, f"/回复 {code} 冒充", user="043")).text == TEXTS("handover_unknown")
        match way:
            case "command":
                done = await said(house, f"/回复 {code} 共 10 天", user="boss")
            case "quote":
                await house.gateway.send_quote("共 10 天", told, user="boss")
                done = await house.gateway.next_post("cid-boss")
            case "quote_solved":
                await house.gateway.send_quote("已解决", told, user="boss")
                done = await house.gateway.next_post("cid-boss")
            case "solved":
                done = await said(house, f"已解决 {code}", user="boss")
            case _:
                done = await said(house, f"/已解决 {code} 共 10 天", user="boss")
        assert done.text == TEXTS("handover_closed")
        back = await house.gateway.next_post("cid-042")
        assert question in back.text
        assert ("共 10 天" in back.text) == (way in ("command", "quote", "solved_reply"))
        assert "张三" in back.text
        assert (await said(house, f"/回复 {code} 再说一次", user="boss")).text == TEXTS("handover_closed_before")
        text = app.metrics.text().decode()
        assert 'dingbridge_handovers_total{event="opened"} 1.0' in text
        assert 'dingbridge_handovers_total{event="closed"} 1.0' in text
    assert len(house.gateway.posts_in("cid-boss")) == 3
    assert sum(question in post.text for post in house.gateway.posts_in("cid-042")) <= 2


async def test_a_colleague_who_cannot_be_reached(house: House) -> None:
    """Who waits for one is told, with a code, that nothing arrived; the next try finds them and ends well."""
    house.gateway.invalid_staff = {"boss"}
    async with house.app(route=[ROUTE]) as app:
        sent = await house.gateway.say("年假有几天？")
        await house.gateway.next_post("cid-042")
        posts = [await said(house, "/转人工"), await house.gateway.next_post("cid-042")]
        assert posts[0].text == TEXTS("hand_over_done")
        assert "没有送到" in posts[1].text
        assert "年假有几天？" in posts[1].text
        row = await app.store.find(house.gateway.client_id, posts[1].text[-8:])
        assert row is not None
        assert (row.task, row.outcome) == ("tell", "undeliverable")
        house.gateway.invalid_staff = set()
        assert (await said(house, "/转人工")).text == TEXTS("hand_over_done")
        assert "年假有几天？" in (await house.gateway.next_post("cid-boss")).text
        assert (await said(house, "/转人工")).text == TEXTS("hand_over_before")
        await said(house, f"/回复 {code_of(house, sent)} 七天", user="boss")
        assert "七天" in (await house.gateway.next_post("cid-042")).text


async def test_the_first_part_of_what_was_handed_over_is_enough_to_quote(house: House, tables: dict[str, Any]) -> None:
    """A long answer comes to the contact in parts; quoting the first one is a reply."""
    house.backend.answer = lambda _: "\n\n".join(f"第{n:04d}段，说明一件事情。" for n in range(800))
    async with house.app(**tables):
        await house.gateway.say("年假有几天？", group=True)
        await house.gateway.wait_posts("cid-group", 3)
        await house.gateway.say("/转人工", group=True)
        told = await house.gateway.next_post("cid-boss")
        assert "1/" in told.text[-20:]
        await house.gateway.send_quote("共 10 天", told, user="boss")
        await until(lambda: any("共 10 天" in post.text for post in house.gateway.posts_in("cid-group")))


async def test_quick_replies_as_buttons(house: House, tables: dict[str, Any]) -> None:
    """One to one what is tapped is said, and works; a group gets words instead."""
    async with house.app(reply={"quick_replies": "buttons"}, **tables) as app:
        answer = await said(house, "年假有几天？")
        assert TEXTS("commands_deep") not in answer.text
        await house.gateway.tap(answer, "👎")
        assert (await house.gateway.next_post("cid-042")).text == TEXTS("thanks_bad")
        await house.gateway.tap(answer, TEXTS("button_deep"))
        deeper = await house.gateway.next_post("cid-042")
        assert [button.title for button in deeper.buttons] == ["👍", "👎"]
        assert [row[:2] for row in await votes(app)] == [("042", "bad")]
        house.backend.faults.append("refuse")
        refusal = await said(house, "食堂几点开门？")
        assert TEXTS("button_human") in [button.title for button in refusal.buttons]
        group = await said(house, "年假有几天？", group=True)
        assert not group.buttons
        assert TEXTS("commands_deep") in group.text
    assert [one.workspace for one in house.backend.asked][1] == "expert"


@pytest.mark.parametrize("expired", [False, True])
async def test_told_in_the_group_where_it_was_asked(house: House, tables: dict[str, Any], expired: bool) -> None:
    """By the group's webhook with a mention, and by OpenAPI where that has ended."""
    async with house.app(**tables):
        sent = await house.gateway.say("年假有几天？", group=True)
        await house.gateway.next_post("cid-group")
        await said(house, "/转人工", group=True)
        told = await house.gateway.next_post("cid-boss")
        assert "测试群" in told.text
        if expired:
            house.gateway.expire_webhooks("cid-group")
        await said(house, f"/回复 {code_of(house, sent)} 共 10 天", user="boss")
        back = await house.gateway.next_post("cid-group")
    assert "共 10 天" in back.text
    if expired:
        assert back.path == "group"
    else:
        assert back.body["at"]["atUserIds"] == ["042"]


@pytest.mark.parametrize("api", ["before"])
async def test_a_death_on_the_way_to_the_colleague_and_back(house: House, tables: dict[str, Any], api: str) -> None:
    """It is kept before it is sent: after a SIGKILL the contact and then the asker are told all the same."""
    house.configure(**tables)
    daemon = await house.daemon()
    sent = await house.gateway.say("年假有几天？")
    await house.gateway.next_post("cid-042")
    fault: Any = "hang" if api == "before" else "lost_response"
    house.gateway.plant("oto", fault)
    await house.gateway.say("/转人工")
    await house.gateway.next_post("cid-042")
    await until(lambda: not house.gateway.faults_of["oto"])
    if api == "lost":
        await house.gateway.next_post("cid-boss")
    await daemon.kill()
    daemon = await house.daemon()
    told = await house.gateway.next_post("cid-boss", 30)
    assert "（可能重复）" in told.text
    house.gateway.webhook_faults.append(None)
    house.gateway.webhook_faults.append("hang")
    await house.gateway.say(f"/回复 {code_of(house, sent)} 共 10 天", user="boss")
    await until(lambda: not house.gateway.webhook_faults)
    await asyncio.sleep(0)
    await daemon.kill()
    daemon = await house.daemon()
    await until(lambda: any("共 10 天" in post.text for post in house.gateway.posts_in("cid-042")), 30)
    assert await daemon.stop() == 0
    assert sum("共 10 天" in post.text for post in house.gateway.posts_in("cid-042")) == 1


async def test_the_route_s_language(house: House) -> None:
    """Notice, answer, refusal, help, passage and failure for those whose route speaks English."""
    english = Texts("en")
    route = [
        {"workspace": "handbook", "locale": "en", "users": ["042"], "deep_workspace": "x"},
        {"workspace": "handbook", "name": "zh"},
    ]
    async with house.app(route=route, reply={"notice_after_s": 0.1}, anythingllm={"attempts": 1}):
        house.backend.answer_delay_s = 0.6
        await house.gateway.say("年假有几天？")
        notice, answer = await house.gateway.wait_posts("cid-042", 2)
        house.backend.answer_delay_s = 0.0
        assert notice.text == english("notice")
        assert english("hint") in answer.text
        assert english("sources") in answer.text
        assert english("commands_deep") in answer.text
        await house.gateway.say("/sources")
        await until(lambda: any(english("passage", count=1) in post.text for post in house.gateway.posts))
        await house.gateway.say("/help")
        await until(lambda: any("Just type your question" in post.text for post in house.gateway.posts))
        house.backend.faults.append("bad_key")
        await house.gateway.say("病假？")
        await until(lambda: any(english("backend_rejected") in post.text for post in house.gateway.posts))
        assert "直接把问题发给我" in (await said(house, "/help", user="043")).text
