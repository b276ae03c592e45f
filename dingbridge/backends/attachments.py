"""Attachments as AnythingLLM takes them, and what can be known of their use.

Recorded and read in its source (1.9.1 to 1.16): pictures go to the model as they are. Documents are parsed by its
collector under the name that was sent, put wholly into the context, and listed among the sources with
`isDirectUpload`. What the collector cannot read, or a collector that is down, drops them without any error.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from dingbridge.model import Attachment

_DOCUMENT = "application/anythingllm-document"
_IN_LOOP_BYTES = 256_000  # encoding more would hold up the loop


@dataclass(frozen=True, slots=True)
class Enclosed:
    """A request's body, encoded where that takes long. documents: the names sent, and what they are really called."""

    body: dict[str, Any] | bytes
    documents: Mapping[str, str] = field(default_factory=dict)

    def unread(self, sources: Iterable[Any]) -> tuple[str, ...]:
        """The documents that no source comes from."""
        direct = [one for one in sources if isinstance(one, Mapping) and one.get("isDirectUpload") is True]
        if len(direct) >= len(self.documents):
            return ()
        told = "\n".join(str(one.get("title")) for one in direct)
        return tuple(name for sent, name in self.documents.items() if sent not in told)

    def named(self, sources: Iterable[Any]) -> list[Any]:
        """The sources, with documents called what the asker calls them."""
        return [
            {**one, "title": self.documents[str(one.get("title"))]}
            if isinstance(one, Mapping) and one.get("title") in self.documents
            else one
            for one in sources
        ]


def mode_for(mode: str, attachments: Sequence[Attachment]) -> str:
    """Query mode refuses where the search finds nothing, whatever a picture shows: that is asked about in chat mode.

    A document counts as found: it keeps the mode, and with it the refusal where it was dropped.
    """
    return "chat" if mode == "query" and any(map(_is_picture, attachments)) else mode


async def enclose(fields: dict[str, Any], attachments: Sequence[Attachment]) -> Enclosed:
    """The body for a question's fields, among them `sessionId`."""
    if sum(len(one.content) for one in attachments) > _IN_LOOP_BYTES:
        return await asyncio.to_thread(_enclosed, fields, attachments)
    return _enclosed(fields, attachments)


def _enclosed(fields: dict[str, Any], attachments: Sequence[Attachment]) -> Enclosed:
    if not attachments:
        return Enclosed(fields)
    sent = [_sent_name(one, str(fields["sessionId"])) for one in attachments]
    entries = [_entry(one, name) for one, name in zip(attachments, sent, strict=True)]
    documents = {name: one.name for one, name in zip(attachments, sent, strict=True) if not _is_picture(one)}
    return Enclosed(json.dumps({**fields, "attachments": entries}).encode(), documents)


def _entry(attachment: Attachment, name: str) -> dict[str, str]:
    content = base64.b64encode(attachment.content).decode()
    return {
        "name": name,
        "mime": attachment.mime if _is_picture(attachment) else _DOCUMENT,
        "contentString": f"data:{attachment.mime};base64,{content}",
    }


def _sent_name(attachment: Attachment, session: str) -> str:
    """AnythingLLM keeps all attachments in one folder while it reads them: two people's 报销单.xlsx must not meet."""
    if _is_picture(attachment):
        return attachment.name
    mark = hashlib.sha256(session.encode() + b"\0" + attachment.content).hexdigest()[:12]
    path = PurePath(attachment.name)
    return f"{path.stem}-{mark}{path.suffix}"


def _is_picture(attachment: Attachment) -> bool:
    return attachment.mime.startswith("image/")
