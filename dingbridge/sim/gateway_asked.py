"""What the stand-in gateway's control routes share: who may ask, what was asked, and what is told."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web

from dingbridge.sim.gateway_base import answer, json_body
from dingbridge.sim.gateway_records import Sent

HOSTS: Final = {"127.0.0.1", "localhost", "[::1]"}

Verb = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class Wrong(Exception):
    """What was asked makes no sense; the text says why."""


def guarded(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Any:
    """Only this machine, only under its own name (DNS rebinding), and no other origin's page."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if not _is_loopback(request.remote) or _is_foreign(request):
            return answer({"error": "only for this machine"}, 403)
        try:
            return await handler(request)
        except Wrong as wrong:
            return answer({"error": str(wrong)}, 400)
        except ConnectionError as error:
            return answer({"error": f"the connection is gone: {error}"}, 409)

    return handle


def decoded(verb: Verb) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """The body is an object whatever its content type says, so that `curl -d` is enough; none is an empty one."""

    async def handle(request: web.Request) -> web.StreamResponse:
        body = await json_body(request) if await request.read() else {}
        if not isinstance(body, dict):
            raise Wrong("the body is a JSON object")
        return answer(await verb(body))

    return handle


def _is_loopback(address: str | None) -> bool:
    try:
        return ipaddress.ip_address(address or "").is_loopback
    except ValueError:
        return False


def _is_foreign(request: web.Request) -> bool:
    host = request.headers.get("Host", "")
    ours = {None, f"{request.scheme}://{host}"}
    if re.sub(r":\d+$", "", host).lower() not in HOSTS or request.headers.get("Origin") not in ours:
        return True
    return request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}


def take_field(body: dict[str, Any], name: str, kind: type | tuple[type, ...], default: Any) -> Any:
    value = body.pop(name, default)
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if value is not default and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
        raise Wrong(f"{name} is {' or '.join(one.__name__ for one in kinds)}")
    return value


def nothing_else(body: dict[str, Any]) -> None:
    if body:
        raise Wrong(f"unknown: {', '.join(body)}")


def number(request: web.Request, name: str) -> int:
    try:
        return max(0, min(int(request.query.get(name, "0")), 2**53))
    except ValueError:
        raise Wrong(f"{name} is a whole number") from None


def told_sent(sent: Sent) -> dict[str, Any]:
    return {
        "msg_id": sent.msg_id,
        "conversation": sent.conversation,
        "deliveries": sent.deliveries,
        "acked": bool(sent.acks),
        "connection": sent.pushes[-1].connection_id if sent.pushes else None,
    }
