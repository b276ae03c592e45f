"""The access token and proactive messages: who fetches, when it is renewed, what each refusal becomes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from dingbridge.dingtalk.openapi import OpenAPI
from dingbridge.errors import (
    ReplyError,
    ReplyPaced,
    ReplyRejected,
    ReplyTooLong,
    ReplyUnavailable,
    ReplyUncertain,
    ReplyUnsafe,
)
from dingbridge.model import Secret
from dingbridge.sim.gateway import MISSING, Gateway
from tests.replying import Chat, Clock, Direct, chatting, serving, told_by

SECRET, TOKEN = "secret-of-the-app", "token-of-the-app"


@pytest.fixture
async def chat(gateway: Gateway) -> AsyncIterator[Chat]:
    async with chatting(gateway) as one:
        yield one


async def send(chat: Chat, **say: Any) -> Any:
    return await chat.outcome(chat.openapi.send(await chat.hear(**say), "标题", "正文"))


class Scripted:
    """An api.dingtalk.com that answers from queues of (status, body), the last one for ever."""

    def __init__(self) -> None:
        self.tokens: deque[tuple[int, Any]] = deque([(200, {"accessToken": TOKEN, "expireIn": 7200})])
        self.sends: deque[tuple[int, Any]] = deque([(200, {"processQueryKey": "key"})])
        self.paths: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.paths.append(request.path)
        await request.read()
        queue = self.tokens if request.path.endswith("/accessToken") else self.sends
        await self.gate.wait()
        status, body = queue.popleft() if len(queue) > 1 else queue[0]
        if isinstance(body, str):
            return web.Response(status=status, text=body, content_type="text/html")
        return web.json_response(body, status=status)

    def count(self, end: str) -> int:
        return sum(path.endswith(end) for path in self.paths)


@asynccontextmanager
async def scripted() -> AsyncIterator[tuple[Scripted, OpenAPI, Clock]]:
    script, clock = Scripted(), Clock(50.0)
    async with serving(script.answer) as url, Direct().open_session() as session:
        yield (
            script,
            OpenAPI(session, Direct(), api_base=url, client_id="ding", client_secret=Secret(SECRET), clock=clock),
            clock,
        )


async def refused(api: OpenAPI, chat: Chat, **say: Any) -> ReplyError:
    with pytest.raises(ReplyError) as caught:
        await api.send(await chat.hear(**say), "标题", "正文")
    assert SECRET not in told_by(caught.value)
    assert TOKEN not in told_by(caught.value)
    return caught.value


# -- the token


async def test_twenty_at_once_fetch_one_token(chat: Chat) -> None:
    """Concurrent first sends wait for one fetch."""
    results = await asyncio.gather(*(send(chat, user=f"{user:03d}") for user in range(20)))
    assert results == [None] * 20
    assert chat.gateway.token_calls == 1
    assert len(chat.gateway.posts) == 20


async def test_twenty_refused_at_once_fetch_one_more(chat: Chat) -> None:
    """A token that DingTalk no longer knows is renewed once for all who hear so, and each sends again."""
    await send(chat)
    chat.gateway.expire_tokens()
    assert await asyncio.gather(*(send(chat) for _ in range(20))) == [None] * 20
    assert chat.gateway.token_calls == 2
    assert len(chat.gateway.posts) == 21


async def test_a_late_refusal_of_the_old_token_does_not_drop_the_new_one(chat: Chat) -> None:
    """Who hears late that the old token is stale takes the one that somebody else has fetched meanwhile."""
    fetched: list[str] = []
    renewed, refusals = asyncio.Event(), 0

    async def dingtalk(request: web.Request) -> web.StreamResponse:
        nonlocal refusals
        if request.path.endswith("/accessToken"):
            fetched.append(f"token-{len(fetched)}")
            return web.json_response({"accessToken": fetched[-1], "expireIn": 7200})
        if request.headers["x-acs-dingtalk-access-token"] == "token-0":
            refusals += 1
            if refusals == 2:
                await renewed.wait()
            return web.json_response({"code": "InvalidAuthentication"}, status=400)
        renewed.set()
        return web.json_response({"processQueryKey": "key"})

    message = await chat.hear()
    async with serving(dingtalk) as url, Direct().open_session() as session:
        api = OpenAPI(session, Direct(), api_base=url, client_id="ding", client_secret=Secret(SECRET))
        await api.token()
        await asyncio.gather(api.send(message, "标题", "正文"), api.send(message, "标题", "正文"))
    assert refusals == 2
    assert fetched == ["token-0", "token-1"]


@pytest.mark.parametrize("fault", [(400, "InvalidAuthentication"), (401, "InvalidAuthentication"), 401])
async def test_a_stale_token_is_renewed_once(chat: Chat, fault: Any) -> None:
    """Refused once, the message is sent again with a new token; refused again, it is for later."""
    chat.gateway.openapi_faults.append(fault)
    assert await send(chat) is None
    assert chat.gateway.token_calls == 2
    chat.gateway.openapi_fault = fault
    error = await send(chat)
    assert type(error) is ReplyUnavailable
    assert error.cause == "token.refused"
    assert chat.gateway.token_calls == 3
    assert len(chat.gateway.posts) == 1


async def test_one_failed_fetch_fails_all_who_waited_for_it(chat: Chat) -> None:
    """A token endpoint that hangs is not waited for by one sender after the other; later sends ask again."""
    async with scripted() as (script, api, _):
        script.tokens = deque([(500, {"code": "system.error"}), (200, {"accessToken": TOKEN, "expireIn": 7200})])
        script.gate.clear()
        message = await chat.hear()
        sends = [asyncio.create_task(api.send(message, "标题", "正文")) for _ in range(20)]
        while not script.paths:
            await asyncio.sleep(0)
        script.gate.set()
        results = await asyncio.gather(*sends, return_exceptions=True)
        assert {type(result) for result in results} == {ReplyUnavailable}
        assert {result.cause for result in results if isinstance(result, ReplyError)} == {"token.unavailable"}
        assert script.count("/accessToken") == 1
        await api.send(message, "标题", "正文")
        assert script.count("/accessToken") == 2


async def test_a_cancelled_fetch_leaves_the_others_theirs(chat: Chat) -> None:
    """The sender who fetches may be cancelled: the next in line fetches for itself."""
    async with scripted() as (script, api, _):
        script.gate.clear()
        message = await chat.hear()
        first = asyncio.create_task(api.send(message, "标题", "正文"))
        while not script.paths:
            await asyncio.sleep(0)
        second = asyncio.create_task(api.send(message, "标题", "正文"))
        await asyncio.sleep(0)
        first.cancel()
        script.gate.set()
        await second
        await asyncio.wait([first])
        assert first.cancelled()
        assert script.count("/send") + script.count("/batchSend") == 1


@pytest.mark.parametrize(
    ("lifetime", "fresh_for"),
    [(7200, 6900), (600, 300), (100, 50), ("7200", 6900), (None, 6900), (True, 0.5), (-5, 6900), (1e300, 6900)],
)
async def test_a_token_is_renewed_before_it_ends(chat: Chat, lifetime: Any, fresh_for: float) -> None:
    """Five minutes early, or at half of a short life; an unbelievable lifetime counts as the documented two hours."""
    async with scripted() as (script, api, clock):
        script.tokens = deque([(200, {"accessToken": TOKEN, "expireIn": lifetime})])
        await api.token()
        clock.now += fresh_for - 0.01
        await api.token()
        assert script.count("/accessToken") == 1
        clock.now += 0.02
        assert (await api.token()).reveal() == TOKEN
        assert script.count("/accessToken") == 2


@pytest.mark.parametrize(
    ("status", "body", "told", "cause"),
    [
        (
            400,
            {"code": "invalidClientIdOrSecret", "message": "无效的clientId或者clientSecret"},
            ReplyRejected,
            "token.refused",
        ),
        (403, {"code": "Forbidden.AccessDenied.IpNotInWhiteList", "requestid": "R-1"}, ReplyRejected, "chat.ip_list"),
        (403, "<html>denied by the firewall</html>", ReplyUnavailable, "network.intercepted"),
        (302, "<html>sign in</html>", ReplyUnavailable, "network.intercepted"),
        (407, "<html>proxy</html>", ReplyUnavailable, "proxy.auth"),
        (429, {"code": "system.busy"}, ReplyUnavailable, "token.unavailable"),
        (500, {"code": "system.error"}, ReplyUnavailable, "token.unavailable"),
        (504, "", ReplyUnavailable, "token.unavailable"),
        (200, "<html>portal</html>", ReplyUnavailable, "network.intercepted"),
        (200, "{}", ReplyUnavailable, "token.unavailable"),
        (200, [], ReplyUnavailable, "token.unavailable"),
        (200, {"accessToken": ""}, ReplyUnavailable, "token.unavailable"),
        (200, {"accessToken": 5}, ReplyUnavailable, "token.unavailable"),
        (200, {"accessToken": "a\r\nHost: evil"}, ReplyUnavailable, "token.unavailable"),
        (200, {"accessToken": "令牌"}, ReplyUnavailable, "token.unavailable"),
        (403, {"code": "Forbidden.AccessDenied.QpsLimitForApi"}, ReplyUnavailable, "chat.paced"),
    ],
)
async def test_no_token_is_never_an_unknown_outcome(chat: Chat, status: int, body: Any, told: type, cause: str) -> None:
    """Without a token nothing was sent to a chat; only DingTalk's own refusal, but for too many calls, is final."""
    async with scripted() as (script, api, _):
        script.tokens = deque([(status, body)])
        error = await refused(api, chat)
        assert type(error) is told
        assert error.certain
        assert error.cause == cause
        assert error.detail.startswith("no access token")
        assert script.count("/batchSend") == 0


