"""Messages that quote another one, in each shape that was seen. DingTalk documents none; they differ by client."""

from __future__ import annotations

import json
import time
from typing import Any, Final

SHAPES: Final = (
    "text",
    "content",
    "string",
    "parts",
    "rich",
    "bare",
    "card",
    "card_tree",
    "picture",
    "file",
)
"""text, content: the key of the quoted text; string: the content is JSON in a string; parts: rich text is quoted;
rich: the message itself is rich text; bare: an id alone; card, card_tree: a card, without and with its text;
picture, file: with a download code."""


def quoting(
    shape: str, text: str, quoted: str, *, msg_id: str, sender: str, key: str = "", code: str = "", name: str = ""
) -> dict[str, Any]:
    """The payload of a message that says `text` about `quoted`. `key` is set when it quotes a robot's message."""
    ids = {"originalMsgId": msg_id} | ({"originalProcessQueryKey": key} if key else {})
    if shape == "bare":
        return {"msgtype": "text", "text": {"content": text, "isReplyMsg": True}} | ids
    kind, content = _content(shape, quoted, code, name)
    replied: dict[str, Any] = {"msgType": kind, "msgId": msg_id, "senderId": sender}
    replied["createdAt"] = int(time.time() * 1000) - 60_000
    if content is not None:
        replied["content"] = content
    about = {"isReplyMsg": True, "repliedMsg": replied}
    if shape == "rich":
        return {"msgtype": "richText", "content": {"richText": [{"text": text}]} | about} | ids
    return {"msgtype": "text", "text": {"content": text} | about} | ids


def _content(shape: str, quoted: str, code: str, name: str) -> tuple[str, Any]:
    """Kind and content of the message that is quoted."""
    shapes: dict[str, tuple[str, Any]] = {
        "text": ("text", {"text": quoted}),
        "content": ("text", {"content": quoted}),
        "string": ("text", json.dumps({"text": quoted}, ensure_ascii=False)),
        "parts": ("richText", {"richText": _halves(quoted)}),
        "rich": ("text", {"text": quoted}),
        "card": ("interactiveCard", None),
        "card_tree": ("interactiveCard", {"cardContent": {"children": [{"type": "markdown", "text": quoted}]}}),
        "picture": ("picture", {"downloadCode": code}),
        "file": ("file", {"downloadCode": code, "fileName": name}),
    }
    if shape not in shapes:
        raise ValueError(f"no such shape: {shape!r}; there are {', '.join(SHAPES)}")
    return shapes[shape]


def _halves(text: str) -> list[dict[str, str]]:
    """Two parts, each written its own way."""
    middle = len(text) // 2
    return [{"type": "text", "text": text[:middle]}, {"msgType": "text", "content": text[middle:]}]
