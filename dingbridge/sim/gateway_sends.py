"""The stand-in gateway's sending side: session webhooks, access tokens, one-to-one and group messages."""

from __future__ import annotations

import json
import secrets
import time
import uuid
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web

from dingbridge.sim.gateway_base import Fault, answer, conversation_of, delivers, take
from dingbridge.sim.gateway_records import Post, Sent
from dingbridge.sim.gateway_stream import StreamSide

WEBHOOK_LIMIT: Final = 20_000
MSG_PARAM_LIMIT: Final = 15_000
WEBHOOK_FIELDS: Final = {
    "text": ("content",),
    "markdown": ("title", "text"),
    "actionCard": ("title", "text"),
    "link": ("title", "text", "messageUrl"),
    "feedCard": ("links",),
}
OPENAPI_FIELDS: Final = {
    "sampleText": ("content",),
    "sampleMarkdown": ("title", "text"),
    "sampleImageMsg": ("photoURL",),
    "sampleLink": ("title", "text", "messageUrl"),
    "sampleActionCard": ("title", "text", "singleTitle", "singleURL"),
    "sampleFile": ("mediaId", "fileName", "fileType"),
}
ERRMSG: Final = {
    -1: "系统繁忙",
    40035: "不合法的参数",
    43004: "无效的HTTP HEADER Content-Type",
    130101: "send too fast",
    300001: "session 不存在",
    400105: "unsupported msgtype",
    410100: "发送速度太快而限流",
    430101: "unsafe link",
    430104: "unsafe content",
    460101: "description: body 大小不合法;solution:请保持大小在 20000bytes 以内;",
}
PERMISSION_DENIED: Final = "Forbidden.AccessDenied.AccessTokenPermissionDenied"

Accept = Callable[[dict[str, Any]], dict[str, Any]]


