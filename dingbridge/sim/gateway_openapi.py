"""The stand-in gateway's OpenAPI: access tokens, one-to-one and group messages, and what all calls have in common."""

from __future__ import annotations

import secrets
import time
import uuid
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web

from dingbridge.sim.gateway_base import Fault, answer, delivers, json_body, take
from dingbridge.sim.gateway_meter import API
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
            *(f"action{part}{number}" for number in range(1, count + 1) for part in ("Title", "URL")),
        )
        for count in range(2, 6)
    },
    "sampleActionCard6": ("title", "text", "buttonTitle1", "buttonUrl1", "buttonTitle2", "buttonUrl2"),
    "sampleFile": ("mediaId", "fileName", "fileType"),
}
API_KINDS: Final = {
    ("POST", "/v1.0/robot/oToMessages/batchSend"): "oto",
    ("POST", "/v1.0/robot/groupMessages/send"): "group",
    ("POST", "/v1.0/robot/messageFiles/download"): "download",
    ("POST", "/v1.0/robot/emotion/reply"): "emotion.reply",
    ("POST", "/v1.0/robot/emotion/recall"): "emotion.recall",
    ("POST", "/v1.0/card/instances"): "card.create",
    ("POST", "/v1.0/card/instances/createAndDeliver"): "card.create_and_deliver",
    ("POST", "/v1.0/card/instances/deliver"): "card.deliver",
    ("PUT", "/v1.0/card/instances"): "card.update",
    ("PUT", "/v1.0/card/streaming"): "card.stream",
}
SCOPES: Final = {"card.stream": "Card.Streaming.Write"}
PERMISSION_DENIED: Final = "Forbidden.AccessDenied.AccessTokenPermissionDenied"
QPS_OF_APP: Final = "Forbidden.AccessDenied.QpsLimitForAppkeyAndApi"
QPS_OF_ALL: Final = "Forbidden.AccessDenied.QpsLimitForApi"
MONTH_OF_ORG: Final = "Forbidden.AccessDenied.ApiCountLimitForOrg"
FREE: Final = {QPS_OF_APP, QPS_OF_ALL, MONTH_OF_ORG, "InvalidAuthentication"}
WORDS: Final[dict[Fault, Fault]] = {"qps": (403, QPS_OF_APP), "permission": (403, PERMISSION_DENIED)}

Accept = Callable[[dict[str, Any]], dict[str, Any]]


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
        self.faults_of: dict[str, deque[Fault]] = {}
        self.missing_permissions: set[str] = set()
        self._tokens: dict[str, None] = {}
        self._token = ""
        self._token_ends = 0.0
        self._calls: deque[tuple[float, str]] = deque(maxlen=10_000)
        self._tables.append(self._tokens)
        self._secrets.append(self._tokens)

    # ---- what a test or a chat page does

    def expire_tokens(self) -> None:
        """Every token given so far is refused from now on."""
        self._token = ""

    def plant(self, api: str, fault: Fault, *, times: int = 1, after: int = 0) -> None:
        """The next calls of one API (a value of `API_KINDS`), past the first `after`, suffer it."""
        if api not in API_KINDS.values():
            raise ValueError(f"no such API: {api!r}")
        self.faults_of.setdefault(api, deque()).extend([None] * after + [fault] * times)

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
        self.meter.free["token"] += 1
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
            refused, key = self.invalid_staff | self.flow_controlled, secrets.token_urlsafe(24)
            for user in users:
                if user not in refused:
                    self._post("oto", self._direct_conversation(user), user, body, key=key)
            return {
                "processQueryKey": key,
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
            key = secrets.token_urlsafe(24)
            self._post("group", conversation, "", body, key=key)
            return {"processQueryKey": key}

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

    # ---- any call

    async def _call(self, request: web.Request, accept: Accept) -> web.StreamResponse:
        kind = API_KINDS[request.method, request.path]
        fault = self._fault_of(kind)
        raw = await request.read()
        facts = {"path": request.path, "text": raw[:MSG_PARAM_LIMIT].decode(errors="replace")}
        if fault is not None and not delivers(fault):
            self.note("openapi", outcome=str(fault), **facts)
            if isinstance(fault, tuple):
                return self._refuse(kind, Refused(fault[1], status=fault[0]))
            return await self._play(request, kind, fault)
        try:
            self._check_pace(request.path)
            self._check_token(request)
            self._check_rights(kind)
            result = accept(json_object(raw, "invalidParameter"))
        except Refused as refused:
            self.note("openapi", outcome=str(refused.code), **facts)
            return self._refuse(kind, refused)
        self.meter.count(API, kind)
        if fault is not None:
            return await self.play(request, fault, lambda status: _modern(status, "system.error"))
        return answer(result)

    def _fault_of(self, kind: str) -> Fault:
        own = self.faults_of.get(kind)
        fault = own.popleft() if own else take(self.openapi_faults, self.openapi_fault)
        return WORDS.get(fault, fault)

    async def _play(self, request: web.Request, kind: str, fault: Fault) -> web.StreamResponse:
        """Only a status comes from DingTalk itself; what breaks on the way is not billed."""
        if isinstance(fault, int):
            self.meter.count(API, kind)
        else:
            self.meter.free[kind] += 1
        return await self.play(request, fault, lambda status: _modern(status, "system.error"))

    def _refuse(self, kind: str, refused: Refused) -> web.Response:
        if refused.code in FREE:
            self.meter.free[kind] += 1
        else:
            self.meter.count(API, kind)
        return _modern(refused.status, str(refused.code), refused.message, _scope(kind))

    def _check_rights(self, kind: str) -> None:
        """The permission this API needs, and the month's count."""
        if _scope(kind) in self.missing_permissions:
            raise Refused(PERMISSION_DENIED, "应用尚未开通所需的权限", 403)
        if self.meter.spent(API):
            raise Refused(MONTH_OF_ORG, "企业本月接口调用次数已用完", 403)

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


def required(body: dict[str, Any], field: str, code: str) -> str:
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


def _scope(kind: str) -> str:
    return SCOPES.get(kind, "Card.Instance.Write" if kind.startswith("card.") else "qyapi_robot_sendmsg")


def _modern(status: int, code: str, message: str = "", scope: str = "") -> web.Response:
    body: dict[str, Any] = {"code": code, "requestid": str(uuid.uuid4()).upper(), "message": message or code}
    if code == PERMISSION_DENIED:
        body["accessdenieddetail"] = {"requiredScopes": [scope]}
    return answer(body, status)
