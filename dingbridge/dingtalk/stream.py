"""The outbound Stream connection: open, read, acknowledge, reconnect. The only importer of `dingtalk_stream`.

The SDK gives frames, topics, credentials, handler registration and acks, which are equal in 0.24.3 and 0.24.4b1.
Its loop is not used: it blocks on the open call, reconnects without a pause after a clean close, swallows
cancellation (0.24.3), and cancels running work at every routine rotation (0.24.4b1).
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
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
from dingbridge.errors import CredentialsRejected, LinkError, PayloadError, StoreError
from dingbridge.model import Secret
from dingbridge.net import Network

log = structlog.get_logger("dingbridge.stream")

SOCKET_LIMIT = 4 * 1024 * 1024  # above it aiohttp closes with 1009, and the link must stay
FRAME_LIMIT = 1024 * 1024
IN_FLIGHT = 256
BOT_TOPIC: str = ChatbotMessage.TOPIC

# What a frame's data and id are handed to; returns when the message is on disk. StoreError: it is not.
Accept = Callable[[dict[str, Any], str], Awaitable[None]]


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
    """open_s: the open call, and the handshake. leave_s: how long a rotated link is read on."""

    open_s: float = 10.0
    heartbeat_s: float = 8.0  # a black hole is noticed after one and a half of it
    leave_s: float = 10.0
    close_s: float = 2.0
    backoff: Backoff = field(default_factory=Backoff)


@dataclass(slots=True)
class LinkState:
    """What the status page and readiness know of the link."""

    connected: bool = False
    why: str = "not connected yet"
    since: float = field(default_factory=time.monotonic)
    opens: int = 0
    rejected: bool = False
    last_frame: float | None = None


class _Inbound(CallbackHandler):  # type: ignore[misc] # the SDK has no type information
    """The registered bot handler. `raw_process` is overridden because `process` would ack only after the work."""

    def __init__(self, accept: Accept) -> None:
        super().__init__()
        self._accept = accept

    async def raw_process(self, callback_message: Any) -> Any:
        data = callback_message.data
        if not isinstance(data, dict):
            raise PayloadError("a bot message whose data is no object")
        await self._accept(data, callback_message.headers.message_id or "")
        return _ack(callback_message, AckMessage.STATUS_OK, "OK", {"response": None})


class Stream:
    """`run()` keeps one link up until cancelled; `close()` leaves with code 1000.

    on_event(name): counters; names are connected, lost, rejected, frame, bad_frame, unknown_topic, unacked.
    """

    def __init__(
        self,
        *,
        client_id: str,
        client_secret: Secret,
        api_base: str,
        network: Network,
        accept: Accept,
        on_event: Callable[[str], None] = lambda _: None,
        timing: Timing | None = None,
    ) -> None:
        logger = logging.getLogger("dingtalk_stream")
        # The SDK would add a handler of its own, and prints whole frames with their session webhooks at WARNING.
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
        self._client = DingTalkStreamClient(Credential(client_id, client_secret.reveal()), logger=logger)
        self._client.register_callback_handler(BOT_TOPIC, _Inbound(accept))
        self._client.pre_start()
        logger.setLevel(logging.CRITICAL + 1)
        self._api_base = api_base
        self._network = network
        self._on_event = on_event
        self._timing = timing or Timing()
        self._links: set[_Link] = set()
        self._closing = False
        self._told_lost = False
        self.state = LinkState()
        self.alive_at = time.monotonic()

    async def run(self) -> None:
        """Open, read, and open again: for ever, with the pauses of `Backoff`."""
        failures = 0
        async with self._network.open_session() as session, asyncio.TaskGroup() as group:
            while not self._closing:
                try:
                    link = await self._connect(session)
                except LinkError as error:
                    failures += 1
                    await self._pause(error, failures)
                    continue
                group.create_task(link.read())
                await link.leaving.wait()
                if self._closing:
                    break
                if link.age_s >= self._timing.backoff.steady_s:
                    failures = 0
                    self._lost(link.why, planned=link.rotated)
                else:
                    failures += 1
                    await self._pause(LinkError(link.why), failures)

    async def close(self) -> None:
        """Acknowledge what was read, then leave every link with code 1000."""
        self._closing = True
        async with asyncio.TaskGroup() as group:
            for link in list(self._links):
                group.create_task(link.close())

    async def _connect(self, session: aiohttp.ClientSession) -> _Link:
        self.alive_at = time.monotonic()
        self.state.opens += 1
        credential = self._client.credential
        socket = await open_connection(
            session,
            self._network,
            api_base=self._api_base,
            client_id=credential.client_id,
            client_secret=Secret(credential.client_secret),
            topics=tuple(self._client.callback_handler_map),
            open_s=self._timing.open_s,
            heartbeat_s=self._timing.heartbeat_s,
            close_s=self._timing.close_s,
            frame_limit=SOCKET_LIMIT,
        )
        link = _Link(self, socket, self._timing.leave_s)
        self._links.add(link)
        self.state.connected, self.state.rejected, self.state.since = True, False, time.monotonic()
        self.state.why = ""
        self._on_event("connected")
        (log.info if self._told_lost or self.state.opens == 1 else log.debug)(
            "stream.connected", opens=self.state.opens
        )
        self._told_lost = False
        return link

    async def _pause(self, error: LinkError, failures: int) -> None:
        self._lost(error.detail, planned=False, rejected=isinstance(error, CredentialsRejected))
        backoff = self._timing.backoff
        delay = backoff.delay_s(failures, random.random())  # noqa: S311 - spreads reconnects, guards nothing
        if self.state.rejected:
            delay = backoff.rejected_s
        until = time.monotonic() + max(delay, error.retry_after or 0.0)
        while (left := until - time.monotonic()) > 0 and not self._closing:
            self.alive_at = time.monotonic()
            await asyncio.sleep(min(left, 5.0))

    def _lost(self, why: str, *, planned: bool, rejected: bool = False) -> None:
        """Told once until the link is back; a refused credential loudly, a planned rotation not at all."""
        tell = not planned and (not self._told_lost or (rejected and not self.state.rejected))
        self.state.rejected = rejected
        if not any(link.is_open for link in self._links):
            self.state.connected, self.state.why = False, why
        self._on_event("rejected" if rejected else "lost")
        if tell:
            self._told_lost = True
            (log.error if rejected else log.warning)("stream.rejected" if rejected else "stream.lost", why=why)

    # -- one frame

    async def dispatch(self, raw: str) -> dict[str, Any] | None:
        """The ack for a frame, or None for none: `disconnect`, and whatever could not be kept."""
        self.state.last_frame = self.alive_at = time.monotonic()
        frame = _decode(raw)
        if frame is None:
            self._on_event("bad_frame")
            log.warning("stream.bad_frame", size=len(raw))
            return None
        self._on_event("frame")
        headers = frame["headers"]
        if len(raw) > FRAME_LIMIT:
            self._on_event("bad_frame")
            log.warning("stream.frame_too_large", size=len(raw))
            return _refusal(headers, AckMessage.STATUS_BAD_REQUEST, "frame too large")
        try:
            return await self._route(frame, headers)
        except (PayloadError, ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
            # The SDK's from_dict raises any of these on odd shapes; its text may quote the frame.
            self._on_event("bad_frame")
            log.warning("stream.unreadable_frame", error=type(error).__name__, topic=_short(headers.get("topic")))
            return _refusal(headers, AckMessage.STATUS_BAD_REQUEST, "unreadable")
        except StoreError as error:
            self._on_event("unacked")
            log.error("stream.not_kept", why=error.detail)
            return None
        except Exception:
            # A bug must not end the link for everybody else; without an ack the message comes again.
            self._on_event("bad_frame")
            log.exception("stream.frame_failed")
            return None

    async def _route(self, frame: dict[str, Any], headers: dict[str, Any]) -> dict[str, Any] | None:
        match frame.get("type"):
            case SystemMessage.TYPE:
                if headers.get("topic") == SystemMessage.TOPIC_DISCONNECT:
                    return None
                ack = await self._client.system_handler.raw_process(SystemMessage.from_dict(frame))
                return dict(ack.to_dict())
            case CallbackMessage.TYPE:
                handler = self._client.callback_handler_map.get(headers.get("topic"))
                if handler is not None:
                    ack = await handler.raw_process(CallbackMessage.from_dict(frame))
                    return dict(ack.to_dict())
            case EventMessage.TYPE:
                pass
            case _:
                return _refusal(headers, AckMessage.STATUS_BAD_REQUEST, "unknown type")
        self._on_event("unknown_topic")
        return _refusal(headers, AckMessage.STATUS_NOT_IMPLEMENT, "unknown topic")

    def left(self, link: _Link) -> None:
        self._links.discard(link)
        if not any(other.is_open for other in self._links):
            self.state.connected, self.state.why = False, link.why


class _Link:
    """One WebSocket: reads until it ends, acknowledges on itself, and lets the next one start before it is left."""

    def __init__(self, stream: Stream, socket: aiohttp.ClientWebSocketResponse, leave_s: float) -> None:
        self._stream = stream
        self._leave_s = leave_s
        self._socket = socket
        self._opened = time.monotonic()
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self.leaving = asyncio.Event()
        self.rotated = False
        self.why = "the connection ended"
        self.age_s = 0.0

    @property
    def is_open(self) -> bool:
        return not self.leaving.is_set()

    async def read(self) -> None:
        """Until the server closes, or `leave_s` after it announced to."""
        try:
            async with asyncio.timeout(None) as limit, asyncio.TaskGroup() as frames:
                async for received in self._socket:
                    if received.type is not aiohttp.WSMsgType.TEXT:
                        continue
                    if not self.rotated and _is_disconnect(received.data):
                        self._leave("the server rotates the connection", rotated=True)
                        limit.reschedule(asyncio.get_running_loop().time() + self._leave_s)
                    # A bound on frames between reading and ack; the order of commits is the order of reading.
                    await self._slots.acquire()
                    frames.create_task(self._answer(received.data))
        except TimeoutError:
            pass
        finally:
            self._leave(self._reason())
            self._stream.left(self)
            await self._socket.close(code=aiohttp.WSCloseCode.OK)

    async def close(self) -> None:
        for _ in range(IN_FLIGHT):  # all slots free means all acks are out
            try:
                async with asyncio.timeout(2.0):
                    await self._slots.acquire()
            except TimeoutError:
                break
        self._leave("stopping")
        await self._socket.close(code=aiohttp.WSCloseCode.OK)

    async def _answer(self, raw: str) -> None:
        try:
            ack = await self._stream.dispatch(raw)
            if ack is not None:
                with suppress(aiohttp.ClientError, ConnectionError):  # gone: it will come again on another link
                    await self._socket.send_str(json.dumps(ack, ensure_ascii=False))
        finally:
            self._slots.release()

    def _leave(self, why: str, *, rotated: bool = False) -> None:
        if not self.leaving.is_set():
            self.why, self.rotated = why, rotated
            self.age_s = time.monotonic() - self._opened
            self.leaving.set()

    def _reason(self) -> str:
        error = self._socket.exception()
        if isinstance(error, TimeoutError | aiohttp.ServerTimeoutError):
            return "no pong from the gateway: the network drops what is sent"
        if error is not None:
            return f"the connection broke ({type(error).__name__})"
        return f"the gateway closed the connection (code {self._socket.close_code})"


def _decode(raw: str) -> dict[str, Any] | None:
    try:
        frame = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(frame, dict):
        return None
    headers = frame.get("headers", frame.get("header"))  # one official sample spells it `header`
    frame["headers"] = headers if isinstance(headers, dict) else {}
    frame.pop("header", None)
    return frame


def _is_disconnect(raw: str) -> bool:
    if len(raw) > 4096 or SystemMessage.TOPIC_DISCONNECT not in raw:
        return False
    frame = _decode(raw)
    return (
        frame is not None
        and frame.get("type") == SystemMessage.TYPE
        and frame["headers"].get("topic") == SystemMessage.TOPIC_DISCONNECT
    )


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


def _short(value: Any) -> str:
    return str(value)[:80]
