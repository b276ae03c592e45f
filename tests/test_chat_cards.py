"""Answers as cards, through the whole daemon: what the chat shows while it works, fails, dies and comes back."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import pytest

from dingbridge.dingtalk.cards import FRAME_INTERVAL_S
from dingbridge.model import trace_code
from dingbridge.sim.anythingllm import Workspace, handbook_folder
from dingbridge.sim.gateway import Card
from dingbridge.texts import Texts
from tests.house import NOTICE, House, until
from tests.test_reload import changed

TEXTS = Texts("zh-CN")
LONG = "第一段说明一件事情。" * 30


@pytest.fixture
def template(house: House) -> dict[str, Any]:
    """Tables of a daemon that answers with cards."""
    return {"dingtalk": {"card_template_id": house.gateway.add_template()}}


def slowly(house: House, text: str = LONG, *, token_s: float = 0.02) -> None:
    """The backend writes this text, a few characters at a time."""
    house.backend.answer, house.backend.token_delay_s = (lambda _: text), token_s


def shown(card: Card) -> str:
    return card.data["content"]


def deep(house: House) -> dict[str, Any]:
    house.backend.workspaces["expert"] = Workspace("专家", handbook_folder())
    return {"route": [{"workspace": "handbook", "deep_workspace": "expert", "contact": "boss"}]}


@pytest.mark.parametrize("group", [False, True])
async def test_it_is_there_before_the_backend_is_asked_and_grows_to_the_answer(
    house: House, template: dict[str, Any], group: bool
) -> None:
    """One card says that it works on it, shows more and more, and ends with the sources; no message beside it."""
    slowly(house)
    house.backend.answer_delay_s = 0.3
    house.gateway.plant("card.create_and_deliver", (503, "ServiceUnavailable"))
    async with house.app(**template):
        sent = await house.gateway.say("问题", group=group)
        await until(lambda: not house.gateway.faults_of["card.create_and_deliver"])
        assert not house.backend.asked
        card = await house.gateway.next_card(sent)
        assert not house.backend.asked
        assert shown(card) == NOTICE
        await house.gateway.card_ended(card)
    frames = [frame.text for frame in card.frames]
    assert len(frames) >= 2
    assert all(LONG.startswith(text.rstrip("…").strip()[:20]) for text in frames)
    assert [frame.final for frame in card.frames] == [False] * (len(frames) - 1) + [True]
    assert LONG in shown(card)
    assert "来源：" in shown(card).rpartition(LONG)[2]
    assert not house.gateway.posts
    assert len(house.gateway.cards) == 1
    assert card.data["code"] == trace_code(house.gateway.client_id, sent.msg_id)


@pytest.mark.parametrize("fault", ["permission", (500, "unknownError"), (400, "invalidParameter")])
async def test_frames_are_refused_halfway(house: House, template: dict[str, Any], fault: Any) -> None:
    """The whole answer comes by messages, and the card says so; nothing is lost."""
    slowly(house)
    house.gateway.plant("card.stream", fault, times=50, after=1)
    async with house.app(**template):
        sent = await house.gateway.say("问题")
        card = await house.gateway.next_card(sent)
        post = await house.gateway.next_post(sent, 30)
        house.gateway.faults_of.clear()
        assert LONG in post.text
        assert "来源" in post.text
        assert len(house.gateway.posts) == 1
    assert LONG not in shown(card)


@pytest.mark.parametrize("what", ["template", "delivery", "no_staff"])
async def test_no_card_can_be_made(house: House, template: dict[str, Any], what: str) -> None:
    """Markdown answers, this question and the next; of what lasts the operator is told once."""
    house.backend.answer = str
    how: dict[str, Any] = {}
    if what == "template":
        template = {"dingtalk": {"card_template_id": "missing.schema"}}
    elif what == "delivery":
        house.gateway.card_delivery_fault = "sys error"
    else:
        how = {"senderStaffId": ""}
    async with house.app(**template):
        for text in ("甲", "乙"):
            await house.gateway.say(text, **how)
            assert (await house.gateway.next_post("cid-042")).text.startswith(text)
    assert not house.gateway.cards_in()


async def test_an_answer_too_large_for_a_card(house: House, template: dict[str, Any]) -> None:
    """The card is closed and points to the messages below, which hold all of it."""
    house.gateway.card_content_limit = 500
    slowly(house, token_s=0.0)
    async with house.app(**template):
        sent = await house.gateway.say("问题")
        card = await house.gateway.next_card(sent)
        post = await house.gateway.next_post(sent, 20)
        await house.gateway.card_ended(card)
    assert LONG in post.text
    assert shown(card) == TEXTS("card_below")


async def test_an_answer_longer_than_a_message(house: House, template: dict[str, Any]) -> None:
    """Its first part is on the card, the others follow as messages, numbered; the sources stand last."""
    slowly(house, "\n\n".join(f"第{n:04d}段，说明一件事情。" for n in range(800)), token_s=0.0)
    house.backend.chunk_chars = 500
    async with house.app(**template):
        sent = await house.gateway.say("问题")
        card = await house.gateway.next_card(sent)
        await house.gateway.card_ended(card)
        parts = int(re.findall(r"1/(\d)", shown(card))[-1])
        posts = await house.gateway.wait_posts(sent, parts - 1)
    whole = "".join([shown(card), *(post.text for post in posts)])
    assert all(whole.count(f"第{n:04d}段") == 1 for n in range(800))
    assert "来源：" in posts[-1].text
    assert "来源" not in shown(card)


async def test_the_backend_breaks_off(house: House, template: dict[str, Any]) -> None:
    """What was seen stays on the card, marked as broken off."""
    slowly(house)
    house.backend.faults.append("cut")
    async with house.app(**template):
        card = await house.gateway.next_card(await house.gateway.say("问题"))
        await house.gateway.card_ended(card)
    assert shown(card).startswith("第一段说明")
    assert TEXTS("partial") in shown(card)
    assert card.state == "finished"


async def test_a_backend_that_is_away_is_told_on_the_card_which_then_shows_the_answer(
    house: House, template: dict[str, Any]
) -> None:
    """Trouble, once, and later the answer: the same card, and no message."""
    house.backend.answer, house.backend.fault = str, "http503"
    async with house.app(**template):
        card = await house.gateway.next_card(await house.gateway.say("问题"))
        await until(lambda: TEXTS("trouble") in shown(card))
        house.backend.fault = None
        await house.gateway.card_ended(card)
    assert shown(card).startswith("问题")
    assert len(house.gateway.cards) == 1
    assert not house.gateway.posts


async def test_a_question_that_is_taken_back_closes_its_card(house: House, template: dict[str, Any]) -> None:
    """/cancel says so on the card, at once, and no frame of what was written comes behind."""
    slowly(house, LONG * 9)
    async with house.app(**template):
        card = await house.gateway.next_card(await house.gateway.say("问题"))
        await until(lambda: card.frames)
        await house.gateway.next_post(await house.gateway.say("/cancel"))
        await house.gateway.card_ended(card, 4)
        await asyncio.sleep(FRAME_INTERVAL_S + 0.2)
    assert [change.kind for change in card.history][-1] == "stream"
    assert shown(card) == TEXTS("card_cancelled")


@pytest.mark.parametrize("tell", [False, True])
async def test_a_question_that_an_operator_drops(house: House, template: dict[str, Any], tell: bool) -> None:
    """Its card says that nothing will come, with or without words to the asker."""
    house.backend.answer, house.backend.answer_delay_s = str, 60.0
    async with house.app(**template) as app:
        sent = await house.gateway.say("问题")
        card = await house.gateway.next_card(sent)
        await until(lambda: house.backend.running)
        row = await app.store.find(house.gateway.client_id, sent.msg_id)
        assert row is not None
        await app.drop(row.row, tell=tell)
        await house.gateway.card_ended(card, 4)
    assert shown(card).startswith(TEXTS("dropped" if tell else "card_cancelled"))
    assert not house.gateway.posts


async def test_killed_while_it_streams_the_next_start_finishes_the_same_card(
    house: House, template: dict[str, Any]
) -> None:
    """SIGKILL in the middle of an answer: one card, whole at the end."""
    slowly(house)
    house.configure(**template)
    daemon = await house.daemon()
    sent = await house.gateway.say("问题")
    card = await house.gateway.next_card(sent)
    await until(lambda: card.frames)
    await daemon.kill()
    assert not card.ended
    house.backend.token_delay_s = 0.0
    daemon = await house.daemon()
    await house.gateway.card_ended(card, 30)
    assert await daemon.stop() == 0
    assert LONG in shown(card)
    assert len(house.gateway.cards) == 1
    assert not house.gateway.posts


async def test_condemned_after_three_crashes_it_is_told_on_the_card(house: House, template: dict[str, Any]) -> None:
    """A question that kills the process thrice is given up, where its asker looks."""
    (house.folder / "deadly.py").write_text(
        "import os, signal\nasync def handle(message, reply):\n    os.kill(os.getpid(), signal.SIGKILL)\n", "utf-8"
    )
    house.configure(
        **template, route=[{"name": "deadly", "handler": "deadly:handle"}], handlers={"path": [str(house.folder)]}
    )
    daemon = await house.daemon()
    card = await house.gateway.next_card(await house.gateway.say("问题"))
    for _ in range(3):
        await daemon.process.wait()
        daemon = await house.daemon()
    await house.gateway.card_ended(card, 20)
    assert await daemon.stop() == 0
    assert shown(card).startswith(TEXTS("dead"))
    assert len(house.gateway.cards) == 1
    assert not house.gateway.posts


async def test_a_reload_that_takes_the_template_away_finishes_open_cards(
    house: House, template: dict[str, Any]
) -> None:
    """A card that waits for the backend is finished all the same; the next answer is markdown."""
    house.backend.answer, house.backend.fault = str, "http503"
    async with house.app(**template) as app:
        card = await house.gateway.next_card(sent := await house.gateway.say("问题"))
        await until(lambda: TEXTS("trouble") in shown(card))
        await changed(house, app, dingtalk={"card_template_id": ""})
        house.backend.fault = None
        await house.gateway.card_ended(card)
        assert shown(card).startswith("问题")
        assert not house.gateway.posts
        await house.gateway.next_post(sent := await house.gateway.say("另一个", user="043"))
    assert not house.gateway.cards_in(sent)


async def test_a_template_that_is_gone_at_the_next_start(house: House, template: dict[str, Any]) -> None:
    """A card left open by a daemon with a template is finished by one without."""
    slowly(house)
    house.configure(**template)
    daemon = await house.daemon()
    card = await house.gateway.next_card(await house.gateway.say("问题"))
    await until(lambda: card.frames)
    await daemon.kill()
    house.backend.token_delay_s = 0.0
    async with house.app():
        await house.gateway.card_ended(card, 20)
    assert LONG in shown(card)


HANDLERS = """
async def quiet(message, reply):
    return None

