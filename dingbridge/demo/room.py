"""The chats: what people say goes to the stand-in gateway, what it notes becomes bubbles and lines on the board."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from dingbridge.demo import render, wire
from dingbridge.demo.board import Board, Message, now_ms
from dingbridge.demo.people import NOTICES, Cast, Chat, Person
from dingbridge.sim.gateway import Gateway, Post, Sent

LONGEST: Final = 5_000  # characters a person may say at once, as in DingTalk's own input
WEBHOOK_S: Final = 5_400.0
_TITLE: Final = "消息"
_VIA_OPENAPI: Final = "经 OpenAPI 送达（会话 webhook 用不了）"

Told = Callable[["Watched", str, dict[str, Any]], None]


class Refused(Exception):
    """What was asked of the page cannot be done; the sentence is for its reader."""

    def __init__(self, sentence: str, status: int = 409) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.status = status


class Watched(Gateway):
    """A stand-in gateway that tells each note at once. `bot` is "ours" or "bare": whom it serves."""

    def __init__(self, bot: str, told: Told, **settings: Any) -> None:
        super().__init__(**settings)
        self.bot = bot
        self._told = told

    def note(self, kind: str, **facts: Any) -> None:
        super().note(kind, **facts)
        self._told(self, kind, facts)


class Room:
    """People, chats and the board they are shown on. A gateway of `gateway()` belongs to the room."""

    def __init__(self, cast: Cast) -> None:
        self.cast = cast
        self.board = Board()
        self.gateways: dict[str, Watched] = {}
        self.last: Sent | None = None  # the newest thing said to our bot
        self.expire_next = False
        self.switched: Callable[[], None] = lambda: None  # to be called by who changes what a switch shows
        self.linked: Callable[[], None] = lambda: None  # called when a connection comes, goes or breaks

    def gateway(self, bot: str = "ours", **settings: Any) -> Watched:
        """A new gateway, to be entered by its owner."""
        self.gateways[bot] = Watched(bot, self._told, **settings)
        return self.gateways[bot]

    async def say(self, chat_id: str, person_id: str, text: str) -> tuple[str, Sent]:
        """A person writes in a chat: the bubble's id and what was pushed. Raises Refused."""
        chat, person = self.cast.chat(chat_id), self.cast.person(person_id)
        if chat is None or person is None or person.id not in chat.people:
            raise Refused("没有这个会话，或者这个人不在会话里。", 404)
        words = text.strip()
        if not words or len(words) > LONGEST:
            raise Refused(f"请输入 1 到 {LONGEST} 个字。", 400)
        gateway = self.gateways.get(chat.bot)
        if gateway is None:
            raise Refused("这个机器人现在没有运行。")
        message = self._spoken(chat, person, words)
        self.board.put(message)
        extra: dict[str, Any] = {"conversationTitle": chat.title} if chat.kind == "group" else {}
        sent = await gateway.say(
            words,
            user=person.user,
            nick=person.nick,
            conversation=chat.conversation,
            group=chat.kind == "group",
            msg_id=message.id,
            webhook_ttl_s=WEBHOOK_S,
            **extra,
        )
        if chat.bot == "ours":
            self._remember(gateway, sent)
        return message.id, sent

    def _remember(self, gateway: Watched, sent: Sent) -> None:
        self.last = sent
        if self.expire_next:
            self.expire_next = False
            self.switched()
            gateway.sessions[sent.session].expires_at = 0.0
            self.board.change(sent.msg_id, webhook_expires_at=now_ms(), note="会话 webhook 提前失效")

    def _spoken(self, chat: Chat, person: Person, words: str) -> Message:
        at = now_ms()
        return Message(
            id=f"msg{secrets.token_urlsafe(16)}==",
            chat=chat.id,
            author=person.id,
            nick=person.nick,
            at=at,
            kind="text",
            title="",
            text=words,
            html=render.plain(words, {}),
            mentions=(chat.bot_name,) if chat.kind == "group" else (),
            webhook_expires_at=at + int(WEBHOOK_S * 1000),
        )

    # ---- what the gateways note

    def _told(self, gateway: Watched, kind: str, facts: dict[str, Any]) -> None:
        for entry in wire.entries(gateway, gateway.bot, kind, facts):
            self.board.note(entry)
        if kind == "post":
            self._posted(gateway, gateway.posts[-1])
        elif kind == "ack":
            push = gateway.acks[-1].push
            if push is not None and push.sent is not None:
                self.board.change(push.sent.msg_id, state="acked")
        elif kind == "frame":
            pushes = gateway.pushes.get(str(facts["frame"].get("headers", {}).get("messageId", "")))
            self._hear(gateway, pushes[-1].sent if pushes else None)
        elif kind in {"held", "lost"}:
            self._hear(gateway, next((one for one in reversed(gateway.sent) if one.msg_id == facts["msg_id"]), None))
            self.board.change(facts["msg_id"], state=kind)
        elif kind in {"live", "closed", "fault"}:
            self.linked()

    def _hear(self, gateway: Watched, sent: Sent | None) -> None:
        """What one of our people said, but not through `say`: the gateway may be told by others too."""
        if sent is None or not sent.text or self.board.has(sent.msg_id):
            return
        chat = self.cast.chat_in(sent.conversation, gateway.bot)
        person = next((one for one in self.cast.people if one.user == sent.user), None)
        if chat is not None and person is not None:
            self.board.put(replace(self._spoken(chat, person, sent.text), id=sent.msg_id))

    def _posted(self, gateway: Watched, post: Post) -> None:
        chat = self.cast.chat_in(post.conversation, gateway.bot)
        if chat is None:
            return
        kind, title, text = _content(post)
        names = self.cast.names
        draw = render.plain if kind == "text" else render.markdown
        self.board.put(
            Message(
                id=self.board.new_id("b"),
                chat=chat.id,
                author="bot",
                nick=chat.bot_name,
                at=now_ms(),
                kind=kind,
                title=title,
                text=render.named(text, names),
                html=draw(text, names),
                mentions=tuple(names[user] for user in _mentioned(post) if user in names),
                notice=text in NOTICES,
                note="" if post.path == "webhook" else _VIA_OPENAPI,
            )
        )


def _mentioned(post: Post) -> list[str]:
    """User ids; whatever a bot wrote there is no reason to fail."""
    at = post.body.get("at")
    users = at.get("atUserIds") if isinstance(at, dict) else None
    return [user for user in users if isinstance(user, str)] if isinstance(users, list) else []


def _content(post: Post) -> tuple[str, str, str]:
    """Kind, title and text; a kind that has neither title nor text is named."""
    kind = str(post.body.get("msgtype") or post.body.get("msgKey") or "")
    part = post.body.get(kind)
    title = str(part.get("title", "")) if isinstance(part, dict) else ""
    if kind in {"text", "sampleText"}:
        return "text", "", post.text
    return "markdown", title or _TITLE, post.text or f"〔{kind}〕"
