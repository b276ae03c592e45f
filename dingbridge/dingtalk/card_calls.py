"""The three calls that make a card, and what DingTalk refuses in them.

(DingTalk's pages on creating and delivering cards, on streaming updates of AI cards, and on updating cards.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from dingbridge.dingtalk import markdown
from dingbridge.dingtalk.allowance import QUOTA, Budget
from dingbridge.dingtalk.rate import Rate
from dingbridge.errors import (
    ReplyError,
    ReplyPaced,
    ReplyRejected,
    ReplyTooLong,
    ReplyUnavailable,
    ReplyUncertain,
    ReplyUnsafe,
)
from dingbridge.markup import clean
from dingbridge.model import Message

CREATE = "/v1.0/card/instances/createAndDeliver"
STREAM = "/v1.0/card/streaming"
CHANGE = "/v1.0/card/instances"
POOL = "api"
# DingTalk does not bill what it refuses for these, nor what comes too fast.
_UNBILLED_CAUSES = (QUOTA, "token.refused")
FINALIZED = "param.stream.finalized"
CREATE_TURN_S = 3.0
NICK_CHARS = 40
PAUSE_S = 2.0  # after "too fast", for all cards


class Api(Protocol):
    """DingTalk's API with this robot's token: `openapi.OpenAPI`."""

    @property
    def rate(self) -> Rate: ...

    async def call(self, method: str, path: str, body: dict[str, Any], *, has_turn: bool = False) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Frame:
    """The whole text of a card at one moment. guid: the same for the same frame, however often it is sent."""

    guid: str
    text: str
    last: bool = False
    failed: bool = False


class CardCalls:
    """Calls for the cards of one template. Every error is a ReplyError with a cause that names the remedy."""

    def __init__(self, openapi: Api, *, robot: str, template_id: str, content_key: str, budget: Budget) -> None:
        self._openapi = openapi
        self._robot = robot
        self._template_id = template_id
        self._content_key = content_key
        self._budget = budget

    async def turn(self, path: str, within_s: float) -> None:
        await self._openapi.rate.turn(path, within_s)

    async def create(
        self, track: str, message: Message, text: str, *, forward: bool, params: Mapping[str, str]
    ) -> bool:
        """False where it was there before. Raises also where it was made but shown to nobody."""
        body = {
            "cardTemplateId": self._template_id,
            "outTrackId": track,
            "callbackType": "STREAM",
            "cardData": {"cardParamMap": {**_strings(params), self._content_key: text}},
            "userIdType": 1,
            **_space(self._robot, message, text, forward=forward),
        }
        # Who would wait longer gets no card: nothing was sent yet, so that is certain.
        await self.turn(CREATE, CREATE_TURN_S)
        try:
            answer = await self._call("POST", CREATE, body, "card.create", has_turn=True)
        except ReplyRejected as error:
            if error.code == "param.cardAlreadyExist":
                return False
            raise
        if (why := _undelivered(answer)) is not None:
            raise ReplyRejected(f"the card was made but not delivered: {why}", cause="card.undelivered")
        return True

    async def stream(self, track: str, frame: Frame, *, has_turn: bool = False) -> None:
        """A frame of a guid that was taken before is taken again and changes nothing."""
        body = {
            "outTrackId": track,
            "guid": frame.guid,
            "key": self._content_key,
            "content": frame.text,
            "isFull": True,
            "isFinalize": frame.last,
            "isError": frame.failed,
        }
        kind = "card.final" if frame.last or frame.failed else "card.frame"
        await self._call("PUT", STREAM, body, kind, has_turn=has_turn)

    async def change(self, track: str, params: Mapping[str, str]) -> None:
        """These variables only; without the option DingTalk empties all others."""
        body = {
            "outTrackId": track,
            "cardData": {"cardParamMap": _strings(params)},
            "cardUpdateOptions": {"updateCardDataByKey": True},
            "userIdType": 1,
        }
        await self._call("PUT", CHANGE, body, "card.update")

    async def _call(
        self, method: str, path: str, body: dict[str, Any], kind: str, *, has_turn: bool = False
    ) -> dict[str, Any]:
        failure: ReplyError | None = None
        try:
            answer = await self._openapi.call(method, path, body, has_turn=has_turn)
        except ReplyError as error:
            failure = _of_cards(error)
        else:
            self._budget.count(POOL, kind)
            return answer
        if failure.status and isinstance(failure, ReplyPaced):
            self._openapi.rate.pause(path, max(PAUSE_S, failure.retry_after or 0.0))
        elif failure.cause == QUOTA:
            self._budget.refused(POOL)
        elif failure.status and failure.cause not in _UNBILLED_CAUSES:
            self._budget.count(POOL, kind)
        raise failure


def _space(robot: str, message: Message, text: str, *, forward: bool) -> dict[str, Any]:
    preview = markdown.plain(text, fallback="…")
    staff_id = message.sender.staff_id
    if not message.conversation.is_group:
        return {
            "openSpaceId": f"dtv1.card//IM_ROBOT.{staff_id}",
            "imRobotOpenSpaceModel": {"supportForward": forward, "lastMessageI18n": {"ZH_CN": preview}},
            "imRobotOpenDeliverModel": {"spaceType": "IM_ROBOT", "robotCode": robot},
        }
    deliver: dict[str, Any] = {"robotCode": robot}
    if staff_id:
        nick = " ".join(clean(message.sender.nick).split())[:NICK_CHARS]
        deliver["atUserIds"] = {staff_id: nick or staff_id}
    return {
        "openSpaceId": f"dtv1.card//IM_GROUP.{message.conversation.id}",
        "imGroupOpenSpaceModel": {"supportForward": forward, "notification": {"alertContent": preview}},
        "imGroupOpenDeliverModel": deliver,
    }


def _strings(params: Mapping[str, str]) -> dict[str, str]:
    return {str(key): str(value) for key, value in params.items()}


def _undelivered(answer: dict[str, Any]) -> str | None:
    """DingTalk's words for a delivery that failed inside of HTTP 200; None where none did."""
    result = answer.get("result")
    results = result.get("deliverResults") if isinstance(result, dict) else None
    if answer.get("success") is False or not isinstance(results, list) or not results:
        return "no result of the delivery"
    failed = [one for one in results if not isinstance(one, dict) or one.get("success") is not True]
    if not failed:
        return None
    said = failed[0].get("errorMsg") if isinstance(failed[0], dict) else None
    return markdown.plain(said, limit=100) if isinstance(said, str) and said else "no reason given"


