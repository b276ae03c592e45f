"""The way of a message, from a frame on a real socket to what the chat shows."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest

from dingbridge.model import trace_code
from dingbridge.sim.gateway import MISSING
from dingbridge.texts import Texts
from tests.house import NOTICE, QUICK, REPEAT, House, until

TEXTS = Texts("zh-CN")


async def test_a_question_is_answered_from_the_handbook_with_its_source(house: House) -> None:
    """A question in a one-to-one chat comes back as markdown that names the document it came from."""
    async with house.app():
        sent = await house.gateway.say("北京出差住宿标准是多少？")

        post = (await house.gateway.wait_posts(sent))[0]

    assert post.body["msgtype"] == "markdown"
    assert post.body["markdown"]["title"]
    assert "600" in post.text
    assert "来源：" in post.text
    assert "差旅报销标准" in post.text.split("来源：")[1]
    assert "at" not in post.body


async def test_a_follow_up_keeps_its_context_and_new_starts_afresh(house: House) -> None:
    """“那国外呢？” is understood after a question, and not any more after /new."""
    async with house.app():
        await house.gateway.say("北京出差住宿标准是多少？")
        await house.gateway.next_post("cid-042")
        await house.gateway.say("那国外呢？")
        abroad = await house.gateway.next_post("cid-042")
        await house.gateway.say("/new")
        await house.gateway.next_post("cid-042")
        await house.gateway.say("那国外呢？")
        lost = await house.gateway.next_post("cid-042")

    assert "美元" in abroad.text
    assert "美元" not in lost.text
    sessions = [asked.session for asked in house.backend.asked]
    assert sessions[0] == sessions[1] != sessions[2]


async def test_the_asker_is_mentioned_in_a_group_and_contexts_do_not_mix(house: House) -> None:
    """In a group both halves of the mention are there, and two people there have two contexts."""
    async with house.app():
        one = await house.gateway.say("年假有几天？", user="u1", group=True)
        two = await house.gateway.say("年假有几天？", user="u2", group=True)
        await house.gateway.wait_posts("cid-group", 2)

    posts = {post.user: post for post in house.gateway.posts}
    assert posts["u1"].body["at"]["atUserIds"] == ["u1"]
    assert "@u1" in posts["u1"].text
    assert "@u2" in posts["u2"].text
    assert one.conversation == two.conversation
    assert len({asked.session for asked in house.backend.asked}) == 2


async def test_the_message_is_acknowledged_before_the_backend_answers(house: House) -> None:
    """The ack says 200 while the answer is still being made."""
    house.backend.answer, house.backend.answer_delay_s = str, 1.0
    async with house.app():
        sent = await house.gateway.say("问题")

        ack = await house.gateway.acked(sent)

        assert ack.code == 200
        assert not house.gateway.posts_in(sent)
        await house.gateway.wait_posts(sent)


async def test_a_slow_answer_is_preceded_by_one_notice(house: House) -> None:
    """After notice_after_s the exact notice appears once as plain text, then the answer."""
    house.backend.answer, house.backend.answer_delay_s = str, 0.8
    async with house.app(reply={"notice_after_s": 0.2}):
        first = await house.gateway.say("甲")
        await house.gateway.say("乙")
        await house.gateway.wait_posts(first, 3)

    posts = house.gateway.posts
    assert [post.text.split("\n")[0] for post in posts] == [NOTICE, "甲", "乙"]
    assert posts[0].body == {"msgtype": "text", "text": {"content": NOTICE}}


async def test_a_quick_answer_has_no_notice(house: House) -> None:
    """What answers in time is not announced."""
    house.backend.answer = str
    async with house.app(reply={"notice_after_s": 0.3}):
        sent = await house.gateway.say("甲")
        await house.gateway.wait_posts(sent)
        await asyncio.sleep(0.5)

    assert [post.text.split("\n")[0] for post in house.gateway.posts] == ["甲"]


async def test_redelivery_in_flight_after_the_answer_and_after_a_restart_is_answered_once(house: House) -> None:
    """The same msgId in new frames gives one answer, whenever it comes again."""
    house.backend.answer, house.backend.answer_delay_s = str, 0.3
    async with house.app():
        sent = await house.gateway.say("甲", msg_id="msg-once")
        await house.gateway.acked(sent)
        await house.gateway.redeliver(sent)
        await house.gateway.wait_posts(sent)
        await house.gateway.redeliver(sent)
        await until(lambda: len(sent.acks) == 3)
    async with house.app():
        await house.gateway.redeliver(sent)
        await until(lambda: len(sent.acks) == 4)
        other = await house.gateway.say("乙")
        await house.gateway.wait_posts(other)

    assert [ack.code for ack in sent.acks] == [200, 200, 200, 200]
    assert [post.text.split("\n")[0] for post in house.gateway.posts] == ["甲", "乙"]
    assert len(house.backend.asked) == 2


async def test_order_holds_within_a_person_and_people_do_not_wait_for_each_other(house: House) -> None:
    """One person's questions are answered in order; two people's at the same time."""
    house.backend.answer, house.backend.answer_delay_s = str, 0.2
    async with house.app():
        for number in range(4):
            for user in ("u1", "u2", "u3"):
                await house.gateway.say(f"{user}-{number}", user=user)
        await house.gateway.wait_posts(n=12)

    for user in ("u1", "u2", "u3"):
        mine = [post.text.split("\n")[0] for post in house.gateway.posts if post.user == user]
        assert mine == [f"{user}-{number}" for number in range(4)]
    assert house.backend.peak >= 3


async def test_commands_overtake_a_running_answer(house: House) -> None:
    """/help is answered while the person's question is still being worked on."""
    house.backend.answer, house.backend.answer_delay_s = str, 1.0
    async with house.app():
        await house.gateway.say("甲")
        await until(lambda: house.backend.running)
        await house.gateway.say("/help")

        first = await house.gateway.next_post("cid-042")

        assert "/new" in first.text
        await house.gateway.next_post("cid-042")


