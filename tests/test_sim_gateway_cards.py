"""The stand-in gateway's cards: their calls and refusals, what each person sees, buttons that call back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from dingbridge.sim.gateway import CARD_TOPIC, Card, Gateway, Press
from tests.gateway_client import connect, token
from tests.sdk_bots import python_bot

CALLBACKS = [{"type": "CALLBACK", "topic": CARD_TOPIC}]
VARIABLES = ("content", "sources", "vote")


class Cards:
    """Calls of the card API by a robot; each returns `result`, or (status, code) of a refusal."""

    def __init__(self, gateway: Gateway, http: aiohttp.ClientSession) -> None:
        self.template = gateway.add_template("answer.schema", VARIABLES)
        self._gateway, self._http = gateway, http
        self._frames = 0

    async def __call__(self, method: str, path: str, **body: Any) -> Any:
        headers = await token(self._gateway, self._http)
        url = f"{self._gateway.url}/v1.0/card/{path}"
        async with self._http.request(method, url, json=body, headers=headers) as response:
            answered = await response.json()
            return answered["result"] if response.status == 200 else (response.status, answered["code"])

    def asked(self, name: str = "card-1", space: str = "IM_ROBOT.042", **changes: Any) -> dict[str, Any]:
        robot = {"robotCode": self._gateway.client_id}
        body = {
            "cardTemplateId": self.template,
            "outTrackId": name,
            "callbackType": "STREAM",
            "cardData": {"cardParamMap": {"content": "", "vote": "无"}},
            "openSpaceId": f"dtv1.card//{space}",
            "imRobotOpenSpaceModel": {"supportForward": False, "lastMessageI18n": {"ZH_CN": "正在回答"}},
            "imRobotOpenDeliverModel": robot | {"spaceType": "IM_ROBOT"},
            "imGroupOpenDeliverModel": robot,
        }
        return body | changes

    async def create(self, name: str = "card-1", space: str = "IM_ROBOT.042", **changes: Any) -> Card:
        result = await self("POST", "instances/createAndDeliver", **self.asked(name, space, **changes))
        assert result["outTrackId"] == name
        return self._gateway.cards[name]

    async def frame(self, content: str, name: str = "card-1", **changes: Any) -> Any:
        self._frames += 1
        body = {"outTrackId": name, "guid": f"g{self._frames}", "key": "content", "content": content, "isFull": True}
        return await self("PUT", "streaming", **body | changes)

    async def update(self, data: dict[str, str], **more: Any) -> Any:
        return await self("PUT", "instances", outTrackId="card-1", cardData={"cardParamMap": data}, **more)


@pytest.fixture
def cards(gateway: Gateway, http: aiohttp.ClientSession) -> Cards:
    return Cards(gateway, http)


async def test_a_card_from_its_creation_to_its_end(gateway: Gateway, cards: Cards) -> None:
    """It appears where the user writes, grows by whole texts, ends once, and remembers each step."""
    await gateway.say("你好", user="042", conversation="cid-own")
    card = await cards.create()
    assert (card.conversation, card.state, card.support_forward) == ("cid-own", "processing", False)
    assert (card.last_message, await gateway.next_card("cid-own")) == ("正在回答", card)
    assert await cards.frame("年") is True
    assert (card.state, await cards.frame("年假 5 天", isFinalize=True)) == ("streaming", True)
    assert await gateway.card_ended(card) is card
    assert (card.state, card.view()) == ("finished", {"content": "年假 5 天", "vote": "无"})
    assert await cards.frame("更多") == (400, "param.stream.finalized")
    steps = [(change.kind, change.text, change.final, change.error) for change in card.history]
    frames = [("stream", "年", False, False), ("stream", "年假 5 天", True, False)]
    assert steps == [
        ("create", "", False, False),
        ("deliver", "", False, False),
        *frames,
        ("refused", "更多", False, False),
    ]
    assert [change.number for change in card.history] == sorted(change.number for change in card.history)


async def test_a_card_can_fail_and_be_shared_out_in_a_group(cards: Cards, gateway: Gateway) -> None:
    """`isError` fails it; in a group `recipients` alone see it, and the split calls do what the joined one does."""
    model = {"robotCode": gateway.client_id, "recipients": ["042"], "atUserIds": {"042": "张三"}}
    body = cards.asked("c2", "IM_GROUP.cid-group", imGroupOpenDeliverModel=model)
    assert await cards("POST", "instances", **body) == "c2"
    card = gateway.cards["c2"]
    assert (card.conversation, gateway.cards_in()) == ("", [])
    (result,) = await cards("POST", "instances/deliver", **body)
    assert (result["success"], result["spaceType"], result["spaceId"]) == (True, "IM_GROUP", "cid-group")
    assert (card.conversation, card.recipients, card.at_users) == ("cid-group", ("042",), {"042": "张三"})
    await cards.frame("出错了", "c2", isError=True)
    assert card.state == "failed"
    with pytest.raises(LookupError):
        await gateway.press(card, user="u9")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"cardTemplateId": "no.schema"}, "param.templateNotExist"),
        ({"cardTemplateId": "draft.schema"}, "param.templateUnpublished"),
        ({"cardTemplateId": ""}, "param.empty"),
        ({"outTrackId": ""}, "param.empty"),
        ({"outTrackId": "x" * 101}, "invalidParameter"),
        ({"outTrackId": "card-1"}, "param.cardAlreadyExist"),
        ({"cardData": {"cardParamMap": {"vote": 1}}}, "invalidParameter"),
        ({"cardData": {"cardParamMap": {"content": "x" * 100_000}}}, "invalidParameter"),
        ({"openSpaceId": "IM_ROBOT.042"}, "param.openSpaceIdInvalid"),
        ({"openSpaceId": "dtv1.card//IM_SOMETHING.042"}, "param.openSpaceIdInvalid"),
        ({"imRobotOpenDeliverModel": {}}, "param.openDeliverModelEmpty"),
        ({"imRobotOpenDeliverModel": {"robotCode": "other"}}, "param.openDeliverModelError"),
        ({"openSpaceId": "dtv1.card//IM_ROBOT.gone"}, "param.userIdNotExist"),
    ],
)
async def test_what_cannot_be_created(gateway: Gateway, cards: Cards, change: dict[str, Any], code: str) -> None:
    """A wrong template, id, text, space or robot is refused with DingTalk's code, and no card comes of it."""
    gateway.add_template("draft.schema", published=False)
    gateway.invalid_staff = {"gone"}
    await cards.create()
    asked = cards.asked("card-2") | change
    assert await cards("POST", "instances/createAndDeliver", **asked) == (400, code)
    assert list(gateway.cards) == ["card-1"]


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"outTrackId": "no"}, (400, "param.stream.outTrackId")),
        ({"key": ""}, (400, "param.stream.keyEmpty")),
        ({"guid": ""}, (400, "param.stream.guidEmpty")),
        ({"content": ""}, (400, "param.stream.contentEmpty")),
        ({"isFull": False}, (400, "param.stream.isFull")),
        ({"key": "answer"}, (500, "unknownError")),
        ({"content": "长" * 11}, (400, "param.stream.content")),
    ],
)
async def test_frames_that_are_refused(gateway: Gateway, cards: Cards, change: dict[str, Any], refusal: Any) -> None:
    """An unknown card or key, an empty, too large or partial text changes nothing."""
    gateway.card_content_limit = 30
    card = await cards.create()
    assert await cards.frame(**{"content": "好"} | change) == refusal
    assert (card.state, card.view()["content"], card.frames) == ("processing", "", [])


