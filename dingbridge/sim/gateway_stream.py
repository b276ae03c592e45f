"""The stand-in gateway's Stream side: tickets, connections, pushes, acks, redelivery."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import secrets
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from dingbridge.sim.gateway_base import Fault, Record, answer, json_body, take
from dingbridge.sim.gateway_link import Connection, State
from dingbridge.sim.gateway_meter import WEBHOOK_STREAM
from dingbridge.sim.gateway_records import (
    BOT_TOPIC,
    MISSING,
    Ack,
    Open,
    Push,
    Sent,
    build_frame,
    build_message,
    over_quota,
)

NOBODY = 1
"""A port at which nobody listens: tcpmux, reserved and unused."""
OPEN_REFUSALS = {
    400: ("invalidParameter", "ua invalid"),
    401: ("authFailed", "鉴权失败"),
    403: ("Forbidden.AccessDenied.IpNotInWhiteList", "IP 不在白名单中"),
    429: ("system.busy", "系统繁忙"),
    500: ("system.error", "系统错误"),
    503: ("ServiceUnavailable", "服务暂不可用"),
}
XML = (
    '<?xml version="1.0" encoding="UTF-8"?><ConnectionsOpenResponse><endpoint>{0}</endpoint></ConnectionsOpenResponse>'
)


@dataclass(slots=True)
class Session:
    """One session webhook: `expires_at` is wall-clock seconds."""

    conversation: str
    user: str
    expires_at: float


class StreamSide(Record):
    """Knobs are plain attributes; a queue of faults is used up one per call, before the sticky fault."""

    def __init__(self, client_id: str, client_secret: str) -> None:
        super().__init__(client_id, client_secret)
        self.endpoint = ""
        self.port = 0
        self.ticket_ttl_s = 90.0
        self.open_fault: Fault = None
        self.open_faults: deque[Fault] = deque()
        self.handshake_fault: Fault = None
        self.handshake_faults: deque[Fault] = deque()
        self.connection_fault: str | None = None
        self.connection_faults: deque[str | None] = deque()
        self.after_accept: Callable[[Connection], Awaitable[object]] | None = None
        self.redeliver_after_s: float | None = None
        self.redeliver_at_most: int | None = None
        self.event_redeliver_after_s: float | None = None
        self.dead_channel = False
        self.greets = False
        self.keepalive_every_s: float | None = None
        self.ping_every_s: float | None = None
        self.ws_ping_every_s: float | None = None
        self.opens: list[Open] = []
        self.connections: list[Connection] = []
        self.accepted: list[Connection] = []
        self.sent: list[Sent] = []
        self.held: deque[Sent] = deque()
        self.acks: list[Ack] = []
        self.wrong_socket_acks: list[Ack] = []
        self.sessions: dict[str, Session] = {}
        self._given: dict[str, None] = {}  # tickets, in order
        self._tickets: dict[str, tuple[float, list[Any]]] = {}
        self._lists += [self.opens, self.accepted, self.sent, self.acks, self.wrong_socket_acks]
        self._tables += [self.sessions, self._given, self._tickets]
        self._secrets += [self.sessions, self._given]

    # ---- what a test or a chat page does

    @property
    def tickets(self) -> set[str]:
        """All that were given: what no log may show."""
        return set(self._given)

    async def say(
        self,
        text: str | None = "你好",
        *,
        user: str = "042",
        nick: str = "张三",
        conversation: str | None = None,
        group: bool = False,
        msg_id: str | None = None,
        webhook_ttl_s: float = 5400.0,
        hold: bool = True,
        to: Connection | None = None,
        payload: dict[str, Any] | None = None,
        **overrides: Any,
    ) -> Sent:
        """Push a bot message; without a live connection it is held, or lost with `hold=False`.

        `payload` takes the place of msgtype and text, like {"msgtype": "picture", "content": {…}}; `text=None`
        alone leaves both out. `overrides` set any key of the message; MISSING as value removes it. `to` chooses
        the connection; DingTalk, and this without it, takes any.
        """
        conversation = conversation or ("cid-group" if group else f"cid-{user}")
        session = secrets.token_hex(16)
        self.sessions[session] = Session(conversation, user, time.time() + webhook_ttl_s)
        data = build_message(
            robot=self.client_id,
            user=user,
            nick=nick,
            conversation=conversation,
            group=group,
            msg_id=msg_id or "",
            webhook=f"{self.url}/robot/sendBySession?session={session}",
            ttl_s=webhook_ttl_s,
        )
        if payload is None and text is not None:
            payload = {"msgtype": "text", "text": {"content": f" {text}" if group else text}}
        data |= (payload or {}) | overrides
        data = {key: value for key, value in data.items() if value is not MISSING}
        sent = Sent(
            time.monotonic(),
            "CALLBACK",
            BOT_TOPIC,
            data,
            text=text or "",
            msg_id=str(data.get("msgId", "")),
            user=user,
            conversation=conversation,
            session=session,
        )
        return await self._send(sent, hold=hold, to=to)

    async def burst(self, count: int, text: str = "第{n}条", *, users: int = 1, **how: Any) -> list[Sent]:
        """Say it `count` times without a pause, in turn by `users` people; `{n}` in the text counts from 1."""
        people = [f"{42 + number:03}" for number in range(users)]
        return [await self.say(text.replace("{n}", str(n + 1)), user=people[n % users], **how) for n in range(count)]

    async def push_callback(
        self,
        topic: str,
        data: Any,
        type: str = "CALLBACK",  # noqa: A002 - the protocol's own word
        *,
        hold: bool = True,
        to: Connection | None = None,
        headers: dict[str, str] | None = None,
    ) -> Sent:
        """Push anything on any topic; `data` as str is written as it is, even where it is no JSON."""
        msg_id = str(data.get("msgId", "")) if isinstance(data, dict) else ""
        sent = Sent(time.monotonic(), type, topic, data, msg_id=msg_id, headers=headers or {})
        return await self._send(sent, hold=hold, to=to)

    async def duplicate(self, sent: Sent) -> Push:
        """The last frame again on its own connection, messageId and all. ConnectionError when that is gone."""
        last = sent.pushes[-1]
        for connection in self.connections:
            if connection.id == last.connection_id:
                return await connection.push(last.frame, sent)
        raise ConnectionResetError("its connection is gone")

    async def redeliver(self, sent: Sent, to: Connection | None = None) -> Push | None:
        """Push it once more, with a new headers.messageId; None when no connection was there to take it."""
        while connection := to or self._choose(sent.type, sent.topic):
            frame = build_frame(
                sent.type, sent.topic, self._as_billed(sent), connection_id=connection.id, headers=sent.headers
            )
            try:
                return await connection.push(frame, sent)
            except ConnectionError:  # it went away while being written to
                connection.cut()
                to = None
        return None

    async def connected(self, count: int = 1, timeout_s: float = 10.0) -> Connection:
        """The newest connection, as soon as `count` of them are live."""
        live = await self.until(lambda: self._live() if len(self._live()) >= count else None, timeout_s)
        return live[-1]

    async def acked(self, sent: Sent, timeout_s: float = 10.0) -> Ack:
        """The first ack of any of its deliveries."""
        acks = await self.until(lambda: sent.acks, timeout_s)
        return acks[0]

    # ---- routes

    async def _open(self, request: web.Request) -> web.StreamResponse:
        fault = take(self.open_faults, self.open_fault)
        body = await json_body(request)
        status = self._judge(body) if fault is None else 0
        outcome = str(fault or status or "ticket")
        self.opens.append(Open(time.monotonic(), body, dict(request.headers), outcome))
        asked = {name: request.headers.get(name, "") for name in ("User-Agent", "Accept")}
        self.note("open", outcome=outcome, headers=asked, body=body)
        if status:
            return _refusal(status)
        if fault in {None, "no_ticket", "no_endpoint", "empty", "refused"}:
            return self._ticket(request, body, fault)
        return await self.play(request, fault, _refusal)

    def _judge(self, body: Any) -> int:
        if not isinstance(body, dict) or not isinstance(body.get("subscriptions"), list):
            return 400
        given = body.get("clientId"), body.get("clientSecret")
        if not all(given):
            return 400
        return 0 if given == (self.client_id, self.client_secret) else 401

    def _ticket(self, request: web.Request, body: Any, fault: Fault) -> web.Response:
        if fault == "empty":
            return web.Response(content_type="application/json")
        if "application/json" not in request.headers.get("Accept", ""):  # the real API answers XML then
            return web.Response(text=XML.format(self.endpoint), content_type="text/xml")
        ticket = str(uuid.uuid4())
        self._given[ticket] = None
        self._tickets[ticket] = (time.monotonic() + self.ticket_ttl_s, (body or {}).get("subscriptions", []))
        endpoint = self.endpoint.replace(f":{self.port}/", f":{NOBODY}/") if fault == "refused" else self.endpoint
        parts = {"endpoint": endpoint, "ticket": ticket}
        parts.pop(str(fault).removeprefix("no_"), None)
        return answer(parts)

    async def _connect(self, request: web.Request) -> web.StreamResponse:
        fault = take(self.handshake_faults, self.handshake_fault)
        valid_until, subscriptions = self._tickets.pop(request.query.get("ticket", ""), (0.0, []))
        if fault is not None:
            self.note("handshake", outcome=str(fault))
            return await self.play(request, fault, lambda status: web.Response(status=status))
        if valid_until <= time.monotonic():
            self.note("handshake", outcome="bad ticket")
            return web.Response(status=400, text="invalid ticket")
        connection = Connection(self, request, subscriptions, self._on_frame)
        await connection.accept()
        self.connections.append(connection)
        self.accepted.append(connection)
        self.note("connected", connection=connection.id, subscriptions=subscriptions)
        self.spawn(self._greet(connection))
        try:
            return await connection.serve()
        finally:
            self.connections.remove(connection)
            self.note("closed", connection=connection.id, code=connection.closed_code)

    async def _greet(self, connection: Connection) -> None:
        fault = self.connection_faults.popleft() if self.connection_faults else self.connection_fault
        with contextlib.suppress(ConnectionError):
            for topic in ("CONNECTED", "REGISTERED") if self.greets else ():
                await connection.push(build_frame("SYSTEM", topic, {}))
            if self.after_accept is not None:
                await self.after_accept(connection)
            if fault is not None:
                await connection.suffer(fault)
        connection.greeted()
        self._keep_alive(connection)
        for sent in [self.held.popleft() for _ in range(len(self.held))]:
            await self._deliver(sent, hold=True)

    def _keep_alive(self, connection: Connection) -> None:
        async def system(topic: str) -> None:
            if connection.state is State.LIVE:
                await connection.push(build_frame("SYSTEM", topic, {"opaque": secrets.token_hex(8)}))

        for interval_s, act in (
            (self.ws_ping_every_s, connection.expect_pong),
            (self.ping_every_s, lambda: system("ping")),
            (self.keepalive_every_s, lambda: system("KEEPALIVE")),
        ):
            if interval_s is not None:
                self.spawn(connection.every(interval_s, act))

    # ---- pushes and acks

    def _live(self) -> list[Connection]:
        return [connection for connection in self.connections if connection.state is State.LIVE]

    def _choose(self, kind: str, topic: str) -> Connection | None:
        states = {State.LIVE, State.HALF_OPEN} if self.dead_channel else {State.LIVE}
        takers = [c for c in self.connections if c.state in states and c.takes(kind, topic)]
        return random.choice(takers) if takers else None

    async def _send(self, sent: Sent, *, hold: bool, to: Connection | None) -> Sent:
        self.sent.append(sent)
        await self._deliver(sent, hold=hold, to=to)
        if self._patience_s(sent) is not None:
            self.spawn(self._insist(sent))
        return sent

    async def _deliver(self, sent: Sent, *, hold: bool, to: Connection | None = None) -> None:
        if await self.redeliver(sent, to) is not None:
            return
        sent.lost = not hold or (self.keep is not None and len(self.held) >= self.keep)
        if not sent.lost:
            self.held.append(sent)
        self.note("lost" if sent.lost else "held", msg_id=sent.msg_id)

    def _as_billed(self, sent: Sent) -> Any:
        """The data; beyond the month's quota a notice comes instead of a message."""
        over = sent.topic == BOT_TOPIC and isinstance(sent.data, dict) and self.meter.spent(WEBHOOK_STREAM)
        return over_quota(sent.data) if over else sent.data

    def _patience_s(self, sent: Sent) -> float | None:
        """How long to wait for an ack before it is sent again; None: for ever."""
        if sent.type == "EVENT":
            return self.event_redeliver_after_s
        return self.redeliver_after_s if sent.topic == BOT_TOPIC else None

    async def _insist(self, sent: Sent) -> None:
        again = 0
        while (patience_s := self._patience_s(sent)) is not None and not sent.lost:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await sent.acknowledged.wait()
                return
            if sent.type != "EVENT" and self.redeliver_at_most is not None and again >= self.redeliver_at_most:
                return
            if sent.pushes:  # held ones come with the next connection
                again += 1
                await self.redeliver(sent)

    def _on_frame(self, connection: Connection, frame: dict[str, Any]) -> None:
        message_id = str(frame["headers"].get("messageId", ""))
        push = self._pushed(message_id, connection)
        ack = Ack(
            time.monotonic(),
            connection.id,
            message_id,
            frame.get("code"),
            frame.get("message"),
            frame.get("data"),
            push,
        )
        self.acks.append(ack)
        connection.acks.append(ack)
        if self.keep is not None:
            del connection.acks[: -self.keep]
        if push is not None:
            push.ack = push.ack or ack
            if push.connection_id != connection.id:
                self.wrong_socket_acks.append(ack)
            if push.sent is not None and not _asks_again(push.sent, ack):
                push.sent.acknowledged.set()
        facts = {"code": ack.code, "message": ack.message, "data": ack.data}
        self.note("ack", connection=connection.id, message_id=message_id, **facts)

    def _pushed(self, message_id: str, connection: Connection) -> Push | None:
        """The push an ack belongs to: on its own connection and unanswered if there is one."""
        pushes = self.pushes.get(message_id, [])
        return min(pushes, key=lambda push: (push.connection_id != connection.id, push.ack is not None), default=None)


def _asks_again(sent: Sent, ack: Ack) -> bool:
    """An EVENT may be put off by its ack."""
    with contextlib.suppress(ValueError, TypeError, AttributeError):
        return sent.type == "EVENT" and json.loads(ack.data).get("status") == "LATER"
    return False


def _refusal(status: int) -> web.Response:
    code, message = OPEN_REFUSALS.get(status, ("unknownError", "未知错误"))
    return answer({"requestid": str(uuid.uuid4()).upper(), "code": code, "message": message}, status)
