"""The page's server: static files, the whole state, an event stream, and what a visitor may do. Loopback only.

Requests are answered only where Host names this machine's loopback (a foreign name means DNS rebinding) and, where the
browser says so, the page itself asks (a foreign Origin means another site does).
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol, Self

from aiohttp import web

from dingbridge.demo.acts import Acts, upload_of
from dingbridge.demo.board import Queue
from dingbridge.demo.people import QUICK
from dingbridge.demo.room import Refused, Room
from dingbridge.demo.switches import Switches
from dingbridge.sim.gateway import Sent

STATIC: Final = Path(__file__).with_name("static")
BEAT_S: Final = 10.0
MOST: Final = 64_000  # bytes of a request
MOST_SENT: Final = 34 * 1024 * 1024  # of one that brings a file in base64
NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
TYPES: Final = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".html": "text/html"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

Say = Callable[[str, str, str], Awaitable[tuple[str, Sent]]]


class Tours(Protocol):
    """The tour, where there is one. `act` raises Refused."""

    @property
    def state(self) -> dict[str, Any] | None: ...

    async def act(self, action: str, *, auto: bool) -> None: ...


class Looks(Protocol):
    """How the robot shows itself, where that can be chosen. `choose` raises Refused."""

    @property
    def told(self) -> dict[str, Any]: ...

    async def choose(self, name: str, value: Any) -> None: ...


class Page:
    """`async with Page(…) as page:` serves at `page.url`. Without daemon, tour or reset it shows a gateway alone.

    `facts` stand in the state beside, or in the place of, what is the same everywhere.
    """

    def __init__(
        self,
        room: Room,
        switches: Switches,
        *,
        port: int = 0,
        say: Say | None = None,
        daemon: Callable[[], Awaitable[dict[str, Any]]] | None = None,
        tour: Tours | None = None,
        reset: Callable[[], Awaitable[None]] | None = None,
        looks: Looks | None = None,
        facts: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        self._room = room
        self._switches = switches
        self._port = port
        self._say = say or room.say
        self._daemon = daemon
        self._tour = tour
        self._reset = reset
        self._looks = looks
        self._acts = Acts(room)
        self._facts = facts
        self._resetting = asyncio.Lock()
        self._closing = asyncio.Event()
        self._runner: web.AppRunner | None = None

    @property
    def port(self) -> int:
        return self._port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=MOST_SENT, middlewares=[_guard])
        app.on_response_prepare.append(_add_headers)
        app.router.add_get("/", _index)
        app.router.add_get("/static/{name}", _static)
        app.router.add_get("/api/state", self._get_state)
        app.router.add_get("/api/events", self._get_events)
        app.router.add_get("/api/picture", self._get_picture)
        for name in ("say", "send", "press", "tap", "fault", "quota", "robot", "tour", "reset"):
            app.router.add_post(f"/api/{name}", self._acting(getattr(self, f"_post_{name}")))
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await self._runner.setup()
        listener = _listen(self._port)
        self._port = int(listener.getsockname()[1])
        await web.SockSite(self._runner, listener).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing.set()
        if self._runner is not None:
            await self._runner.cleanup()

    # ---- what is shown

    async def state(self) -> dict[str, Any]:
        cast, board = self._room.cast, self._room.board
        return {
            "mode": "demo" if self._daemon is not None else "gateway-only",
            "people": [{"id": one.id, "nick": one.nick, "role": one.role} for one in cast.people],
            "chats": [chat.as_json() for chat in cast.chats],
            "messages": [message.as_json() for message in board.messages],
            "wire": board.wire,
            "daemon": None if self._daemon is None else await self._daemon(),
            "faults": self._switches.state,
            "quota": self._room.quota,
            "robot": None if self._looks is None else self._looks.told,
            "tour": None if self._tour is None else self._tour.state,
            "tour_available": self._tour is not None,
            "quick": list(QUICK),
            **self._facts(),
        }

    async def _get_state(self, _: web.Request) -> web.Response:
        return _json(await self.state())

    async def _get_events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        with self._room.board.listen() as queue, suppress(ConnectionError):
            await response.prepare(request)
            await response.write(b": here\n\n")
            await self._tell(response, queue)
        return response

    async def _tell(self, response: web.StreamResponse, queue: Queue) -> None:
        """Each event as it comes, a sign of life where none does, until the page ends or its reader left."""
        end = asyncio.ensure_future(self._closing.wait())
        event = asyncio.ensure_future(queue.get())
        try:
            while not end.done():
                await asyncio.wait({event, end}, timeout=BEAT_S, return_when=asyncio.FIRST_COMPLETED)
                if event.done():
                    told, event = event.result(), asyncio.ensure_future(queue.get())
                    await response.write(f"data: {_dumps(told)}\n\n".encode())
                elif not end.done():
                    await response.write(b": beat\n\n")
        finally:
            event.cancel()
            end.cancel()

    # ---- what a visitor does

    def _acting(self, act: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]) -> Handler:
        async def handler(request: web.Request) -> web.Response:
            try:
                most = MOST_SENT if request.path == "/api/send" else MOST
                return _json(await act(await _body(request, most)))
            except Refused as refused:
                return _json({"error": refused.sentence}, refused.status)

        return handler

    async def _get_picture(self, request: web.Request) -> web.StreamResponse:
        try:
            content, kind = self._acts.picture(request.query.get("id", ""))
        except Refused as refused:
            return _json({"error": refused.sentence}, refused.status)
        return web.Response(body=content, content_type=kind, headers={"Content-Security-Policy": "sandbox"})

    async def _post_say(self, body: dict[str, Any]) -> dict[str, Any]:
        where = _text(body, "chat"), _text(body, "as"), _text(body, "text")
        quoted = body.get("quote")
        said = self._acts.quote(*where, quoted) if isinstance(quoted, str) and quoted else self._say(*where)
        return {"id": (await said)[0]}

    async def _post_send(self, body: dict[str, Any]) -> dict[str, Any]:
        message_id, _ = await self._acts.send(_text(body, "chat"), _text(body, "as"), upload_of(body))
        return {"id": message_id}

    async def _post_press(self, body: dict[str, Any]) -> dict[str, Any]:
        await self._acts.press(_text(body, "message"), _text(body, "action"), _text(body, "as"))
        return {}

    async def _post_tap(self, body: dict[str, Any]) -> dict[str, Any]:
        message_id, _ = await self._acts.tap(_text(body, "message"), _text(body, "title"), _text(body, "as"))
        return {"id": message_id}

    async def _post_quota(self, body: dict[str, Any]) -> dict[str, Any]:
        self._switches.cap(_text(body, "pool"), body.get("cap"))
        return {}

    async def _post_robot(self, body: dict[str, Any]) -> dict[str, Any]:
        if self._looks is None:
            raise Refused("这里不能改机器人的设置。")
        await self._looks.choose(_text(body, "name"), body.get("value"))
        return {}

    async def _post_fault(self, body: dict[str, Any]) -> dict[str, Any]:
        await self._switches.turn(_text(body, "name"), on=body.get("on", True) is True)
        return {}

    async def _post_tour(self, body: dict[str, Any]) -> dict[str, Any]:
        if self._tour is None:
            raise Refused("导览要用自带的员工手册，这里没有。")
        await self._tour.act(_text(body, "action"), auto=body.get("auto") is True)
        return {}

    async def _post_reset(self, _: dict[str, Any]) -> dict[str, Any]:
        if self._reset is None:
            raise Refused("这里不能重新开始。")
        if self._resetting.locked():
            raise Refused("正在重新开始，请稍等。")
        async with self._resetting:
            await self._reset()
        return {}


def _listen(port: int) -> socket.socket:
    """The wanted port, else the next free one of ten, else any."""
    for wanted in (*range(port, min(port + 10, 65_536)), 0) if port else (0,):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", wanted))
            listener.listen(128)
        except OSError:
            listener.close()
        else:
            listener.setblocking(False)
            return listener
    raise OSError("no free port on 127.0.0.1")


async def _index(_: web.Request) -> web.StreamResponse:
    return _file("index.html")


async def _static(request: web.Request) -> web.StreamResponse:
    return _file(request.match_info["name"])


def _file(name: str) -> web.StreamResponse:
    path = STATIC / name
    if path.parent != STATIC or path.suffix not in TYPES or not path.is_file():
        raise web.HTTPNotFound
    return web.FileResponse(path, headers={"Content-Type": f"{TYPES[path.suffix]}; charset=utf-8"})


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    host = request.headers.get("Host", "")
    if host.rpartition(":")[0] not in NAMES and host not in NAMES:
        return _json({"error": "这个页面只在本机打开：用 127.0.0.1 或 localhost。"}, 403)
    if request.method not in {"GET", "HEAD"}:
        origin = request.headers.get("Origin")
        if origin not in {None, f"http://{host}"} or request.headers.get("Sec-Fetch-Site", "none") not in {
            "same-origin",
            "none",
        }:
            return _json({"error": "这个请求来自别的网站。"}, 403)
        if request.content_type != "application/json":
            return _json({"error": "需要 Content-Type: application/json。"}, 415)
    return await handler(request)


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)


async def _body(request: web.Request, most: int) -> dict[str, Any]:
    raw = await request.read()
    if len(raw) > most:
        raise Refused("太大了，这里收不下。", 413)
    try:
        body = json.loads(raw or b"{}")
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Refused("需要一个 JSON 对象。", 400)
    return body


def _text(body: dict[str, Any], key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str):
        raise Refused(f"缺少 {key}。", 400)
    return value


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _json(value: Any, status: int = 200) -> web.Response:
    return web.json_response(value, status=status, dumps=_dumps)