async def test_a_hanging_token_endpoint_is_certain(chat: Chat, gateway: Gateway) -> None:
    """A token that does not come in time is a certain failure, whatever became of the request."""
    async with scripted() as (script, api, _):
        script.gate.clear()
        api._timeout_s = 0.3
        error = await refused(api, chat)
        assert type(error) is ReplyUnavailable
        assert error.cause == "network.timeout"
        script.gate.set()


# -- refusals of a message

REFUSALS: list[tuple[Any, type[ReplyError], float | None, str]] = [
    ((403, "Forbidden.AccessDenied.QpsLimitForAppkeyAndApi"), ReplyPaced, 1.0, "chat.paced"),
    ((403, "Forbidden.AccessDenied.QpsLimitForApi"), ReplyPaced, 1.0, "chat.paced"),
    ((403, "Forbidden.AccessDenied.QpmLimitForAppkeyAndApi"), ReplyPaced, 60.0, "chat.paced"),
    ((403, "Forbidden.AccessDenied.ApiCountLimitForOrg"), ReplyRejected, None, "chat.quota"),
    ((403, "Forbidden.AccessDenied.IpNotInWhiteList"), ReplyRejected, None, "chat.ip_list"),
    ((403, "Forbidden.AccessDenied.AccessTokenPermissionDenied"), ReplyRejected, None, "chat.permission"),
    ((400, "send.too.fast"), ReplyPaced, 60.0, "chat.paced"),
    ((400, "send.byToken.tooFast"), ReplyPaced, 60.0, "chat.paced"),
    ((400, "too.many.group"), ReplyPaced, 60.0, "chat.paced"),
    ((400, "too.many.people"), ReplyPaced, 60.0, "chat.paced"),
    ((400, "invalidParameter.msgParam.tooLong"), ReplyTooLong, None, "chat.too_long"),
    ((400, "contain.unsafe.url"), ReplyUnsafe, None, "chat.unsafe"),
    ((400, "contain.notAllowed.text"), ReplyUnsafe, None, "chat.unsafe"),
    ((400, "contain.notAllowed.content"), ReplyUnsafe, None, "chat.unsafe"),
    ((400, "staffId.notExisted"), ReplyRejected, None, "chat.person"),
    ((400, "robot.oto.notExist"), ReplyRejected, None, "chat.person"),
    ((400, "group.disbanded"), ReplyRejected, None, "chat.gone"),
    ((400, "invalidParameter.robotCode.auth"), ReplyRejected, None, "chat.robot"),
    ((400, "bot.forbidden.sendMessage"), ReplyRejected, None, "chat.muted"),
    ((429, "system.busy"), ReplyPaced, 5.0, "chat.paced"),
    ((500, "system.error"), ReplyUncertain, None, "chat.unknown_outcome"),
    ((500, "unknownError"), ReplyUncertain, None, "chat.unknown_outcome"),
    ((504, "GatewayTimeout"), ReplyUncertain, None, "chat.unknown_outcome"),
    ((503, "ServiceUnavailable"), ReplyUnavailable, None, "chat.busy"),
    ("http502", ReplyUncertain, None, "chat.unknown_outcome"),
    ("http503", ReplyUnavailable, None, "chat.busy"),
    ("http403", ReplyUnavailable, None, "network.intercepted"),
    ("http302", ReplyUnavailable, None, "network.intercepted"),
    ("http407", ReplyUnavailable, None, "proxy.auth"),
    ("http413", ReplyTooLong, None, "chat.too_long"),
    ("html", ReplyUnavailable, None, "network.intercepted"),
    ("reset_before", ReplyUncertain, None, "network.cut"),
]


