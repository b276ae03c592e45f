"""What the stand-in gateway remembers, and the frames and messages it builds. Times are monotonic seconds."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
import uuid
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs

BOT_TOPIC: Final = "/v1.0/im/bot/messages/get"
CARD_TOPIC: Final = "/v1.0/card/instances/callback"
ROBOT_ID: Final = "$:LWCP_v1:$robot0000000000000000000000"
OVER_QUOTA: Final = {"errorCode": "20001", "errorMessage": "受调用量超量影响，当前我的消息服务已经暂停。"}
MISSING: Final = object()
"""As the value of an override: the key is left out of the message."""


@dataclass(frozen=True, slots=True)
class Open:
    """One call for a ticket; `outcome` is "ticket", a fault's name or the HTTP status of the refusal."""

    at: float
    body: Any
    headers: dict[str, str]
    outcome: str


@dataclass(slots=True, eq=False)
class Push:
    """One frame on one connection."""

    at: float
    connection_id: str
    frame: dict[str, Any]
    sent: Sent | None = field(default=None, repr=False)
    ack: Ack | None = field(default=None, repr=False)

    @property
    def message_id(self) -> str:
        return str(self.frame.get("headers", {}).get("messageId", ""))


@dataclass(frozen=True, slots=True, eq=False)
class Ack:
    """One answer to a frame; `push` is None when no frame had this messageId, `data` is what the client sent."""

    at: float
    connection_id: str
    message_id: str
    code: Any
    message: Any
    data: Any
    push: Push | None

    @property
    def latency_s(self) -> float | None:
        return None if self.push is None else self.at - self.push.at


@dataclass(slots=True, eq=False)
class Sent:
    """One thing to push, with each of its deliveries: `data` is the parsed message, a str is sent as it is."""

    at: float
    type: str
    topic: str
    data: Any
    text: str = ""
    msg_id: str = ""
    user: str = ""
    conversation: str = ""
    session: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    pushes: list[Push] = field(default_factory=list)
    lost: bool = False
    acknowledged: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    @property
    def deliveries(self) -> int:
        return len(self.pushes)

    @property
    def acks(self) -> list[Ack]:
        return [push.ack for push in self.pushes if push.ack is not None]


@dataclass(frozen=True, slots=True)
class Button:
    """A button of an action card; `says` is what a tap makes the user say, None for an ordinary link."""

    title: str
    url: str

    @property
    def says(self) -> str | None:
        return dtmd(self.url)


@dataclass(frozen=True, slots=True)
class Post:
    """One message a user sees. `path` is webhook, oto, group or custom.

    Only the first has a `session`, only oto and group a `key` (processQueryKey).
    """

    at: float
    path: str
    conversation: str
    user: str
    session: str
    body: dict[str, Any]
    number: int = 0
    key: str = ""

    @property
    def kind(self) -> str:
        """The msgtype or the msgKey."""
        return str(self.body["msgtype" if self._at_webhook else "msgKey"])

    @property
    def text(self) -> str:
        """Text content or markdown text, whatever the path; empty for other kinds."""
        return str(self._part.get("content") or self._part.get("text") or "")

    @property
    def title(self) -> str:
        return str(self._part.get("title") or "")

    @property
    def buttons(self) -> list[Button]:
        """Those of an action card, in order."""
        part, pairs = self._part, []
        if isinstance(btns := part.get("btns"), list):
            pairs = [(btn.get("title"), btn.get("actionURL")) for btn in btns if isinstance(btn, dict)]
        elif "singleTitle" in part:
            pairs = [(part["singleTitle"], part.get("singleURL"))]
        elif self.kind.startswith("sampleActionCard"):
            names = [("actionTitle", "actionURL"), ("buttonTitle", "buttonUrl")]
            pairs = [
                (part[f"{title}{number}"], part.get(f"{url}{number}"))
                for title, url in names
                for number in range(1, 6)
                if f"{title}{number}" in part
            ]
        return [Button(str(title or ""), str(url or "")) for title, url in pairs]

    @property
    def _at_webhook(self) -> bool:
        return self.path in {"webhook", "custom"}

    @property
    def _part(self) -> dict[str, Any]:
        part = self.body[self.kind] if self._at_webhook else json.loads(self.body["msgParam"])
        return part if isinstance(part, dict) else {}


def dtmd(url: str) -> str | None:
    """What a quick-reply link makes the user say; None for other links. The host is lower case, or nothing happens."""
    scheme, _, rest = url.partition("://")
    path, _, query = rest.partition("?")
    if (scheme, path) != ("dtmd", "dingtalkclient/sendMessage"):
        return None
    return next(iter(parse_qs(query).get("content", [])), None)


def over_quota(data: dict[str, Any]) -> dict[str, Any]:
    """What arrives of a message once the organisation's quota is used up: a notice without kind or content."""
    return {key: part for key, part in data.items() if key not in {"msgtype", "text", "content"}} | OVER_QUOTA


def frame_kind(frame: dict[str, Any]) -> str:
    """What is billed for a frame: message, card_callback, callback or event; nothing for SYSTEM."""
    kind, topic = frame.get("type"), frame.get("headers", {}).get("topic")
    if kind == "CALLBACK":
        return {BOT_TOPIC: "message", CARD_TOPIC: "card_callback"}.get(topic, "callback")
    return "event" if kind == "EVENT" else ""


def build_frame(
    kind: str,
    topic: str,
    data: Any,
    *,
    connection_id: str = "",
    message_id: str | None = None,
    headers: dict[str, str] | None = None,
) -> dict[str, Any]:
    """A frame as the gateway writes it: `time` a decimal string, `data` a string; `message_id` "" leaves it out."""
    now = int(time.time() * 1000)
    if message_id is None:
        message_id = f"{secrets.token_hex(4)}_{secrets.token_hex(2)}_{now:x}_{secrets.randbits(25):x}"
    head: dict[str, str] = {"contentType": "application/json", "time": str(now), "topic": topic}
    if message_id:
        head["messageId"] = message_id
    if kind != "SYSTEM":  # captures show these two on business frames only
        head |= {"appId": "765ed67b-b170-4f8e-9c53-0a6f3e1d2c4b", "connectionId": connection_id}
    body = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return {"specVersion": "1.0", "type": kind, "headers": head | (headers or {}), "data": body}


def build_message(
    *, robot: str, user: str, nick: str, conversation: str, group: bool, msg_id: str, webhook: str, ttl_s: float
) -> dict[str, Any]:
    """Everything of a bot message but its kind and content, with the keys real captures have."""
    now = int(time.time() * 1000)
    message: dict[str, Any] = {
        "conversationId": conversation,
        "conversationType": "2" if group else "1",
        "openThreadId": conversation,
        "senderPlatform": "Win",
        "chatbotCorpId": "ding9f50b15bccd16741",
        "chatbotUserId": ROBOT_ID,
        "robotCode": robot,
        "msgId": msg_id or f"msg{secrets.token_urlsafe(16)}==",
        "createAt": now,
        "senderNick": nick,
        "senderId": f"$:LWCP_v1:${uuid.uuid5(uuid.NAMESPACE_OID, user).hex}",
        "senderStaffId": user,
        "senderCorpId": "ding9f50b15bccd16741",
        "isAdmin": False,
        "sessionWebhook": webhook,
        "sessionWebhookExpiredTime": now + int(ttl_s * 1000),
    }
    if group:
        message |= {
            "conversationTitle": "测试群",
            "isInAtList": True,
            "atUsers": [{"dingtalkId": message["chatbotUserId"]}],
        }
    return message
