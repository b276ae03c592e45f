"""The rows AnythingLLM's API lists: workspaces, documents, sources, search results and stored chats."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dingbridge.sim.retrieval import Document, Hit

JSON = dict[str, Any]

OVERRIDDEN_SOURCE: JSON = {
    "id": "00000000-0000-4000-8000-000000000001",
    "url": "file:///app/collector/hotdir/示例文档.md",
    "title": "示例文档.md",
    "docAuthor": "Unknown",
    "description": "Unknown",
    "docSource": "a text file uploaded by the user.",
    "chunkSource": "",
    "published": "1/1/2026, 9:00:00 AM",
    "wordCount": 2,
    "token_count_estimate": 6,
    "text": "<document_metadata>\nsourceDocument: 示例文档.md\n</document_metadata>\n\n示例文档的一段。",
    "_distance": 0.25,
    "score": 0.75,
}
"""The one source of an answer that was not looked up."""

_PROMPT = (
    "Given the following conversation, relevant context, and a follow up question, reply with an answer to "
    "the current question the user is asking."
)
_NAMES_IN_SEARCH = {"docAuthor": "author", "token_count_estimate": "tokenCount"}


@dataclass(frozen=True, slots=True)
class Workspace:
    """A workspace; `documents` is a folder of Markdown files, None for a workspace without any.

    detailed: it quotes the best sections whole instead of the lines that answer.
    """

    name: str
    documents: Path | None
    refusal: str = "知识库中没有找到相关内容。"
    chat_mode: str = "query"
    top_n: int = 4
    detailed: bool = False


@dataclass(slots=True)
class Exchange:
    """A question and its answer in a history; `included` False: not shown to the model any more."""

    chat_id: int
    mode: str
    prompt: str
    text: str
    sources: Sequence[JSON]
    metrics: JSON
    sent_at: int
    included: bool = True


def instant(moment: datetime) -> str:
    """2026-11-22T07:25:09.420Z, as JavaScript writes it."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def workspace_row(number: int, slug: str, workspace: Workspace, started: datetime) -> JSON:
    """One workspace as /workspaces lists it, without its threads."""
    return {
        "id": number,
        "name": workspace.name,
        "slug": slug,
        "vectorTag": None,
        "createdAt": instant(started),
        "openAiTemp": None,
        "openAiHistory": 20,
        "lastUpdatedAt": instant(started),
        "openAiPrompt": _PROMPT,
        "similarityThreshold": 0.25,
        "chatProvider": None,
        "chatModel": None,
        "topN": workspace.top_n,
        "chatMode": workspace.chat_mode,
        "pfpFilename": None,
        "agentProvider": None,
        "agentModel": None,
        "queryRefusalResponse": workspace.refusal,
        "vectorSearchMode": "default",
        "router_id": None,
    }


def document_row(number: int, workspace: int, document: Document, started: datetime) -> JSON:
    """One embedded document of a workspace; its metadata is JSON in a string."""
    key = _identity(document.title)
    name = f"{document.name}-{key}.json"
    return {
        "id": number,
        "docId": _identity(document.name),
        "filename": name,
        "docpath": f"custom-documents/{name}",
        "workspaceId": workspace,
        "metadata": json.dumps({"id": key, **_facts(document, started)}, ensure_ascii=False, separators=(",", ":")),
        "pinned": False,
        "watched": False,
        "createdAt": instant(started),
        "lastUpdatedAt": instant(started),
    }


def source(hit: Hit, best: Hit, started: datetime) -> JSON:
    """A citation. The score falls with rank and coverage and stays where an embedder would put it."""
    document, section = hit.section.document, hit.section
    score = round(0.25 + 0.6 * hit.coverage * hit.rank / best.rank, 4)
    facts = _facts(document, started)
    link = f"source: {document.link}\n" if document.link else ""
    header = f"sourceDocument: {document.title}\npublished: {facts['published']}\n{link}"
    return {
        "id": _identity(f"{document.title}#{section.heading}"),
        **facts,
        "text": f"<document_metadata>\n{header}</document_metadata>\n\n{section.text}",
        "_distance": round(1 - score, 4),
        "score": score,
    }


def search_result(found: JSON) -> JSON:
    """A source as /vector-search shows it."""
    named = ("id", "text", "_distance", "score")
    metadata = {_NAMES_IN_SEARCH.get(key, key): value for key, value in found.items() if key not in named}
    return {
        "id": found["id"],
        "text": found["text"],
        "metadata": metadata,
        "distance": found["_distance"],
        "score": found["score"],
    }


def history_rows(exchanges: Iterable[Exchange]) -> Iterator[JSON]:
    """Two rows an exchange: the user's and the assistant's."""
    for row in exchanges:
        shared = {"chatId": row.chat_id, "sentAt": row.sent_at}
        yield {
            "role": "user",
            "content": row.prompt,
            "sentAt": row.sent_at,
            "attachments": [],
            "chatId": row.chat_id,
        }
        said = {"type": row.mode, "role": "assistant", "content": row.text, "sources": list(row.sources)}
        yield {**said, **shared, "feedbackScore": None, "metrics": row.metrics}


def local_time(moment: datetime) -> str:
    """11/22/2026, 7:27:17 AM, as the server's locale writes it."""
    local = moment.astimezone()
    clock = f"{local.hour % 12 or 12}:{local:%M:%S} {'AM' if local.hour < 12 else 'PM'}"
    return f"{local.month}/{local.day}/{local.year}, {clock}"


def _facts(document: Document, started: datetime) -> JSON:
    return {
        "url": f"file:///app/collector/hotdir/{document.title}",
        "title": document.title,
        "docAuthor": document.department or "Unknown",
        "description": "Unknown",
        "docSource": "a text file uploaded by the user.",
        "chunkSource": f"link://{document.link}" if document.link else "",
        "published": local_time(started),
        "wordCount": len(document.text.split()),
        "token_count_estimate": len(document.text),
    }


def _identity(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"document:{name}"))
