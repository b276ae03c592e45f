"""Asking on: what AnythingLLM is sent of what was said before, wherever the answer before came from."""

from __future__ import annotations

from typing import Any

import pytest

from dingbridge.sim.anythingllm import Workspace, handbook_folder
from dingbridge.sim.gateway import Post, Sent
from dingbridge.texts import Texts
from tests.house import House, until

TEXTS = Texts("zh-CN")
FIRST, THEN = "差旅住宿标准？", "那国外呢？"
CACHED = "一线城市每晚 600 元。"
CACHE = f"""
from dingbridge import Answer

async def handle(message, reply):
    return Answer("{CACHED}") if message.text == "{FIRST}" else Answer(refused=True)
"""


async def asked(house: House, text: str, **how: Any) -> Post:
    """The answer to it."""
    sent: Sent = await house.gateway.say(text, **how)
    return await house.gateway.next_post(sent.conversation)


def sent_on(house: House) -> list[str]:
    return [one.message for one in house.backend.asked]


def with_deep(house: House) -> dict[str, Any]:
    house.backend.workspaces["expert"] = Workspace("专家", handbook_folder())
    return {"route": [{"workspace": "handbook", "deep_workspace": "expert"}]}


def with_cache(house: House) -> dict[str, Any]:
    """A handler that stands for a cache, before the knowledge base."""
    (house.folder / "cache.py").write_text(CACHE, "utf-8")
    first = {"name": "cache", "handler": "cache:handle"}
    return {"route": [first, {"workspace": "handbook"}], "handlers": {"path": [str(house.folder)]}}


async def test_from_somewhere_else_the_turns_are_put_in_front(house: House) -> None:
    """The knowledge base has not seen the question before: it gets it with its answer, once."""
    async with house.app(**with_cache(house)):
        assert CACHED in (await asked(house, FIRST)).text
        assert "美元" in (await asked(house, THEN)).text
        await asked(house, "那高铁呢？")
    assert sent_on(house) == [
        TEXTS("turn_front", question=FIRST, answer=CACHED) + "\n\n" + TEXTS("question_front", question=THEN),
        "那高铁呢？",
    ]


@pytest.mark.parametrize("cached", [False, True])
async def test_after_a_restart(house: House, cached: bool) -> None:
    """The same context, and what another has answered is still put in front."""
    tables = with_cache(house) if cached else {}
    async with house.app(**tables):
        await asked(house, FIRST)
    async with house.app(**tables):
        assert "美元" in (await asked(house, THEN)).text
    if cached:
        assert CACHED in sent_on(house)[0]
    else:
        assert sent_on(house) == [FIRST, THEN]
        assert len({one.session for one in house.backend.asked}) == 1


async def test_deeper_and_back(house: House) -> None:
    """The deeper workspace is told what was said elsewhere, and so is the first one of what was said deeper."""
    async with house.app(**with_deep(house)):
        first = (await asked(house, FIRST)).text.partition("\n")[0]
        deeper = await asked(house, f"/deep {THEN}")
        assert "美元" in deeper.text
        await asked(house, "那高铁呢？")
        await asked(house, "/deep")
    told = house.backend.asked
    assert [one.workspace for one in told] == ["handbook", "expert", "handbook", "expert"]
    assert told[0].message == FIRST
    assert told[1].message.startswith("「之前的对话」\n问：" + FIRST)
    assert first.replace("**", "")[:10] in told[1].message.replace("**", "")
    assert told[1].message.endswith(TEXTS("question_front", question=THEN))
    assert f"问：{THEN}" in told[2].message
    assert FIRST not in told[2].message
    assert told[3].message.endswith("那高铁呢？")


async def test_a_new_topic_and_a_pause(house: House) -> None:
    """/new and idling forget what was said; before that it counts."""
    async with house.app(context={"idle_min": 10}, **with_cache(house)) as app:

        async def later(minutes: int) -> None:
            await app.store._engine.run(
                lambda c: c.execute("UPDATE context SET last_at = last_at - ?", (minutes * 60,))
            )

        await asked(house, FIRST)
        await later(9)
        assert "美元" in (await asked(house, THEN)).text
        await later(11)
        assert "美元" not in (await asked(house, THEN)).text
        await asked(house, FIRST)
        await asked(house, "/new")
        await asked(house, THEN)
    assert [CACHED in one for one in sent_on(house)] == [True, False, False]
    assert len({one.session for one in house.backend.asked}) == 3


async def test_a_group_with_one_context(house: House) -> None:
    """Two people go on with one another's questions, in order; one to one nothing of it is known."""
    house.backend.answer_delay_s = 0.2
    async with house.app(context={"scope": "group"}, **with_cache(house)):
        await asked(house, FIRST, user="u1", group=True)
        await house.gateway.say(THEN, user="u2", group=True)
        await house.gateway.say("年假有几天？", user="u1", group=True)
        posts = await house.gateway.wait_posts("cid-group", 3)
        await asked(house, THEN, user="u2")
    assert [post.user for post in posts] == ["u1", "u2", "u1"]
    assert "美元" in posts[1].text
    assert CACHED in sent_on(house)[0]
    first, second, alone = house.backend.asked
    assert first.session == second.session != alone.session
    assert alone.message == THEN
    assert house.backend.peak == 1


async def test_what_is_quoted_is_context(house: House) -> None:
    """An own answer, of a context that is long over, and anybody's words."""
    async with house.app():
        await house.gateway.send_quote("这个在国外是多少？", "北京住宿每晚 600 元")
        await house.gateway.next_post("cid-042")
    assert sent_on(house) == [
        TEXTS("quoted_front", quoted="> 北京住宿每晚 600 元")
        + "\n\n"
        + TEXTS("question_front", question="这个在国外是多少？")
    ]


# -- what is waiting


async def test_where_ones_questions_are(house: House) -> None:
    """/status counts one's own, says which is in work, and how many are in front."""
    house.backend.answer, house.backend.answer_delay_s = str, 30.0
    async with house.app(limits={"workers": 1, "drain_s": 0.1}):
        await house.gateway.say("甲", user="u1")
        await until(lambda: house.backend.running)
        for text in ("乙", "丙"):
            await house.gateway.acked(await house.gateway.say(text, user="u2"))
        await house.gateway.acked(await house.gateway.say("丁", user="u3"))
        mine = await asked(house, "/status", user="u1")
        assert TEXTS("status_running") in mine.text
        waiting = await asked(house, "/status", user="u3")
        assert "1 个问题" in waiting.text
        assert TEXTS("status_ahead", count=2) in waiting.text
        assert "2 个问题" in (await asked(house, "/status", user="u2")).text


async def test_an_answer_that_comes_after_its_webhook_quotes_its_question(house: House) -> None:
    """By OpenAPI, in one line at its beginning, in a group with the asker's name left out; a quick one does not."""
    house.backend.answer, house.backend.answer_delay_s = (lambda _: "答案"), 0.0
    async with house.app():
        await asked(house, "甲")
        house.backend.answer_delay_s = 1.2
        late = await asked(house, "很久以前\n问的 **问题**", user="043", webhook_ttl_s=0.8)
        group = await asked(house, "群里问的", group=True, webhook_ttl_s=0.8)
    assert late.path == "oto"
    assert late.text.startswith("> 很久以前 问的")
    assert late.text.split("\n\n")[1] == "答案"
    assert "**" not in late.text.split("\n\n")[0].replace("\\*", "")
    assert group.path == "group"
    assert group.text.startswith("> 群里问的\n\n答案")
    assert not house.gateway.posts[0].text.startswith(">")
