"""HTTP control of the stand-in gateway, below `/_sim/`: for a shell, or for the tests of a bot in any language.

    POST say        {"text", "user", "nick", "group", "times", "pad", "connection", "payload", "wait_s"}
    POST push       {"type", "topic", "data", "headers", "connection"}
    POST fault      {"at", "fault", "times", "connection"} and {"set": {knob: value}}
    POST rotate     {"connection", "close_after_s", "with_message_id", "reason"}
    POST redeliver  {"msg_id", "same_id"}
    GET  state, posts?after=N&wait_s=S, traffic?after=N (JSON lines)

It answers this machine alone, and no page of another origin.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from dingbridge.sim.gateway_asked import Wrong, decoded, guarded, nothing_else, number, take_field, told_sent
from dingbridge.sim.gateway_base import answer
from dingbridge.sim.gateway_link import FAULT, Connection
from dingbridge.sim.gateway_records import Post, Sent

if TYPE_CHECKING:
    from dingbridge.sim.gateway import Gateway

WAIT_S: Final = 60.0
MOST: Final = 10_000
PAD: Final = 8 * 1024 * 1024
_SENT: Final = r"hang|html|reset_before|lost_response|http[1-5]\d\d(_delivered)?"
STATUS: Final = range(400, 600)
ERRCODE: Final = range(-1, 10_000_000)
# What may be planted where: words, and which numbers.
PLACES: Final[dict[str, tuple[re.Pattern[str], range]]] = {
    "open": (re.compile("hang|reset|html|empty|no_ticket|no_endpoint|refused"), STATUS),
    "handshake": (re.compile("hang|reset|html"), STATUS),
    "webhook": (re.compile(_SENT), ERRCODE),
    "openapi": (re.compile(f"{_SENT}|qps|permission"), STATUS),
    "connection": (FAULT, range(0)),
}
KNOBS: Final[dict[str, type | tuple[type, ...]]] = {
    "redeliver_after_s": (float, int),
    "redeliver_at_most": int,
    "event_redeliver_after_s": (float, int),
    "dead_channel": bool,
    "greets": bool,
    "keepalive_every_s": (float, int),
    "ping_every_s": (float, int),
    "ws_ping_every_s": (float, int),
    "ticket_ttl_s": (float, int),
    "webhook_delay_s": (float, int),
    "webhook_per_minute": int,
    "custom_per_minute": int,
    "openapi_per_second": int,
    "openapi_total_per_second": int,
    "card_content_limit": int,
    "press_limit_s": (float, int),
    "file_code_ttl_s": (float, int),
    "file_url_ttl_s": (float, int),
}
NEVER_NONE: Final = {"dead_channel", "greets", "ticket_ttl_s", "webhook_delay_s", "press_limit_s"}
MAY_BE_ZERO: Final = {"ticket_ttl_s", "webhook_delay_s"}
LEAST_S: Final = 0.05


class Control:
    """Routes that drive one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def routes(self) -> list[web.RouteDef]:
        posts = {
            "say": self._say,
            "push": self._push,
            "fault": self._fault,
            "rotate": self._rotate,
            "redeliver": self._redeliver,
        }
        gets = {"state": self._state, "posts": self._posts, "traffic": self._traffic}
        return [
            *(web.post(f"/_sim/{name}", guarded(decoded(verb))) for name, verb in posts.items()),
            *(web.get(f"/_sim/{name}", guarded(show)) for name, show in gets.items()),
        ]

    # ---- what is done

    async def _say(self, body: dict[str, Any]) -> dict[str, Any]:
        text = take_field(body, "text", str, "你好")
        group = take_field(body, "group", (bool, str), False)
        times = take_field(body, "times", int, 1)
        pad = take_field(body, "pad", int, 0)
        wait_s = take_field(body, "wait_s", (int, float), 0)
        how: dict[str, Any] = {
            "user": take_field(body, "user", str, "042"),
            "nick": take_field(body, "nick", str, "张三"),
        }
        how |= {"group": bool(group), "payload": take_field(body, "payload", dict, None), "to": self._one(body)}
        if isinstance(group, str) and group:
            how["conversation"] = group
        nothing_else(body)
        if not (1 <= times <= MOST and 0 <= pad <= PAD and 0 <= wait_s <= WAIT_S):
            raise Wrong(f"times is 1 to {MOST}, pad up to {PAD} characters, wait_s up to {WAIT_S:.0f}")
        said = [await self._gateway.say(text + "x" * pad, **how) for _ in range(times)]
        posts = await self._replies(said[-1], wait_s) if wait_s else []
        return {**told_sent(said[-1]), "posts": [self._post(post) for post in posts]}

    async def _replies(self, sent: Sent, wait_s: float) -> list[Post]:
        try:
            return await self._gateway.wait_posts(sent, timeout_s=wait_s)
        except TimeoutError:
            return []

    async def _push(self, body: dict[str, Any]) -> dict[str, Any]:
        kind, topic = take_field(body, "type", str, "CALLBACK"), take_field(body, "topic", str, "*")
        data = take_field(body, "data", (dict, str), {})
        headers = {str(key): str(value) for key, value in take_field(body, "headers", dict, {}).items()}
        to = self._one(body)
        nothing_else(body)
        return told_sent(await self._gateway.push_callback(topic, data, kind, headers=headers, to=to))

    async def _fault(self, body: dict[str, Any]) -> dict[str, Any]:
        knobs = take_field(body, "set", dict, {})
        _check_knobs(knobs)
        if "at" in body or not knobs:
            await self._plant(body)
        nothing_else(body)
        for name, value in knobs.items():
            setattr(self._gateway, name, value)
        return self._faults()

    async def _plant(self, body: dict[str, Any]) -> None:
        place = take_field(body, "at", str, "")
        if place not in PLACES:
            raise Wrong(f"at is one of {', '.join(PLACES)}")
        fault = _checked_fault(place, body.pop("fault", None))
        times = take_field(body, "times", int, None)
        chosen = body.pop("connection", "newest")
        nothing_else(body)
        if place == "connection" and fault is not None and chosen != "next":
            for connection in self._chosen(chosen):
                await connection.suffer(fault)
            return
        queue: deque[Any] = getattr(self._gateway, f"{place}_faults")
        if fault is None:
            queue.clear()
        if times is None and place != "connection":
            setattr(self._gateway, f"{place}_fault", fault)
        elif fault is None:
            self._gateway.connection_fault = None
        else:
            queue.extend([fault] * max(1, min(times or 1, MOST)))

    async def _rotate(self, body: dict[str, Any]) -> dict[str, Any]:
        chosen = self._chosen(body.pop("connection", "all"))
        close_after_s = take_field(body, "close_after_s", (int, float), 10.0)
        with_id = take_field(body, "with_message_id", bool, True)
        reason = take_field(body, "reason", str, "connection is expired")
        nothing_else(body)
        for connection in chosen:
            await connection.disconnect(reason, close_after_s=close_after_s, with_message_id=with_id)
        return {"rotated": [connection.id for connection in chosen]}

    async def _redeliver(self, body: dict[str, Any]) -> dict[str, Any]:
        msg_id = take_field(body, "msg_id", str, "")
        same_id = take_field(body, "same_id", bool, False)
        nothing_else(body)
        sent = next((one for one in reversed(self._gateway.sent) if msg_id in ("", one.msg_id)), None)
        if sent is None:
            raise Wrong("no such message")
        if same_id and not sent.pushes:
            raise Wrong("it was not delivered yet")
        await (self._gateway.duplicate(sent) if same_id else self._gateway.redeliver(sent))
        return told_sent(sent)

    # ---- what is shown

    async def _state(self, _: web.Request) -> web.StreamResponse:
        gateway = self._gateway
        return answer(
            {
                "url": gateway.url,
                "client_id": gateway.client_id,
                "connections": [self._connection(connection) for connection in gateway.connections],
                "opens": len(gateway.opens),
                "sent": len(gateway.sent),
                "held": len(gateway.held),
                "posts": len(gateway.posts),
                "cards": len(gateway.cards),
                "acks": len(gateway.acks),
                "ack_on_wrong_connection": len(gateway.wrong_socket_acks),
                **self._faults(),
            }
        )

    async def _posts(self, request: web.Request) -> web.StreamResponse:
        after, wait_s = number(request, "after"), min(number(request, "wait_s"), WAIT_S)

        def fresh() -> list[Post]:
            return [post for post in self._gateway.posts if post.number > after]

        if wait_s and not fresh():
            with contextlib.suppress(TimeoutError):
                await self._gateway.until(fresh, wait_s)
        return answer({"posts": [self._post(post) for post in fresh()]})

    async def _traffic(self, request: web.Request) -> web.StreamResponse:
        entries = self._gateway.since(number(request, "after"))
        response = web.StreamResponse(headers={"Content-Type": "application/jsonl; charset=utf-8"})
        await response.prepare(request)
        for entry in entries:
            await response.write(f"{self._gateway.line(entry)}\n".encode())
        await response.write_eof()
        return response

    def _connection(self, connection: Connection) -> dict[str, Any]:
        return {
            "id": connection.id,
            "state": connection.state.value,
            "opened": self._iso(connection.opened_at),
            "subscriptions": connection.subscriptions,
            "acks": len(connection.acks),
            "pings": connection.pings,
            "ignores_acks": connection.ignores_acks,
            "delay_s": connection.delay_s,
        }

    def _faults(self) -> dict[str, Any]:
        gateway = self._gateway
        planted = {
            place: {"always": getattr(gateway, f"{place}_fault"), "next": list(getattr(gateway, f"{place}_faults"))}
            for place in PLACES
        }
        return {"faults": planted, "knobs": {name: getattr(gateway, name) for name in KNOBS}}

    def _post(self, post: Post) -> dict[str, Any]:
        told: dict[str, Any] = {"number": post.number, "time": self._iso(post.at), "path": post.path, "user": post.user}
        told |= {"conversation": post.conversation, "text": post.text, "body": post.body}
        told["buttons"] = [{"title": one.title, "url": one.url, "says": one.says} for one in post.buttons]
        return told

    def _iso(self, at: float) -> str:
        return datetime.fromtimestamp(self._gateway.wall(at), UTC).astimezone().isoformat(timespec="milliseconds")

    # ---- connections by name

    def _one(self, body: dict[str, Any]) -> Connection | None:
        name = body.pop("connection", None)
        return None if name is None else self._chosen(name)[0]

    def _chosen(self, name: object) -> list[Connection]:
        """newest, oldest, all, or the beginning of an id; never none."""
        open_ones = self._gateway.connections
        by_name = {"newest": open_ones[-1:], "oldest": open_ones[:1], "all": list(open_ones)}
        found = by_name.get(str(name)) if str(name) in by_name else [c for c in open_ones if c.id.startswith(str(name))]
        if not found:
            raise Wrong(f"no connection {name!r}: newest, oldest, all, or the beginning of an id")
        return found


