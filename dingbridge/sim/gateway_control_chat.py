"""HTTP control of the stand-in gateway's cards, files and quota, below `/_sim/`; `gateway_control` has the rest.

POST press      {"card", "actions": [actionId], "params", "user", "conversation"}
POST tap        {"post": number, "title", "user"}
POST send       {"kind": picture|file|audio|video|rich|unknown|quote, "user", "nick", "group",
                 "content": base64, "content_type", "name", "recognition", "parts": [{"text"}|{"picture": base64}],
                 "msgtype", "text", "quoted", "shape"}
POST template   {"id", "variables": [name], "markdown": [name], "published"}
POST plant      {"at": an API as in `API_KINDS` | "file" | "delivery", "fault", "times", "after"}
POST permission {"missing": [scope]}
POST quota      {"api", "webhook_stream": cap or null, "reset": true}
GET  quota, cards?after=N, emotions
"""

from __future__ import annotations

import base64
import binascii
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from dingbridge.sim.gateway_asked import Wrong, decoded, guarded, nothing_else, number, take_field, told_sent
from dingbridge.sim.gateway_base import answer
from dingbridge.sim.gateway_card_records import Card, Change, Press
from dingbridge.sim.gateway_files import FILE_FAULT
from dingbridge.sim.gateway_meter import POOLS
from dingbridge.sim.gateway_openapi import API_KINDS, WORDS
from dingbridge.sim.gateway_quotes import SHAPES
from dingbridge.sim.gateway_records import Sent

if TYPE_CHECKING:
    from dingbridge.sim.gateway import Gateway

BROKEN: Final = {"html", "hang", "reset_before", "lost_response"}
MOST: Final = 1000

Send = Callable[[dict[str, Any], dict[str, Any]], Awaitable[Sent]]


