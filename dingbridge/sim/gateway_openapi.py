"""The stand-in gateway's OpenAPI: access tokens, one-to-one and group messages, files that users sent, cards."""

from __future__ import annotations

import secrets
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from dingbridge.sim.gateway_base import Fault, answer, delivers, json_body, take
from dingbridge.sim.gateway_sends import Refused, SendSide, json_object, legacy

MSG_PARAM_LIMIT: Final = 15_000
OPENAPI_FIELDS: Final = {
    "sampleText": ("content",),
    "sampleMarkdown": ("title", "text"),
    "sampleImageMsg": ("photoURL",),
    "sampleLink": ("title", "text", "messageUrl"),
    "sampleActionCard": ("title", "text", "singleTitle", "singleURL"),
    **{
        f"sampleActionCard{count}": (
            "title",
            "text",
            *(f"action{what}{at}" for at in range(1, count + 1) for what in ("Title", "URL")),
        )
        for count in range(2, 6)
    },
    "sampleFile": ("mediaId", "fileName", "fileType"),
}
PERMISSION_DENIED: Final = "Forbidden.AccessDenied.AccessTokenPermissionDenied"
QPS_OF_APP: Final = "Forbidden.AccessDenied.QpsLimitForAppkeyAndApi"
QPS_OF_ALL: Final = "Forbidden.AccessDenied.QpsLimitForApi"

Accept = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class File:
    """What a user sent; its bytes are behind the download URL."""

    content: bytes
    content_type: str


