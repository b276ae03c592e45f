"""DingTalk's REST API: the access token and proactive messages, the rung below the session webhook.

Success is HTTP 200 with the object and no errcode; failure is a status with `{"code", "requestid", "message"}`.
A stale token is HTTP 400 `InvalidAuthentication`, some gateways say 401. (DingTalk's server API error code pages.)
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
from yarl import URL

from dingbridge import trail
from dingbridge.dingtalk.post import send_json
from dingbridge.dingtalk.rate import Rate
from dingbridge.errors import (
    ReplyError,
    ReplyPaced,
    ReplyRejected,
    ReplyTooLong,
    ReplyUnavailable,
    ReplyUncertain,
    ReplyUnsafe,
    StoreError,
)
from dingbridge.model import Message, Secret
from dingbridge.net import Network
from dingbridge.store.shared import HeldToken

GROUP_SEND = "/v1.0/robot/groupMessages/send"
SINGLE_SEND = "/v1.0/robot/oToMessages/batchSend"
TOKEN_MARGIN_S = 300.0
TIMEOUT_S = 10.0
MSG_PARAM_BYTES = 15_000
TOKEN_LIFETIME_S = 7200.0  # as documented, where an answer says nothing believable
SHARED_S = 2.0  # what is shared may be out of reach; an answer does not wait for it
LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A failed call as DingTalk words it."""

    status: int
    code: str
    request_id: str
    scopes: str

    @property
    def stale_token(self) -> bool:
        return self.status == 401 or self.code == "InvalidAuthentication"

    @property
    def from_between(self) -> bool:
        """No answer of DingTalk's but of a proxy, a portal or the firewall before it: those have no `code`."""
        return 300 <= self.status < 400 or self.status == 407 or (self.status < 500 and not self.code)

    @property
    def throttled(self) -> bool:
        return "QpsLimit" in self.code or "QpmLimit" in self.code

    def __str__(self) -> str:
        scopes = f", missing permission {self.scopes}" if self.scopes else ""
        return f"HTTP {self.status} {self.code}{scopes} (requestid {self.request_id or 'none'})"


class SharedToken(Protocol):
    """Where several daemons keep one token. Asked for too often, DingTalk refuses it."""

    async def token(self, refused: Secret, *, claim_s: float) -> HeldToken: ...

    async def keep_token(self, token: Secret, lasts_s: float) -> None: ...

    async def release_token(self) -> None: ...