# By DingTalk's code.
_CARD_CAUSES: dict[str, tuple[type[ReplyError], str]] = {
    "param.templateNotExist": (ReplyRejected, "card.template"),
    "param.templateUnpublished": (ReplyRejected, "card.template"),
    "Forbidden.AccessDenied.AccessTokenPermissionDenied": (ReplyRejected, "card.permission"),
    "param.openSpaceIdInvalid": (ReplyRejected, "card.undelivered"),
    "param.openDeliverModelError": (ReplyRejected, "card.undelivered"),
    "param.openDeliverModelEmpty": (ReplyRejected, "card.undelivered"),
    "param.userIdNotExist": (ReplyRejected, "chat.person"),
    "param.contentUnsafe": (ReplyUnsafe, "chat.unsafe"),
    "param.stream.content": (ReplyTooLong, "card.too_large"),
    "param.stream.keyEmpty": (ReplyRejected, "card.key"),
    "invalid.content": (ReplyRejected, "card.key"),
    # An HTTP 500; all that DingTalk says of a variable that the template does not have.
    "unknownError": (ReplyRejected, "card.key"),
    "param.stream.outTrackId": (ReplyRejected, "card.gone"),
    "param.cardNotExist": (ReplyRejected, "card.gone"),
}


def _of_cards(error: ReplyError) -> ReplyError:
    """The same refusal with the cause that fits a card."""
    kind, cause = _CARD_CAUSES.get(error.code, (type(error), error.cause))
    if kind is ReplyTooLong:
        cause = "card.too_large"
    elif error.status >= 500 and kind in (ReplyUncertain, ReplyUnavailable):
        cause = "card.busy"
    told = kind(error.detail, retry_after=error.retry_after, cause=cause)
    told.code, told.status = error.code, error.status
    return told