def _check_knobs(knobs: dict[str, Any]) -> None:
    for name, value in knobs.items():
        if name not in KNOBS:
            raise Wrong(f"set knows {', '.join(KNOBS)}")
        if value is None and name not in NEVER_NONE:
            continue
        if value is None or isinstance(value, bool) != (KNOBS[name] is bool):
            raise Wrong(f"{name} does not take {value}")
        take_field({name: value}, name, KNOBS[name], None)
        least = LEAST_S if name.endswith("_s") and name not in MAY_BE_ZERO else 0
        if not least <= value < math.inf:
            raise Wrong(f"{name} is at least {least}")


def _checked_fault(place: str, fault: Any) -> Any:
    """A fault as the gateway's attributes take it. None ends those that are planted."""
    words, numbers = PLACES[place]
    if place == "openapi" and isinstance(fault, list) and [type(part) for part in fault] == [int, str]:
        return _checked_fault(place, fault[0]), fault[1]
    if isinstance(fault, str) and words.fullmatch(fault):
        return fault
    if fault is None or (isinstance(fault, int) and not isinstance(fault, bool) and fault in numbers):
        return fault
    allowed = [f"{numbers.start} to {numbers.stop - 1}"] * bool(numbers) + ["[status, code]"] * (place == "openapi")
    raise Wrong(f"{place} takes null, {' or '.join([words.pattern, *allowed])}")
