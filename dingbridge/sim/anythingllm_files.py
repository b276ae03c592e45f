"""What the stand-in for AnythingLLM does with attachments: pictures are "seen", documents become context.

As version 1.16 was recorded and read: whatever has another mime than a document's goes to the model as a picture,
broken ones too; a document that the collector has parsed is listed first among the sources, another one is dropped.
"""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from dingbridge.sim.anythingllm_rows import JSON, local_time

_DOCUMENT = "application/anythingllm-document"
_READ_CHARS = 1_000
_SAID_CHARS = 120


@dataclass(frozen=True, slots=True)
class Attached:
    """One attachment as it arrived. text: of a document, as far as the stand-in can read it."""

    name: str
    mime: str
    size: int
    is_document: bool
    text: str = ""


def attached(entries: object) -> tuple[Attached, ...]:
    """Anything but a list is none; an entry of any shape counts."""
    return tuple(_attached(entry) for entry in entries) if isinstance(entries, list) else ()


def _attached(entry: object) -> Attached:
    fields = entry if isinstance(entry, dict) else {}
    declared, content = str(fields.get("mime") or ""), str(fields.get("contentString") or "")
    head, _, encoded = content.partition(";base64,")
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    name, mime = str(fields.get("name") or ""), head.removeprefix("data:")
    is_document = bool(content) and declared.lower() == _DOCUMENT
    return Attached(name, mime or declared, len(data), is_document, _text(name, mime, data) if is_document else "")


def _text(name: str, mime: str, data: bytes) -> str:
    """A text is read; of what needs a real parser only name and size are known."""
    if mime.startswith("text/") or mime == "application/json":
        return data.decode("utf-8", "replace")
    return f"{name}（{len(data)} 字节）" if data else ""


def parsed(files: Sequence[Attached], *, collector_down: bool) -> tuple[Attached, ...]:
    """The documents that reach the context."""
    return () if collector_down else tuple(one for one in files if one.is_document and one.text.strip())


def source_of(file: Attached, now: datetime) -> JSON:
    """A document among the sources, key by key as it was recorded."""
    key = str(uuid.uuid4())
    return {
        "text": file.text[:_READ_CHARS] + "...continued on in source document...",
        "id": key,
        "url": f"file:///app/collector/hotdir/{file.name}",
        "title": file.name,
        "docAuthor": "Unknown",
        "description": "Unknown",
        "docSource": "a text file uploaded by the user.",
        "chunkSource": "",
        "published": local_time(now),
        "wordCount": len(file.text.split()),
        "token_count_estimate": len(file.text),
        "location": f"direct-uploads/.txt-{key}.json",
        "isDirectUpload": True,
    }


def said_of(files: Sequence[Attached], documents: Sequence[Attached]) -> str:
    """What a model that looks at them would begin with."""
    seen = [f"图片“{one.name}”（{one.mime}，{one.size} 字节）我看到了。" for one in files if not one.is_document]
    seen += [f"文件“{one.name}”里写着：{' '.join(one.text[:_SAID_CHARS].split())}" for one in documents]
    return "\n".join(seen)
