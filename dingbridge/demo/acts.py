"""What people do in a chat besides writing: quote, send pictures, files and voice, press and tap buttons."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from dingbridge.demo import bubbles
from dingbridge.demo.board import Message
from dingbridge.demo.room import Refused, Room, worded
from dingbridge.sim.gateway import Card, Post, Sent

PICTURES: Final = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp"})
MOST: Final = 24 * 1024 * 1024  # bytes of a file; more than the robot takes, so that it can say so
ACTIONS: Final = frozenset({"good", "bad", "deep", "full", "human"})
NAME: Final = 200


@dataclass(frozen=True, slots=True)
class Upload:
    """kind: picture, file or audio. text: said along with a picture, or recognised in a voice."""

    kind: str
    name: str
    content_type: str
    content: bytes
    text: str

    @property
    def facts(self) -> dict[str, Any]:
        return {"name": self.name, "size": len(self.content), "type": self.content_type}


def upload_of(body: Mapping[str, Any]) -> Upload:
    """What the page sent. Raises Refused."""
    kind, text = body.get("kind"), body.get("text", "")
    name, content_type = body.get("name", ""), body.get("content_type", "")
    if kind not in {"picture", "file", "audio"} or not all(isinstance(one, str) for one in (text, name, content_type)):
        raise Refused("不认识这种消息。", 400)
    try:
        content = base64.b64decode(str(body.get("content", "")), validate=True)
    except (binascii.Error, ValueError):
        raise Refused("文件的内容不完整。", 400) from None
    if len(content) > MOST:
        raise Refused("文件太大，这里最多 24 MB。", 413)
    if kind != "audio" and not content:
        raise Refused("这是一个空文件。", 400)
    if kind == "picture" and content_type not in PICTURES:
        raise Refused("这里能当图片发的有 PNG、JPG、GIF、WebP、BMP。", 400)
    return Upload(str(kind), name[:NAME] or "文件", content_type or "application/octet-stream", content, text.strip())


class Acts:
    """Each raises Refused for what cannot be done here."""

    def __init__(self, room: Room) -> None:
        self._room = room

    async def quote(self, chat_id: str, person_id: str, text: str, message_id: str) -> tuple[str, Sent]:
        """A person answers to a message of that chat."""
        chat, person, gateway = self._room.place(chat_id, person_id)
        words, quoted = worded(text), self._message(message_id, chat.id)
        original = self._room.original(message_id)
        if original is None:
            raise Refused("这条消息太久了，不能再引用。")
        shape = "card_tree" if isinstance(original, Card) else "text"
        content, name = b"", quoted.text
        about: str | Sent | Post | Card = original
        if isinstance(original, Sent) and quoted.file is not None:
            name = str(quoted.file["name"])
            about, content = quoted.text or name, self._room.file_of(quoted.id) or b""
            shape = quoted.kind if content and not quoted.text else "text"
        message = bubbles.spoken(chat, person, words, quoted=bubbles.cut(f"{quoted.nick}：{quoted.text or name}"))

        async def push(how: dict[str, Any]) -> Sent:
            return await gateway.send_quote(words, about, shape, content=content, **how)

        return await self._room.push(gateway, chat, person, message, push)

    async def send(self, chat_id: str, person_id: str, upload: Upload) -> tuple[str, Sent]:
        """A picture, alone or with a text; one to one a file or a voice."""
        chat, person, gateway = self._room.place(chat_id, person_id)
        if chat.kind == "group" and upload.kind != "picture":
            raise Refused("在群里，机器人只收得到文字和图片；文件和语音请在单聊里发。", 400)
        message = bubbles.spoken(chat, person, upload.text, kind=upload.kind, file=upload.facts)

        async def push(how: dict[str, Any]) -> Sent:
            content = upload.content
            if upload.kind == "file":
                return await gateway.send_file(content, upload.name, upload.content_type, **how)
            if upload.kind == "audio":
                return await gateway.send_audio(upload.text or None, content, **how)
            if upload.text:
                return await gateway.send_rich(upload.text, content, **how)
            return await gateway.send_picture(content, upload.content_type, **how)

        return await self._room.push(gateway, chat, person, message, push)

    def picture(self, message_id: str) -> tuple[bytes, str]:
        """A picture that somebody sent, with its type. Raises Refused."""
        message = self._room.board.get(message_id)
        kind = str(message.file["type"]) if message is not None and message.file is not None else ""
        content = self._room.file_of(message_id)
        if content is None or kind not in PICTURES:
            raise Refused("没有这张图片。", 404)
        return content, kind

    async def press(self, message_id: str, action: str, person_id: str) -> None:
        """A person presses a button of a card; over when the robot has said what comes of it."""
        card, message = self._room.original(message_id), self._room.board.get(message_id)
        if not isinstance(card, Card) or message is None or action not in ACTIONS:
            raise Refused("没有这张卡片，或者没有这个按钮。", 404)
        _, person, gateway = self._room.place(message.chat, person_id)
        try:
            press = await gateway.press(card, action, user=person.user)
        except LookupError:
            raise Refused("这个人看不到这张卡片。") from None
        if not press.ok:
            raise Refused(f"按钮没有得到回应，和钉钉里一样：请稍后再按。（{press.error}）")

    async def tap(self, message_id: str, title: str, person_id: str) -> tuple[str, Sent]:
        """A person taps a quick reply of an action card, which says it in their name."""
        post, message = self._room.original(message_id), self._room.board.get(message_id)
        if not isinstance(post, Post) or message is None:
            raise Refused("没有这条消息。", 404)
        says = next((one.says for one in post.buttons if one.title == title and one.says is not None), None)
        if says is None:
            raise Refused("这条消息没有这个按钮。", 404)
        chat, person, gateway = self._room.place(message.chat, person_id)
        said = bubbles.spoken(chat, person, says)
        return await self._room.push(gateway, chat, person, said, lambda how: gateway.tap(post, title, **how))

    def _message(self, message_id: str, chat_id: str) -> Message:
        message = self._room.board.get(message_id)
        if message is None or message.chat != chat_id:
            raise Refused("没有这条消息。", 404)
        return message
