"""Health, readiness, metrics and a plain status page. Answers without touching the store, so it answers always."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Any

from aiohttp import web

from dingbridge.model import Secret
from dingbridge.web.listening import RETRY_S, Health, Listener


class Web:
    """`run()` serves until cancelled, and waits for a taken port instead of failing."""

    def __init__(
        self,
        *,
        host: str,
        port: int,
        admin_token: Secret,
        parts: Callable[[], dict[str, Health]],
        status: Callable[[], str],
        metrics: Callable[[], bytes],
        metrics_type: str,
        retry_s: float = RETRY_S,
    ) -> None:
        self._listener = Listener(host, port, name="web", retry_s=retry_s)
        self._token = admin_token
        self._parts = parts
        self._status = status
        self._metrics = metrics
        self._metrics_type = metrics_type

    @property
    def health(self) -> Health:
        return self._listener.health

    @property
    def address(self) -> tuple[str, int] | None:
        return self._listener.address

    async def run(self) -> None:
        app = web.Application()
        app.on_response_prepare.append(_guard_headers)
        app.router.add_get("/healthz", self._get_health)
        app.router.add_get("/readyz", self._get_ready)
        app.router.add_get("/metrics", self._get_metrics)
        app.router.add_get("/", self._get_status)
        await self._listener.serve(app)

    async def _get_health(self, _: web.Request) -> web.Response:
        return web.json_response({"alive": True})

    async def _get_ready(self, _: web.Request) -> web.Response:
        parts = self._parts()
        ready = all(part.ok for part in parts.values())
        body: dict[str, Any] = {"ready": ready, "parts": {}}
        for name, part in parts.items():
            body["parts"][name] = {"ok": part.ok} if part.ok else {"ok": False, "why": part.why}
        return web.json_response(body, status=200 if ready else 503)

    async def _get_metrics(self, request: web.Request) -> web.Response:
        self._admit(request)
        return web.Response(body=self._metrics(), headers={"Content-Type": self._metrics_type})

    async def _get_status(self, request: web.Request) -> web.Response:
        self._admit(request)
        return web.Response(text=self._status())

    def _admit(self, request: web.Request) -> None:
        if not self._token:
            return
        given = request.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), f"Bearer {self._token.reveal()}".encode()):
            raise web.HTTPUnauthorized(
                text="send the configured web.admin_token as Authorization: Bearer\n",
                headers={"WWW-Authenticate": "Bearer"},
            )


async def _guard_headers(_: web.Request, response: web.StreamResponse) -> None:
    """On every answer, the refusals too."""
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-store"
