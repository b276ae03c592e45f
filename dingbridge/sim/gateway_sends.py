"""The stand-in gateway's webhooks: those of sessions, and those of custom robots."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from dingbridge.sim.gateway_base import Fault, answer, conversation_of, delivers, take
from dingbridge.sim.gateway_meter import WEBHOOK_STREAM
from dingbridge.sim.gateway_records import Post, Sent
from dingbridge.sim.gateway_stream import StreamSide

WEBHOOK_LIMIT: Final = 20_000
WEBHOOK_FIELDS: Final = {
    "text": ("content",),
    "markdown": ("title", "text"),
    "actionCard": ("title", "text"),
    "link": ("title", "text", "messageUrl"),
    "feedCard": ("links",),
}
ERRMSG: Final = {
    -1: "系统繁忙",
    40035: "不合法的参数",
    90030: "webhook over limit",
    43004: "无效的HTTP HEADER Content-Type",
    130101: "send too fast",
    300001: "session 不存在",
    400105: "unsupported msgtype",
    410100: "发送速度太快而限流",
    430101: "unsafe link",
    430104: "unsafe content",
    460101: "description: body 大小不合法;solution:请保持大小在 20000bytes 以内;",
}
BAN_S: Final = 600.0
CLOCK_S: Final = 3600.0


class Refused(Exception):
    """The request is refused with this errcode (webhook) or code (OpenAPI)."""

    def __init__(self, code: int | str, message: str = "", status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


@dataclass(slots=True)
class Custom:
    """A custom robot of a group: with a secret its calls are signed, with a keyword each message holds it."""

    conversation: str
    secret: str
    keyword: str
    banned_until: float = 0.0


class SendSide(StreamSide):
    """Every message a user would see becomes a `Post`, also where a fault hides that from the sender."""

    def __init__(self, client_id: str, client_secret: str) -> None:
        super().__init__(client_id, client_secret)
        self.webhook_fault: Fault = None
        self.webhook_faults: deque[Fault] = deque()
        self.webhook_delay_s = 0.0
        self.webhook_per_minute: int | None = None
        self.custom_per_minute: int | None = 20
        self.custom_robots: dict[str, Custom] = {}
        self._seen: dict[str | None, int] = {}
        self._posted = 0
        self._secrets.append(self.custom_robots)

    # ---- what a test or a chat page does

    def posts_in(self, target: str | Sent | None = None) -> list[Post]:
        """Posts of a conversation; for a `Sent`, those in its conversation since it was said; None: all."""
        conversation = conversation_of(target)
        since = target.at if isinstance(target, Sent) else 0.0
        return [post for post in self.posts if conversation in (None, post.conversation) and post.at >= since]

    async def wait_posts(self, target: str | Sent | None = None, n: int = 1, timeout_s: float = 10.0) -> list[Post]:
        """All posts in `posts_in(target)` as soon as there are `n`. TimeoutError else."""
        return await self.until(lambda: posts if len(posts := self.posts_in(target)) >= n else None, timeout_s)

    async def next_post(self, target: str | Sent | None = None, timeout_s: float = 10.0) -> Post:
        """The oldest post of the conversation (None: of all) that no earlier call for it has returned."""
        conversation = conversation_of(target)
        seen = self._seen.get(conversation, 0)
        post = await self.until(lambda: self._after(seen, conversation), timeout_s)
        self._seen[conversation] = post.number
        return post

    def _after(self, number: int, conversation: str | None) -> Post | None:
        return next((post for post in self.posts_in(conversation) if post.number > number), None)

    def custom_robot(self, *, secret: str = "", keyword: str = "", conversation: str = "") -> str:
        """Add a custom robot to a group; the URL of its webhook."""
        token = secrets.token_hex(16)
        self.custom_robots[token] = Custom(conversation or f"cid-custom-{len(self.custom_robots)}", secret, keyword)
        return f"{self.url}/robot/send?access_token={token}"

    def expire_webhooks(self, conversation: str | None = None) -> None:
        """The session webhooks of a conversation, or all, end earlier than their field says."""
        for session in self.sessions.values():
            if conversation in (None, session.conversation):
                session.expires_at = 0.0

    # ---- session webhook

    async def _send_by_session(self, request: web.Request) -> web.StreamResponse:
        return await self._webhook(request, self._accept_webhook)

    async def _send_custom(self, request: web.Request) -> web.StreamResponse:
        return await self._webhook(request, self._accept_custom)

    async def _webhook(
        self, request: web.Request, accept: Callable[[Mapping[str, str], dict[str, Any]], None]
    ) -> web.StreamResponse:
        fault = take(self.webhook_faults, self.webhook_fault)
        raw = await request.read()
        if self.webhook_delay_s:
            await self.pause(self.webhook_delay_s)
        facts = {"path": request.path, "text": raw[:WEBHOOK_LIMIT].decode(errors="replace")}
        if fault is not None and not delivers(fault):
            self.note("webhook", outcome=str(fault), **facts)
            return await self.play(request, fault, legacy)
        kind = "custom" if request.path == "/robot/send" else "webhook"
        try:
            self._check_month()
            accept(request.query, _webhook_body(request.content_type, raw))
        except Refused as refused:
            self.meter.free[kind] += 1
            self.note("webhook", outcome=str(refused.code), **facts)
            return legacy(refused.code, refused.message)
        self.meter.count(WEBHOOK_STREAM, kind)
        if fault is not None:
            return await self.play(request, fault, legacy)
        return legacy(0, "ok")

    def _check_month(self) -> None:
        if self.meter.spent(WEBHOOK_STREAM):
            raise Refused(90030)

    def _accept_webhook(self, query: Mapping[str, str], body: dict[str, Any]) -> None:
        key = query.get("session", "")
        session = self.sessions.get(key)
        if session is None or session.expires_at <= time.time():
            raise Refused(300001)
        self._limit(self.webhook_per_minute, "webhook", session.conversation)
        self._post("webhook", session.conversation, session.user, body, key)

    def _accept_custom(self, query: Mapping[str, str], body: dict[str, Any]) -> None:
        robot = self.custom_robots.get(query.get("access_token", ""))
        if robot is None:
            raise Refused(300001, "token is not exist")
        if robot.secret:
            _check_signature(robot.secret, query.get("timestamp", ""), query.get("sign", ""))
        if robot.keyword not in json.dumps(body, ensure_ascii=False):
            raise Refused(310000, "keywords not in content")
        if robot.banned_until > time.monotonic():
            raise Refused(130101)
        try:
            self._limit(self.custom_per_minute, "custom", robot.conversation)
        except Refused:
            robot.banned_until = time.monotonic() + BAN_S
            raise
        self._post("custom", robot.conversation, "", body)

    def _limit(self, per_minute: int | None, path: str, conversation: str) -> None:
        minute_ago = time.monotonic() - 60
        recent = [post for post in self.posts_in(conversation) if post.path == path and post.at > minute_ago]
        if per_minute is not None and len(recent) >= per_minute:
            raise Refused(130101)

    def _post(
        self, path: str, conversation: str, user: str, body: dict[str, Any], session: str = "", key: str = ""
    ) -> None:
        self._posted += 1
        self.posts.append(Post(time.monotonic(), path, conversation, user, session, body, self._posted, key))
        self.note("post", path=path, conversation=conversation, user=user, body=body)


def _check_signature(secret: str, timestamp: str, sign: str) -> None:
    if not timestamp.isdecimal() or abs(int(timestamp) / 1000 - time.time()) > CLOCK_S:
        raise Refused(310000, "invalid timestamp")
    mac = hmac.new(secret.encode(), f"{timestamp}\n{secret}".encode(), hashlib.sha256).digest()
    if not hmac.compare_digest(base64.b64encode(mac), sign.encode()):
        raise Refused(310000, "sign not match")


def _webhook_body(content_type: str, raw: bytes) -> dict[str, Any]:
    if content_type != "application/json":
        raise Refused(43004)
    if len(raw) > WEBHOOK_LIMIT:
        raise Refused(460101)
    body = json_object(raw, 40035)
    kind = body.get("msgtype")
    if kind not in WEBHOOK_FIELDS:
        raise Refused(400105)
    part = body.get(kind)
    for field in WEBHOOK_FIELDS[kind]:
        if not isinstance(part, dict) or not part.get(field):
            raise Refused(40035, f"miss.param.{kind}To{field}")
    if kind == "actionCard" and isinstance(part, dict):
        _check_buttons(part)
    return body


def _check_buttons(card: dict[str, Any]) -> None:
    """One button over the whole card, or a list."""
    buttons = card.get("btns", [{"title": card.get("singleTitle"), "actionURL": card.get("singleURL")}])
    if not isinstance(buttons, list) or not buttons:
        raise Refused(40035, "miss.param.actionCardTobtns")
    for button in buttons:
        for field in ("title", "actionURL"):
            if not isinstance(button, dict) or not isinstance(button.get(field), str) or not button[field]:
                raise Refused(40035, f"miss.param.actionCardTo{field}")


def json_object(raw: str | bytes, code: int | str) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Refused(code)
    return body


def legacy(code: int | str, message: str = "") -> web.Response:
    return answer({"errcode": code, "errmsg": message or ERRMSG.get(int(code), "unknown error")})
