"""A stand-in for AnythingLLM's developer API: a small handbook is searched and quoted, faults on demand.

It speaks like version 1.16 of the real server: key, workspaces, chat, stream-chat, vector-search and chats,
200 with an HTML page for everything else. Follow-up questions are understood within a session.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import web

from dingbridge.sim.anythingllm_files import Attached, attached, parsed, said_of, source_of
from dingbridge.sim.anythingllm_reply import (
    BAD_REQUEST_PAGE,
    FRONT_PAGE,
    Dropped,
    Fault,
    Pace,
    Turn,
    abort,
    broken,
    json_response,
    page,
    reset,
    single,
    stream,
)
from dingbridge.sim.anythingllm_rows import (
    JSON,
    OVERRIDDEN_SOURCE,
    Exchange,
    Workspace,
    document_row,
    history_rows,
    search_result,
    source,
    workspace_row,
)
from dingbridge.sim.extract import answer, thorough
from dingbridge.sim.retrieval import Hit, Index, leans, understand

__all__ = ["AnythingLLM", "Asked", "Exchange", "Fault", "Workspace", "handbook_folder"]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

THOROUGH = 2  # sections that a detailed workspace quotes
_MODES = ("chat", "query", "automatic")
_STATUSES = (f"http{status}{kind}" for status in (429, 500, 502, 503) for kind in ("", "_html"))
_EVERYWHERE = ("html", "bad_key", *_STATUSES)
_GENERAL = "这个问题在知识库里没有对应的资料。建议您换一种问法，或者向相关部门咨询。"


def handbook_folder() -> Path:
    """The sample documents: beside this file in a wheel, in `examples/` in a checkout."""
    packaged = Path(__file__).with_name("documents")
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "examples" / "documents"


@dataclass(slots=True)
class Asked:
    """One chat call: when (epoch seconds), what, and how it ended. `cancelled`: the client left first."""

    time: float
    workspace: str
    session: str
    message: str
    mode: str
    headers: Mapping[str, str]
    streamed: bool
    fault: Fault | None = None
    attachments: tuple[Attached, ...] = ()
    finished: bool = False
    cancelled: bool = False


class AnythingLLM:
    """`async with AnythingLLM() as server:` serves at `server.url` (without /api) until the block ends.

    Everything below the constructor's delays may be changed while it runs: `faults` is used up one a chat,
    `fault` stays; `answer` replaces retrieval; `answer_delay_s`, where set, is the whole delay before the
    first text. A sticky down, http*, html or bad_key hits every route, the other faults hit chats only.
    `collector_down`: documents that are attached are dropped without a word.
    """

    def __init__(
        self,
        *,
        api_key: str = "SIMSIMS-SIMSIMS-SIMSIMS-SIMSIMS",
        workspaces: Mapping[str, Workspace] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        ssl_context: ssl.SSLContext | None = None,
        model_delay_s: float = 0.0,
        token_delay_s: float = 0.0,
        slow_s: float = 1.0,
        chunk_chars: int = 4,
    ) -> None:
        self.api_key = api_key
        self.workspaces = dict(workspaces or {"handbook": Workspace("员工手册", handbook_folder())})
        self.model_delay_s, self.token_delay_s, self.slow_s = model_delay_s, token_delay_s, slow_s
        self.chunk_chars = chunk_chars
        self.answer: Callable[[str], str] | None = None
        self.answer_delay_s: float | None = None
        self.retry_after_s: float | None = None
        self.faults: deque[Fault] = deque()
        self.fault: Fault | None = None
        self.collector_down = False
        self.asked: list[Asked] = []
        self.running = self.peak = 0
        self._host, self._port, self._tls = host, port, ssl_context
        self._started = datetime.now(UTC)
        self._indexes: dict[str, Index] = {}
        self._histories: dict[tuple[str, str], list[Exchange]] = {}
        self._last_chat_id = 0
        self._detached: set[asyncio.Task[tuple[int, JSON]]] = set()
        self._changed = asyncio.Event()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self._host}:{self._port}"

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 2**20, middlewares=[self._guard])
        base = "/api/v1/workspace/{slug}"
        app.router.add_get("/api/ping{_:/?}", self._ping)
        app.router.add_get("/api/v1/auth{_:/?}", self._auth)
        app.router.add_get("/api/v1/workspaces{_:/?}", self._list)
        app.router.add_get(base + "{_:/?}", self._get)
        app.router.add_get(base + "/chats{_:/?}", self._chats)
        app.router.add_post(base + "/chat{_:/?}", self._chat)
        app.router.add_post(base + "/stream-chat{_:/?}", self._chat)
        app.router.add_post(base + "/vector-search{_:/?}", self._vector_search)
        app.router.add_route("*", "/{_:.*}", self._front_page)
        self._runner = web.AppRunner(
            app, handler_cancellation=True, keepalive_timeout=5.0, shutdown_timeout=0.05, access_log=None
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port, ssl_context=self._tls, backlog=1024)
        await site.start()
        self._port = int(self._runner.addresses[0][1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._detached:
            task.cancel()
        await asyncio.gather(*self._detached, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()
        for index in self._indexes.values():
            index.close()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Waits until a condition on `asked`, `running`, `peak` or a history holds; the caller bounds the wait."""
        while not holds():
            await self._changed.wait()

    def history(self, workspace: str, session: str) -> list[Exchange]:
        """What is stored of a session, oldest first; partial answers and reset rows included."""
        return self._histories.setdefault((workspace, session), [])

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """What strikes before a route is reached: a sticky fault, a wrong key."""
        if self.fault == "down":
            return reset(request)
        route = request.match_info.handler
        struck = self.fault if self.fault in _EVERYWHERE and route != self._chat else None
        if struck and (response := broken(struck, self.retry_after_s)) is not None:
            return response
        if route not in (self._ping, self._front_page) and not self._knows(request):
            return json_response({"error": "No valid api key found."}, 403)
        return await handler(request)

    async def _front_page(self, _: web.Request) -> web.Response:
        return page(FRONT_PAGE)

    async def _ping(self, _: web.Request) -> web.Response:
        return json_response({"online": True})

    def _knows(self, request: web.Request) -> bool:
        """The real server takes what follows the first space, whatever the scheme is called."""
        return request.headers.get("Authorization", "").split(" ")[1:2] == [self.api_key]

    def _number(self, slug: str) -> int:
        return list(self.workspaces).index(slug) + 1

    def _row(self, slug: str) -> JSON:
        return workspace_row(self._number(slug), slug, self.workspaces[slug], self._started)

    def _index(self, slug: str) -> Index:
        if slug not in self._indexes:
            self._indexes[slug] = Index(self.workspaces[slug].documents)
        return self._indexes[slug]

    async def _auth(self, _: web.Request) -> web.Response:
        return json_response({"authenticated": True})

    async def _list(self, _: web.Request) -> web.Response:
        return json_response({"workspaces": [{**self._row(slug), "threads": []} for slug in self.workspaces]})

    async def _get(self, request: web.Request) -> web.Response:
        slug = request.match_info["slug"]
        if slug not in self.workspaces:
            return json_response({"workspace": []})
        documents = [
            document_row(number, self._number(slug), document, self._started)
            for number, document in enumerate(self._index(slug).documents, start=1)
        ]
        return json_response({"workspace": [{**self._row(slug), "documents": documents, "threads": []}]})

    async def _chats(self, request: web.Request) -> web.Response:
        slug, asked = request.match_info["slug"], request.query
        if slug not in self.workspaces:
            return web.Response(status=400, text="Bad Request")
        session = asked.get("apiSessionId", "")
        rows = [row for row in self.history(slug, session) if session or row.included]
        if asked.get("orderBy") == "desc":
            rows.reverse()
        limit = asked.get("limit", "")
        return json_response({"history": list(history_rows(rows[: int(limit) if limit.isdecimal() else 100]))})

    async def _vector_search(self, request: web.Request) -> web.Response:
        slug, body = request.match_info["slug"], await _body(request)
        if slug not in self.workspaces:
            return json_response({"message": f"Workspace {slug} is not a valid workspace."}, 400)
        if not body or not isinstance(question := body.get("query"), str) or not question:
            return json_response({"message": "Query is required."}, 400)
        index = self._index(slug)
        if not index.sections:
            return json_response({"results": [], "message": "No embeddings found for this workspace."})
        found = self._sources(index.search(understand(question), int(body.get("topN") or 4)))
        least = float(body.get("scoreThreshold") or 0.25)
        return json_response({"results": [search_result(one) for one in found if one["score"] >= least]})

    def _sources(self, hits: list[Hit]) -> list[JSON]:
        return [source(hit, hits[0], self._started) for hit in hits]

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        slug, body = request.match_info["slug"], await _body(request)
        if body is None:
            return page(BAD_REQUEST_PAGE, 400)
        session, message = str(body.get("sessionId") or ""), body.get("message")
        streamed = "/stream-chat" in request.path
        if slug in self.workspaces and body.get("reset"):
            self._forget(slug, session)
            if not message:
                return await single(request, "Chat history was reset!", streamed=streamed)
        if error := self._objection(slug, message, body.get("mode")):
            return json_response(abort(error), 400)
        mode = body.get("mode") or self.workspaces[slug].chat_mode
        fault = self.faults.popleft() if self.faults else self.fault
        asked = Asked(time.time(), slug, session, str(message), mode, request.headers, streamed, fault)
        asked.attachments = attached(body.get("attachments"))
        return await self._recorded(request, asked)

    def _objection(self, slug: str, message: object, mode: object) -> str | None:
        if slug not in self.workspaces:
            return f"Workspace {slug} is not a valid workspace."
        if not message or not isinstance(message, str):
            return "Message is empty"
        return f"{mode} is not a valid mode." if mode and mode not in _MODES else None

    async def _recorded(self, request: web.Request, asked: Asked) -> web.StreamResponse:
        self.asked.append(asked)
        self.running += 1
        self.peak = max(self.peak, self.running)
        self._notify()
        try:
            return await self._answered(request, asked)
        except asyncio.CancelledError:
            asked.cancelled = True
            raise
        finally:
            self.running -= 1
            self._notify()

    async def _answered(self, request: web.Request, asked: Asked) -> web.StreamResponse:
        if asked.fault == "down":
            return reset(request)
        if (response := broken(asked.fault, self.retry_after_s)) is not None:
            asked.finished = True
            return response
        turn = self._turn(asked)
        if asked.streamed:
            streaming, asked.finished = await stream(request, turn)
            asked.cancelled = not asked.finished and asked.fault != "cut"
            return streaming
        task = asyncio.create_task(turn.whole())
        self._detached.add(task)
        task.add_done_callback(self._detached.discard)
        try:
            status, body = await asyncio.shield(task)
        except Dropped:
            return reset(request)
        asked.finished = True
        return json_response(body, status)

    def _turn(self, asked: Asked) -> Turn:
        text, sources, refused = self._said(asked)
        delay_s = self.model_delay_s if self.answer_delay_s is None else self.answer_delay_s
        pace = Pace(delay_s, self.token_delay_s, self.slow_s, self.chunk_chars)

        def keep(said: str, metrics: JSON) -> int:
            self._last_chat_id += 1
            number, moment = self._last_chat_id, int(time.time())
            row = Exchange(number, asked.mode, asked.message, said, sources, metrics, moment, not refused)
            self.history(asked.workspace, asked.session).append(row)
            self._notify()
            return number

        fault: Fault | None = asked.fault if text else "empty_answer"
        return Turn(text, sources, refused, fault, pace, keep)

    def _said(self, asked: Asked) -> tuple[str, list[JSON], bool]:
        """The text, its sources, and whether it is a refusal."""
        workspace = self.workspaces[asked.workspace]
        if asked.fault == "refuse":
            return workspace.refusal, [], True
        documents = parsed(asked.attachments, collector_down=self.collector_down)
        attached_sources = [source_of(one, self._started) for one in documents]
        if self.answer is not None:
            return self.answer(asked.message), [*attached_sources, OVERRIDDEN_SOURCE], False
        index = self._index(asked.workspace)
        query = understand(asked.message, self._earlier(asked))
        hits = index.search(query, workspace.top_n)
        nothing = not index.sections or not (hits or documents)
        if nothing and asked.mode == "query":
            return workspace.refusal, [], True
        quoted = ""
        if hits:
            whole = thorough([hit.section for hit in hits[:THOROUGH]]) if workspace.detailed else ""
            quoted = whole or answer(hits[0].section, query)
        found = [said_of(asked.attachments, documents), quoted]
        said = "\n\n".join(filter(None, found)) or _GENERAL
        return said, [*attached_sources, *self._sources(hits)], False

    def _earlier(self, asked: Asked) -> list[str]:
        """The questions a follow-up may lean on, newest first, back to one that stood for itself."""
        earlier: list[str] = []
        for row in reversed(self.history(asked.workspace, asked.session)):
            if row.included:
                earlier.append(row.prompt)
                if len(earlier) == 3 or not leans(row.prompt):
                    break
        return earlier

    def _forget(self, slug: str, session: str) -> None:
        """Without a session the real server hides the histories of the whole workspace."""
        for (workspace, owner), rows in self._histories.items():
            if workspace == slug and session in ("", owner):
                for row in rows:
                    row.included = False


async def _body(request: web.Request) -> JSON | None:
    """The JSON body, {} for one that is no object, None for one that is no JSON."""
    try:
        body = json.loads(await request.read())
    except ValueError:
        return None
    return body if isinstance(body, dict) else {}
