"""The reply side on DingTalk's stand-in, or on servers that answer whatever a test says; no secret may get out."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar

from aiohttp import web
from structlog.testing import capture_logs

from dingbridge.dingtalk.composing import Part
from dingbridge.dingtalk.openapi import OpenAPI
from dingbridge.dingtalk.origins import webhook_origin_check
from dingbridge.dingtalk.pace import Pace
from dingbridge.dingtalk.payload import parse
from dingbridge.dingtalk.replies import Replies
from dingbridge.errors import ReplyError
from dingbridge.model import Answer, Message, Secret
from dingbridge.net import Network
from dingbridge.shape import Shape
from dingbridge.sim.gateway import Gateway
from dingbridge.texts import Texts

MARK = "（可能重复）"
PROXY_PASSWORD = "p%40ss-word-7"


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Direct(Network):
    """No proxy, and the system's certificates read once for all tests: that takes longer than a test."""

    _context: ClassVar[ssl.SSLContext | None] = None

    def ssl_context(self) -> ssl.SSLContext:
        Direct._context = Direct._context or super().ssl_context()
        return Direct._context


@dataclass
class Chat:
    """A robot that can only reply. `remember` makes a message's webhook the newest of its conversation."""

    gateway: Gateway
    replies: Replies
    openapi: OpenAPI
    api_clock: Clock
    texts: Texts
    errors: list[ReplyError] = field(default_factory=list)
    newest: dict[tuple[str, str], tuple[Secret, float | None]] = field(default_factory=dict)
    newest_fails: Exception | None = None

    async def webhook(self, robot: str, conversation: str) -> tuple[Secret, float | None]:
        if self.newest_fails is not None:
            raise self.newest_fails
        return self.newest.get((robot, conversation), (Secret(), None))

    async def hear(self, text: str = "问", *, remember: bool = False, **say: Any) -> Message:
        """Somebody writes; the message as the stream would read it."""
        sent = await self.gateway.say(text, **say)
        allowed = webhook_origin_check(self.gateway.url)
        message = parse(
            sent.data, robot=self.gateway.client_id, frame_id="frame", webhook_allowed=allowed, now=time.time()
        )
        if remember:
            expires = message.webhook_expires
            newest = message.webhook, expires.timestamp() if expires else None
            self.newest[message.robot, message.conversation.id] = newest
        return message

    async def outcome(self, sending: Awaitable[Any]) -> Any:
        """What came of it: a result, or the error, kept for the look for secrets."""
        try:
            return await sending
        except ReplyError as error:
            self.errors.append(error)
            return error

    async def compose(self, answer: Answer, **shape: Any) -> list[Part]:
        return await self.replies.compose(answer, Shape(self.texts, **shape))

    async def part(self, text: str = "答", **shape: Any) -> Part:
        (part,) = await self.compose(Answer(text), **shape)
        return part

    async def send(self, message: Message, text: str = "答", **how: Any) -> Any:
        return await self.outcome(self.replies.send(message, await self.part(text), **how))

    @property
    def shown(self) -> list[tuple[str, str]]:
        """Path and text of everything a user saw, in order."""
        return [(post.path, post.text) for post in self.gateway.posts]

    @property
    def requests(self) -> int:
        """Webhook and OpenAPI requests for messages, whether they showed something or not."""
        return sum(note["kind"] in ("webhook", "openapi", "post") for note in self.gateway.traffic)


@asynccontextmanager
async def chatting(gateway: Gateway, *, network: Network | None = None, **settings: Any) -> AsyncIterator[Chat]:
    """settings: of `Replies`, and `locale`. On leaving, errors and log events are searched for secrets."""
    network = network or Direct()
    timeout_s = settings.pop("timeout_s", 5.0)
    texts = Texts(settings.pop("locale", "zh-CN"))
    api_clock = Clock(1000.0)
    secrets = [gateway.client_secret, PROXY_PASSWORD, "p@ss"]
    with capture_logs() as events:
        async with network.open_session() as session:
            openapi = OpenAPI(
                session,
                network,
                api_base=gateway.url,
                client_id=gateway.client_id,
                client_secret=Secret(gateway.client_secret),
                timeout_s=timeout_s,
                clock=api_clock,
            )

            async def newest(robot: str, conversation: str) -> tuple[Secret, float | None]:
                return await chat.webhook(robot, conversation)

            replies = Replies(
                session,
                network,
                openapi,
                newest_webhook=newest,
                texts=texts,
                clock=settings.pop("clock", time.time),
                timeout_s=timeout_s,
                pace=settings.pop("pace", None) or Pace(per_minute=1000),
                **settings,
            )
            chat = Chat(gateway, replies, openapi, api_clock, texts)
            yield chat
            secrets += [*gateway.sessions, openapi._token.reveal()]
    told = [told_by(error) for error in chat.errors] + [json.dumps(event, default=repr) for event in events]
    for text in told:
        assert not [secret for secret in secrets if secret and secret in text], text


def told_by(error: BaseException) -> str:
    """All that could be printed of an error: its text, and whatever it was raised from or in."""
    shown = "".join(traceback.format_exception(error)) + repr(error)
    seen = error.__cause__ or error.__context__
    while seen is not None:
        shown += repr(seen)
        seen = seen.__cause__ or seen.__context__
    return shown


@asynccontextmanager
async def serving(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """A server that answers every path with `handler`; its base address."""
    app = web.Application(client_max_size=4 * 1024 * 1024)
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def raw(answer: bytes | None) -> AsyncIterator[int]:
    """A TCP server that reads a little, says this (None: nothing, for ever) and closes; its port."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with suppress(ConnectionError):
            await reader.read(65_536)
            if answer is not None:
                writer.write(answer)
                await writer.drain()
                writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