async def test_a_frame_said_twice_counts_once(cards: Cards) -> None:
    """A guid is taken once, also after the end; a plain variable takes pieces."""
    card = await cards.create()
    for content in ("年假", "别的"):
        assert await cards.frame(content, guid="same", isFinalize=True) is True
    assert (card.view()["content"], [c.kind for c in card.history][2:]) == ("年假", ["stream", "repeat"])
    other = await cards.create("card-2")
    for piece in ("甲", "乙"):
        await cards.frame(piece, "card-2", key="sources", isFull=False)
    assert other.view()["sources"] == "甲乙"


async def test_an_update_overwrites_unless_by_key(cards: Cards) -> None:
    """Without `updateCardDataByKey` every other variable is lost, for one person likewise."""
    card = await cards.create()
    by_key = {"updateCardDataByKey": True, "updatePrivateDataByKey": True}
    assert await cards.update({"vote": "有"}, cardUpdateOptions=by_key) is True
    assert card.view() == {"content": "", "vote": "有"}
    for mine in ({"vote": "👍"}, {"sources": "甲"}):
        await cards.update({}, privateData={"042": {"cardParamMap": mine}}, cardUpdateOptions=by_key)
    assert card.view("042") == {"content": "", "vote": "👍", "sources": "甲"}
    await cards.update({"sources": "乙"}, privateData={"042": {"cardParamMap": {"vote": "👎"}}})
    assert (card.view(), card.view("042")) == ({"sources": "乙"}, {"sources": "乙", "vote": "👎"})
    assert await cards.update({}) == (400, "param.cardDataAndPrivateDataBothEmpty")
    assert await cards("PUT", "instances", outTrackId="no") == (400, "param.cardNotExist")


async def test_failures_that_are_planted(gateway: Gateway, cards: Cards) -> None:
    """A delivery, a permission, the next frames or the nth one fail, and nothing else does."""
    gateway.card_delivery_faults.append("spaceId is illegal")
    asked = cards.asked()
    (failed,) = (await cards("POST", "instances/createAndDeliver", **asked))["deliverResults"]
    assert (failed["success"], failed["errorMsg"], gateway.cards_in()) == (False, "spaceId is illegal", [])
    await cards.create("card-2")
    gateway.plant("card.stream", "qps", times=2)
    gateway.plant("card.stream", 503, after=1)
    got = [await cards.frame(f"第{n}") for n in range(5)]
    qps = (403, "Forbidden.AccessDenied.QpsLimitForAppkeyAndApi")
    assert got == [qps, qps, True, (503, "system.error"), True]
    gateway.missing_permissions = {"Card.Streaming.Write"}
    assert await cards.frame("x") == (403, "Forbidden.AccessDenied.AccessTokenPermissionDenied")
    assert await cards.update({"vote": "有"}) is True
    with pytest.raises(ValueError, match="no such API"):
        gateway.plant("card", 503)