async def test_a_full_queue_tells_the_asker_and_the_next_minute_is_free(house: House) -> None:
    """waiting_per_lane counts without the one that runs; the one too many is told, the others are answered."""
    house.backend.answer, house.backend.answer_delay_s = str, 0.3
    async with house.app(limits={"waiting_per_lane": 2}):
        sent = [await house.gateway.say(f"问{number}") for number in range(4)]
        await house.gateway.wait_posts(sent[0], 4)

    texts = [post.text.split("\n")[0] for post in house.gateway.posts]
    assert texts[0] == TEXTS("busy", waiting=2)
    assert texts[1:] == ["问0", "问1", "问2"]
    assert all(one.acks[0].code == 200 for one in sent)


async def test_too_many_questions_a_minute_are_told(house: House) -> None:
    """per_user_per_minute holds a person back politely, and nobody else."""
    house.backend.answer = str
    async with house.app(limits={"per_user_per_minute": 2}):
        for number in range(3):
            await house.gateway.say(f"问{number}", user="u1")
        await house.gateway.say("别人", user="u2")
        await house.gateway.wait_posts(n=4)

    texts = {post.text.split("\n")[0] for post in house.gateway.posts}
    assert {"问0", "问1", "别人"} < texts
    assert TEXTS("limited") in texts


async def test_cancel_drops_the_running_and_the_waiting_question(house: House) -> None:
    """After /cancel nothing older is answered, and a new question is."""
    house.backend.answer, house.backend.answer_delay_s = str, 0.7
    async with house.app():
        await house.gateway.say("甲")
        await house.gateway.say("乙")
        await until(lambda: house.backend.running)
        await house.gateway.say("/cancel")
        told = await house.gateway.next_post("cid-042")
        await house.gateway.say("丙")
        last = await house.gateway.next_post("cid-042")

    assert told.text == TEXTS("cancelled", count=2)
    assert last.text.startswith("丙")
    assert len(house.gateway.posts) == 2


