"""What people send beside words, through the daemon: pictures, voice, files, and what goes wrong with them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dingbridge.sim.anythingllm import Workspace, handbook_folder
from dingbridge.sim.gateway import Post, Sent
from dingbridge.texts import Texts
from tests.house import NOTICE, House, until

TEXTS = Texts("zh-CN")
PNG = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + bytes(200)
NOTE = "报销单要在 30 天内提交。".encode()


async def answer_to(house: House, sent: Sent) -> Post:
    return await house.gateway.next_post(sent.conversation)


async def test_pictures_with_words_in_a_group_and_alone(house: House) -> None:
    """As attachments in AnythingLLM's shape; a picture alone asks what is on it."""
    async with house.app():
        post = await answer_to(house, await house.gateway.send_rich("年假", PNG, "有几天？", group=True))
        assert "我看到了" in post.text
        assert "@042" in post.text
        await answer_to(house, await house.gateway.send_picture(PNG))
    words, alone = house.backend.asked
    assert "年假" in words.message
    assert "有几天？" in words.message
    assert alone.message == TEXTS("picture_question")
    for asked in (words, alone):
        (picture,) = asked.attachments
        assert (picture.mime, picture.size, picture.is_document) == ("image/png", len(PNG), False)


async def test_voice_and_files_one_to_one(house: House) -> None:
    """Voice is what was understood of it; a file is a document, and one of the sources."""
    async with house.app():
        assert "天" in (await answer_to(house, await house.gateway.send_audio("年假有几天？"))).text
        assert (await answer_to(house, await house.gateway.send_audio(None))).text == TEXTS("unreadable_voice")
        post = await answer_to(house, await house.gateway.send_file(NOTE, "说明.txt"))
    assert "报销单要在 30 天内提交" in post.text.replace("**", "")
    assert "说明.txt" in post.text.split("来源")[1]
    voice, file = house.backend.asked
    assert voice.message == "年假有几天？"
    assert file.message == TEXTS("file_question")
    (document,) = file.attachments
    assert document.is_document
    assert document.name.startswith("说明")
    assert document.text == NOTE.decode()


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("huge", "file_too_large"),
        ("exe", "file_kind"),
        ("expired", "file_expired"),
        ("type", "file_kind"),
        ("video", "unreadable"),
        ("unknown", "unreadable"),
    ],
)
async def test_what_cannot_be_looked_at(house: House, what: str, text: str) -> None:
    """Each has its own polite words, and nothing of it reaches the backend."""
    gateway = house.gateway
    async with house.app():
        match what:
            case "huge":
                gateway.file_faults.append("huge_declared")
                sent = await gateway.send_picture(PNG)
            case "exe":
                sent = await gateway.send_file(b"MZ" + bytes(500), "setup.exe")
            case "expired":
                gateway.file_code_ttl_s = 0.0
                sent = await gateway.send_picture(PNG)
            case "type":
                gateway.file_faults.append("type")
                sent = await gateway.send_picture(PNG)
            case "video":
                sent = await gateway.send_video(b"....")
            case _:
                sent = await gateway.send_unknown()
        assert (await answer_to(house, sent)).text.startswith(TEXTS(text))
    assert not house.backend.asked


async def test_slow_storage_delays_no_one(house: House) -> None:
    """The ack and somebody else's answer come while the file is still on its way."""
    house.gateway.file_fault = "slow1"
    async with house.app(reply={"notice": "off"}, limits={"drain_s": 0.1}) as app:
        sent = await house.gateway.send_picture(PNG)
        ack = await house.gateway.acked(sent)
        assert ack.code == 200
        await until(lambda: app.bridge.running)
        other = await answer_to(house, await house.gateway.say("年假有几天？", user="043"))
        assert "天" in other.text
        assert not house.gateway.posts_in(sent)
        assert not any(file.fetched for file in house.gateway.files.values())


async def test_a_document_that_was_not_read_is_told(house: House) -> None:
    """AnythingLLM drops it without a word; the answer says so."""
    house.backend.collector_down = True
    house.backend.answer = str
    async with house.app():
        post = await answer_to(house, await house.gateway.send_file(NOTE, "说明.txt"))
    assert TEXTS("file_unread", names="说明.txt") in post.text


