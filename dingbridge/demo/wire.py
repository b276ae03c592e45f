"""What goes over the wire, one line an event, in words for people; nothing secret is in it.

`entries` reads what the stand-in gateway notes; tickets, session webhooks, tokens and secrets are masked by key and by
value, so that a screenshot of the page gives nothing away.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from dingbridge.demo.board import Wire
from dingbridge.demo.people import BARE
from dingbridge.sim.anythingllm import Asked
from dingbridge.sim.gateway import CARD_TOPIC, Gateway

MASK: Final = "•••"
LONGEST: Final = 2_000  # characters of a text in the detail
_SECRET_KEYS = re.compile(r"secret|token|ticket|webhook$|api_?key|authorization|password", re.IGNORECASE)
_IN_ADDRESS = re.compile(r"\b(session|ticket|access_token)=[^&\s\"']+")
_PATHS = {"webhook": "会话 webhook", "oto": "OpenAPI 单聊消息", "group": "OpenAPI 群消息"}


def masked(value: Any) -> Any:
    """The same shape without what is secret, and with long texts cut."""
    if isinstance(value, Mapping):
        return {
            str(key): MASK if isinstance(inner, str) and inner and _SECRET_KEYS.search(str(key)) else masked(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [masked(inner) for inner in value]
    if isinstance(value, str):
        text = _IN_ADDRESS.sub(rf"\1={MASK}", value)
        return text if len(text) <= LONGEST else text[:LONGEST] + "…"
    return value


def entries(gateway: Gateway, bot: str, kind: str, facts: Mapping[str, Any]) -> Iterator[Wire]:
    """What one note of the gateway's says to a reader; most notes are one line, some are none."""
    read = _READERS.get(kind)
    if read is not None:
        title, direction, detail, ok = read(gateway, facts)
        yield Wire(_kind_of(kind, facts), title, direction, masked(detail), ok, bot)


Line = tuple[str, str, Any, bool]


def _open(gateway: Gateway, facts: Mapping[str, Any]) -> Line:
    outcome = facts["outcome"]
    granted = outcome == "ticket"
    title = "取得一次性票据" if granted else f"取票据失败：{outcome}"
    asked = gateway.opens[-1].body if gateway.opens else None
    answer = {"endpoint": gateway.endpoint, "ticket": MASK} if granted else outcome
    return title, "up", {"POST": "/v1.0/gateway/connections/open", "body": asked, "answer": answer}, granted


def _handshake(_: Gateway, facts: Mapping[str, Any]) -> Line:
    return f"WebSocket 握手被拒绝：{facts['outcome']}", "info", facts, False


def _connected(_: Gateway, facts: Mapping[str, Any]) -> Line:
    return "长连接已建立", "info", facts, True


def _closed(_: Gateway, facts: Mapping[str, Any]) -> Line:
    code = facts.get("code")
    return ("长连接已正常关闭" if code == 1000 else f"长连接断开（{code}）"), "info", facts, code == 1000


def _frame(_: Gateway, facts: Mapping[str, Any]) -> Line:
    frame = facts["frame"]
    data = _parsed(frame.get("data"))
    swallowed = bool(facts.get("swallowed"))
    title = _frame_title(frame, data) + ("（半开的连接吞掉了它）" if swallowed else "")
    return title, "down", {**frame, "data": data}, not swallowed


def _frame_title(frame: Mapping[str, Any], data: Any) -> str:
    topic = str(frame.get("headers", {}).get("topic", ""))
    if frame.get("type") == "SYSTEM":
        return {"ping": "SYSTEM ping", "disconnect": "SYSTEM disconnect：这条连接要轮换了"}.get(
            topic, f"SYSTEM {topic}"
        )
    if isinstance(data, Mapping) and isinstance(data.get("text"), Mapping):
        words = str(data["text"].get("content", "")).strip()
        return f"消息：{data.get('senderNick', '')}「{words[:40]}」"
    return "卡片按钮的回调" if topic == CARD_TOPIC else f"{frame.get('type')} {topic}"


def _ack(gateway: Gateway, facts: Mapping[str, Any]) -> Line:
    latency_s = gateway.acks[-1].latency_s if gateway.acks else None
    took = "" if latency_s is None else f"，{latency_s * 1000:.0f} 毫秒"
    code = facts.get("code")
    detail = {"code": code, "messageId": facts.get("message_id"), "data": _parsed(facts.get("data"))}
    return f"确认 {code}{took}", "up", detail, code == 200


def _garbage(_: Gateway, facts: Mapping[str, Any]) -> Line:
    return "无法识别的帧", "up", facts, False


def _post(_: Gateway, facts: Mapping[str, Any]) -> Line:
    body = facts["body"]
    detail = {**body, "msgParam": _parsed(body["msgParam"])} if "msgParam" in body else body
    return f"{_PATHS.get(facts['path'], facts['path'])}：回复已送达", "up", detail, True