@pytest.mark.parametrize(("fault", "told", "retry_after", "cause"), REFUSALS, ids=[str(row[0]) for row in REFUSALS])
async def test_refusals(chat: Chat, fault: Any, told: type[ReplyError], retry_after: float | None, cause: str) -> None:
    """One row for each answer of the OpenAPI: what it is called, how long to wait, and the cause."""
    chat.gateway.openapi_fault = fault
    error = await send(chat)
    assert type(error) is told
    assert error.cause == cause
    assert error.retry_after == retry_after
    assert chat.gateway.posts == []


@pytest.mark.parametrize("fault", ["lost_response", "http504_delivered"])
async def test_what_was_delivered_is_no_certain_failure(chat: Chat, fault: str) -> None:
    """A message whose answer was lost is reported as one that may have arrived."""
    chat.gateway.openapi_fault = fault
    error = await send(chat)
    assert type(error) is ReplyUncertain
    assert len(chat.gateway.posts) == 1


async def test_a_missing_permission_is_named(chat: Chat) -> None:
    """The operator reads which permission point is missing, and DingTalk's id of the request."""
    chat.gateway.openapi_fault = (403, "Forbidden.AccessDenied.AccessTokenPermissionDenied")
    error = await send(chat)
    assert "qyapi_robot_sendmsg" in error.detail
    assert "requestid" in error.detail


