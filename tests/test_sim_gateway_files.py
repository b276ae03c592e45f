"""What users of the stand-in gateway send besides text, and how its files are fetched, or fail to be."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from dingbridge.sim.gateway import Button, Gateway
from dingbridge.sim.gateway_quotes import SHAPES
from tests.gateway_client import oto, post, text, token, webhook

URL = "/v1.0/robot/messageFiles/download"
DOWNLOAD = "invalidParameter.downloadCode"


async def resolve(gateway: Gateway, http: aiohttp.ClientSession, code: Any, **changes: Any) -> str:
    """The download URL of a code, or the code of the refusal."""
    body = {"robotCode": gateway.client_id, "downloadCode": code} | changes
    async with http.post(gateway.url + URL, json=body, headers=await token(gateway, http)) as response:
        answered = await response.json()
        return str(answered.get("downloadUrl") or answered["code"])


async def test_a_file_that_a_user_sent(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """Its download code leads to a URL, and that without a token to its bytes; both end; others are refused."""
    code = gateway.add_file("制度".encode(), "text/plain")
    url = await resolve(gateway, http, code)
    async with http.get(url) as response:
        assert (await response.read(), response.content_type) == ("制度".encode(), "text/plain")
    assert (gateway.files[code].resolved, gateway.files[code].fetched) == (1, 1)
    assert await resolve(gateway, http, ["x"]) == await resolve(gateway, http, "no") == DOWNLOAD
    assert await resolve(gateway, http, code, robotCode="other") == "invalidParameter.robotCode.auth"
    assert await resolve(gateway, http, gateway.add_preview()) == "unknownError"
    async with http.post(gateway.url + URL, json={}) as response:
        assert (await response.json())["code"] == "InvalidAuthentication"
    gateway.expire_files()
    async with http.get(url) as response:
        assert (response.status, "Request has expired" in await response.text()) == (403, True)
    assert await resolve(gateway, http, code) == DOWNLOAD
    async with http.get(f"{gateway.url}/files/no.file") as response:
        assert response.status == 404
    gateway.file_base = "http://oss.example.com"
    assert (await resolve(gateway, http, gateway.add_file(b""))).startswith("http://oss.example.com/files/")


FETCHED = (200, b"x" * 25, "text/plain")


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        (404, (404, b"", "")),
        ("redirect", (302, b"", "")),
        ("type", (200, b"Please sign in", "text/html")),
        ("expired", (403, b"Request has expired", "application/xml")),
        ("slow0", FETCHED),
        ("half", None),
        ("reset", None),
    ],
)
async def test_a_download_that_fails(
    gateway: Gateway, http: aiohttp.ClientSession, fault: int | str, seen: tuple[int, bytes, str] | None
) -> None:
    """Each planted fault is what a client sees of it, and over when it is taken away."""
    url = await resolve(gateway, http, gateway.add_file(FETCHED[1], "text/plain"))

    async def fetch() -> tuple[int, bytes, str] | None:
        try:
            async with http.get(url, allow_redirects=False) as response:
                return response.status, await response.read(), response.headers.get("Content-Type", "")
        except aiohttp.ClientError:
            return None

    gateway.file_fault = fault
    got = await fetch()
    assert (got is None) == (seen is None)
    if got is not None and seen is not None:
        assert got[0] == seen[0]
        assert seen[1] in got[1]
        assert got[2].startswith(seen[2])
    gateway.file_fault = None
    assert await fetch() == FETCHED
    gateway.file_faults.append(503)
    assert [(await fetch() or FETCHED)[0] for _ in range(2)] == [503, 200]


@pytest.mark.parametrize("fault", ["huge", "huge_declared"])
async def test_a_download_without_end(gateway: Gateway, http: aiohttp.ClientSession, fault: str) -> None:
    """A huge file can be left in the middle; only the declared one says its length."""
    gateway.file_fault = fault
    async with http.get(await resolve(gateway, http, gateway.add_file(b"x"))) as response:
        assert (response.content_length is None) == (fault == "huge")
        assert len(await response.content.readexactly(100_000)) == 100_000


async def test_each_kind_has_its_shape(gateway: Gateway) -> None:
    """Pictures, rich text and odd kinds come anywhere; audio, video and files one to one; codes lead to the bytes."""
    picture = (await gateway.send_picture(b"png", group=True)).data
    assert (picture["msgtype"], set(picture["content"])) == ("picture", {"pictureDownloadCode", "downloadCode"})
    rich = (await gateway.send_rich("看", b"png", {"type": "at", "atName": "张三"})).data["content"]["richText"]
    assert [part.get("type", "text") for part in rich] == ["text", "picture", "at"]
    assert gateway.files[rich[1]["downloadCode"]].content == b"png"
    file = (await gateway.send_file(b"pdf", "制度.pdf", "application/pdf")).data["content"]
    assert (file["fileName"], gateway.files[file["downloadCode"]].content_type) == ("制度.pdf", "application/pdf")
    audio = (await gateway.send_audio("年假有几天")).data
    assert (audio["msgtype"], audio["content"]["recognition"]) == ("audio", "年假有几天")
    assert "recognition" not in (await gateway.send_audio(None)).data["content"]
    assert (await gateway.send_video(b"mp4", duration_s=7)).data["content"]["duration"] == "7"
    assert "unknownMsgType" in (await gateway.send_unknown()).data["content"]
    with pytest.raises(ValueError, match="in a group"):
        await gateway.send_file(b"", "x", group=True)


@pytest.mark.parametrize("shape", SHAPES)
async def test_each_shape_of_a_quote(gateway: Gateway, shape: str) -> None:
    """A quote names the quoted message, and holds its text where that shape has one."""
    first = await gateway.say("年假 5 天")
    data = (await gateway.send_quote("第二条呢", first, shape, content=b"x")).data
    assert data["originalMsgId"] == first.msg_id
    part = data["content"] if shape == "rich" else data["text"]
    assert part["isReplyMsg"] is True
    replied = json.dumps(part.get("repliedMsg", {}), ensure_ascii=False)
    assert all(word in replied for word in ("年假", "5 天")) == (shape not in {"bare", "card", "picture"})
    assert ("downloadCode" in replied) == (shape in {"picture", "file"})
    assert "第二条呢" in json.dumps(data, ensure_ascii=False)


async def test_buttons_of_an_action_card(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """Every form of action card becomes buttons; a quick reply says its words as the user, a link says nothing."""
    assert Button("深入", "dtmd://DingTalkClient/sendMessage?content=x").says is None
    says, link = "dtmd://dingtalkclient/sendMessage?content=%E5%86%8D%E6%B7%B1%E5%85%A5%20%26", "https://example.com/"
    sent = await gateway.say("你好", user="007")
    card = {
        "title": "答案",
        "text": "5 天",
        "btns": [{"title": "深入", "actionURL": says}, {"title": "看", "actionURL": link}],
    }
    await post(http, webhook(sent), {"msgtype": "actionCard", "actionCard": card})
    one: dict[str, Any] = {"title": "t", "text": "x", "singleTitle": "看", "singleURL": link}
    await post(http, webhook(sent), {"msgtype": "actionCard", "actionCard": one})
    for wrong in ({"title": "t", "text": "x"}, one | {"btns": [{"title": "a"}]}, one | {"btns": []}):
        assert (await post(http, webhook(sent), {"msgtype": "actionCard", "actionCard": wrong}))["errcode"] == 40035
    headers, url = await token(gateway, http), f"{gateway.url}/v1.0/robot/oToMessages/batchSend"
    both = {
        "title": "t",
        "text": "x",
        "actionTitle1": "深入",
        "actionURL1": says,
        "actionTitle2": "看",
        "actionURL2": link,
    }
    wide = {
        "title": "t",
        "text": "x",
        "buttonTitle1": "深入",
        "buttonUrl1": says,
        "buttonTitle2": "看",
        "buttonUrl2": link,
    }
    for key, param in (("sampleActionCard2", both), ("sampleActionCard6", wide), ("sampleActionCard", one)):
        await post(http, url, oto(gateway, "007") | {"msgKey": key, "msgParam": json.dumps(param)}, headers=headers)
    await post(http, webhook(sent), text("没有按钮"))
    deep, look = ("深入", "再深入 &"), ("看", None)
    got = [[(button.title, button.says) for button in one.buttons] for one in gateway.posts]
    assert got == [[deep, look], [look], [deep, look], [deep, look], [look], []]
    said = await gateway.tap(gateway.posts[0], "深入")
    assert (said.text, said.user, said.conversation) == ("再深入 &", "007", "cid-007")
    with pytest.raises(LookupError):
        await gateway.tap(gateway.posts[0], "看")


async def test_emotions_are_shown_until_they_are_recalled(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """A reply sticks to its message, a recall takes it off; another robot and a missing message are refused."""
    headers, sent = await token(gateway, http), await gateway.say()
    body: dict[str, Any] = {
        "robotCode": gateway.client_id,
        "openMsgId": sent.msg_id,
        "openConversationId": sent.conversation,
    }
    body |= {"emotionType": 2, "emotionName": "🤔思考中"}
    url = f"{gateway.url}/v1.0/robot/emotion/"
    assert await post(http, url + "reply", body, headers=headers) == {"success": True}
    assert gateway.emotions_on(sent.msg_id) == ["🤔思考中"]
    assert await post(http, url + "recall", body, headers=headers) == {"success": True}
    assert (gateway.emotions_on(sent.msg_id), len(gateway.emotions)) == ([], 1)
    for wrong in ({"robotCode": "other"}, {"openMsgId": ""}):
        async with http.post(url + "reply", json=body | wrong, headers=headers) as response:
            assert response.status == 400


# ---- by the control API


@pytest.fixture
async def driven() -> AsyncIterator[Gateway]:
    async with Gateway(control=True) as running:
        yield running


async def test_all_of_it_by_the_control_api(driven: Gateway, http: aiohttp.ClientSession) -> None:
    """Messages of each kind, taps, presses, templates, faults, permissions and what came of them, by curl."""

    async def call(verb: str, **body: Any) -> Any:
        async with http.post(f"{driven.url}/_sim/{verb}", json=body) as response:
            answered = await response.json()
            return answered if response.status == 200 else answered["error"]

    content = base64.b64encode(b"png").decode()
    kinds: list[dict[str, Any]] = [
        {"kind": kind, "content": content} for kind in ("picture", "file", "audio", "video", "quote")
    ]
    kinds += [{"kind": "rich", "parts": [{"text": "看"}, {"picture": content}]}, {"kind": "unknown"}]
    for one in kinds:
        assert (await call("send", **one))["msg_id"]
    assert [sent.data["msgtype"] for sent in driven.sent][:4] == ["picture", "file", "audio", "video"]
    assert [file.content for file in driven.files.values()] == [b"png"] * 5
    assert "one of" in await call("send", kind="no")
    assert "base64" in await call("send", kind="picture", content="?")
    assert "in a group" in await call("send", kind="file", group=True)
    assert "unknown: x" in await call("send", kind="unknown", x=1)
    assert await call("template", id="a.schema", variables=["content"]) == {"id": "a.schema"}
    assert (await call("plant", at="card.stream", fault="qps", after=1))["next"] == [None, "qps"]
    assert (await call("plant", at="card.update", fault=[403, "x"]))["next"] == [[403, "x"]]
    assert (await call("plant", at="file", fault="slow2"))["next"] == ["slow2"]
    assert (await call("plant", at="delivery", fault="no"))["next"] == ["no"]
    assert (await call("plant", at="file", fault=None))["next"] == []
    assert "at is one of" in await call("plant", at="nowhere", fault=None)
    assert "a file takes" in await call("plant", at="file", fault="nothing")
    assert await call("permission", missing=["Card.Streaming.Write"]) == {"missing": ["Card.Streaming.Write"]}
    assert (await call("press", card="no"), await call("tap", post=9)) == ("no such card", "no such post")
    headers = await token(driven, http)
    body = {"cardTemplateId": "a.schema", "outTrackId": "c", "callbackType": "STREAM"}
    await post(http, f"{driven.url}/v1.0/card/instances", body, headers=headers)
    assert "does not see" in await call("press", card="c")
    driven.card_delivery_faults.clear()
    place = {"outTrackId": "c", "openSpaceId": "dtv1.card//IM_ROBOT.042"}
    robot = {"imRobotOpenDeliverModel": {"spaceType": "IM_ROBOT"}}
    await post(http, f"{driven.url}/v1.0/card/instances/deliver", place | robot, headers=headers)
    pressed = await call("press", card="c", actions=["good"], params={"a": 1})
    assert (pressed["ok"], pressed["actions"]) == (False, ["good"])
    async with http.get(f"{driven.url}/_sim/cards") as response:
        (card,) = (await response.json())["cards"]
    assert [change["kind"] for change in card["history"]] == ["create", "deliver"]
    assert card["presses"][0]["error"] == "no connection subscribed to card callbacks"
    async with http.get(f"{driven.url}/_sim/emotions") as response:
        assert await response.json() == {"emotions": []}
