"""The outbound Stream connection: open, read, acknowledge, reconnect. The only importer of `dingtalk_stream`.

The SDK gives frames, topics, credentials, handler registration and acks, which are equal in 0.24.3 and 0.24.4b1.
Its loop is not used: it blocks on the open call, reconnects without a pause after a clean close, swallows
cancellation (0.24.3), and cancels running work at every routine rotation (0.24.4b1).
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import structlog
from dingtalk_stream import (
    AckMessage,
    CallbackHandler,
    CallbackMessage,
    ChatbotMessage,
    Credential,
    DingTalkStreamClient,
    EventMessage,
    SystemMessage,
)
from dingtalk_stream.frames import Headers

from dingbridge.dingtalk.gateway import open_connection
from dingbridge.dingtalk.link import STOPPING, Frame, Link
from dingbridge.errors import CredentialsRejected, LinkError, PayloadError, StoreError
from dingbridge.model import Secret
from dingbridge.net import Network

log = structlog.get_logger("dingbridge.stream")

SOCKET_LIMIT = 4 * 1024 * 1024  # above it aiohttp closes with 1009, and the link must stay
FRAME_LIMIT = 1024 * 1024
_RESULTS = {AckMessage.STATUS_BAD_REQUEST: "bad_frame", AckMessage.STATUS_NOT_IMPLEMENT: "unknown_topic"}
BOT_TOPIC: str = ChatbotMessage.TOPIC

CARD_TOPIC: str = CallbackHandler.TOPIC_CARD_CALLBACK

# What a frame's data and id are handed to; returns when it is on disk, with what the ack is to carry.
# StoreError: it is not.
Accept = Callable[[dict[str, Any], str], Awaitable[dict[str, Any] | None]]


@dataclass(frozen=True, slots=True)
class Backoff:
    """Equal jitter: half of a growing step is fixed, half is drawn. Seconds."""

    base_s: float = 1.0
    factor: float = 3.0
    cap_s: float = 60.0
    rejected_s: float = 60.0
    steady_s: float = 30.0  # a link this old has shown pongs, and is forgiven its end

    def delay_s(self, failures: int, draw: float) -> float:
        step = min(self.cap_s, self.base_s * self.factor ** (min(failures, 30) - 1))
        return step * (0.5 + 0.5 * draw)


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. open_s: the open call, and the handshake. leave_s, close_s: see `Link`."""

    open_s: float = 10.0
    heartbeat_s: float = 8.0  # a black hole is noticed after one and a half of it
    leave_s: float = 10.0
    close_s: float = 2.0
    backoff: Backoff = field(default_factory=Backoff)


@dataclass(slots=True)
class LinkState:
    """What the status page and readiness know of the link. Times are monotonic seconds."""

    connected: bool = False
    why: str = "not connected yet"
    cause: str = ""
    opens: int = 0
    since: float = field(default_factory=time.monotonic)
    last_frame: float | None = None


class _Inbound(CallbackHandler):  # type: ignore[misc] # the SDK has no type information
    """A topic's handler. `raw_process` is overridden because `process` would ack only after the work."""

    def __init__(self, accept: Accept) -> None:
        super().__init__()
        self._accept = accept

    async def raw_process(self, callback_message: Any) -> Any:
        data, frame_id = callback_message.data, callback_message.headers.message_id
        if not isinstance(data, dict):
            raise PayloadError("a callback whose data is no object")
        response = await self._accept(data, frame_id if isinstance(frame_id, str) else "")
        return _ack(callback_message, AckMessage.STATUS_OK, "OK", {"response": response})