async def test_deeper_about_a_picture(house: House) -> None:
    """What is asked deeper takes its picture along."""
    house.backend.workspaces["expert"] = Workspace("专家", handbook_folder())
    async with house.app(route=[{"workspace": "handbook", "deep_workspace": "expert"}]):
        await answer_to(house, await house.gateway.send_picture(PNG))
        await answer_to(house, await house.gateway.say("/deep"))
    first, deeper = house.backend.asked
    assert deeper.workspace == "expert"
    assert [one.size for one in deeper.attachments] == [len(PNG)]
    assert deeper.message.endswith(first.message)


# -- a face instead of a notice


@pytest.mark.parametrize("refused", [False, True])
async def test_a_face_while_it_is_looked_up(house: House, refused: bool) -> None:
    """On the question as long as it waits; where DingTalk takes none, the words."""
    house.backend.answer, house.backend.answer_delay_s = str, 1.0
    if refused:
        house.gateway.plant("emotion.reply", "permission", times=9)
    async with house.app(reply={"notice": "emotion", "notice_after_s": 0.1}):
        sent = await house.gateway.say("问题")
        if refused:
            assert (await answer_to(house, sent)).text == NOTICE
        else:
            await until(lambda: house.gateway.emotions_on(sent.msg_id))
        assert (await answer_to(house, sent)).text.startswith("问题")
        await until(lambda: not house.gateway.emotions_on(sent.msg_id))
    assert len(house.gateway.emotions) == (not refused)


@pytest.mark.parametrize("way", ["cancel", "drop"])
async def test_a_face_on_a_question_that_ends_without_an_answer(house: House, way: str) -> None:
    """Taken away as well."""
    house.backend.answer, house.backend.answer_delay_s = str, 60.0
    async with house.app(reply={"notice": "emotion", "notice_after_s": 0.1}) as app:
        sent = await house.gateway.say("问题")
        await until(lambda: house.gateway.emotions_on(sent.msg_id))
        if way == "cancel":
            await house.gateway.say("/cancel")
        else:
            row = await app.store.find(house.gateway.client_id, sent.msg_id)
            assert row is not None
            await app.drop(row.row, tell=False)
        await until(lambda: not house.gateway.emotions_on(sent.msg_id))


async def test_a_face_that_was_shown_before_a_crash_is_taken_away(house: House) -> None:
    """Whoever answers takes it away, not only who has shown it."""
    house.backend.answer, house.backend.answer_delay_s = str, 60.0
    house.configure(reply={"notice": "emotion", "notice_after_s": 0.1})
    daemon = await house.daemon()
    sent = await house.gateway.say("问题")
    await until(lambda: house.gateway.emotions_on(sent.msg_id))
    await daemon.kill()
    house.backend.answer_delay_s = 0.0
    daemon = await house.daemon()
    await answer_to(house, sent)
    await until(lambda: not house.gateway.emotions_on(sent.msg_id))
    assert await daemon.stop() == 0


async def test_a_quick_answer_needs_no_face(house: House) -> None:
    """Nothing is shown, and nothing is spent on taking it away."""
    house.backend.answer = str
    async with house.app(reply={"notice": "emotion", "notice_after_s": 30}):
        await answer_to(house, await house.gateway.say("问题"))
    await asyncio.sleep(0)
    assert not house.gateway.meter.used["api"]


async def test_who_has_a_card_has_no_face(house: House) -> None:
    """So nothing is spent on taking one away, however long the answer takes."""
    house.backend.answer, house.backend.answer_delay_s = str, 0.5
    card = {"card_template_id": house.gateway.add_template()}
    async with house.app(reply={"notice": "emotion", "notice_after_s": 0.1}, dingtalk=card) as app:
        await house.gateway.card_ended(await house.gateway.next_card(await house.gateway.say("问题")))
        await until(lambda: not app.bridge.running)
        assert app.budget._by_kind["api"]["emotion"] == 0