async def test_an_odd_refusal_is_still_one(chat: Chat) -> None:
    """Wrong types in the body of a refusal lose only themselves; its parts are short."""
    async with scripted() as (script, api, _):
        for body in (
            {"code": ["x"], "requestid": 7, "accessdenieddetail": "none"},
            {"code": "c" * 10_000, "requestId": "r" * 10_000, "accessdenieddetail": {"requiredScopes": ["s" * 10_000]}},
        ):
            script.sends = deque([(400, body)])
            error = await refused(api, chat)
            assert type(error) is ReplyRejected
            assert len(error.detail) < 400


@pytest.mark.parametrize(
    ("result", "told", "retry_after", "cause"),
    [
        ({"invalidStaffIdList": ["042"]}, ReplyRejected, None, "chat.person"),
        ({"filteredStaffIdList": ["042"]}, ReplyRejected, None, "chat.person"),
        ({"flowControlledStaffIdList": ["042"]}, ReplyPaced, 60.0, "chat.paced"),
        ({"code": "system.error"}, ReplyRejected, None, "chat.refused"),
    ],
)
async def test_http_200_is_not_yet_delivered(
    chat: Chat, result: dict[str, Any], told: type, retry_after: float | None, cause: str
) -> None:
    """The lists in a successful answer name who got nothing."""
    async with scripted() as (script, api, _):
        script.sends = deque([(200, {"processQueryKey": "k"} | result)])
        error = await refused(api, chat)
        assert type(error) is told
        assert error.cause == cause
        assert error.retry_after == retry_after


async def test_the_stand_in_refuses_persons_too(chat: Chat) -> None:
    """An unknown staff id and a throttled person, as the stand-in plays them."""
    chat.gateway.invalid_staff.add("042")
    assert type(await send(chat)) is ReplyRejected
    chat.gateway.flow_controlled.add("043")
    assert type(await send(chat, user="043")) is ReplyPaced
    assert chat.gateway.posts == []


async def test_nobody_to_write_to(chat: Chat) -> None:
    """One to one without a staff id: refused before any request."""
    error = await send(chat, senderStaffId=MISSING)
    assert type(error) is ReplyRejected
    assert error.cause == "chat.no_staff_id"
    assert chat.gateway.token_calls == 0


async def test_too_long_is_seen_before_it_is_sent(chat: Chat) -> None:
    """MsgParam ends at 15 000 bytes, measured as it travels."""
    message = await chat.hear()
    await chat.openapi.send(message, "题", "字" * 4980)
    assert len(chat.gateway.posts) == 1
    assert type(await chat.outcome(chat.openapi.send(message, "题", "字" * 5000))) is ReplyTooLong
    assert chat.requests == 1


async def test_redirects_are_not_followed(chat: Chat) -> None:
    """Neither the token nor a message goes where a redirect points."""
    seen: list[str] = []

    async def elsewhere(request: web.Request) -> web.StreamResponse:
        seen.append(request.path)
        if request.path == "/stolen":
            return web.json_response({"accessToken": TOKEN, "expireIn": 7200})
        return web.Response(status=307, headers={"Location": "/stolen"})

    async with serving(elsewhere) as url, Direct().open_session() as session:
        api = OpenAPI(session, Direct(), api_base=url, client_id="ding", client_secret=Secret(SECRET))
        error = await refused(api, chat)
    assert type(error) is ReplyUnavailable
    assert seen == ["/v1.0/oauth2/accessToken"]