class OpenApiSide(SendSide):
    """With `openapi_per_second` an API refuses what this app asks beyond it, with `openapi_total_per_second` all do."""

    def __init__(self, client_id: str, client_secret: str) -> None:
        super().__init__(client_id, client_secret)
        self.openapi_fault: Fault = None
        self.openapi_faults: deque[Fault] = deque()
        self.openapi_per_second: int | None = None
        self.openapi_total_per_second: int | None = None
        self.invalid_staff: set[str] = set()
        self.flow_controlled: set[str] = set()
        self.token_calls = 0
        self.files: dict[str, File] = {}
        self.cards: dict[str, list[dict[str, Any]]] = {}
        self._tokens: dict[str, None] = {}
        self._token = ""
        self._token_ends = 0.0
        self._calls: deque[tuple[float, str]] = deque(maxlen=10_000)
        self._tables += [self.files, self.cards, self._tokens]
        self._secrets += [self.files, self._tokens]

    # ---- what a test or a chat page does

    def expire_tokens(self) -> None:
        """Every token given so far is refused from now on."""
        self._token = ""

    def add_file(self, content: bytes, content_type: str = "application/octet-stream") -> str:
        """A file for a message's `content`; its download code."""
        code = secrets.token_hex(16)
        self.files[code] = File(content, content_type)
        return code

    # ---- tokens

    async def _access_token(self, request: web.Request) -> web.StreamResponse:
        body = await json_body(request)
        asked = body if isinstance(body, dict) else {}
        token = self._issue(asked.get("appKey"), asked.get("appSecret"))
        if token is None:
            return _modern(400, "invalidClientIdOrSecret", "无效的clientId或者clientSecret")
        return answer({"accessToken": token, "expireIn": 7200})

    async def _get_token(self, request: web.Request) -> web.StreamResponse:
        """The older call, which the Node SDK uses."""
        token = self._issue(request.query.get("appkey"), request.query.get("appsecret"))
        if token is None:
            return legacy(40089, "不合法的corpid或corpsecret")
        return answer({"errcode": 0, "access_token": token, "errmsg": "ok", "expires_in": 7200})

    def _issue(self, key: Any, secret: Any) -> str | None:
        self.token_calls += 1
        known = (key, secret) == (self.client_id, self.client_secret)
        self.note("token", ok=known)
        if not known:
            return None
        if not self._token or self._token_ends < time.monotonic():
            self._token = secrets.token_hex(16)
            self._tokens[self._token] = None
        self._token_ends = time.monotonic() + 7200  # asking again extends the same token
        return self._token

    # ---- messages

    async def _send_oto(self, request: web.Request) -> web.StreamResponse:
        def accept(body: dict[str, Any]) -> dict[str, Any]:
            self._check_message(body)
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
                "processQueryKey": secrets.token_urlsafe(24),
                "invalidStaffIdList": [user for user in users if user in self.invalid_staff],
                "flowControlledStaffIdList": [user for user in users if user in self.flow_controlled],
            }

        return await self._call(request, accept)

    async def _send_group(self, request: web.Request) -> web.StreamResponse:
        def accept(body: dict[str, Any]) -> dict[str, Any]:
            self._check_message(body)
            conversation = body.get("openConversationId")
            if not conversation or not isinstance(conversation, str):
                raise Refused("miss.openConversationId")
            self._post("group", conversation, "", body)
            return {"processQueryKey": secrets.token_urlsafe(24)}

        return await self._call(request, accept)

    def _check_message(self, body: dict[str, Any]) -> None:
        self._check_robot(body)
        _check_msg_param(body.get("msgKey"), body.get("msgParam"))

    def _direct_conversation(self, user: str) -> str:
        """Where the user last wrote one to one."""
        for sent in reversed(self.sent):
            if sent.user == user and isinstance(sent.data, dict) and sent.data.get("conversationType") == "1":
                return sent.conversation
        return f"cid-{user}"

    # ---- files and cards

    async def _download(self, request: web.Request) -> web.StreamResponse:
        def accept(body: dict[str, Any]) -> dict[str, Any]:
            self._check_robot(body)
            code = body.get("downloadCode")
            if not isinstance(code, str) or code not in self.files:
                raise Refused("invalidParameter.downloadCode", "downloadCode有误或者已经过期")
            return {"downloadUrl": f"{self.url}/files/{code}"}

        return await self._call(request, accept)

    async def _file(self, request: web.Request) -> web.StreamResponse:
        """No token here: who has the URL has the file."""
        file = self.files.get(request.match_info["code"])
        if file is None:
            return web.Response(status=404)
        return web.Response(body=file.content, content_type=file.content_type)

    async def _create_card(self, request: web.Request) -> web.StreamResponse:
        def accept(body: dict[str, Any]) -> dict[str, Any]:
            name = _required(body, "outTrackId", "param.empty")
            if name in self.cards:
                raise Refused("param.cardAlreadyExist")
            self._card(request, name, body)
            space = {"spaceType": "IM_ROBOT", "spaceId": str(body.get("openSpaceId", "")), "success": True}
            delivered = {"deliverResults": [space | {"carrierId": secrets.token_urlsafe(16)}]}
            alone = request.path.endswith("/instances")
            return {"success": True, "result": name if alone else {"outTrackId": name} | delivered}

        return await self._call(request, accept)

    async def _change_card(self, request: web.Request) -> web.StreamResponse:
        """Its data, the place it is delivered to, or what streams into it."""

        def accept(body: dict[str, Any]) -> dict[str, Any]:
            name = _required(body, "outTrackId", "param.empty")
            streams = request.path.endswith("/streaming")
            if name not in self.cards:
                raise Refused("param.stream.outTrackId" if streams else "param.cardNotExist", "card is not exist")
            for field in ("key", "guid", "content") if streams else ():
                _required(body, field, f"param.stream.{field}Empty")
            self._card(request, name, body)
            return {"success": True, "result": True}

        return await self._call(request, accept)

    def _card(self, request: web.Request, name: str, body: dict[str, Any]) -> None:
        self.cards.setdefault(name, []).append(body)
        self.note("card", path=request.path, method=request.method, body=body)

    # ---- any call

    async def _call(self, request: web.Request, accept: Accept) -> web.StreamResponse:
        fault = take(self.openapi_faults, self.openapi_fault)
        raw = await request.read()
        facts = {"path": request.path, "text": raw[:MSG_PARAM_LIMIT].decode(errors="replace")}
        if fault is not None and not delivers(fault):
            self.note("openapi", outcome=str(fault), **facts)
            if isinstance(fault, tuple):
                return _modern(*fault)
            return await self.play(request, fault, lambda status: _modern(status, "system.error"))
        try:
            self._check_pace(request.path)
            self._check_token(request)
            result = accept(json_object(raw, "invalidParameter"))
        except Refused as refused:
            self.note("openapi", outcome=str(refused.code), **facts)
            return _modern(refused.status, str(refused.code), refused.message)
        if fault is not None:
            return await self.play(request, fault, lambda status: _modern(status, "system.error"))
        return answer(result)

    def _check_pace(self, path: str) -> None:
        """Calls that are refused here do not count, with DingTalk neither."""
        now = time.monotonic()
        recent = [api for at, api in self._calls if at > now - 1]
        if self.openapi_total_per_second is not None and len(recent) >= self.openapi_total_per_second:
            raise Refused(QPS_OF_ALL, "服务器触发全局限流", 403)
        if self.openapi_per_second is not None and recent.count(path) >= self.openapi_per_second:
            raise Refused(QPS_OF_APP, "应用调用该接口的频率超限", 403)
        self._calls.append((now, path))

    def _check_token(self, request: web.Request) -> None:
        token = request.headers.get("x-acs-dingtalk-access-token", "")
        if not token or token != self._token or self._token_ends < time.monotonic():
            raise Refused("InvalidAuthentication", "不合法的access_token")

    def _check_robot(self, body: dict[str, Any]) -> None:
        if body.get("robotCode") != self.client_id:
            raise Refused("invalidParameter.robotCode.auth", "appkey与robotCode不匹配")


def _required(body: dict[str, Any], field: str, code: str) -> str:
    value = body.get(field)
    if not value or not isinstance(value, str):
        raise Refused(code, field)
    return value


def _check_msg_param(key: Any, param: Any) -> None:
    if key not in OPENAPI_FIELDS:
        raise Refused("invalidParameter.msgKey.invalid")
    if not isinstance(param, str):
        raise Refused("invalidParameter.msgParam.invalid")
    if len(param.encode()) > MSG_PARAM_LIMIT:
        raise Refused("invalidParameter.msgParam.tooLong")
    fields = json_object(param, "invalidParameter.msgParam.invalid")
    for field in OPENAPI_FIELDS[key]:
        if not isinstance(fields.get(field), str) or not fields[field]:
            raise Refused(f"miss.param.{field}")


def _modern(status: int, code: str, message: str = "") -> web.Response:
    body: dict[str, Any] = {"code": code, "requestid": str(uuid.uuid4()).upper(), "message": message or code}
    if code == PERMISSION_DENIED:
        body["accessdenieddetail"] = {"requiredScopes": ["qyapi_robot_sendmsg"]}
    return answer(body, status)