def _webhook(_: Gateway, facts: Mapping[str, Any]) -> Line:
    why = "，会话已失效" if str(facts["outcome"]) == "300001" else ""
    return f"会话 webhook 拒绝了回复：{facts['outcome']}{why}", "up", facts, False


def _openapi(_: Gateway, facts: Mapping[str, Any]) -> Line:
    return f"OpenAPI 拒绝了：{facts['outcome']}", "up", facts, False


def _token(_: Gateway, facts: Mapping[str, Any]) -> Line:
    ok = bool(facts["ok"])
    return ("取得访问令牌" if ok else "取访问令牌失败"), "up", {"POST": "/v1.0/oauth2/accessToken"}, ok


def _card(_: Gateway, facts: Mapping[str, Any]) -> Line:
    change, text = str(facts["change"]), str(facts.get("text", ""))
    titles = {
        "create": "新建卡片",
        "deliver": "投放卡片到聊天里",
        "update": "更新卡片的变量",
        "press": "卡片只为按的人改了显示",
        "repeat": "重复的一帧，没有作用",
        "refused": f"卡片的更新被拒绝：{facts.get('code', '')}",
    }
    if change == "stream":
        last = "最后一帧" if facts.get("final") else "标记失败" if facts.get("error") else "流式更新"
        titles[change] = f"卡片{last}（{len(text)} 字）"
    detail = {key: value for key, value in facts.items() if value not in ("", False, {}, None)}
    return titles.get(change, change), "down" if change == "press" else "up", detail, change != "refused"


def _press(_: Gateway, facts: Mapping[str, Any]) -> Line:
    return f"按下卡片按钮：{'、'.join(facts['actions'])}（{facts['user']}）", "down", facts, True


def _pressed(_: Gateway, facts: Mapping[str, Any]) -> Line:
    latency_s = facts.get("latency_s")
    took = "" if latency_s is None else f"，{latency_s * 1000:.0f} 毫秒"
    title = f"按钮的回应{took}" if facts["ok"] else f"按钮没有回应：{facts['error']}"
    return title, "up", facts, bool(facts["ok"])


def _emotion(_: Gateway, facts: Mapping[str, Any]) -> Line:
    return f"{'收回' if facts['recalled'] else '贴上'}表情 {facts['name']}", "up", facts, True


def _file(_: Gateway, facts: Mapping[str, Any]) -> Line:
    outcome = str(facts["outcome"])
    how = "" if outcome == "sent" else "，很慢" if outcome.startswith("slow") else f"：{outcome}"
    detail = {"name": facts["name"], "outcome": outcome}
    return f"下载{facts['name'] or '图片'}{how}", "up", detail, outcome == "sent" or outcome.startswith("slow")


def _held(_: Gateway, facts: Mapping[str, Any]) -> Line:
    return "没有连接：消息等下一条连接", "info", facts, False


def _lost(_: Gateway, facts: Mapping[str, Any]) -> Line:
    return "没有连接：消息丢失", "info", facts, False


_READERS = {
    "open": _open,
    "handshake": _handshake,
    "connected": _connected,
    "closed": _closed,
    "frame": _frame,
    "ack": _ack,
    "garbage": _garbage,
    "post": _post,
    "webhook": _webhook,
    "openapi": _openapi,
    "token": _token,
    "card": _card,
    "press": _press,
    "pressed": _pressed,
    "emotion": _emotion,
    "file": _file,
    "held": _held,
    "lost": _lost,
}
_KINDS = {
    **dict.fromkeys(("press", "pressed"), "card"),
    **dict.fromkeys(("emotion", "file", "token"), "openapi"),
    **dict.fromkeys(("garbage", "held", "lost"), "frame"),
    "handshake": "closed",
}


def _kind_of(kind: str, facts: Mapping[str, Any]) -> str:
    if kind == "post":
        return "webhook" if facts["path"] == "webhook" else "openapi"
    return _KINDS.get(kind, kind)


def _parsed(data: Any) -> Any:
    if isinstance(data, str):
        try:
            return json.loads(data)
        except ValueError:
            return data
    return data


def backend(asked: Asked, state: str) -> Wire:
    """A question to AnythingLLM: "asked", "answered", "failed" or "left" (the client went away)."""
    words = asked.message.strip().splitlines()[-1][:40] if asked.message.strip() else ""
    titles = {
        "asked": f"问 AnythingLLM：「{words}」",
        "answered": "AnythingLLM 答完",
        "failed": f"AnythingLLM 出错：{asked.fault}",
        "left": "AnythingLLM 还在回答，提问的一方已经离开",
    }
    detail = {"workspace": asked.workspace, "session": asked.session, "message": asked.message, "mode": asked.mode}
    direction = "up" if state == "asked" else "down"
    bot = BARE if asked.session.startswith(BARE) else "ours"
    return Wire("backend", titles[state], direction, masked(detail), state in ("asked", "answered"), bot)