# ---- buttons

Bot = Callable[[Any], Awaitable[None]]


@pytest.fixture
async def pressed(gateway: Gateway, http: aiohttp.ClientSession, cards: Cards) -> Any:
    """Press 👍 of a fresh card while a robot answers with `data`; the card, the press and the frame it caused."""
    ws, _ = await connect(gateway, http, subscriptions=CALLBACKS)

    async def run(data: Any, *, code: int = 200) -> tuple[Card, Press, dict[str, Any]]:
        card = await cards.create()
        async with asyncio.TaskGroup() as tasks:
            press = tasks.create_task(gateway.press(card, "good", params={"action": "like"}))
            frame = await ws.receive_json(timeout=10)
            if data is not None:
                headers = {"messageId": frame["headers"]["messageId"], "contentType": "application/json"}
                await ws.send_json({"code": code, "message": "OK", "headers": headers, "data": data})
        return card, press.result(), frame

    yield run
    await ws.close()


async def test_a_button_calls_back_and_its_answer_shows_to_the_presser(gateway: Gateway, pressed: Any) -> None:
    """The frame has DingTalk's shape; what the ack brings the presser alone sees, until all get newer."""
    mine, shared = {"vote": "👍"}, {"sources": "谢谢"}
    options = {"updateCardDataByKey": True, "updatePrivateDataByKey": True}
    parts = {"cardData": {"cardParamMap": shared}, "userPrivateData": {"cardParamMap": mine}}
    card, press, frame = await pressed(json.dumps({"response": parts | {"cardUpdateOptions": options}}))
    content = '{"cardPrivateData": {"actionIds": ["good"], "params": {"action": "like"}}}'
    expected = {"type": "actionCallback", "userId": "042", "userIdType": 1, "spaceType": "IM", "spaceId": "cid-042"}
    expected |= {"outTrackId": "card-1", "content": content, "value": content, "extension": "{}"}
    data = json.loads(frame["data"])
    assert {key: data[key] for key in expected} == expected
    assert (frame["type"], frame["headers"]["topic"]) == ("CALLBACK", CARD_TOPIC)
    assert (press.ok, press.error, card.presses, gateway.presses) == (True, "", [press], [press])
    assert press.latency_s is not None
    assert card.view("042") == {"content": "", "vote": "👍", "sources": "谢谢"}
    assert card.view("043") == {"content": "", "vote": "无"}
    card.merge({"sources": "新"}, by_key=True)
    assert (card.view("042")["sources"], card.history[-1].kind) == ("新", "press")


@pytest.mark.parametrize(
    ("data", "code", "error"),
    [
        ("{}", 404, "code 404"),
        ("{", 200, "the ack's data is not JSON"),
        ("[]", 200, "not an object"),
        ('{"userPrivateData":{"cardParamMap":{"vote":1}}}', 200, "vote in cardParamMap is not a string"),
        (None, 200, "no ack within 0.05 s"),
    ],
)
async def test_an_ack_that_does_not_help(gateway: Gateway, pressed: Any, data: Any, code: int, error: str) -> None:
    """Late, refusing and unreadable acks leave the card alone and are said on the press."""
    if data is None:
        gateway.press_limit_s = 0.05
    card, press, _ = await pressed(data, code=code)
    assert (press.ok, press.error) == (False, error)
    assert card.view("042") == card.view()


async def test_a_press_nobody_takes(gateway: Gateway, http: aiohttp.ClientSession, cards: Cards) -> None:
    """Without a subscription, or with a card made for HTTP callbacks, the press fails at once."""
    ws, _ = await connect(gateway, http)
    card = await cards.create()
    assert (await gateway.press("card-1", "good")).error == "no connection subscribed to card callbacks"
    card.callback_type = "HTTP"
    assert (await gateway.press(card, "good")).error == "callbackType is HTTP"
    assert [entry["kind"] for entry in gateway.traffic if entry["kind"].startswith("press")] == ["press", "pressed"] * 2
    await ws.close()


async def test_the_sdk_streams_a_card_and_answers_a_press(gateway: Gateway) -> None:
    """DingTalk's own SDK, untouched, streams a card of a public template, and its ack shows to who pressed."""
    keys = {"client_id": gateway.client_id, "client_secret": gateway.client_secret}
    async with python_bot(gateway.url, script="sdk_card.py", **keys):
        await gateway.connected(timeout_s=30)
        card = await gateway.next_card(await gateway.say("年假有几天？"), timeout_s=30)
        await gateway.card_ended(card, timeout_s=30)
        press = await gateway.press(card, "good", user="043")
    assert (card.conversation, card.state, card.view()["msgContent"]) == ("cid-042", "finished", "年假 5 天")
    assert [frame.text for frame in card.frames] == ["年假", "年假 5 天"]
    assert (press.error, card.view("043")["thanks"], "thanks" in card.view("042")) == ("", "谢谢 043", False)