async def shows(message, reply):
    await reply.update("都在这里了。")
    return None
"""


@pytest.mark.parametrize("name", ["quiet", "shows"])
async def test_a_handler_that_answers_by_itself_leaves_no_open_card(
    house: House, template: dict[str, Any], name: str
) -> None:
    """The card keeps what the handler showed, or points to the chat; it never says that nothing came."""
    (house.folder / "own_way.py").write_text(HANDLERS, "utf-8")
    route = [{"name": "own", "handler": f"own_way:{name}"}]
    async with house.app(**template, route=route, handlers={"path": [str(house.folder)]}):
        card = await house.gateway.next_card(await house.gateway.say("问题"))
        await house.gateway.card_ended(card, 4)
    assert shown(card) == ("都在这里了。" if name == "shows" else TEXTS("card_below"))
    assert card.state == "finished"
    assert not house.gateway.posts


async def test_a_card_that_cannot_be_closed_just_now_is_closed_later(house: House, template: dict[str, Any]) -> None:
    """DingTalk is away when a question is taken back: its card is tried again."""
    house.backend.answer, house.backend.answer_delay_s = str, 60.0
    async with house.app(**template) as app:
        card = await house.gateway.next_card(await house.gateway.say("问题"))
        await until(lambda: house.backend.running)
        house.gateway.plant("card.stream", (503, "ServiceUnavailable"), times=3)
        await house.gateway.next_post(await house.gateway.say("/cancel"))
        await until(lambda: not house.gateway.faults_of["card.stream"])
        assert not card.ended
        while not card.ended:
            app.bridge.desk.card_ended.set()
            await asyncio.sleep(0.05)
    assert shown(card) == TEXTS("card_cancelled")


async def test_a_reload_while_a_card_is_closed(house: House, template: dict[str, Any]) -> None:
    """What the old configuration could not say any more is said by the new one, and the daemon lives."""
    house.backend.answer, house.backend.answer_delay_s = str, 60.0
    async with house.app(**template) as app:
        card = await house.gateway.next_card(await house.gateway.say("问题"))
        await until(lambda: house.backend.running)
        house.gateway.plant("card.stream", (503, "ServiceUnavailable"))
        await house.gateway.next_post(await house.gateway.say("/cancel"))
        await until(lambda: not house.gateway.faults_of["card.stream"])
        await changed(house, app, **template, reply={"notice": "off"})
        async with asyncio.timeout(20):
            while not card.ended:
                app.bridge.desk.card_ended.set()
                await asyncio.sleep(0.05)
    assert shown(card) == TEXTS("card_cancelled")


async def test_trouble_is_told_where_nobody_knows_of_the_card(house: House, template: dict[str, Any]) -> None:
    """Who perhaps sees no card hears of the trouble by a message."""
    house.backend.fault = "http503"
    house.gateway.plant("card.create_and_deliver", (500, "unknown"), times=9)
    async with house.app(**template):
        post = await house.gateway.next_post(await house.gateway.say("问题"))
    assert TEXTS("trouble") in post.text


async def test_too_old_a_question_gets_no_card(house: House, template: dict[str, Any]) -> None:
    """A card that would only say so is not made."""
    house.backend.answer, house.backend.answer_delay_s = str, 2.0
    async with house.app(**template, limits={"answer_deadline_min": 0.02}):
        card = await house.gateway.next_card(sent := await house.gateway.say("甲"))
        await house.gateway.say("乙")
        await house.gateway.card_ended(card)
        assert TEXTS("expired") in (await house.gateway.next_post(sent)).text
    assert len(house.gateway.cards) == 1


# -- buttons


async def test_a_judgement_is_kept_shown_and_changed(house: House, template: dict[str, Any]) -> None:
    """Good, then bad, in a group by two people: one vote each, shown to each alone, with question, answer and route."""
    async with house.app(**template) as app:
        card = await house.gateway.next_card(await house.gateway.say("年假有几天？", group=True))
        await house.gateway.card_ended(card)
        await until(lambda: not app.bridge.running)
        for user, action in (("042", "good"), ("042", "bad"), ("043", "good"), ("042", "bad")):
            press = await house.gateway.press(card, action, user=user)
            assert press.ok, press.error
            assert card.view(user)["vote"] == action
        assert card.view("043")["vote"] == "good"
        assert "vote" not in card.view("044")
        press = await house.gateway.press(card, user="044", params={"action": "good"})
        assert press.ok
        rows = await app.store._engine.run(
            lambda c: c.execute("SELECT person, verdict, route, question, answer FROM vote ORDER BY person").fetchall()
        )
        assert 'dingbridge_feedback_total{verdict="bad"} 2.0' in app.metrics.text().decode()
    assert [row[:4] for row in rows] == [
        (person, verdict, "handbook", "年假有几天？")
        for person, verdict in (("042", "bad"), ("043", "good"), ("044", "good"))
    ]
    assert "leave" in rows[0][4] or "休假" in rows[0][4]


async def test_who_may_not_see_the_answer_may_not_press(house: House, template: dict[str, Any]) -> None:
    """A forwarded card, somebody else's one to one, and a group whose route was closed: refused, nothing is kept."""
    route = {"workspace": "handbook", "users": ["042"], "conversations": ["cid-group"]}
    async with house.app(**template, route=[route]) as app:
        alone = await house.gateway.next_card(await house.gateway.say("年假有几天？"))
        group = await house.gateway.next_card(await house.gateway.say("年假有几天？", group=True))
        for card in (alone, group):
            await house.gateway.card_ended(card)
        await until(lambda: not app.bridge.running)
        one_to_one: dict[str, Any] = {"spaceType": "IM_ROBOT", "spaceId": "cid-043"}
        for card, user, where in (
            (alone, "043", {}),
            (group, "043", {"spaceId": "cid-other"}),
            (group, "043", one_to_one),
        ):
            press = await house.gateway.press(card, "good", user=user, **where)
            assert press.ok, press.error
            assert card.view(user) == card.data | {"note": TEXTS("press_not_yours")}
        assert (await house.gateway.press(group, "good", user="043")).ok
        await changed(house, app, **template, route=[{"workspace": "handbook", "users": ["042"]}])
        await house.gateway.press(group, "bad", user="043")
        assert group.view("043")["note"] == TEXTS("press_not_yours")
        unknown = await house.gateway.press(alone, "good", outTrackId="dingbridge-00000000-" + "0" * 32)
        assert unknown.ok
        assert alone.view("042")["note"] == TEXTS("press_gone")
        rows = await app.store._engine.run(lambda c: c.execute("SELECT person, verdict FROM vote").fetchall())
    assert [tuple(row) for row in rows] == [("043", "good")]


