"""The words of a quoted or forwarded message, whose shape is documented nowhere and differs from client to client.

Seen in the field: `repliedMsg` in `text` or, for richText, in `content`; its `content` with `text` or `content`, a
list of parts as `{type, text}` or `{msgType, content}`, JSON in a string, a card's tree, or nothing but an id.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

MAX_CHARS = 2_000
MAX_NODES = 200
_MAX_JSON = 64_000  # characters of JSON in a string that are worth reading

_WORDS = ("text", "content", "title", "markdown", "summary")
_INLINE = ("richText", "content")  # lists of parts that make one text
_BODY = ("content", "text", "richText", "markdown", "cardContent")
_NO_WORDS = ("at", "picture")


def quoted_in(data: dict[str, Any]) -> str:
    """What a message replies to, in words; "" where DingTalk does not tell, or not in a way that is understood."""
    for holder in (_opened(data.get("text")), _opened(data.get("content"))):
        if not isinstance(holder, dict) or holder.get("isReplyMsg") is False:
            continue
        replied = _opened(holder.get("repliedMsg"))
        if isinstance(replied, dict):
            return words_in({key: replied[key] for key in _BODY if key in replied})
    return ""


def words_in(value: Any) -> str:
    """All that a person would read in a tree of unknown shape, in its order; at most 2,000 characters of 200 nodes."""
    said, size, before = "", 0, False
    for words, inline in _walk(value):
        size += len(words)
        said += words if not said or (inline and before) else f"\n{words}"
        before = inline
        if size > MAX_CHARS:
            break
    return said[:MAX_CHARS].encode("utf-8", "replace").decode("utf-8").strip()


def _walk(value: Any) -> Iterator[tuple[str, bool]]:
    """Texts, and whether each is a piece of a line; depth first, without recursion."""
    waiting: list[tuple[str, Any, bool]] = [("content", value, False)]
    for _ in range(MAX_NODES):
        if not waiting:
            return
        key, node, inline = waiting.pop()
        match _opened(node):
            case str(words) if key in _WORDS and words.strip():
                yield words[: MAX_CHARS + 1], inline
            case dict(fields) if not _is_wordless(fields):
                inner = [(name, one, inline) for name, one in _first(fields.items()) if name != "repliedMsg"]
                waiting += reversed(inner)
            case list(parts):
                waiting += reversed([(_of_part(key), one, inline or key in _INLINE) for one in _first(parts)])


def _first(of: Any) -> list[Any]:
    return [one for _, one in zip(range(MAX_NODES), of, strict=False)]


def _of_part(key: str) -> str:
    """A bare text in a list of parts counts as words."""
    return "text" if key in _INLINE else key


def _is_wordless(fields: dict[str, Any]) -> bool:
    return any(fields.get(key) in _NO_WORDS for key in ("type", "msgType", "msgtype"))


def _opened(value: Any) -> Any:
    """What stands as JSON in a string, if something with parts does; else the value itself."""
    if not isinstance(value, str) or not value[:20].lstrip().startswith(("{", "[")) or len(value) > _MAX_JSON:
        return value
    try:
        inner = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return inner if isinstance(inner, dict | list) else value