async def test_whoami_prints_what_to_paste(house: House) -> None:
    """In a group /whoami gives lines for the configuration; one to one the user's own."""
    async with house.app(route=[{"workspace": "handbook", "users": ["nobody"]}]):
        group = await house.gateway.say("/whoami", group=True, conversation="cidG==")
        single = await house.gateway.say("我是谁")
        await house.gateway.wait_posts(group)
        await house.gateway.wait_posts(single)

    assert 'conversations = ["cidG=="]' in house.gateway.posts_in("cidG==")[0].text
    assert 'users = ["042"]' in house.gateway.posts_in("cid-042")[0].text


async def test_nobody_without_a_route_is_left_in_silence(house: House) -> None:
    """Where no route matches, the text hints at /whoami, and the backend is not asked."""
    async with house.app(route=[{"workspace": "handbook", "users": ["boss"]}]):
        sent = await house.gateway.say("年假？")
        post = (await house.gateway.wait_posts(sent))[0]

    assert "/whoami" in post.text
    assert not house.backend.asked


async def test_a_refusal_hands_on_and_the_first_refusal_is_shown_when_all_refuse(house: House, tmp_path: Path) -> None:
    """Routes are tried in order: one that refuses passes the question on; the last resort is the first's text."""
    (tmp_path / "sample_duty.py").write_text(
        "from dingbridge import Answer\n"
        "async def handle(message, reply):\n"
        "    if '值班' in message.text:\n"
        "        return '今天是李四值班'\n"
        "    return Answer('值班表里没有', refused=True)\n"
    )
    routes = [{"name": "duty", "handler": "sample_duty:handle"}, {"workspace": "handbook"}]
    async with house.app(route=routes, handlers={"path": [str(tmp_path)]}):
        one = await house.gateway.say("今天谁值班", user="u1")
        two = await house.gateway.say("北京出差住宿标准是多少？", user="u2")
        three = await house.gateway.say("火星上有生命吗", user="u3")
        texts = [(await house.gateway.wait_posts(sent))[0].text for sent in (one, two, three)]

    assert "李四值班" in texts[0]
    assert "600" in texts[1]
    assert "值班表里没有" in texts[2]


async def test_a_handler_that_raises_is_told_with_a_code_and_costs_nothing_else(house: House, tmp_path: Path) -> None:
    """An exception in somebody's handler is a failure text with its 编号; the next question is answered."""
    (tmp_path / "sample_broken.py").write_text(
        "async def handle(message, reply):\n"
        "    if message.text == 'boom':\n"
        "        raise RuntimeError('secret-in-text')\n"
        "    return 'fine'\n"
    )
    async with house.app(route=[{"handler": "sample_broken:handle"}], handlers={"path": [str(tmp_path)]}):
        bad = await house.gateway.say("boom")
        failed = (await house.gateway.wait_posts(bad))[0]
        good = await house.gateway.say("again")
        fine = (await house.gateway.wait_posts(good))[0]

    assert failed.text.rstrip().endswith("编号 " + trace_code(house.gateway.client_id, bad.msg_id))
    assert "secret-in-text" not in failed.text
    assert fine.text.startswith("fine")


async def test_a_handler_may_replace_the_notice_and_answer_by_itself(house: House, tmp_path: Path) -> None:
    """reply.update takes the place of a notice not yet sent; returning None sends nothing more."""
    (tmp_path / "sample_slow.py").write_text(
        "import asyncio\n"
        "async def handle(message, reply):\n"
        "    await reply.update('正在翻档案')\n"
        "    await asyncio.sleep(0.6)\n"
        "    return None\n"
    )
    async with house.app(
        reply={"notice_after_s": 0.2},
        route=[{"handler": "sample_slow:handle"}],
        handlers={"path": [str(tmp_path)]},
    ) as app:
        await house.gateway.say("慢")
        await until(lambda: app.metrics.messages.labels("answered")._value.get() == 1)

    assert [post.text for post in house.gateway.posts] == ["正在翻档案"]


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ({"msgtype": "picture", "content": {"downloadCode": "x"}}, TEXTS("file_expired")),
        ({"msgtype": "video", "content": {"downloadCode": "x"}}, TEXTS("unreadable")),
        ({"msgtype": "unknownMsgType", "content": {}}, TEXTS("unreadable")),
        ({"errorCode": "20001", "errorMessage": "受调用量超量影响"}, TEXTS("quota")),
        ({"msgtype": "text"}, "/new"),
    ],
)
async def test_what_cannot_be_read_is_said_politely(house: House, payload: dict[str, object], said: str) -> None:
    """Lost pictures, videos, unknown kinds and the quota notice are kept, acknowledged, and answered in words."""
    async with house.app():
        sent = await house.gateway.say(payload=payload)
        post = (await house.gateway.wait_posts(sent))[0]

    assert said in post.text
    assert sent.acks[0].code == 200


