"""The stand-in gateway's OpenAPI: tokens, messages, limits."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from dingbridge.sim.gateway import Gateway
from tests.gateway_client import oto, post, token


async def test_tokens_are_kept_until_they_expire(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """The same token is given again; after `expire_tokens` it is 400 InvalidAuthentication; bad secrets are 400."""
    url = f"{gateway.url}/v1.0/robot/oToMessages/batchSend"
    old = await token(gateway, http)
    assert await token(gateway, http) == old
    gateway.expire_tokens()
    async with http.post(url, json=oto(gateway, "042"), headers=old) as response:
        assert (response.status, (await response.json())["code"]) == (400, "InvalidAuthentication")
    fresh = await token(gateway, http)
    assert fresh != old
    await post(http, url, oto(gateway, "042"), headers=fresh)
    wrong = {"appKey": gateway.client_id, "appSecret": "x"}
    async with http.post(f"{gateway.url}/v1.0/oauth2/accessToken", json=wrong) as response:
        assert (response.status, (await response.json())["code"]) == (400, "invalidClientIdOrSecret")
    assert gateway.token_calls == 4


async def test_one_to_one_and_group_messages(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """Both sends become posts in the right conversation; invalid and throttled users are only listed."""
    headers = await token(gateway, http)
    await gateway.say("你好", user="042", conversation="cid-own")
    gateway.invalid_staff, gateway.flow_controlled = {"bad"}, {"slow"}
    url = f"{gateway.url}/v1.0/robot/"
    body = await post(http, url + "oToMessages/batchSend", oto(gateway, "042", "bad", "slow"), headers=headers)
    assert body["processQueryKey"]
    assert (body["invalidStaffIdList"], body["flowControlledStaffIdList"]) == (["bad"], ["slow"])
    group = oto(gateway) | {
        "openConversationId": "cid-group",
        "msgKey": "sampleMarkdown",
        "msgParam": json.dumps({"title": "t", "text": "组"}),
    }
    await post(http, url + "groupMessages/send", group, headers=headers)
    got = [(p.path, p.conversation, p.user, p.text) for p in gateway.posts]
    assert got == [("oto", "cid-own", "042", "hi"), ("group", "cid-group", "", "组")]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"robotCode": "other"}, "invalidParameter.robotCode.auth"),
        ({"msgKey": "nope"}, "invalidParameter.msgKey.invalid"),
        ({"msgParam": {"content": "x"}}, "invalidParameter.msgParam.invalid"),
        ({"msgParam": json.dumps({"content": "x" * 15_000})}, "invalidParameter.msgParam.tooLong"),
        ({"msgParam": "{}"}, "miss.param.content"),
        ({"userIds": [str(n) for n in range(21)]}, "receivers.exceed"),
    ],
)
async def test_openapi_checks_the_body(
    gateway: Gateway, http: aiohttp.ClientSession, change: dict[str, Any], code: str
) -> None:
    """A wrong robot, key, parameter or number of receivers is 400 with DingTalk's code."""
    headers = await token(gateway, http)
    url = f"{gateway.url}/v1.0/robot/oToMessages/batchSend"
    async with http.post(url, json=oto(gateway, "042") | change, headers=headers) as response:
        assert (response.status, (await response.json())["code"]) == (400, code)
    assert gateway.posts == []


async def test_openapi_faults(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """(status, code) pairs, bare statuses and lost responses; a missing scope is named."""
    headers = await token(gateway, http)
    url = f"{gateway.url}/v1.0/robot/oToMessages/batchSend"
    denied = "Forbidden.AccessDenied.AccessTokenPermissionDenied"
    gateway.openapi_faults.extend([(403, denied), 504, "lost_response"])
    async with http.post(url, json=oto(gateway, "042"), headers=headers) as response:
        body = await response.json()
        assert (response.status, body["code"]) == (403, denied)
        assert body["accessdenieddetail"] == {"requiredScopes": ["qyapi_robot_sendmsg"]}
    async with http.post(url, json=oto(gateway, "042"), headers=headers) as response:
        assert response.status == 504
    with pytest.raises(aiohttp.ClientConnectionError):
        await http.post(url, json=oto(gateway, "042", content="到了"), headers=headers)
    assert [p.text for p in gateway.posts] == ["到了"]


# ---- limits


async def codes(gateway: Gateway, http: aiohttp.ClientSession, *paths: str) -> list[tuple[int, str]]:
    """Status and code of calls that follow each other at once."""
    headers = await token(gateway, http)
    group = oto(gateway) | {"openConversationId": "cid-group"}
    seen = []
    for path in paths:
        body = group if "group" in path else oto(gateway, "042")
        async with http.post(f"{gateway.url}/v1.0/robot/{path}", json=body, headers=headers) as response:
            seen.append((response.status, (await response.json()).get("code", "")))
    return seen


async def test_an_api_has_its_own_limit(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """Beyond `openapi_per_second` one API refuses with 403 and its code, another still takes; later both do."""
    gateway.openapi_per_second = 2
    one, other = "oToMessages/batchSend", "groupMessages/send"
    refused = (403, "Forbidden.AccessDenied.QpsLimitForAppkeyAndApi")
    assert await codes(gateway, http, one, one, one, other) == [(200, ""), (200, ""), refused, (200, "")]
    assert len(gateway.posts) == 3
    await asyncio.sleep(1.05)
    assert await codes(gateway, http, one) == [(200, "")]


async def test_all_apis_have_a_limit_together(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """`openapi_total_per_second` refuses with the code of the global limit."""
    gateway.openapi_total_per_second = 2
    refused = (403, "Forbidden.AccessDenied.QpsLimitForApi")
    paths = ("oToMessages/batchSend", "groupMessages/send", "oToMessages/batchSend")
    assert await codes(gateway, http, *paths) == [(200, ""), (200, ""), refused]


# ---- the older token


async def test_the_older_call_gives_the_same_token(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """The Node SDK asks for it by GET; a wrong secret is an errcode with status 200."""
    given = (await token(gateway, http))["x-acs-dingtalk-access-token"]
    url = f"{gateway.url}/gettoken"
    async with http.get(url, params={"appkey": gateway.client_id, "appsecret": gateway.client_secret}) as response:
        assert await response.json() == {"errcode": 0, "access_token": given, "errmsg": "ok", "expires_in": 7200}
    async with http.get(url, params={"appkey": gateway.client_id, "appsecret": "x"}) as response:
        assert (response.status, (await response.json())["errcode"]) == (200, 40089)
