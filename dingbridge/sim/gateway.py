"""A stand-in for DingTalk: Stream gateway, session webhooks and the OpenAPI calls a bot needs, on one port.

    async with Gateway() as gateway:      # api_base = oapi_base = gateway.url
        sent = await gateway.say("年假有几天？", user="042")
        post = await gateway.next_post(sent)

It follows the published protocol and what captures show, so the unmodified official SDK can talk to it. Faults are
planted through attributes, each as a sticky value (`open_fault`) and as a queue used up one per call (`open_faults`):

    open_fault       401 400 403 429 500 503, "html" "no_ticket" "no_endpoint" "empty" "refused" "hang" "reset"
    handshake_fault  an HTTP status, "hang" "reset"
    webhook_fault    an errcode, "html" "hang" "reset_before" "lost_response" "http<status>" "http<status>_delivered"
    openapi_fault    the same, an HTTP status, (status, code), "qps" or "permission"; `plant` for calls of one API
    file_fault       see `gateway_files`
    connection_fault of the next connections, once they are up: what `Connection.suffer` takes, as for one that is up

Knobs, off by default: `redeliver_after_s` and `redeliver_at_most` (robot messages; the field saw once after 60 s or
16 s), `event_redeliver_after_s` (until acked), `dead_channel`, `greets` (CONNECTED, REGISTERED), `keepalive_every_s`,
`ping_every_s`, `ws_ping_every_s`, `webhook_per_minute`, `openapi_per_second`, `openapi_total_per_second`.

Sides: `gateway_stream` (tickets, connections, pushes, acks), `gateway_sends` (webhooks), `gateway_openapi` (tokens,
messages), `gateway_cards` (cards and their buttons), `gateway_files` (downloads), `gateway_emotions`, `gateway_users`
(what users send besides text), `gateway_meter` (what is billed, and caps of it), `gateway_control` and
`gateway_control_chat` (`/_sim/`, with `control=True`), `gateway_tape` (traffic as JSON lines).
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Self, TextIO

from aiohttp import web

from dingbridge.sim.gateway_card_records import Card, Change, Press, Template
from dingbridge.sim.gateway_control import Control
from dingbridge.sim.gateway_control_chat import ChatControl
from dingbridge.sim.gateway_emotions import Emotion
from dingbridge.sim.gateway_files import File
from dingbridge.sim.gateway_link import Connection
from dingbridge.sim.gateway_records import (
    BOT_TOPIC,
    CARD_TOPIC,
    MISSING,
    Ack,
    Button,
    Open,
    Post,
    Push,
    Sent,
    build_frame,
)
from dingbridge.sim.gateway_tape import Tape
from dingbridge.sim.gateway_users import UserSide

__all__ = [
    "BOT_TOPIC",
    "CARD_TOPIC",
    "MISSING",
    "Ack",
    "Button",
    "Card",
    "Change",
    "Connection",
    "Emotion",
    "File",
    "Gateway",
    "Open",
    "Post",
    "Press",
    "Push",
    "Sent",
    "Template",
    "build_frame",
]


class Gateway(UserSide):
    """One DingTalk for one robot. With `ssl_context` it speaks https and wss; `public_host` names it in URLs.

    `control` adds the HTTP API below `/_sim/`. `record` gets the traffic as JSON lines, without secrets. `keep` is how
    many of each kind of record are remembered at least, for a gateway that runs for days; None: all.
    """

    def __init__(
        self,
        *,
        client_id: str = "dingsimulated0001",
        client_secret: str = "simulated-secret",  # noqa: S107 - opens nothing but this stand-in
        host: str = "127.0.0.1",
        port: int = 0,
        ssl_context: ssl.SSLContext | None = None,
        public_host: str | None = None,
        control: bool = False,
        record: str | Path | TextIO | None = None,
        keep: int | None = None,
    ) -> None:
        super().__init__(client_id, client_secret)
        self.keep = keep
        self._control = control
        self._target = record
        self.port = port
        self._host = host
        self._ssl = ssl_context
        self._public_host = public_host or host
        self._runner: web.AppRunner | None = None
        self._owner: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=8 * 1024 * 1024)
        app.add_routes(self._routes())
        if self._control:
            app.add_routes(Control(self).routes())
            app.add_routes(ChatControl(self).routes())
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self.port, ssl_context=self._ssl).start()
            self.tape = Tape(self._target) if self._target is not None else None
        except OSError:
            await self._runner.cleanup()
            raise
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
        if self.tape is not None:
            self.tape.close()
        if owner is not None and not owner.cancelled():
            owner.result()

    def _routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1.0/gateway/connections/open", self._open),
            web.get("/connect", self._connect),
            web.post("/robot/sendBySession", self._send_by_session),
            web.post("/robot/send", self._send_custom),
            web.post("/v1.0/oauth2/accessToken", self._access_token),
            web.get("/gettoken", self._get_token),
            web.post("/v1.0/robot/oToMessages/batchSend", self._send_oto),
            web.post("/v1.0/robot/groupMessages/send", self._send_group),
            web.post("/v1.0/robot/messageFiles/download", self._download),
            web.get("/files/{key}.file", self._file),
            web.post("/v1.0/robot/emotion/reply", self._emotion),
            web.post("/v1.0/robot/emotion/recall", self._emotion),
            web.post("/v1.0/card/instances", self._create_card),
            web.post("/v1.0/card/instances/createAndDeliver", self._create_card),
            web.post("/v1.0/card/instances/deliver", self._deliver_card),
            web.put("/v1.0/card/instances", self._update_card),
            web.put("/v1.0/card/streaming", self._stream_card),
        ]

    async def _own_tasks(self, ready: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as self._tasks:
            ready.set()
            await asyncio.Event().wait()  # until close() cancels
