"""What users of the stand-in gateway send besides text, in the shapes of DingTalk's documentation and of captures."""

from __future__ import annotations

import secrets
from typing import Any, Final

from dingbridge.sim.gateway_card_records import Card
from dingbridge.sim.gateway_emotions import EmotionSide
from dingbridge.sim.gateway_quotes import quoting
from dingbridge.sim.gateway_records import ROBOT_ID, Post, Sent

UNKNOWN: Final = "用户发送了一条消息，机器人暂不支持接收。"


class UserSide(EmotionSide):
    """`how` is what `say` takes: user, nick, conversation, group, to, overrides. Groups have text and pictures only."""

    async def send_picture(self, content: bytes, content_type: str = "image/png", **how: Any) -> Sent:
        return await self.say(
            None, payload={"msgtype": "picture", "content": self._picture(content, content_type)}, **how
        )

    async def send_file(
        self, content: bytes, name: str, content_type: str = "application/octet-stream", **how: Any
    ) -> Sent:
        ids = {"spaceId": "223", "fileId": secrets.token_hex(4)}
        code = self.add_file(content, content_type, name)
        return await self._alone("file", ids | {"fileName": name, "downloadCode": code}, how)

    async def send_audio(self, recognition: str | None, content: bytes = b"", **how: Any) -> Sent:
        """`recognition` is what was understood; None leaves it out."""
        heard = {} if recognition is None else {"recognition": recognition}
        code = self.add_file(content, "audio/amr", "voice.amr")
        return await self._alone("audio", {"downloadCode": code} | heard, how)

    async def send_video(self, content: bytes, *, duration_s: int = 5, **how: Any) -> Sent:
        code = self.add_file(content, "video/mp4", "video.mp4")
        return await self._alone("video", {"duration": str(duration_s), "videoType": "mp4", "downloadCode": code}, how)

    async def send_rich(self, *parts: str | bytes | dict[str, Any], **how: Any) -> Sent:
        """Text, pictures (bytes) and any other part as it stands, in this order."""
        rich = [self._part(part) for part in parts]
        return await self.say(None, payload={"msgtype": "richText", "content": {"richText": rich}}, **how)

    async def send_unknown(
        self, msgtype: str = "unknownMsgType", content: dict[str, Any] | None = None, **how: Any
    ) -> Sent:
        """A kind that robots do not get, or any other with any content."""
        payload = {"msgtype": msgtype, "content": {"unknownMsgType": UNKNOWN} if content is None else content}
        return await self.say(None, payload=payload, **how)

    async def send_quote(
        self, text: str, quoted: str | Sent | Post | Card, shape: str = "text", *, content: bytes = b"", **how: Any
    ) -> Sent:
        """Text about a message: anybody's by its text, or a user's, a robot's, a card; `shape` as in `SHAPES`.

        `content` is what a quoted picture or file holds; its name is the quoted text.
        """
        msg_id, key = f"msg{secrets.token_urlsafe(16)}==", ""
        words, sender = quoted if isinstance(quoted, str) else "", "$:LWCP_v1:$other000000000000000000000"
        if isinstance(quoted, Sent):
            msg_id, words, sender = quoted.msg_id, quoted.text, str(quoted.data.get("senderId", ""))
        elif isinstance(quoted, Post):
            key, words, sender = quoted.key or secrets.token_urlsafe(24), quoted.text, ROBOT_ID
        elif isinstance(quoted, Card):
            key = next((space.carrier_id for space in quoted.spaces if space.delivered), "")
            words, sender = quoted.view().get("content", ""), ROBOT_ID
        code = self.add_file(content, name=words) if shape in {"picture", "file"} else ""
        payload = quoting(shape, text, words, msg_id=msg_id, sender=sender, key=key, code=code, name=words)
        return await self.say(text, payload=payload, **how)

    async def tap(self, post: Post, title: str, *, user: str = "", **how: Any) -> Sent:
        """A person taps a button of an action card that says something; LookupError when there is none."""
        says = next((button.says for button in post.buttons if button.title == title and button.says is not None), None)
        if says is None:
            raise LookupError(f"no button {title!r} says anything")
        group = any(
            sent.conversation == post.conversation and sent.data.get("conversationType") == "2"
            for sent in self.sent
            if isinstance(sent.data, dict)
        )
        where: dict[str, Any] = {"conversation": post.conversation, "group": group}
        return await self.say(says, user=user or post.user or "042", **where | how)

    async def _alone(self, msgtype: str, content: dict[str, Any], how: dict[str, Any]) -> Sent:
        if how.get("group"):
            raise ValueError(f"nobody can send {msgtype} to a robot in a group")
        return await self.say(None, payload={"msgtype": msgtype, "content": content}, **how)

    def _part(self, part: str | bytes | dict[str, Any]) -> dict[str, Any]:
        if isinstance(part, bytes):
            return {"type": "picture"} | self._picture(part, "image/png")
        return {"text": part} if isinstance(part, str) else part

    def _picture(self, content: bytes, content_type: str) -> dict[str, str]:
        return {"pictureDownloadCode": self.add_preview(), "downloadCode": self.add_file(content, content_type)}
