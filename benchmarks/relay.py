"""The baselines: the least that brings a question from DingTalk to AnythingLLM and the answer back.

Without `--store` nothing is kept. With it, each point where dingbridge commits costs one durable commit here too:
put, lease, answered (which says that it is being sent), done.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp

TOPIC = "/v1.0/im/bot/messages/get"


class Commits:
    """One row a message, one durable commit a call; no groups."""

    def __init__(self, path: Path) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("CREATE TABLE message (id TEXT PRIMARY KEY, state TEXT, body TEXT)")

    async def put(self, key: str, body: str) -> None:
        await self._run("INSERT INTO message VALUES (?, 'ready', ?)", key, body)

    async def move(self, key: str, state: str, body: str) -> None:
        await self._run("UPDATE message SET state = ?, body = ? WHERE id = ?", state, body, key)

    async def _run(self, statement: str, *values: str) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._connection.execute, statement, values)


class Relay:
    """Reads frames, acknowledges, asks, posts; every message in a task of its own."""

    def __init__(self, http: aiohttp.ClientSession, options: argparse.Namespace) -> None:
        self._http = http
        self._options = options
        self._chat = f"{options.backend}/api/v1/workspace/handbook/stream-chat"
        self._commits = Commits(options.store) if options.store else None

    async def run(self) -> None:
        options = self._options
        ticket = {
            "clientId": options.client_id,
            "clientSecret": options.client_secret,
            "subscriptions": [{"type": "CALLBACK", "topic": TOPIC}],
        }
        accept = {"Accept": "application/json"}
        opening = f"{options.gateway}/v1.0/gateway/connections/open"
        async with self._http.post(opening, json=ticket, headers=accept) as response:
            place = await response.json()
        async with (
            self._http.ws_connect(f"{place['endpoint']}?ticket={place['ticket']}") as socket,
            asyncio.TaskGroup() as group,
        ):
            async for received in socket:
                group.create_task(self._answer(socket, json.loads(received.data)))

    async def _answer(self, socket: aiohttp.ClientWebSocketResponse, frame: dict[str, Any]) -> None:
        key, message = frame["headers"]["messageId"], json.loads(frame["data"])
        if self._commits:
            await self._commits.put(key, frame["data"])
        ack = {
            "code": 200,
            "headers": {"contentType": "application/json", "messageId": key},
            "message": "OK",
            "data": '{"response": null}',
        }
        await socket.send_str(json.dumps(ack))
        await self._note(key, "leased", frame["data"])
        text = await self._ask(message)
        await self._note(key, "sending", text)
        body = {"msgtype": "markdown", "markdown": {"title": text[:20], "text": text}}
        async with self._http.post(message["sessionWebhook"], json=body) as response:
            if (await response.json())["errcode"] != 0:
                raise RuntimeError("the webhook refused an answer")
        await self._note(key, "done", "")

    async def _ask(self, message: dict[str, Any]) -> str:
        body = {"message": message["text"]["content"], "mode": "query", "sessionId": message["conversationId"]}
        key = {"Authorization": f"Bearer {self._options.api_key}"}
        async with self._http.post(self._chat, json=body, headers=key) as response:
            events = [json.loads(line[6:]) async for line in response.content if line.startswith(b"data: ")]
        return "".join(event.get("textResponse") or "" for event in events)

    async def _note(self, key: str, state: str, body: str) -> None:
        if self._commits:
            await self._commits.move(key, state, body)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("gateway", "client-id", "client-secret", "backend", "api-key"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--store", type=Path)
    # AnythingLLM closes what was idle for 5 s; a question on a connection that is closing would be lost.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=3.0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http:
        await Relay(http, parser.parse_args()).run()


if __name__ == "__main__":
    asyncio.run(main())