class Stream:
    """`run()` keeps one link up until cancelled, or until `close()`, which leaves with code 1000.

    Between `hold()` and `release()` there is none. accept: of messages; press: of buttons of cards.
    on_event(name): counters; names are connected, rotated, lost, rejected, frame, bad_frame, unknown_topic, unacked.
    """

    def __init__(
        self,
        *,
        client_id: str,
        client_secret: Secret,
        api_base: str,
        network: Network,
        accept: Accept,
        press: Accept | None = None,
        on_event: Callable[[str], None] = lambda _: None,
        timing: Timing | None = None,
    ) -> None:
        logger = logging.getLogger("dingtalk_stream")
        # The SDK would add a handler of its own, and prints whole frames with their session webhooks at WARNING.
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
        self._client = DingTalkStreamClient(Credential(client_id, client_secret.reveal()), logger=logger)
        self._client.register_callback_handler(BOT_TOPIC, _Inbound(accept))
        if press is not None:
            self._client.register_callback_handler(CARD_TOPIC, _Inbound(press))
        self._client.pre_start()
        logger.setLevel(logging.CRITICAL + 1)
        self._api_base = api_base
        self._network = network
        self._on_event = on_event
        self._timing = timing or Timing()
        self._links: dict[Link, asyncio.Task[None]] = {}
        self._closing = asyncio.Event()
        self._ended = asyncio.Event()
        self._ended.set()
        self._held: LinkError | None = None
        self._free = asyncio.Event()
        self._told = ""
        self._lost_at: float | None = None
        self.state = LinkState()

    async def run(self) -> None:
        """Open, read, and open again: for ever, with the pauses of `Backoff`."""
        self._ended.clear()
        try:
            async with self._network.open_session() as session, asyncio.TaskGroup() as group:
                keeping = group.create_task(self._keep_up(session, group))
                await self._closing.wait()
                keeping.cancel()
                await self._end_links()
        finally:
            self._set(connected=False, why=STOPPING)
            self._ended.set()

    async def close(self) -> None:
        """Open no more, acknowledge what was read, leave every link with code 1000; then `run()` returns."""
        self._closing.set()
        await self._ended.wait()

    def hold(self, why: str, cause: str = "") -> None:
        """Acknowledge what is kept, leave with code 1000, and open no more until `release()`."""
        self._held = LinkError(why, cause=cause or None)
        self._free.clear()
        for link in self._links:
            link.end(why)

    def release(self) -> None:
        """Open again: at once, unless the gateway itself has asked for a pause."""
        self._held = None
        self._free.set()

    async def _keep_up(self, session: aiohttp.ClientSession, group: asyncio.TaskGroup) -> None:
        failures = 0
        while True:
            if self._held is not None:
                failures = 0
                self._lost(self._held)
                await self._free.wait()
            try:
                link = await self._connect(session)
            except LinkError as error:
                failures += 1
                await self._pause(error, failures)
                continue
            self._links[link] = group.create_task(self._read(link))
            if self._held is not None:  # since it was asked for
                link.end(self._held.detail)
            await link.leaving.wait()
            if self._held is not None:
                continue
            ended = LinkError(link.why, cause=link.cause or None)
            if link.age_s >= self._timing.backoff.steady_s:
                failures = 0
                self._lost(ended, planned=link.rotated)
            else:
                failures += 1
                await self._pause(ended, failures)

    async def _connect(self, session: aiohttp.ClientSession) -> Link:
        self.state.opens += 1
        credential, timing = self._client.credential, self._timing
        socket = await open_connection(
            session,
            self._network,
            api_base=self._api_base,
            client_id=credential.client_id,
            client_secret=Secret(credential.client_secret),
            topics=tuple(self._client.callback_handler_map),
            open_s=timing.open_s,
            close_s=timing.close_s,
            frame_limit=SOCKET_LIMIT,
        )
        self._set(connected=True)
        self._on_event("connected")
        down_s = None if self._lost_at is None else round(time.monotonic() - self._lost_at, 1)
        write = log.info if self._told or self.state.opens == 1 else log.debug
        write("stream.connected", opens=self.state.opens, down_s=down_s)
        self._told, self._lost_at = "", None
        return Link(
            socket,
            self.dispatch,
            heartbeat_s=timing.heartbeat_s,
            leave_s=timing.leave_s,
            close_s=timing.close_s,
        )

    async def _read(self, link: Link) -> None:
        try:
            await link.read()
        finally:
            del self._links[link]
            if not self._links:
                ended = self._held or LinkError(link.why, cause=link.cause or None)
                self._set(connected=False, why=ended.detail, cause=ended.cause)

    async def _end_links(self) -> None:
        tasks = list(self._links.values())
        for link in self._links:
            link.end()
        if tasks:
            await asyncio.wait(tasks, timeout=2 * self._timing.close_s)
        for task in tasks:
            task.cancel()  # a message that could not be kept in time comes again

    async def _pause(self, error: LinkError, failures: int) -> None:
        rejected = isinstance(error, CredentialsRejected)
        self._lost(error, rejected=rejected)
        backoff = self._timing.backoff
        delay = backoff.delay_s(failures, random.random())  # noqa: S311 - spreads reconnects, guards nothing
        await asyncio.sleep(max(backoff.rejected_s if rejected else delay, error.retry_after or 0.0))

    def _lost(self, error: LinkError, *, planned: bool = False, rejected: bool = False) -> None:
        """Told once until the link is back; a refused credential loudly, a planned rotation not at all."""
        name = "rejected" if rejected else "rotated" if planned else "lost"
        self._on_event(name)
        if planned:
            return  # the next one is opened while the old one is still there
        if not self._is_up():
            self._set(connected=False, why=error.detail, cause=error.cause)
        if self._lost_at is None:
            self._lost_at = time.monotonic()
        if self._told in ("", "lost") and self._told != name:
            self._told = name
            write = log.error if rejected else log.warning
            write("stream.rejected" if rejected else "stream.lost", why=error.detail, cause=error.cause)

    def _is_up(self) -> bool:
        return any(link.is_open for link in self._links)

    def _set(self, *, connected: bool, why: str = "", cause: str = "") -> None:
        if connected is not self.state.connected:
            self.state.since = time.monotonic()
        self.state.connected, self.state.why, self.state.cause = connected, why, cause

    # -- one frame

    async def dispatch(self, frame: Frame) -> dict[str, Any] | None:
        """The ack for a frame, or None for none: `disconnect`, and whatever could not be kept."""
        self.state.last_frame = time.monotonic()
        if frame.whole is None:
            self._on_event("bad_frame")
            log.warning("stream.bad_frame", size=frame.size)
            return None
        if frame.size > FRAME_LIMIT:
            self._on_event("bad_frame")
            log.warning("stream.frame_too_large", size=frame.size)
            return _refusal(frame.headers, AckMessage.STATUS_BAD_REQUEST, "frame too large")
        try:
            ack = await self._route(frame.whole, frame.headers)
            self._on_event(_RESULTS.get(ack["code"] if ack else AckMessage.STATUS_OK, "frame"))
        except (PayloadError, RecursionError) as error:
            self._on_event("bad_frame")
            topic = str(frame.headers.get("topic"))[:80]
            log.warning("stream.unreadable_frame", why=str(error), topic=topic)
            return _refusal(frame.headers, AckMessage.STATUS_BAD_REQUEST, "unreadable")
        except StoreError as error:
            self._on_event("unacked")
            log.error("stream.not_kept", why=error.detail, cause=error.cause)
            return None
        except Exception:
            # A bug must not end the link for everybody else; without an ack the message comes again.
            self._on_event("bad_frame")
            log.exception("stream.frame_failed")
            return None
        return ack

    async def _route(self, frame: dict[str, Any], headers: dict[str, Any]) -> dict[str, Any] | None:
        topic = headers.get("topic")
        match frame.get("type"):
            case SystemMessage.TYPE:
                if topic == SystemMessage.TOPIC_DISCONNECT:
                    return None
                ack = await self._client.system_handler.raw_process(_parsed(SystemMessage, frame))
                return dict(ack.to_dict())
            case CallbackMessage.TYPE:
                handler = self._client.callback_handler_map.get(topic) if isinstance(topic, str) else None
                if handler is not None:
                    ack = await handler.raw_process(_parsed(CallbackMessage, frame))
                    return dict(ack.to_dict())
            case EventMessage.TYPE:
                pass
            case _:
                return _refusal(headers, AckMessage.STATUS_BAD_REQUEST, "unknown type")
        return _refusal(headers, AckMessage.STATUS_NOT_IMPLEMENT, "unknown topic")


def _parsed(kind: Any, frame: dict[str, Any]) -> Any:
    try:
        return kind.from_dict(frame)
    except Exception as error:  # noqa: BLE001 - which one it is does not matter
        # On odd shapes the SDK raises whatever comes up; its text may quote the frame.
        raise PayloadError(f"a frame of an odd shape ({type(error).__name__})") from None


def _ack(message: Any, code: int, text: str, data: dict[str, Any]) -> Any:
    ack = AckMessage()
    ack.code = code
    ack.message = text
    ack.headers.message_id = message.headers.message_id
    ack.headers.content_type = Headers.CONTENT_TYPE_APPLICATION_JSON
    ack.data = data
    return ack


def _refusal(headers: dict[str, Any], code: int, text: str) -> dict[str, Any] | None:
    """An ack that says no; None where the frame has no id to answer to."""
    message_id = headers.get("messageId")
    if not isinstance(message_id, str) or not message_id:
        return None
    message = CallbackMessage()
    message.headers.message_id = message_id
    return dict(_ack(message, code, text, {"response": None}).to_dict())
