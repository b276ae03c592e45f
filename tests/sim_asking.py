"""Asking the stand-in for AnythingLLM over real sockets, and the keys that recorded answers carry."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
from aiohttp import ClientSession

JSON = dict[str, Any]

CHUNK = ["uuid", "sources", "type", "textResponse", "close", "error"]
END = ["uuid", "type", "close", "error", "chatId", "metrics", "sources"]
BARE_END = ["uuid", "type", "close", "error"]
REFUSED_STREAM = ["id", "type", "textResponse", "sources", "close", "error", "metrics"]
REFUSED_BODY = ["id", "type", "sources", "close", "error", "textResponse", "metrics"]
ABORT = ["id", "type", "textResponse", "sources", "close", "error"]
ABORT_MIDWAY = ["uuid", "type", "textResponse", "sources", "close", "error"]
ANSWER_BODY = ["id", "type", "close", "error", "chatId", "textResponse", "sources", "metrics"]
SOURCE = [
    *["id", "url", "title", "docAuthor", "description", "docSource", "chunkSource", "published"],
    *["wordCount", "token_count_estimate", "text", "_distance", "score"],
]
STREAM_METRICS = [
    *["completion_tokens", "prompt_tokens", "total_tokens", "outputTps", "duration"],
    *["model", "provider", "timestamp"],
]
BODY_METRICS = [
    *["prompt_tokens", "completion_tokens", "total_tokens", "duration", "outputTps"],
    *["model", "provider", "timestamp"],
]
WORKSPACE = [
    *["id", "name", "slug", "vectorTag", "createdAt", "openAiTemp", "openAiHistory", "lastUpdatedAt"],
    *["openAiPrompt", "similarityThreshold", "chatProvider", "chatModel", "topN", "chatMode", "pfpFilename"],
    *["agentProvider", "agentModel", "queryRefusalResponse", "vectorSearchMode", "router_id"],
]
DOCUMENT = [
    *["id", "docId", "filename", "docpath", "workspaceId", "metadata", "pinned", "watched"],
    *["createdAt", "lastUpdatedAt"],
]
FOUND = ["id", "text", "metadata", "distance", "score"]
FOUND_METADATA = [
    *["url", "title", "author", "description", "docSource", "chunkSource", "published", "wordCount"],
    "tokenCount",
]
USER_ROW = ["role", "content", "sentAt", "attachments", "chatId"]
ASSISTANT_ROW = ["type", "role", "content", "sources", "chatId", "sentAt", "feedbackScore", "metrics"]

LODGING = "出差住宿标准是多少？"
REFUSAL = "知识库中没有找到相关内容。"
LONG = "一线城市的住宿费上限是每晚六百元，其他城市是每晚三百五十元。"


def body(message: object = LODGING, session: str = "s", **more: object) -> JSON:
    return {"message": message, "mode": "query", "sessionId": session, **more}


async def post(client: ClientSession, payload: JSON, route: str = "chat") -> tuple[int, JSON]:
    async with client.post(f"api/v1/workspace/handbook/{route}", json=payload) as response:
        assert response.headers["Content-Type"] == "application/json; charset=utf-8"
        return response.status, await response.json()


async def streamed(client: ClientSession, payload: JSON) -> list[JSON]:
    """The events of a whole stream; its bytes are checked to be `data: {json}` and a blank line, no more."""
    async with client.post("api/v1/workspace/handbook/stream-chat", json=payload) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/event-stream"
        assert response.headers["Cache-Control"] == "no-cache"
        raw = await response.read()
    blocks = raw.decode().split("\n\n")
    assert blocks.pop() == ""
    events = [json.loads(block.removeprefix("data: ")) for block in blocks]
    for block, event in zip(blocks, events, strict=True):
        assert block == "data: " + json.dumps(event, ensure_ascii=False, separators=(",", ":"))
    return events


def text_of(events: list[JSON]) -> str:
    return "".join(event["textResponse"] for event in events if event["type"] == "textResponseChunk")


async def ask(client: ClientSession, question: str, session: str = "s") -> JSON:
    status, answer = await post(client, body(question, session))
    assert status == 200
    return answer


async def pieces(response: aiohttp.ClientResponse, count: int) -> list[JSON]:
    """The first events of a stream that goes on."""
    events: list[JSON] = []
    while len(events) < count:
        line = await response.content.readline()
        if line.strip():
            events.append(json.loads(line.removeprefix(b"data: ")))
    return events