class ChatControl:
    """Routes that drive one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def routes(self) -> list[web.RouteDef]:
        posts = {
            "press": self._press,
            "tap": self._tap,
            "send": self._send,
            "template": self._template,
            "plant": self._plant,
            "permission": self._permission,
            "quota": self._set_quota,
        }
        gets = {"quota": self._quota, "cards": self._cards, "emotions": self._emotions}
        return [
            *(web.post(f"/_sim/{name}", guarded(decoded(verb))) for name, verb in posts.items()),
            *(web.get(f"/_sim/{name}", guarded(show)) for name, show in gets.items()),
        ]

    # ---- what people do

    async def _press(self, body: dict[str, Any]) -> dict[str, Any]:
        name, user = take_field(body, "card", str, ""), take_field(body, "user", str, "042")
        actions, params = _texts(body, "actions"), take_field(body, "params", dict, {})
        conversation = take_field(body, "conversation", str, None)
        nothing_else(body)
        card = self._gateway.cards.get(name)
        if card is None:
            raise Wrong("no such card")
        try:
            press = await self._gateway.press(card, *actions, user=user, params=params, conversation=conversation)
        except LookupError as error:
            raise Wrong(str(error.args[0])) from None
        return told_press(press) | {"view": card.view(user)}

    async def _tap(self, body: dict[str, Any]) -> dict[str, Any]:
        wanted = take_field(body, "post", int, 0)
        title, user = take_field(body, "title", str, ""), take_field(body, "user", str, "")
        nothing_else(body)
        post = next((post for post in self._gateway.posts if post.number == wanted), None)
        if post is None:
            raise Wrong("no such post")
        try:
            return told_sent(await self._gateway.tap(post, title, user=user))
        except LookupError as error:
            raise Wrong(str(error.args[0])) from None

    async def _send(self, body: dict[str, Any]) -> dict[str, Any]:
        kinds: dict[str, Send] = {
            "picture": self._send_picture,
            "file": self._send_file,
            "audio": self._send_audio,
            "video": self._send_video,
            "rich": self._send_rich,
            "unknown": self._send_unknown,
            "quote": self._send_quote,
        }
        kind = take_field(body, "kind", str, "")
        if kind not in kinds:
            raise Wrong(f"kind is one of {', '.join(kinds)}")
        group = take_field(body, "group", (bool, str), False)
        how: dict[str, Any] = {
            "user": take_field(body, "user", str, "042"),
            "nick": take_field(body, "nick", str, "张三"),
        }
        how["group"] = bool(group)
        if isinstance(group, str) and group:
            how["conversation"] = group
        try:
            return told_sent(await kinds[kind](body, how))
        except ValueError as error:
            raise Wrong(str(error)) from None

    async def _send_picture(self, body: dict[str, Any], how: dict[str, Any]) -> Sent:
        content, kind = _content(body), take_field(body, "content_type", str, "image/png")
        nothing_else(body)
        return await self._gateway.send_picture(content, kind, **how)

    async def _send_file(self, body: dict[str, Any], how: dict[str, Any]) -> Sent:
        content, name = _content(body), take_field(body, "name", str, "制度.txt")
        kind = take_field(body, "content_type", str, "application/octet-stream")
        nothing_else(body)
        return await self._gateway.send_file(content, name, kind, **how)

    async def _send_audio(self, body: dict[str, Any], how: dict[str, Any]) -> Sent:
        recognition, content = take_field(body, "recognition", str, None), _content(body)
        nothing_else(body)
        return await self._gateway.send_audio(recognition, content, **how)

    async def _send_video(self, body: dict[str, Any], how: dict[str, Any]) -> Sent:
        content = _content(body)
        nothing_else(body)
        return await self._gateway.send_video(content, **how)

    async def _send_rich(self, body: dict[str, Any], how: dict[str, Any]) -> Sent:
        given = take_field(body, "parts", list, [])
        nothing_else(body)
        parts: list[str | bytes | dict[str, Any]] = []
        for part in given:
            if not isinstance(part, dict):
                raise Wrong("parts are objects")
            parts.append(_bytes(part["picture"]) if "picture" in part else part)
        return await self._gateway.send_rich(*parts, **how)

    async def _send_unknown(self, body: dict[str, Any], how: dict[str, Any]) -> Sent:
        msgtype = take_field(body, "msgtype", str, "unknownMsgType")
        nothing_else(body)
        return await self._gateway.send_unknown(msgtype, **how)

    async def _send_quote(self, body: dict[str, Any], how: dict[str, Any]) -> Sent:
        text, quoted = take_field(body, "text", str, "什么意思？"), take_field(body, "quoted", str, "年假 5 天")
        shape, content = take_field(body, "shape", str, SHAPES[0]), _content(body)
        nothing_else(body)
        return await self._gateway.send_quote(text, quoted, shape, content=content, **how)

    # ---- what DingTalk does

    async def _template(self, body: dict[str, Any]) -> dict[str, Any]:
        name = take_field(body, "id", str, "")
        variables = _texts(body, "variables") if "variables" in body else None
        markdown = _texts(body, "markdown") if "markdown" in body else ["content"]
        published = take_field(body, "published", bool, True)
        nothing_else(body)
        return {"id": self._gateway.add_template(name, variables, markdown=markdown, published=published)}

    async def _plant(self, body: dict[str, Any]) -> dict[str, Any]:
        place, fault = take_field(body, "at", str, ""), body.pop("fault", None)
        times, after = take_field(body, "times", int, 1), take_field(body, "after", int, 0)
        nothing_else(body)
        if not (1 <= times <= MOST and 0 <= after <= MOST):
            raise Wrong(f"times is 1 to {MOST}, after up to {MOST}")
        fault = _fault(place, fault)
        queues: dict[str, deque[Any]] = {
            "file": self._gateway.file_faults,
            "delivery": self._gateway.card_delivery_faults,
        }
        if place in queues:
            queue = queues[place]
            queue.extend([None] * after + [fault] * times)
        else:
            self._gateway.plant(place, fault, times=times, after=after)
            queue = self._gateway.faults_of[place]
        if fault is None:
            queue.clear()
        return {"at": place, "next": list(queue)}

    async def _permission(self, body: dict[str, Any]) -> dict[str, Any]:
        missing = set(_texts(body, "missing"))
        nothing_else(body)
        self._gateway.missing_permissions = missing
        return {"missing": sorted(missing)}

    async def _set_quota(self, body: dict[str, Any]) -> dict[str, Any]:
        caps: dict[str, int | None] = {pool: take_field(body, pool, int, None) for pool in POOLS if pool in body}
        reset = take_field(body, "reset", bool, False)
        nothing_else(body)
        if any(cap is not None and cap < 0 for cap in caps.values()):
            raise Wrong("a cap is at least 0, or null")
        self._gateway.meter.caps |= caps
        if reset:
            self._gateway.meter.reset()
        return self._gateway.meter.told()

    # ---- what is shown

    async def _quota(self, _: web.Request) -> web.StreamResponse:
        return answer(self._gateway.meter.told())

    async def _cards(self, request: web.Request) -> web.StreamResponse:
        after, wall = number(request, "after"), self._gateway.wall
        return answer(
            {"cards": [told_card(card, wall) for card in self._gateway.cards.values() if card.number > after]}
        )

    async def _emotions(self, _: web.Request) -> web.StreamResponse:
        told = [
            {"msg_id": one.msg_id, "conversation": one.conversation, "name": one.name, "shown": one.recalled_at is None}
            for one in self._gateway.emotions
        ]
        return answer({"emotions": told})


def told_press(press: Press) -> dict[str, Any]:
    """A press as JSON."""
    return {
        "number": press.number,
        "card": press.out_track_id,
        "user": press.user,
        "actions": list(press.action_ids),
        "params": press.params,
        "ok": press.ok,
        "error": press.error,
        "latency_s": press.latency_s,
        "response": press.response,
    }


def told_card(card: Card, wall: Callable[[float], float]) -> dict[str, Any]:
    """A card as JSON; `people` has what each person sees who sees something else. Times are epoch seconds."""
    return {
        "number": card.number,
        "time": wall(card.at),
        "card": card.out_track_id,
        "template": card.template_id,
        "conversation": card.conversation,
        "state": card.state,
        "data": card.data,
        "people": {user: card.view(user) for user in sorted({*card.private, *card.personal})},
        "support_forward": card.support_forward,
        "last_message": card.last_message,
        "recipients": list(card.recipients),
        "spaces": [{"type": space.type, "id": space.id, "error": space.error} for space in card.spaces],
        "history": [_told_change(change, wall) for change in card.history],
        "presses": [told_press(press) for press in card.presses],
    }


def _told_change(change: Change, wall: Callable[[float], float]) -> dict[str, Any]:
    told = {"time": wall(change.at), "number": change.number, "kind": change.kind, "key": change.key}
    told |= {"text": change.text, "final": change.final, "error": change.error, "code": change.code}
    return told | {"user": change.user, "data": change.data, "private": change.private}


def _fault(place: str, fault: Any) -> Any:
    """A fault as the place takes it; None ends those that are planted."""
    places = ("file", "delivery", *API_KINDS.values())
    if place not in places:
        raise Wrong(f"at is one of {', '.join(places)}")
    if fault is None or (place != "delivery" and type(fault) is int and 400 <= fault < 600):
        return fault
    match place, fault:
        case "delivery", str():
            return fault
        case "file", str() if FILE_FAULT.fullmatch(fault):
            return fault
        case _, str() if place in API_KINDS.values() and fault in BROKEN | set(WORDS):
            return fault
        case _, [int() as status, str() as code] if place in API_KINDS.values() and 400 <= status < 600:
            return status, code
    words = ", ".join(sorted(BROKEN | {str(word) for word in WORDS}))
    raise Wrong(
        f"a file takes a status or {FILE_FAULT.pattern}, a delivery any text, an API a status, [status, code], {words}"
    )


def _texts(body: dict[str, Any], name: str) -> list[str]:
    texts = take_field(body, name, list, [])
    if not all(isinstance(text, str) for text in texts):
        raise Wrong(f"{name} is a list of strings")
    return list(texts)


def _content(body: dict[str, Any]) -> bytes:
    return _bytes(take_field(body, "content", str, ""))


def _bytes(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise Wrong("content is base64") from None
