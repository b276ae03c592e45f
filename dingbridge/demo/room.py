"""The chats: what people say goes to the stand-in gateway, what it notes becomes bubbles and lines on the board."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final

from dingbridge.demo import bubbles, wire
from dingbridge.demo.board import MESSAGES, Board, Message, now_ms
from dingbridge.demo.people import Cast, Chat, Person
from dingbridge.sim.gateway import Card, Gateway, Post, Sent
from dingbridge.sim.gateway_meter import Meter
from dingbridge.sim.gateway_stream import Session

LONGEST: Final = 5_000  # characters a person may say at once, as in DingTalk's own input

Told = Callable[["Watched", str, dict[str, Any]], None]


class Refused(Exception):
    """What was asked of the page cannot be done; the sentence is for its reader."""

    def __init__(self, sentence: str, status: int = 409) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.status = status


class ToldMeter(Meter):
    """A meter that tells when it has counted."""

    def __init__(self, told: Callable[[], None]) -> None:
        super().__init__()
        self._told = told

    def count(self, pool: str, kind: str) -> None:
        super().count(pool, kind)
        self._told()


class Watched(Gateway):
    """A stand-in gateway that tells each note at once. `bot` is "ours" or "bare": whom it serves."""

    def __init__(self, bot: str, told: Told, **settings: Any) -> None:
        super().__init__(**settings)
        self.bot = bot
        self._told = told
        self.meter = ToldMeter(lambda: told(self, "metered", {}))

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
        self.card_made: Callable[[], None] = lambda: None  # called before a card's first frame
        self._posts: dict[str, Post] = {}

    def gateway(self, bot: str = "ours", **settings: Any) -> Watched:
        """A new gateway, to be entered by its owner."""
        self.gateways[bot] = Watched(bot, self._told, **settings)
        return self.gateways[bot]

    @property
    def quota(self) -> dict[str, Any]:
        """What our robot's organisation has used, as `Meter.told`."""
        gateway = self.gateways.get("ours")
        return gateway.meter.told() if gateway is not None else {}

    def place(self, chat_id: str, person_id: str) -> tuple[Chat, Person, Watched]:
        """Who speaks where, and the gateway there. Raises Refused."""
        chat, person = self.cast.chat(chat_id), self.cast.person(person_id)
        if chat is None or person is None or person.id not in chat.people:
            raise Refused("没有这个会话，或者这个人不在会话里。", 404)
        gateway = self.gateways.get(chat.bot)
        if gateway is None:
            raise Refused("这个机器人现在没有运行。")
        return chat, person, gateway

    async def say(self, chat_id: str, person_id: str, text: str) -> tuple[str, Sent]:
        """A person writes in a chat: the bubble's id and what was pushed. Raises Refused."""
        chat, person, gateway = self.place(chat_id, person_id)
        words = worded(text)
        message = bubbles.spoken(chat, person, words)
        return await self.push(gateway, chat, person, message, lambda how: gateway.say(words, **how))

    async def push(
        self,
        gateway: Watched,
        chat: Chat,
        person: Person,
        message: Message,
        send: Callable[[dict[str, Any]], Awaitable[Sent]],
    ) -> tuple[str, Sent]:
        """Show the bubble and send what it stands for. send: is given what the gateway has to know of the sender."""
        self.board.put(message)
        how: dict[str, Any] = {
            "user": person.user,
            "nick": person.nick,
            "conversation": chat.conversation,
            "group": chat.kind == "group",
            "msg_id": message.id,
            "webhook_ttl_s": bubbles.WEBHOOK_S,
        }
        if chat.kind == "group":
            how["conversationTitle"] = chat.title
        sent = await send(how)
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

    def original(self, message_id: str) -> Post | Card | Sent | None:
        """What a bubble was made from, as long as it is remembered."""
        if (post := self._posts.get(message_id)) is not None:
            return post
        for gateway in self.gateways.values():
            for card in gateway.cards.values():
                if bubbles.card_id(card.out_track_id) == message_id:
                    return card
            for sent in gateway.sent:
                if sent.msg_id == message_id:
                    return sent
        return None

    def bubble_of(self, post: Post) -> str:
        """The id of the bubble that shows it."""
        return next(message_id for message_id, one in self._posts.items() if one is post)

    def file_of(self, message_id: str) -> bytes | None:
        """What somebody sent with a message, as long as it is remembered."""
        sent = self.original(message_id)
        if not isinstance(sent, Sent) or not isinstance(sent.data, dict):
            return None
        content = sent.data.get("content")
        parts = [content, *content.get("richText", ())] if isinstance(content, dict) else []
        codes = [part["downloadCode"] for part in parts if isinstance(part, dict) and "downloadCode" in part]
        files = [gateway.files[code] for gateway in self.gateways.values() for code in codes if code in gateway.files]
        return files[0].content if files else None

    # ---- what the gateways note

    def _told(self, gateway: Watched, kind: str, facts: dict[str, Any]) -> None:
        for entry in wire.entries(gateway, gateway.bot, kind, facts):
            self.board.note(entry)
        match kind:
            case "metered":
                if gateway.bot == "ours":
                    self.board.tell("quota", self.quota)
            case "post":
                self._posted(gateway, gateway.posts[-1])
            case "card":
                self._carded(gateway, facts)
            case "emotion":
                self.board.change(facts["msg_id"], emotion="" if facts["recalled"] else facts["name"])
            case "live" | "closed" | "fault":
                self.linked()
            case _:
                self._pushed(gateway, kind, facts)

    def _pushed(self, gateway: Watched, kind: str, facts: dict[str, Any]) -> None:
        """How far a message of somebody's has come."""
        if kind == "ack":
            push = gateway.acks[-1].push
            if push is not None and push.sent is not None:
                self.board.change(push.sent.msg_id, state="acked")
        elif kind == "frame":
            pushes = gateway.pushes.get(str(facts["frame"].get("headers", {}).get("messageId", "")))
            self._hear(gateway, pushes[-1].sent if pushes else None)
        elif kind in {"held", "lost"}:
            self._hear(gateway, next((one for one in reversed(gateway.sent) if one.msg_id == facts["msg_id"]), None))
            self.board.change(facts["msg_id"], state=kind)

    def _hear(self, gateway: Watched, sent: Sent | None) -> None:
        """What one of our people said, but not through `say`: the gateway may be told by others too."""
        if sent is None or not sent.text or self.board.has(sent.msg_id):
            return
        chat = self.cast.chat_in(sent.conversation, gateway.bot)
        person = next((one for one in self.cast.people if one.user == sent.user), None)
        if chat is not None and person is not None:
            self.board.put(replace(bubbles.spoken(chat, person, sent.text), id=sent.msg_id))

    def _posted(self, gateway: Watched, post: Post) -> None:
        chat = self.cast.chat_in(post.conversation, gateway.bot)
        if chat is None:
            return
        message_id = self.board.new_id("b")
        sessions = [session for session in gateway.sessions.values() if session.conversation == post.conversation]
        self._posts[message_id] = post
        while len(self._posts) > MESSAGES:
            del self._posts[next(iter(self._posts))]
        self.board.put(bubbles.posted(post, chat, self.cast, message_id, expired=_ended(sessions)))

    def _carded(self, gateway: Watched, facts: dict[str, Any]) -> None:
        card = gateway.cards.get(facts["card"])
        chat = self.cast.chat_in(card.conversation, gateway.bot) if card is not None else None
        if facts["change"] == "create":
            self.card_made()
        if card is None or chat is None or facts["change"] in {"refused", "repeat"}:
            return
        before = self.board.get(bubbles.card_id(card.out_track_id))
        self.board.put(bubbles.carded(card, chat, self.cast, before.at if before is not None else now_ms()))


def _ended(sessions: list[Session]) -> bool:
    return bool(sessions) and sessions[-1].expires_at <= time.time()


def worded(text: str) -> str:
    """Raises Refused for nothing, and for too much."""
    words = text.strip()
    if not words or len(words) > LONGEST:
        raise Refused(f"请输入 1 到 {LONGEST} 个字。", 400)
    return words