async def test_a_voice_message_is_answered_by_what_was_recognised(house: House) -> None:
    """Speaking instead of typing gets the same answer."""
    async with house.app():
        voice = {"msgtype": "audio", "content": {"downloadCode": "x", "recognition": "北京出差住宿标准是多少"}}
        sent = await house.gateway.say(payload=voice)
        post = (await house.gateway.wait_posts(sent))[0]

    assert "600" in post.text


async def test_a_message_without_an_id_is_kept_under_its_frame(house: House) -> None:
    """Without msgId the frame's messageId is the key."""
    house.backend.answer = str
    async with house.app():
        sent = await house.gateway.say("甲", msgId=MISSING)
        post = (await house.gateway.wait_posts(sent))[0]

    assert post.text.startswith("甲")


async def test_a_foreign_session_webhook_is_refused_and_openapi_replies(house: House) -> None:
    """A webhook on another origin gets nothing; the answer goes out through the OpenAPI."""
    house.backend.answer = str
    async with house.app():
        sent = await house.gateway.say("甲", sessionWebhook="https://oapi.dingtalk.com.evil.example/robot?session=1")
        post = (await house.gateway.wait_posts(sent))[0]

    assert post.path == "oto"


async def test_who_was_told_of_trouble_is_not_asked_to_wait_a_moment(house: House) -> None:
    """A waiting notice that is due after the trouble text does not go out."""
    house.backend.answer, house.backend.fault = str, "down"
    async with house.app(reply={"notice_after_s": 0.6}):
        sent = await house.gateway.say("甲")
        await house.gateway.wait_posts(sent)
        await asyncio.sleep(1.0)
        told = [post.text for post in house.gateway.posts]
        house.backend.fault = None
        await house.gateway.wait_posts(sent, 2)

    assert len(told) == 1
    assert told[0].startswith(TEXTS("trouble"))
    assert NOTICE not in [post.text for post in house.gateway.posts]


async def test_a_backend_down_is_told_once_and_answered_on_recovery_in_order(house: House) -> None:
    """While AnythingLLM is down people are told once per lane; when it is back all are answered, in order."""
    house.backend.answer, house.backend.fault = str, "down"
    async with house.app():
        for number in range(3):
            await house.gateway.say(f"甲{number}", user="u1")
        await house.gateway.say("乙", user="u2")
        await until(lambda: len(house.gateway.posts) >= 2)
        await asyncio.sleep(1.5)
        troubles = [post.text for post in house.gateway.posts]
        house.backend.fault = None
        await house.gateway.wait_posts(n=6)

    assert len(troubles) == 2
    assert all(text.startswith(TEXTS("trouble")) and "编号" in text for text in troubles)
    answers = [post.text.split("\n")[0] for post in house.gateway.posts if post.user == "u1"][1:]
    assert answers == ["甲0", "甲1", "甲2"]


