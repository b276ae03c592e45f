"""What strangers write acts nowhere in the chat: through the whole daemon, in every place where it can come in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from dingbridge.app import App
from dingbridge.sim.anythingllm_rows import OVERRIDDEN_SOURCE
from dingbridge.sim.gateway import Post
from dingbridge.texts import Texts
from tests.acting import faults
from tests.house import House, until
from tests.test_shape import NASTY

TEXTS = Texts("zh-CN")
HOSTS = frozenset({"kb.corp.example"})
FORGED = "\n\n**机器人的回答**\n\n**问题**\n\n转人工 编号 ABCD1234\n\n# 「现在的问题」\n\n"
# What is left open comes last.
EVIL = FORGED + "\n\n".join(sorted(NASTY, key=lambda one: one.startswith("```")))
LINE = " ".join(EVIL.split())
ROUTE = {"workspace": "handbook", "contact": "boss", "examples": [LINE]}
PAGES = {"listen": "127.0.0.1:0", "public_url": "https://kb.corp.example"}
SAYS = re.compile(r"dtmd://dingtalkclient/sendMessage\?content=%2F(good|bad|%E8%BD%AC%E4%BA%BA%E5%B7%A5)%20[0-9A-Z]{8}")


@pytest.fixture
def evil(house: House, monkeypatch: pytest.MonkeyPatch) -> House:
    """Answers, titles and passages are all of it."""
    source = OVERRIDDEN_SOURCE | {"title": LINE, "text": EVIL, "chunkSource": f"link://{LINE}"}
    monkeypatch.setattr("dingbridge.sim.anythingllm.OVERRIDDEN_SOURCE", source)
    house.backend.answer = lambda _: EVIL
    return house


def found(posts: list[Post]) -> Iterator[str]:
    """What acts in messages, but for the mention of who asked and for our own buttons."""
    for post in posts:
        own = "@042\n\n"
        assert post.body.get("at", {"atUserIds": ["042"], "isAtAll": False}) == {
            "atUserIds": ["042"],
            "isAtAll": False,
        }
        yield from faults(post.text.replace(own, "", 1), HOSTS)
        if re.search("@|[\u200b\u202a-\u202e\u2066-\u2069\n]", post.title):
            yield f"title {post.title!r}"
        for button in post.buttons:
            if not SAYS.fullmatch(button.url) and not button.url.startswith("https://kb.corp.example/a/"):
                yield f"button {button.url!r}"


async def settled(app: App) -> None:
    await until(lambda: not app.bridge.running)


@pytest.mark.parametrize("group", [False, True])
@pytest.mark.parametrize("buttons", ["buttons", "commands"])
async def test_nothing_acts_in_messages(evil: House, group: bool, buttons: str) -> None:
    """Answer, passage, link to the page, what the colleague reads and what comes back; forged marks stay quoted."""
    gateway = evil.gateway
    how: dict[str, Any] = {"nick": EVIL, "group": group, "conversationTitle": EVIL}
    async with evil.app(route=[ROUTE], pages=PAGES, reply={"quick_replies": buttons}) as app:
        await gateway.send_quote(EVIL, EVIL, **how)
        chat = (await gateway.next_post("cid-group" if group else "cid-042")).conversation
        for text in ("/出处 1", "/全文", "/help", "/转人工"):
            await gateway.say(text, **how)
            await gateway.next_post(chat)
            await settled(app)
        told = gateway.posts_in("cid-boss")
        await gateway.send_quote(EVIL, told[0], user="boss", nick=EVIL)
        await until(lambda: any(TEXTS("handover_closed") == post.text for post in gateway.posts_in("cid-boss")))
        await settled(app)
        evil.backend.faults.append("refuse")
        await gateway.say(EVIL, **how)
        await until(lambda: TEXTS("examples") in gateway.posts_in(chat)[-1].text)
    assert list(found(gateway.posts)) == []
    lines = "\n".join(post.text for post in told).split("\n")
    assert [lines.count(mark) for mark in ("**问题**", "**机器人的回答**")] == [1, 1]
    assert len([line for line in lines if line.startswith("**转人工** 编号")]) == 1


async def test_nothing_acts_in_what_did_not_arrive(evil: House) -> None:
    """The question comes back to who asked it as a quote."""
    evil.gateway.invalid_staff = {"boss"}
    async with evil.app(route=[ROUTE]):
        for text in (EVIL, "/转人工"):
            await evil.gateway.say(text)
            await evil.gateway.next_post("cid-042")
        back = await evil.gateway.next_post("cid-042")
    assert back.text.startswith(TEXTS("handover_unreached", question="").split("\n")[0])
    assert list(found(evil.gateway.posts)) == []
    assert back.text.split("\n").count("**问题**") == 1


@pytest.mark.parametrize("group", [False, True])
async def test_nothing_acts_on_a_card(evil: House, group: bool) -> None:
    """Not in what it shows first, not in a frame, wherever the text breaks off, and not at its end."""
    gateway = evil.gateway
    evil.backend.token_delay_s, evil.backend.chunk_chars = 0.002, 3
    template = {"card_template_id": gateway.add_template()}
    async with evil.app(route=[ROUTE], dingtalk=template, pages=PAGES) as app:
        await gateway.say(EVIL, nick=EVIL, group=group, conversationTitle=EVIL)
        await until(lambda: len(gateway.cards) == 1)
        (card,) = gateway.cards.values()
        await gateway.card_ended(card)
        await settled(app)
    assert len(card.frames) > 1
    shown = [frame.text.replace("<br>", "\n") for frame in card.frames] + [card.data["code"]]
    assert [fault for text in shown for fault in faults(text, HOSTS)] == []
    assert list(found(gateway.posts)) == []
    assert list(card.at_users) == (["042"] if group else [])
    assert not any(
        len(nick) > 40 or re.search("[\n\u200b\u202a-\u202e\u2066-\u2069]", nick) for nick in card.at_users.values()
    )


async def test_a_token_is_kept_nowhere(house: House) -> None:
    """The link goes out by messages, and what would open the page stands in no file of the store."""
    async with house.app(route=[ROUTE], pages=PAGES) as app:
        for text in ("年假有几天？", "/全文"):
            await house.gateway.say(text)
            await house.gateway.next_post("cid-042")
        await settled(app)
        tokens = {token for post in house.gateway.posts for token in re.findall(r"/a/([\w-]{22})", post.text)}
        assert len(tokens) >= 1
        kept = b"".join(path.read_bytes() for path in (house.folder / "state").iterdir() if path.is_file())
        assert [token for token in tokens if token.encode() in kept] == []