async def test_a_face_that_is_slow_to_go_holds_nothing_up(house: House) -> None:
    """The question has ended before it is taken away, so that no stop in between sends the answer again."""
    house.backend.answer, house.backend.answer_delay_s = str, 0.5
    house.gateway.plant("emotion.recall", "hang")
    async with house.app(reply={"notice": "emotion", "notice_after_s": 0.1}) as app:
        sent = await house.gateway.say("甲")
        await answer_to(house, sent)
        await until(lambda: not house.gateway.faults_of["emotion.recall"])
        row = await app.store.find(house.gateway.client_id, sent.msg_id)
        assert row is not None
        assert row.state == "done"


# -- what it costs


def spent(app: Any) -> dict[str, int]:
    return {pool: app.budget._used[pool] for pool in ("api", "webhook_stream")}


async def test_all_is_counted_as_dingtalk_counts(house: House) -> None:
    """Frames in, presses, faces, downloads, cards, webhooks, messages by OpenAPI: the same totals."""
    gateway = house.gateway
    template = gateway.add_template()
    house.backend.workspaces["expert"] = Workspace("专家", handbook_folder())
    route = [{"workspace": "handbook", "deep_workspace": "expert", "contact": "boss"}]
    tables: dict[str, Any] = {"route": route, "reply": {"notice": "emotion", "notice_after_s": 0.1}}
    async with house.app(**tables, dingtalk={"card_template_id": template}) as app:
        house.backend.token_delay_s = 0.05
        card = await gateway.next_card(await gateway.say("差旅住宿标准？"))
        await gateway.card_ended(card)
        await until(lambda: not app.bridge.running)
        house.backend.token_delay_s = 0.0
        for action in ("good", "bad", "human", "deep"):
            assert (await gateway.press(card, action)).ok
        await gateway.next_post("cid-boss")
        await gateway.next_post("cid-042")
        await gateway.card_ended(await gateway.next_card("cid-042"))
        await gateway.send_quote("", "x")
        await gateway.say("/出处 1")
        await gateway.wait_posts("cid-042", 3)
        await until(lambda: not app.bridge.running)
        gateway.card_delivery_fault = "no"
        house.backend.answer_delay_s = 0.4
        await gateway.next_post(await gateway.send_picture(PNG, user="043"))
        gateway.expire_webhooks()
        await gateway.say("年假有几天？", user="044", webhook_ttl_s=-5)
        await gateway.next_post("cid-044")
        gateway.webhook_faults.extend([90030, "http500_delivered"])
        await gateway.say("年假有几天？", user="045")
        await gateway.next_post("cid-045")
        await until(lambda: not app.bridge.running)
        assert spent(app) == {pool: gateway.meter.total(pool) for pool in ("api", "webhook_stream")}, (
            gateway.meter.used,
            app.budget._by_kind,
        )


async def test_the_way_that_lasts_is_taken_but_never_in_a_group(house: House) -> None:
    """Webhook and stream are short: one to one the API pays; a group's answers mention, so they do not."""
    house.backend.answer = str
    async with house.app(budget={"webhook_stream_per_month": 40, "api_calls_per_month": 5000}):
        for number in range(12):
            await house.gateway.next_post(await house.gateway.say(f"问{number}"))
            await house.gateway.next_post(await house.gateway.say(f"问{number}", group=True))
    paths = [post.path for post in house.gateway.posts_in("cid-042")]
    assert paths[-1] == "oto"
    assert {post.path for post in house.gateway.posts_in("cid-group")} == {"webhook"}


@pytest.mark.parametrize("first", ["webhook", "openapi"])
async def test_a_pool_that_is_spent(house: House, first: str) -> None:
    """The other way is taken, and no answer is lost."""
    house.backend.answer = str
    house.gateway.webhook_faults.extend([90030] if first == "webhook" else [])
    if first == "openapi":
        house.gateway.plant("oto", (403, "Forbidden.AccessDenied.ApiCountLimitForOrg"))
    async with house.app(budget={"reply_path": first}):
        post = await house.gateway.next_post(await house.gateway.say("问题"))
    assert post.text.startswith("问题")
    assert post.path == ("oto" if first == "webhook" else "webhook")