class Refused(Exception):
    """The request is refused with this errcode (webhook) or code (OpenAPI)."""

    def __init__(self, code: int | str, message: str = "", status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


class SendSide(StreamSide):
    """Every message a user would see becomes a `Post`, also where a fault hides that from the sender."""

    def __init__(self, client_id: str, client_secret: str) -> None:
        super().__init__(client_id, client_secret)
        self.webhook_fault: Fault = None
        self.webhook_faults: deque[Fault] = deque()
        self.webhook_delay_s = 0.0
        self.webhook_per_minute: int | None = None
        self.openapi_fault: Fault = None
        self.openapi_faults: deque[Fault] = deque()
        self.invalid_staff: set[str] = set()
        self.flow_controlled: set[str] = set()
        self.token_calls = 0
        self._token = ""
        self._token_ends = 0.0
        self._seen: dict[str | None, int] = {}

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
        posts = await self.wait_posts(conversation, seen + 1, timeout_s)
        self._seen[conversation] = seen + 1
        return posts[seen]

    def expire_tokens(self) -> None:
        """Every token given so far is refused from now on."""
        self._token = ""

    def expire_webhooks(self, conversation: str | None = None) -> None:
        """The session webhooks of a conversation, or all, end earlier than their field says."""
        for session in self.sessions.values():
            if conversation in (None, session.conversation):
                session.expires_at = 0.0

    # ---- session webhook

    async def _send_by_session(self, request: web.Request) -> web.StreamResponse:
        fault = take(self.webhook_faults, self.webhook_fault)
        raw = await request.read()
        if self.webhook_delay_s:
            await self.pause(self.webhook_delay_s)
        if fault is not None and not delivers(fault):
            self.note("webhook", outcome=str(fault))
            return await self.play(request, fault, _legacy)
        try:
            self._accept_webhook(request.query.get("session", ""), request.content_type, raw)
        except Refused as refused:
            self.note("webhook", outcome=str(refused.code))
            return _legacy(refused.code, refused.message)
        if fault is not None:
            return await self.play(request, fault, _legacy)
        return _legacy(0, "ok")

    def _accept_webhook(self, key: str, content_type: str, raw: bytes) -> None:
        body = _webhook_body(content_type, raw)
        session = self.sessions.get(key)
        if session is None or session.expires_at <= time.time():
            raise Refused(300001)
        minute_ago = time.monotonic() - 60
        recent = [p for p in self.posts_in(session.conversation) if p.path == "webhook" and p.at > minute_ago]
        if self.webhook_per_minute is not None and len(recent) >= self.webhook_per_minute:
            raise Refused(130101)
        self._post("webhook", session.conversation, session.user, body, key)

    def _post(self, path: str, conversation: str, user: str, body: dict[str, Any], session: str = "") -> None:
        self.posts.append(Post(time.monotonic(), path, conversation, user, session, body))
        self.note("post", path=path, conversation=conversation, user=user, body=body)

    # ---- OpenAPI

    async def _access_token(self, request: web.Request) -> web.StreamResponse:
        self.token_calls += 1
        try:
            body = await request.json()
        except ValueError:
            body = {}
        known = (body.get("appKey"), body.get("appSecret")) == (self.client_id, self.client_secret)
        self.note("token", ok=known)
        if not known:
            return _modern(400, "invalidClientIdOrSecret", "无效的clientId或者clientSecret")
        if not self._token or self._token_ends < time.monotonic():
            self._token = secrets.token_hex(16)
        self._token_ends = time.monotonic() + 7200  # asking again extends the same token
        return answer({"accessToken": self._token, "expireIn": 7200})

    async def _send_oto(self, request: web.Request) -> web.StreamResponse:
        def accept(body: dict[str, Any]) -> dict[str, Any]:
            users = body.get("userIds")
            if not isinstance(users, list) or not users:
                raise Refused("miss.param.userIds")
            if len(users) > 20:
                raise Refused("receivers.exceed")
            refused = self.invalid_staff | self.flow_controlled
            for user in users:
                if user not in refused:
                    self._post("oto", self._direct_conversation(user), user, body)
            return {
                "invalidStaffIdList": [user for user in users if user in self.invalid_staff],
                "flowControlledStaffIdList": [user for user in users if user in self.flow_controlled],
            }

        return await self._send_message(request, accept)

    async def _send_group(self, request: web.Request) -> web.StreamResponse:
        def accept(body: dict[str, Any]) -> dict[str, Any]:
            conversation = body.get("openConversationId")
            if not conversation or not isinstance(conversation, str):
                raise Refused("miss.openConversationId")
            self._post("group", conversation, "", body)
            return {}

        return await self._send_message(request, accept)

    async def _send_message(self, request: web.Request, accept: Accept) -> web.StreamResponse:
        fault = take(self.openapi_faults, self.openapi_fault)
        raw = await request.read()
        if fault is not None and not delivers(fault):
            self.note("openapi", path=request.path, outcome=str(fault))
            if isinstance(fault, tuple):
                return _modern(*fault)
            return await self.play(request, fault, lambda status: _modern(status, "system.error"))
        try:
            result = accept(self._openapi_body(request, raw))
        except Refused as refused:
            self.note("openapi", path=request.path, outcome=str(refused.code))
            return _modern(refused.status, str(refused.code), refused.message)
        if fault is not None:
            return await self.play(request, fault, lambda status: _modern(status, "system.error"))
        return answer({"processQueryKey": secrets.token_urlsafe(24)} | result)

    def _openapi_body(self, request: web.Request, raw: bytes) -> dict[str, Any]:
        token = request.headers.get("x-acs-dingtalk-access-token", "")
        if not token or token != self._token or self._token_ends < time.monotonic():
            raise Refused("InvalidAuthentication", "不合法的access_token")
        body = _json_object(raw, "invalidParameter")
        if body.get("robotCode") != self.client_id:
            raise Refused("invalidParameter.robotCode.auth", "appkey与robotCode不匹配")
        _check_msg_param(body.get("msgKey"), body.get("msgParam"))
        return body

    def _direct_conversation(self, user: str) -> str:
        """Where the user last wrote one to one."""
        for sent in reversed(self.sent):
            if sent.user == user and isinstance(sent.data, dict) and sent.data.get("conversationType") == "1":
                return sent.conversation
        return f"cid-{user}"


def _webhook_body(content_type: str, raw: bytes) -> dict[str, Any]:
    if content_type != "application/json":
        raise Refused(43004)
    if len(raw) > WEBHOOK_LIMIT:
        raise Refused(460101)
    body = _json_object(raw, 40035)
    kind = body.get("msgtype")
    if kind not in WEBHOOK_FIELDS:
        raise Refused(400105)
    part = body.get(kind)
    for field in WEBHOOK_FIELDS[kind]:
        if not isinstance(part, dict) or not part.get(field):
            raise Refused(40035, f"miss.param.{kind}To{field}")
    return body


def _check_msg_param(key: Any, param: Any) -> None:
    if key not in OPENAPI_FIELDS:
        raise Refused("invalidParameter.msgKey.invalid")
    if not isinstance(param, str):
        raise Refused("invalidParameter.msgParam.invalid")
    if len(param.encode()) > MSG_PARAM_LIMIT:
        raise Refused("invalidParameter.msgParam.tooLong")
    fields = _json_object(param, "invalidParameter.msgParam.invalid")
    for field in OPENAPI_FIELDS[key]:
        if not isinstance(fields.get(field), str) or not fields[field]:
            raise Refused(f"miss.param.{field}")


def _json_object(raw: str | bytes, code: int | str) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Refused(code)
    return body


def _legacy(code: int | str, message: str = "") -> web.Response:
    return answer({"errcode": code, "errmsg": message or ERRMSG.get(int(code), "unknown error")})


def _modern(status: int, code: str, message: str = "") -> web.Response:
    body: dict[str, Any] = {"code": code, "requestid": str(uuid.uuid4()).upper(), "message": message or code}
    if code == PERMISSION_DENIED:
        body["accessdenieddetail"] = {"requiredScopes": ["qyapi_robot_sendmsg"]}
    return answer(body, status)