class OpenAPI:
    """Calls with this robot's token, fetched once for all callers and renewed when it is refused.

    clock: seconds that do not jump, for the token's age. rate: gives each call its turn.
    shared: where other daemons have the token from; out of reach, this one fetches its own.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        network: Network,
        *,
        api_base: str,
        client_id: str,
        client_secret: Secret,
        timeout_s: float = TIMEOUT_S,
        clock: Callable[[], float] = time.monotonic,
        rate: Rate | None = None,
        shared: SharedToken | None = None,
    ) -> None:
        self._session = session
        self._network = network
        self.rate = rate or Rate()
        self._shared = shared
        self._refused = Secret()
        self._api_base = api_base
        self._client_id = client_id
        self._client_secret = client_secret
        self._timeout_s = timeout_s
        self._token = Secret()
        self._token_until = 0.0
        self._clock = clock
        self._refresh = asyncio.Lock()
        self._fetches = 0
        self._fetch_failed: ReplyError | None = None

    def has_turn(self, message: Message) -> bool:
        """Whether `send` would go out without waiting for its turn."""
        return not self.rate.wait_s(GROUP_SEND if message.conversation.is_group else SINGLE_SEND)

    async def send(self, message: Message, title: str, text: str, buttons: Sequence[tuple[str, str]] = ()) -> None:
        """A markdown message to the message's conversation; no mention is possible here. Raises ReplyError.

        buttons: up to five, each a title and an address.
        """
        kind, more = _form(buttons)
        param = json.dumps({"title": title, "text": text, **more}, ensure_ascii=False)
        if len(param.encode()) > MSG_PARAM_BYTES:
            raise ReplyTooLong("longer than the OpenAPI takes")
        body: dict[str, Any] = {"robotCode": self._client_id, "msgKey": kind, "msgParam": param}
        if message.conversation.is_group:
            body["openConversationId"] = message.conversation.id
            await self.call("POST", GROUP_SEND, body)
            return
        if not message.sender.staff_id:
            raise ReplyRejected(
                "the asker has no staff id, so only the session webhook reaches them", cause="chat.no_staff_id"
            )
        body["userIds"] = [message.sender.staff_id]
        result = await self.call("POST", SINGLE_SEND, body)
        if result.get("invalidStaffIdList") or result.get("filteredStaffIdList"):
            raise ReplyRejected(
                "DingTalk does not know the asker's staff id, or this robot may not write to them", cause="chat.person"
            )
        if result.get("flowControlledStaffIdList"):
            raise ReplyPaced("DingTalk limits messages to this person", retry_after=60.0)

    async def token(self) -> Secret:
        """The current access token; raises ReplyError, the same for all who waited for one fetch."""
        fetches = self._fetches
        async with self._refresh:
            if self._token and self._clock() < self._token_until:
                return self._token
            if self._fetches != fetches and self._fetch_failed is not None:
                raise type(self._fetch_failed)(self._fetch_failed.detail, cause=self._fetch_failed.cause)
            try:
                self._fetch_failed = None
                await self._renew_token()
            except ReplyError as error:
                self._fetch_failed = error
                raise
            finally:
                self._fetches += 1
            return self._token

    async def _renew_token(self) -> None:
        """From the other daemons, where they have one; fetched by one of them at a time."""
        held = await self._held_by_others()
        if held.token:
            self._use(held.token, held.left_s)
            return
        try:
            with trail.timed("token.fetched"):
                await self._fetch_token()
        except ReplyError:
            if held.yours:
                await self._tell_others(release=True)
            raise
        await self._tell_others()

    async def _held_by_others(self) -> HeldToken:
        """Waits while somebody fetches it, but not longer than that may take."""
        until = time.monotonic() + self._timeout_s
        while self._shared is not None:
            try:
                async with asyncio.timeout(SHARED_S):
                    held = await self._shared.token(self._refused, claim_s=self._timeout_s + 1.0)
            except (StoreError, TimeoutError):
                break
            if held.token or held.yours or time.monotonic() >= until:
                return held
            await asyncio.sleep(LOOK_S)
        return HeldToken()

    async def _tell_others(self, *, release: bool = False) -> None:
        if self._shared is None:
            return
        with suppress(StoreError, TimeoutError):
            async with asyncio.timeout(SHARED_S):
                if release:
                    await self._shared.release_token()
                else:
                    await self._shared.keep_token(self._token, self._token_until - self._clock())

    def _use(self, token: Secret, lasts_s: float) -> None:
        self._token, self._refused = token, Secret()
        self._token_until = self._clock() + lasts_s

    async def _fetch_token(self) -> None:
        body = {"appKey": self._client_id, "appSecret": self._client_secret.reveal()}
        try:
            status, answer = await self._send("POST", "/v1.0/oauth2/accessToken", body, Secret())
        except ReplyError as error:  # whatever became of it: nothing was sent to a chat
            cause = "token.unavailable" if error.cause == ReplyUncertain.cause else error.cause
            raise ReplyUnavailable(f"no access token: {error.detail}", cause=cause) from None
        token = answer.get("accessToken")
        if status != 200 or not isinstance(token, str) or not token.isascii() or not token.isprintable() or not token:
            refusal = _refusal(status, answer)
            final = status in (400, 401, 403) and not refusal.from_between and not refusal.throttled
            kind = ReplyRejected if final else ReplyUnavailable
            raise kind(f"no access token: {refusal}", cause=_token_cause(refusal, final=final))
        seconds = _lifetime(answer.get("expireIn"))
        self._use(Secret(token), max(seconds - TOKEN_MARGIN_S, seconds / 2))

    async def call(self, method: str, path: str, body: dict[str, Any], *, has_turn: bool = False) -> dict[str, Any]:
        """The object DingTalk answers; raises ReplyError with `code` and `status`.

        has_turn: the caller has waited for its turn at `rate`, by this path, already.
        """
        for attempt in (1, 2):
            token = await self.token()
            if attempt == 2 or not has_turn:
                await self.rate.turn(path, self._timeout_s)
            status, answer = await self._send(method, path, body, token)
            if status == 200 and "code" not in answer:
                return answer
            refusal = _refusal(status, answer)
            if refusal.stale_token and attempt == 1:
                if self._token == token:  # nobody renewed it meanwhile
                    self._token, self._refused = Secret(), token
                continue
            raise _classified(refusal)
        raise AssertionError

    async def _send(self, method: str, path: str, body: dict[str, Any], token: Secret) -> tuple[int, dict[str, Any]]:
        headers = {"Accept": "application/json"}
        if token:
            headers["x-acs-dingtalk-access-token"] = token.reveal()
        return await send_json(
            self._session,
            self._network,
            method,
            URL(self._api_base + path),
            body,
            headers=headers,
            timeout_s=self._timeout_s,
        )


def _form(buttons: Sequence[tuple[str, str]]) -> tuple[str, dict[str, str]]:
    """The message's kind and its fields beside title and text: a card of one button has names of its own."""
    if not buttons:
        return "sampleMarkdown", {}
    if len(buttons) == 1:
        return "sampleActionCard", {"singleTitle": buttons[0][0], "singleURL": buttons[0][1]}
    more = {f"actionTitle{at}": title for at, (title, _) in enumerate(buttons, start=1)}
    more |= {f"actionURL{at}": url for at, (_, url) in enumerate(buttons, start=1)}
    return f"sampleActionCard{len(buttons)}", more


