"""What was said as bubbles: a person's words, pictures and files, a robot's messages and its cards."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from typing import Any, Final

from dingbridge.demo import render
from dingbridge.demo.board import Message, now_ms
from dingbridge.demo.people import NOTICES, Cast, Chat, Person
from dingbridge.demo.setting import CARD_KEY
from dingbridge.sim.gateway import Card, Post

WEBHOOK_S: Final = 5_400.0
QUOTED: Final = 80  # characters of what is quoted
_MARKS: Final = re.compile(r"\[([^\]\n]*)\]\([^)\n]*\)|[*`#|]|^[ ]*[->][ ]", re.MULTILINE)
_TITLE: Final = "消息"
_VIA_OPENAPI: Final = "经 OpenAPI 送达（会话 webhook 用不了）"
_OPENAPI: Final = "经 OpenAPI 送达"


def spoken(chat: Chat, person: Person, text: str, *, kind: str = "text", **facts: Any) -> Message:
    """facts: of the `Message`."""
    at = now_ms()
    return Message(
        id=f"msg{secrets.token_urlsafe(16)}==",
        chat=chat.id,
        author=person.id,
        nick=person.nick,
        at=at,
        kind=kind,
        title="",
        text=text,
        html=render.plain(text, {}),
        mentions=(chat.bot_name,) if chat.kind == "group" else (),
        webhook_expires_at=at + int(WEBHOOK_S * 1000),
        **facts,
    )


def posted(post: Post, chat: Chat, cast: Cast, message_id: str, *, expired: bool) -> Message:
    """expired: the newest session webhook there cannot be used any more."""
    kind, title, text = _content(post)
    names = cast.names
    draw = render.plain if kind == "text" else render.markdown
    note = "" if post.path == "webhook" else _VIA_OPENAPI if expired else _OPENAPI
    return Message(
        id=message_id,
        chat=chat.id,
        author="bot",
        nick=chat.bot_name,
        at=now_ms(),
        kind=kind,
        title=title,
        text=render.named(text, names),
        html=draw(text, names),
        mentions=tuple(names[user] for user in _mentioned(post) if user in names),
        notice=text in NOTICES,
        note=note,
        buttons=tuple(_button(one.title, one.says, one.url) for one in post.buttons),
    )


def _button(title: str, says: str | None, url: str) -> Mapping[str, str]:
    return {"title": title, "url": url} if says is None else {"title": title, "says": says}


def carded(card: Card, chat: Chat, cast: Cast, at: int) -> Message:
    """The card as it stands: `card` has its state, its frames, its link, and what each person sees of their own."""
    text = _text_of(card)
    names = {**cast.names, **card.at_users}
    views = {person.id: _own(card, person.user) for person in cast.people}
    return Message(
        id=card_id(card.out_track_id),
        chat=chat.id,
        author="bot",
        nick=chat.bot_name,
        at=at,
        kind="card",
        title="",
        text=render.named(text, names),
        html=render.card(text, names),
        mentions=tuple(names.get(user, user) for user in card.at_users),
        card={
            "state": card.state,
            "frames": len(card.frames),
            "deep": card.view().get("deep") == "true",
            "page_url": card.view().get("page_url", ""),
            "views": {person: view for person, view in views.items() if view},
        },
    )


def _text_of(card: Card) -> str:
    """What streamed into it, whatever its template calls that; else what stands where texts usually do."""
    view = card.view()
    keys = [*(change.key for change in reversed(card.frames)), CARD_KEY, "msgContent", "markdown"]
    return next((view[key] for key in keys if view.get(key)), "")


def card_id(out_track_id: str) -> str:
    return f"card-{out_track_id}"


def _own(card: Card, user: str) -> dict[str, str]:
    view = card.view(user)
    return {key: view[key] for key in ("vote", "note") if view.get(key)}


def cut(text: str) -> str:
    """The beginning, on one line, without marks of markdown."""
    words = " ".join(_MARKS.sub(r"\1", text).split())
    return words if len(words) <= QUOTED else words[:QUOTED] + "…"


def _mentioned(post: Post) -> list[str]:
    """User ids; whatever a bot wrote there is no reason to fail."""
    at = post.body.get("at")
    users = at.get("atUserIds") if isinstance(at, dict) else None
    return [user for user in users if isinstance(user, str)] if isinstance(users, list) else []


def _read(param: object) -> object:
    """The OpenAPI has a message's fields as JSON in a string."""
    try:
        return json.loads(param) if isinstance(param, str) else None
    except ValueError:
        return None


def _content(post: Post) -> tuple[str, str, str]:
    """Kind, title and text; a kind that has neither title nor text is named."""
    kind = str(post.body.get("msgtype") or post.body.get("msgKey") or "")
    part = post.body.get(kind) or _read(post.body.get("msgParam"))
    title = str(part.get("title", "")) if isinstance(part, dict) else ""
    if kind in {"text", "sampleText"}:
        return "text", "", post.text
    return "markdown", title or _TITLE, post.text or f"〔{kind}〕"
