"""A stand-in for DingTalk: Stream gateway, session webhooks and the OpenAPI calls a bot needs, on one port.

    async with Gateway() as gateway:      # api_base = oapi_base = gateway.url
        sent = await gateway.say("年假有几天？", user="042")
        post = await gateway.next_post(sent)

It follows the published protocol and what captures show, so the unmodified official SDK can talk to it. Faults are
planted through attributes, each as a sticky value (`open_fault`) and as a queue used up one per call (`open_faults`):

    open_fault       401 400 403 429 500 503, "html" "no_ticket" "no_endpoint" "empty" "hang" "reset"
    handshake_fault  an HTTP status, "hang" "reset"
    webhook_fault    an errcode, "html" "hang" "reset_before" "lost_response" "http<status>" "http<status>_delivered"
    openapi_fault    the same, an HTTP status, or (status, code)

Sides: `gateway_stream` (tickets, connections, pushes, acks), `gateway_sends` (webhooks, tokens, messages).
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Self

from aiohttp import web

from dingbridge.sim.gateway_link import Connection
from dingbridge.sim.gateway_records import BOT_TOPIC, MISSING, Ack, Open, Post, Push, Sent, build_frame
from dingbridge.sim.gateway_sends import SendSide

__all__ = [
    "BOT_TOPIC",
    "MISSING",
    "Ack",
    "Connection",
    "Gateway",
    "Open",
    "Post",
    "Push",
    "Sent",
    "build_frame",
]


class Gateway(SendSide):
    """One DingTalk for one robot. With `ssl_context` it speaks https and wss; `public_host` names it in URLs."""

    def __init__(
        self,
        *,
        client_id: str = "dingsimulated0001",
        client_secret: str = "simulated-secret",  # noqa: S107 - opens nothing but this stand-in
        host: str = "127.0.0.1",
        port: int = 0,
        ssl_context: ssl.SSLContext | None = None,
        public_host: str | None = None,
    ) -> None:
        super().__init__(client_id, client_secret)
        self.port = port
        self._host = host
        self._ssl = ssl_context
        self._public_host = public_host or host
        self._runner: web.AppRunner | None = None
        self._owner: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=8 * 1024 * 1024)
        app.router.add_post("/v1.0/gateway/connections/open", self._open)
        app.router.add_get("/connect", self._connect)
        app.router.add_post("/robot/sendBySession", self._send_by_session)
        app.router.add_post("/v1.0/oauth2/accessToken", self._access_token)
        app.router.add_post("/v1.0/robot/oToMessages/batchSend", self._send_oto)
        app.router.add_post("/v1.0/robot/groupMessages/send", self._send_group)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self.port, ssl_context=self._ssl)
        await site.start()
        self.port = int(self._runner.addresses[0][1])
        tls = "s" if self._ssl is not None else ""
        self.url = f"http{tls}://{self._public_host}:{self.port}"
        self.endpoint = f"ws{tls}://{self._public_host}:{self.port}/connect"
        ready = asyncio.Event()
        self._owner = asyncio.create_task(self._own_tasks(ready))
        await ready.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End everything at once: hanging handlers, connections, redeliveries. Errors of its own tasks surface."""
        self._closing.set()
        for connection in self.connections:
            connection.cut()
        owner, self._owner = self._owner, None
        runner, self._runner = self._runner, None
        if owner is not None:
            owner.cancel()
            await asyncio.wait([owner])
        if runner is not None:
            await runner.cleanup()
        if owner is not None and not owner.cancelled():
            owner.result()

    async def _own_tasks(self, ready: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as self._tasks:
            ready.set()
            await asyncio.Event().wait()  # until close() cancels