def _lifetime(value: Any) -> float:
    plausible = isinstance(value, int | float) and 0 < value <= 30 * 86_400
    return float(value) if plausible else TOKEN_LIFETIME_S


def _refusal(status: int, answer: dict[str, Any]) -> _Refusal:
    denied = answer.get("accessdenieddetail")
    scopes = denied.get("requiredScopes") if isinstance(denied, dict) else None
    return _Refusal(
        status=status,
        code=str(answer.get("code") or "")[:80],
        request_id=str(answer.get("requestid") or answer.get("requestId") or "")[:60],
        scopes=", ".join(map(str, scopes))[:120] if isinstance(scopes, list) else "",
    )


_CODE_CAUSES = {
    "Forbidden.AccessDenied.AccessTokenPermissionDenied": "chat.permission",
    "Forbidden.AccessDenied.ApiCountLimitForOrg": "chat.quota",
    "Forbidden.AccessDenied.IpNotInWhiteList": "chat.ip_list",
    "staffId.notExisted": "chat.person",
    "robot.oto.notExist": "chat.person",
    "chatbotId.notAllow.sendOTO": "chat.person",
    "illegal.receivers": "chat.person",
    "group.disbanded": "chat.gone",
    "bot.stopped": "chat.gone",
    "invalid.openConversationId": "chat.gone",
    "conversation.org.notMatch": "chat.gone",
    "bot.forbidden.sendMessage": "chat.muted",
    "invalidParameter.robotCode.auth": "chat.robot",
    "invalidParameter.robotCode.invalid": "chat.robot",
    "invalidParameter.robotCode.notExsit": "chat.robot",  # DingTalk's spelling
    "resource.not.found": "chat.robot",
    "invalidParameter.downloadCode": "media.expired",
}


@dataclass(frozen=True, slots=True)
class _Row:
    """cause: None is the error's own."""

    holds: bool
    kind: type[ReplyError]
    retry_after: float | None = None
    cause: str | None = None


def _classified(refusal: _Refusal) -> ReplyError:
    """One table for the new API's errors; rows in the order they are asked."""
    code = refusal.code
    rows = (
        _Row("QpsLimit" in code, ReplyPaced, 1.0),
        _Row("QpmLimit" in code, ReplyPaced, 60.0),
        _Row(code in ("send.too.fast", "send.byToken.tooFast", "too.many.group", "too.many.people"), ReplyPaced, 60.0),
        _Row(code.endswith("tooLong"), ReplyTooLong),
        _Row(code.startswith("contain.") or code == "param.contentUnsafe", ReplyUnsafe),
        _Row(refusal.status == 429, ReplyPaced, 5.0),
        _Row(refusal.status == 413, ReplyTooLong),
        _Row(refusal.status == 503, ReplyUnavailable),
        _Row(refusal.stale_token, ReplyUnavailable, cause="token.refused"),
        _Row(refusal.from_between, ReplyUnavailable, cause=_between_cause(refusal)),
        _Row(refusal.status >= 500, ReplyUncertain),
        _Row(True, ReplyRejected, cause=_CODE_CAUSES.get(code)),
    )
    row = next(row for row in rows if row.holds)
    error = row.kind(f"OpenAPI: {refusal}", retry_after=row.retry_after, cause=row.cause)
    error.code, error.status = code, refusal.status
    return error


def _between_cause(refusal: _Refusal) -> str:
    return "proxy.auth" if refusal.status == 407 else "network.intercepted"


def _token_cause(refusal: _Refusal, *, final: bool) -> str:
    if refusal.throttled:
        return ReplyPaced.cause
    if refusal.from_between and refusal.status != 200:
        return _between_cause(refusal)
    return _CODE_CAUSES.get(refusal.code, "token.refused") if final else "token.unavailable"
