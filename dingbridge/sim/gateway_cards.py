"""The stand-in gateway's cards: created, delivered, streamed into, updated; and buttons that call back over Stream.

Knobs: `templates` and `add_template`, `card_content_limit` (bytes of one text), `card_delivery_fault` and
`card_delivery_faults` (an errorMsg: HTTP 200, but the card appears nowhere), `press_limit_s`; for refusals and
failures of single calls see `plant` and `missing_permissions`. Where DingTalk publishes no code for a refusal, this
says `invalidParameter`, and `param.stream.finalized` for a frame after the last one.
(open.dingtalk.com/document/development: create-and-deliver-cards, api-streamingupdate,
interactive-card-update-interface, event-callback-card)
"""

from __future__ import annotations

import json
import secrets
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

from aiohttp import web

from dingbridge.sim.gateway_base import conversation_of
from dingbridge.sim.gateway_card_records import (
    FAILED,
    FINISHED,
    FLOW,
    PUBLIC,
    STREAMING,
    Card,
    Change,
    Press,
    Space,
    Template,
)
from dingbridge.sim.gateway_openapi import OpenApiSide, required
from dingbridge.sim.gateway_records import CARD_TOPIC, Sent
from dingbridge.sim.gateway_sends import Refused

SPACES: Final = {"IM_ROBOT": "imRobotOpenDeliverModel", "IM_GROUP": "imGroupOpenDeliverModel"}
SPACE_MODELS: Final = ("imRobotOpenSpaceModel", "imGroupOpenSpaceModel")
CARD_LIMIT: Final = 100_000
TRACK_LIMIT: Final = 100
TOO_LARGE: Final = "content is too large 200092"


