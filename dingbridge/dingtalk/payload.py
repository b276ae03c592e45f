"""DingTalk's bot callback, read into a Message. Tolerant: unknown keys are ignored, odd types lose only themselves.

Shapes: topic `/v1.0/im/bot/messages/get` of DingTalk's Stream mode, documented under open-dingtalk/developerpedia
`docs/learn/bot`; `senderStaffId` is missing for people of other organisations and before the robot is published.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from yarl import URL

from dingbridge.dingtalk.quotes import quoted_in, words_in
from dingbridge.errors import PayloadError
from dingbridge.model import Conversation, ConversationKind, File, Message, MessageKind, Person, Secret

MAX_TEXT = 200_000
MAX_FILES = 9
MAX_CODE = 4_096
MAX_NAME = 200
ID_BYTES = 512  # DingTalk's have about fifty; what PostgreSQL cannot index would look like a store that fails
# Until DingTalk says otherwise: the moment a message was sent must be a moment, and plausible.
_EARLIEST_MS = 1_400_000_000_000
_LATEST_MS = 4_100_000_000_000


def parse(
    data: dict[str, Any], *, robot: str, frame_id: str, webhook_allowed: Callable[[str], bool], now: float
) -> Message:
    """The message in a callback's data; PayloadError where nobody could be answered.

    robot: our client id. frame_id: stands in where `msgId` is missing.
    webhook_allowed: False for a session webhook on a foreign origin, which is then left out.
    now: our clock, in seconds since the epoch.
    """
    message_id = _text(data, "msgId") or frame_id
    conversation_id = _text(data, "conversationId")
    person = _person(data)
    if not message_id or not conversation_id or not person.id:
        raise PayloadError("a bot message without msgId, conversationId or sender")
    if any(len(one.encode()) > ID_BYTES for one in (message_id, conversation_id, person.id)):
        raise PayloadError(f"a bot message whose msgId, conversationId or sender has more than {ID_BYTES} bytes")
    kind, text = _content(data)
    webhook = _text(data, "sessionWebhook")
    group = data.get("conversationType") in ("2", 2)
    return Message(
        id=message_id,
        robot=robot,
        conversation=Conversation(
            conversation_id,
            ConversationKind.GROUP if group else ConversationKind.SINGLE,
            _text(data, "conversationTitle"),
        ),
        sender=person,
        kind=kind,
        text=text[:MAX_TEXT].strip(),
        sent_at=_moment(data.get("createAt")) or datetime.now(UTC),
        webhook=Secret(webhook if webhook and webhook_allowed(webhook) else ""),
        webhook_expires=_expiry(data, now),
        frame=frame_id,
        quoted=_quoted(data, kind),
        files=_files(data.get("content"), kind),
    )


def _expiry(data: dict[str, Any], now: float) -> datetime | None:
    """When the session webhook ends, by our clock: DingTalk gives both times by its own, and ours may be wrong."""
    expires, created = _moment(data.get("sessionWebhookExpiredTime")), _moment(data.get("createAt"))
    if expires is None or created is None or expires <= created:
        return expires
    return datetime.fromtimestamp(now, UTC) + (expires - created)


def _person(data: dict[str, Any]) -> Person:
    staff_id = _text(data, "senderStaffId")
    return Person(id=staff_id or _text(data, "senderId"), staff_id=staff_id, nick=_text(data, "senderNick"))


def _content(data: dict[str, Any]) -> tuple[MessageKind, str]:
    content = data.get("content")
    if "errorCode" in data and data.get("text") is None and content is None:
        return MessageKind.QUOTA, ""
    match _kind(data):
        case MessageKind.TEXT as kind:
            return kind, _inner(data.get("text"), "content")
        case MessageKind.AUDIO as kind:
            return kind, _inner(content, "recognition")
        case MessageKind.RICH_TEXT as kind:
            return kind, "".join(_text(part, "text") for part in _parts(content) if part.get("type") != "at")
        case MessageKind.MARKDOWN as kind:
            return kind, words_in(content) or words_in(data.get("markdown"))
        case kind:
            return kind, ""


def _quoted(data: dict[str, Any], kind: MessageKind) -> str:
    """What it replies to; of something forwarded, what that says."""
    forwarded = kind in (MessageKind.CARD, MessageKind.CHAT_RECORD)
    return quoted_in(data) or (words_in(data.get("content")) if forwarded else "")


def _files(content: Any, kind: MessageKind) -> tuple[File, ...]:
    """What can be fetched and read: pictures and documents, not video or voice."""
    match kind:
        case MessageKind.PICTURE | MessageKind.FILE:
            found = [_file(content, kind)] if isinstance(content, dict) else []
        case MessageKind.RICH_TEXT:
            pictures = (part for part in _parts(content) if part.get("type") in (None, "picture"))
            found = [_file(part, MessageKind.PICTURE) for part in pictures]
        case _:
            return ()
    return tuple(file for file in found if file.code)[:MAX_FILES]


def _file(part: dict[str, Any], kind: MessageKind) -> File:
    """DingTalk answers 500 to a `pictureDownloadCode`, so that is the last resort."""
    code = _text(part, "downloadCode") or _text(part, "pictureDownloadCode")
    return File(kind, code if len(code) <= MAX_CODE else "", _text(part, "fileName")[:MAX_NAME])


def _kind(data: dict[str, Any]) -> MessageKind:
    try:
        kind = MessageKind(_text(data, "msgtype"))
    except ValueError:
        return MessageKind.UNKNOWN
    # Our own name for a notice that has no msgtype; nobody can send one.
    return MessageKind.UNKNOWN if kind is MessageKind.QUOTA else kind


def _inner(part: Any, key: str) -> str:
    return _text(part, key) if isinstance(part, dict) else ""


def _parts(content: Any) -> list[dict[str, Any]]:
    parts = content.get("richText") if isinstance(content, dict) else None
    return [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []


def _text(data: dict[str, Any], key: str) -> str:
    value = data.get(key)
    # A lone surrogate is legal in JSON and cannot be stored as UTF-8.
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else ""


def _moment(value: Any) -> datetime | None:
    """Epoch milliseconds, as a number or as text."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    if isinstance(value, int | float) and _EARLIEST_MS < value < _LATEST_MS:
        return datetime.fromtimestamp(value / 1000, UTC)
    return None


def host_of(url: str) -> str:
    """For the log; an address that cannot be read has none."""
    try:
        return URL(url).host or ""
    except ValueError:
        return ""
