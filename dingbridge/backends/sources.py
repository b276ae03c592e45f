"""AnythingLLM's list of retrieved chunks, turned into the documents a person can be shown."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from dingbridge.backends.sse import whole_characters
from dingbridge.model import Source

UNTITLED = "未命名文档"
_GAP = "\n…\n"
_HEADER = re.compile(r"\A\s*<document_metadata>.*?</document_metadata>\s*", re.DOTALL)
_PATH = re.compile(r"^(?:file:|[/\\~]|\.{1,2}[/\\]|[A-Za-z]:[/\\])")
_LINK = re.compile(r"^(?:link|youtube)://(https?://\S+)$", re.IGNORECASE)
# These carry the page's address and, behind it, the loader's encrypted credentials.
_LOADED = re.compile(
    r"^(?:confluence|github|gitlab|gitea|drupalwiki|paperless-ngx)://(https?://\S+?)(?:[?&]payload=\S*)?$",
    re.IGNORECASE,
)
_MAX_LINK = 4_000
_NO_DESCRIPTION = ("", "unknown", "no description found.", "no description", "none", "null")


def group_sources(chunks: Iterable[Any]) -> tuple[Source, ...]:
    """Documents, best first, from chunks as they stand in an event's `sources`.

    One source a chunk arrives; chunks of one document (same title and link, or same url and date where the title
    is missing) are joined, best first. Of the addresses only `chunkSource` is used: `url` names server paths.
    """
    ranked = sorted((chunk for chunk in chunks if isinstance(chunk, Mapping)), key=_distance)
    documents: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for chunk in ranked:
        documents.setdefault(_identity(chunk), []).append(chunk)
    return tuple(_document(parts) for parts in documents.values())


def _document(parts: list[Mapping[str, Any]]) -> Source:
    best = parts[0]
    texts = dict.fromkeys(filter(None, map(_passage, parts)))
    return Source(title=_title(best) or _description(best) or UNTITLED, text=_GAP.join(texts), url=_link(best))


def _distance(chunk: Mapping[str, Any]) -> float:
    """Smaller is better. Pinned documents have no measure; the server puts them first and so do we.

    `_distance` wins over `score`: LanceDB's score of 1 also stands for a distance of 1 and more, the worst match.
    """
    distance, score = _number(chunk.get("_distance")), _number(chunk.get("score"))
    if distance is not None:
        return distance
    return 1 - score if score is not None else -math.inf


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e9 else None


def _identity(chunk: Mapping[str, Any]) -> tuple[str, ...]:
    title = _title(chunk)
    return (title, _link(chunk)) if title else ("", _text(chunk, "url"), _text(chunk, "published"))


def _title(chunk: Mapping[str, Any]) -> str:
    """Empty also for a bare ".txt": what AnythingLLM makes of a Chinese title that came with a raw text."""
    title = " ".join(_text(chunk, "title").split())
    if _PATH.match(title):
        title = re.split(r"[/\\]", title.rstrip("/\\"))[-1]
    return "" if title.lower() == ".txt" else title


def _description(chunk: Mapping[str, Any]) -> str:
    description = " ".join(_text(chunk, "description").split())
    return "" if description.lower() in _NO_DESCRIPTION else description[:80]


def _passage(chunk: Mapping[str, Any]) -> str:
    return _HEADER.sub("", _text(chunk, "text")).strip()


def _link(chunk: Mapping[str, Any]) -> str:
    where = _text(chunk, "chunkSource").strip()
    if len(where) > _MAX_LINK:
        return ""
    match = _LINK.match(where) or _LOADED.match(where)
    return match.group(1) if match and _can_be_opened(match.group(1)) else ""


def _can_be_opened(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and "@" not in parts.netloc and url.isprintable() and (parts.port or 1) > 0
    except ValueError:
        return False


def _text(chunk: Mapping[str, Any], key: str) -> str:
    value = chunk.get(key)
    return whole_characters(value) if isinstance(value, str) else ""