class CardSide(OpenApiSide):
    """`cards` by outTrackId, `presses` in order."""

    def __init__(self, client_id: str, client_secret: str) -> None:
        super().__init__(client_id, client_secret)
        self.templates: dict[str, Template] = dict(PUBLIC)
        self.card_content_limit: int | None = CARD_LIMIT
        self.card_delivery_fault: str | None = None
        self.card_delivery_faults: deque[str | None] = deque()
        self.press_limit_s = 2.0
        self.cards: dict[str, Card] = {}
        self.presses: list[Press] = []
        self._seen_cards: dict[str | None, int] = {}
        self._tables.append(self.cards)
        self._lists.append(self.presses)

    # ---- what a test or a chat page does

    def add_template(
        self,
        template_id: str = "",
        variables: Iterable[str] | None = None,
        *,
        markdown: Iterable[str] = ("content",),
        published: bool = True,
    ) -> str:
        """Make a template known, or change one; its id. See `Template`."""
        template_id = template_id or f"{uuid.uuid4()}.schema"
        known = None if variables is None else frozenset(variables)
        self.templates[template_id] = Template(known, frozenset(markdown), published)
        return template_id

    def cards_in(self, target: str | Sent | None = None) -> list[Card]:
        """Cards shown in a conversation, oldest first; for a `Sent`, those since it was said; None: all shown."""
        conversation = conversation_of(target)
        since = target.at if isinstance(target, Sent) else 0.0
        return [card for card in self.cards.values() if card.is_in(conversation) and card.at >= since]

    async def next_card(self, target: str | Sent | None = None, timeout_s: float = 10.0) -> Card:
        """The oldest card of the conversation (None: of all) that no earlier call for it has returned."""
        conversation = conversation_of(target)
        seen = self._seen_cards.get(conversation, 0)
        card = await self.until(
            lambda: next((card for card in self.cards_in(conversation) if card.number > seen), None), timeout_s
        )
        self._seen_cards[conversation] = card.number
        return card

    async def card_ended(self, card: Card, timeout_s: float = 10.0) -> Card:
        """The card as soon as it is finished or failed. TimeoutError else."""
        await self.until(lambda: card.ended, timeout_s)
        return card

    async def press(
        self,
        card: Card | str,
        *actions: str,
        user: str = "042",
        params: dict[str, Any] | None = None,
        conversation: str | None = None,
        **overrides: Any,
    ) -> Press:
        """A person presses a button; over when it is answered, at the latest after `press_limit_s`.

        `actions` are the actionIds of the button, `conversation` another one the card was forwarded to; `overrides`
        set any key of the frame's data. LookupError for a card that is shown nowhere or not to this person.
        """
        card = self.cards[card] if isinstance(card, str) else card
        if not card.is_in(None) or (card.recipients and user not in card.recipients):
            raise LookupError(f"{user} does not see {card.out_track_id}")
        press = Press(time.monotonic(), self._noted + 1, card.out_track_id, user, actions, params or {})
        self.presses.append(press)
        card.presses.append(press)
        self.note("press", card=card.out_track_id, user=user, actions=list(actions), params=press.params)
        press.error = await self._ask(card, press, conversation or card.conversation, overrides)
        press.ok = not press.error
        facts = {"error": press.error, "response": press.response, "latency_s": press.latency_s}
        self.note("pressed", card=card.out_track_id, user=user, ok=press.ok, **facts)
        return press

    async def _ask(self, card: Card, press: Press, conversation: str, overrides: dict[str, Any]) -> str:
        """Push the callback and do what its ack says; what was wrong with it, or nothing."""
        if card.callback_type != "STREAM":
            return f"callbackType is {card.callback_type}"
        private = {"actionIds": list(press.action_ids), "params": press.params}
        content = json.dumps({"cardPrivateData": private}, ensure_ascii=False)
        data = {
            "extension": "{}",
            "corpId": "ding9f50b15bccd16741",
            "type": "actionCallback",
            "userId": press.user,
            "userIdType": 1,
            "spaceType": "IM",
            "spaceId": conversation,
            "outTrackId": card.out_track_id,
            "content": content,
            "value": content,
        }
        press.sent = await self.push_callback(CARD_TOPIC, data | overrides, hold=False)
        if press.sent.lost:
            return "no connection subscribed to card callbacks"
        try:
            ack = await self.acked(press.sent, self.press_limit_s)
        except TimeoutError:
            return f"no ack within {self.press_limit_s:g} s"
        if ack.code != 200:
            return f"code {ack.code}"
        try:
            press.response = _response(ack.data)
            self._show(card, press.user, press.response)
        except Refused as refused:
            return refused.message
        return ""

    def _show(self, card: Card, user: str, response: dict[str, Any]) -> None:
        """What an ack changes is shown to the presser alone."""
        options = _object(response.get("cardUpdateOptions"))
        data, private = _params(response.get("cardData")), _params(response.get("userPrivateData"))
        if data:
            shown = card.personal.get(user, {})
            card.personal[user] = shown | data if options.get("updateCardDataByKey") is True else data
        if private:
            card.merge_private(user, private, by_key=options.get("updatePrivateDataByKey") is True)
        if data or private:
            self._changed_card(card, "press", user=user, data=data, private={user: private} if private else {})

    # ---- calls

    async def _create_card(self, request: web.Request) -> web.StreamResponse:
        alone = request.path.endswith("/instances")

        def accept(body: dict[str, Any]) -> dict[str, Any]:
            card = self._new_card(body)
            targets = [] if alone else self._targets(body)
            self.cards[card.out_track_id] = card
            self._changed_card(card, "create", data=card.data)
            if alone:
                return {"success": True, "result": card.out_track_id}
            results = self._place(card, body, targets)
            return {"success": True, "result": {"outTrackId": card.out_track_id, "deliverResults": results}}

        return await self._call(request, accept)

    async def _deliver_card(self, request: web.Request) -> web.StreamResponse:
        def accept(body: dict[str, Any]) -> dict[str, Any]:
            card = self._known_card(body, "param.cardNotExist")
            return {"success": True, "result": self._place(card, body, self._targets(body))}

        return await self._call(request, accept)

    async def _update_card(self, request: web.Request) -> web.StreamResponse:
        return await self._call(request, self._on_card("param.cardNotExist", self._update))

    async def _stream_card(self, request: web.Request) -> web.StreamResponse:
        return await self._call(request, self._on_card("param.stream.outTrackId", self._stream))

    def _on_card(
        self, unknown: str, change: Callable[[Card, dict[str, Any]], None]
    ) -> Callable[[dict[str, Any]], dict[str, Any]]:
        """A change of a card, noted on it also where it is refused."""

        def accept(body: dict[str, Any]) -> dict[str, Any]:
            card = self._known_card(body, unknown)
            try:
                change(card, body)
            except Refused as refused:
                self._changed_card(card, "refused", code=str(refused.code), text=str(body.get("content", "")))
                raise
            return {"success": True, "result": True}

        return accept

    def _new_card(self, body: dict[str, Any]) -> Card:
        name = required(body, "outTrackId", "param.empty")
        template = self.templates.get(required(body, "cardTemplateId", "param.empty"))
        if len(name) > TRACK_LIMIT:
            raise Refused("invalidParameter", f"outTrackId has at most {TRACK_LIMIT} characters")
        if template is None:
            raise Refused("param.templateNotExist", "template is not exist")
        if not template.published:
            raise Refused("param.templateUnpublished", "template is unpublished")
        if name in self.cards:
            raise Refused("param.cardAlreadyExist", "card is already exist")
        data = self._sized(_params(body.get("cardData")))
        private = {user: self._sized(_params(part)) for user, part in _object(body.get("privateData")).items()}
        models = [_object(body.get(model)) for model in SPACE_MODELS]
        return Card(
            name,
            body["cardTemplateId"],
            time.monotonic(),
            self._noted + 1,
            str(body.get("callbackType", "")),
            data,
            private,
            support_forward=any(model.get("supportForward") is not False for model in models if model),
            last_message=next((_preview(model) for model in models if "lastMessageI18n" in model), ""),
            alert=next(
                (
                    str(_object(model["notification"]).get("alertContent", ""))
                    for model in models
                    if "notification" in model
                ),
                "",
            ),
        )

    def _known_card(self, body: dict[str, Any], unknown: str) -> Card:
        card = self.cards.get(required(body, "outTrackId", "param.empty"))
        if card is None:
            raise Refused(unknown, "card is not exist")
        return card

    def _sized(self, data: dict[str, str]) -> dict[str, str]:
        if len(json.dumps(data, ensure_ascii=False).encode()) > CARD_LIMIT:
            raise Refused("invalidParameter", f"a card has at most {CARD_LIMIT} bytes")
        return data

    # ---- delivery

    def _targets(self, body: dict[str, Any]) -> list[tuple[str, str]]:
        """The spaces of dtv1.card//TYPE.id;TYPE.id, each with the model that its delivery needs."""
        space = body.get("openSpaceId")
        prefix, _, named = space.partition("//") if isinstance(space, str) else ("", "", "")
        targets = [(kind, name) for kind, _, name in (part.partition(".") for part in named.split(";"))]
        if prefix != "dtv1.card" or any(kind not in SPACES or not name for kind, name in targets):
            raise Refused("param.openSpaceIdInvalid", "openSpaceId is invalid")
        for kind, name in targets:
            model = body.get(SPACES[kind])
            if not isinstance(model, dict) or not model:
                raise Refused("param.openDeliverModelEmpty", SPACES[kind])
            if model.get("robotCode", None if kind == "IM_GROUP" else self.client_id) != self.client_id:
                raise Refused("param.openDeliverModelError", "robotCode")
            if kind == "IM_ROBOT" and name in self.invalid_staff:
                raise Refused("param.userIdNotExist", name)
        return targets

    def _place(self, card: Card, body: dict[str, Any], targets: list[tuple[str, str]]) -> list[dict[str, Any]]:
        """Show the card where it is to be, or say per space why not; the deliverResults."""
        results = []
        for kind, name in targets:
            error = self.card_delivery_faults.popleft() if self.card_delivery_faults else self.card_delivery_fault
            conversation = self._direct_conversation(name) if kind == "IM_ROBOT" else name
            space = Space(kind, name, conversation, "" if error else secrets.token_urlsafe(16), error or "")
            card.spaces.append(space)
            told = {"spaceType": kind, "spaceId": name, "success": space.delivered, "errorMsg": space.error}
            results.append(told | ({"carrierId": space.carrier_id} if space.delivered else {}))
        model = _object(body.get("imGroupOpenDeliverModel"))
        card.recipients = tuple(model.get("recipients") or ())
        card.at_users = dict(_object(model.get("atUserIds")))
        self._changed_card(card, "deliver")
        return results

    # ---- changes

    def _update(self, card: Card, body: dict[str, Any]) -> None:
        data = self._sized(_params(body.get("cardData")))
        private = {user: self._sized(_params(part)) for user, part in _object(body.get("privateData")).items()}
        if not data and not any(private.values()):
            raise Refused("param.cardDataAndPrivateDataBothEmpty", "cardData and privateData are both empty")
        if missing := self.invalid_staff & set(private):
            raise Refused("param.userIdNotExist", ", ".join(missing))
        options = _object(body.get("cardUpdateOptions"))
        if data:
            card.merge(data, by_key=options.get("updateCardDataByKey") is True)
            self._flow(card, data)
        for user, part in private.items():
            card.merge_private(user, part, by_key=options.get("updatePrivateDataByKey") is True)
        self._changed_card(card, "update", data=data, private=private)

    def _flow(self, card: Card, data: dict[str, str]) -> None:
        """In public templates a variable says how far the card is."""
        variables = self.templates.get(card.template_id, Template()).variables
        if variables is not None and "flowStatus" in variables:
            card.state = FLOW.get(data.get("flowStatus", ""), card.state)

    def _stream(self, card: Card, body: dict[str, Any]) -> None:
        key, guid = (required(body, field, f"param.stream.{field}Empty") for field in ("key", "guid"))
        content = required(body, "content", "param.stream.contentEmpty")
        full, final, error = (body.get(field, False) for field in ("isFull", "isFinalize", "isError"))
        facts = {"key": key, "guid": guid, "text": content, "full": full, "final": final, "error": error}
        if guid in card.guids:
            self._changed_card(card, "repeat", **facts)
            return
        template = self.templates.get(card.template_id, Template())
        if not template.has(key):
            raise Refused("unknownError", "未知错误", 500)
        if any(not isinstance(flag, bool) for flag in (full, final, error)) or (key in template.markdown and not full):
            raise Refused("param.stream.isFull", "isFull is invalid")
        text = content if full else card.data.get(key, "") + content
        if self.card_content_limit is not None and len(text.encode()) > self.card_content_limit:
            raise Refused("param.stream.content", TOO_LARGE)
        if card.finalized:
            raise Refused("param.stream.finalized", "card streaming is finalized")
        card.guids.add(guid)
        card.merge({key: text}, by_key=True)
        card.finalized = final or error
        card.state = FAILED if error else FINISHED if final else STREAMING
        self._changed_card(card, "stream", **facts)

    def _changed_card(self, card: Card, kind: str, **facts: Any) -> None:
        card.history.append(Change(time.monotonic(), self._noted + 1, kind, **facts))
        if self.keep is not None:
            del card.history[: -self.keep], card.presses[: -self.keep]
        self.note("card", card=card.out_track_id, change=kind, state=card.state, **facts)


def _object(value: Any) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise Refused("invalidParameter", "not an object")
    return value or {}


def _params(part: Any) -> dict[str, str]:
    """The cardParamMap of cardData or of one's private data: strings only."""
    params = _object(_object(part).get("cardParamMap"))
    for key, value in params.items():
        if not isinstance(value, str):
            raise Refused("invalidParameter", f"{key} in cardParamMap is not a string")
    return params


def _preview(model: dict[str, Any]) -> str:
    texts = _object(model["lastMessageI18n"])
    return str(texts.get("ZH_CN") or next(iter(texts.values()), ""))


def _response(data: Any) -> dict[str, Any]:
    """An ack's data as an object, with or without the shell "response" that SDKs put around it."""
    try:
        body = json.loads(data)
    except (ValueError, TypeError):
        raise Refused("invalidParameter", "the ack's data is not JSON") from None
    return _object(_object(body).get("response", body))