async def test_deeper_by_a_button(house: House, template: dict[str, Any]) -> None:
    """Asked once in the presser's name in the deeper workspace, however often it is pressed, on a card of its own."""
    async with house.app(**template, **deep(house)) as app:
        card = await house.gateway.next_card(await house.gateway.say("年假有几天？", group=True))
        await house.gateway.card_ended(card)
        await until(lambda: not app.bridge.running)
        assert card.view()["deep"] == "true"
        for _ in range(2):
            press = await house.gateway.press(card, "deep", user="043")
            assert press.ok, press.error
        assert card.view("043")["note"] == TEXTS("press_deep")
        deeper = await house.gateway.next_card("cid-group")
        await house.gateway.card_ended(deeper)
        await until(lambda: not app.bridge.running)
        assert deeper.at_users == {"043": "043"} or "043" in deeper.at_users
    asked = house.backend.asked
    assert [one.workspace for one in asked] == ["handbook", "expert"]
    assert asked[1].message == "年假有几天？"
    assert deeper.view()["deep"] == ""
    assert "年假" in shown(deeper)


async def test_a_colleague_by_a_button(house: House, template: dict[str, Any]) -> None:
    """The contact gets question and answer, once; a press while the store is away is not acknowledged."""
    async with house.app(**template, **deep(house)) as app:
        card = await house.gateway.next_card(await house.gateway.say("年假有几天？"))
        await house.gateway.card_ended(card)
        await until(lambda: not app.bridge.running)
        for _ in range(2):
            assert (await house.gateway.press(card, "human")).ok
        told = await house.gateway.next_post("cid-boss")
        assert "年假有几天？" in told.text
        await house.gateway.next_post("cid-042")
        full = await house.gateway.press(card, "full")
        assert full.response is not None
        assert full.response["userPrivateData"]["cardParamMap"] == {"note": TEXTS("no_page")}
        held = asyncio.create_task(app.store._engine.run(lambda _: time.sleep(2.2)))
        press = await house.gateway.press(card, "good")
        assert not press.ok
        await held
        await app.store._engine.run(lambda c: c.execute("ALTER TABLE vote RENAME TO away"))
        press = await house.gateway.press(card, "good")
        assert not press.ok
        assert press.ack is None or press.ack.code != 200
    assert len(house.gateway.posts_in("cid-boss")) == 1