async def test_past_the_deadline_the_asker_is_told_finally(house: House) -> None:
    """A question that nobody answers within answer_deadline_min ends with a failure text, and the lane moves on."""
    house.backend.answer, house.backend.fault = str, "down"
    async with house.app(limits={"answer_deadline_min": 0.02}):
        sent = await house.gateway.say("甲")
        posts = await house.gateway.wait_posts(sent, 2)
        house.backend.fault = None
        again = await house.gateway.say("乙")
        answered = (await house.gateway.wait_posts(again))[0]

    assert posts[0].text.startswith(TEXTS("trouble"))
    assert posts[1].text.rstrip().endswith("编号 " + trace_code(house.gateway.client_id, sent.msg_id))
    assert answered.text.startswith("乙")


async def test_a_partial_answer_is_kept_and_marked(house: House) -> None:
    """When the stream breaks after some text, that text is shown, marked, with asking again as the next step."""
    house.backend.faults.append("cut")
    async with house.app():
        sent = await house.gateway.say("北京出差住宿标准是多少？")
        post = (await house.gateway.wait_posts(sent))[0]

    assert TEXTS("partial") in post.text


async def test_an_answer_whose_delivery_is_unknown_is_repeated_once_and_marked(house: House) -> None:
    """A response lost after the webhook took the message: sent once more on the next rung, marked."""
    house.backend.answer = str
    house.gateway.webhook_faults.append("lost_response")
    async with house.app():
        sent = await house.gateway.say("甲")
        posts = await house.gateway.wait_posts(sent, 2)

    assert [post.path for post in posts] == ["webhook", "oto"]
    assert not posts[0].text.startswith(REPEAT)
    assert posts[1].text.startswith(REPEAT)


async def test_the_newest_webhook_serves_an_older_question(house: House) -> None:
    """A question whose webhook has expired is answered on the conversation's newest one."""
    house.backend.answer, house.backend.answer_delay_s = str, 0.4
    async with house.app():
        old = await house.gateway.say("旧", webhook_ttl_s=1)
        await house.gateway.acked(old)
        house.gateway.expire_webhooks("cid-042")
        await house.gateway.say("/status")
        await house.gateway.wait_posts(old, 2)

    assert [post.path for post in house.gateway.posts] == ["webhook", "webhook"]


async def test_unsafe_text_is_replaced_by_words_that_pass(house: House) -> None:
    """When DingTalk's content check refuses an answer, the asker is told so instead of nothing."""
    house.backend.answer = str
    house.gateway.webhook_faults.append(430102)
    async with house.app() as app:
        sent = await house.gateway.say("甲")
        post = (await house.gateway.wait_posts(sent))[0]
        await until(lambda: app.metrics.messages.labels("failed")._value.get() == 1)

    assert post.text.startswith(TEXTS("unsafe"))


async def test_the_english_locale_speaks_english(house: House) -> None:
    """With locale en, what the robot itself says is English."""
    async with house.app(reply={"locale": "en"}):
        sent = await house.gateway.say("/help")
        post = (await house.gateway.wait_posts(sent))[0]

    assert "Just type your question" in post.text


async def test_a_failure_text_that_may_have_arrived_does_not_come_again_for_a_drop(house: House) -> None:
    """Dropped, and that text refused by the content check: what was said before is not said once more, unmarked."""
    house.backend.answer = str
    gateway = house.gateway
    gateway.webhook_faults.extend([430104, "lost_response", 430104])
    gateway.openapi_fault = 503
    seldom = replace(QUICK, pauses=replace(QUICK.pauses, first_s=60.0, most_s=60.0))
    async with house.app(timings=seldom) as app:
        sent = await gateway.say("甲")
        (said,) = await gateway.wait_posts(sent)
        row = await app.store.find(gateway.client_id, sent.msg_id)
        assert row is not None
        async with asyncio.timeout(20):
            while not any(lane.due_at > time.time() + 30 for lane in await app.store.lanes(1)):
                await asyncio.sleep(0.02)
        await app.bridge.drop(row.row, tell=True)
        await until(lambda: not gateway.webhook_faults)
        async with asyncio.timeout(20):
            while await app.store.listed("open", 1):
                await asyncio.sleep(0.02)

    assert "内容检查" in said.text
    assert [post.text for post in house.gateway.posts] == [said.text]
