"""`dingbridge route`: which route would answer, rule by rule."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from dingbridge import commands
from dingbridge.model import Conversation, ConversationKind, Message, MessageKind, Person
from dingbridge.router import judge
from dingbridge.settings import Config
from dingbridge.verbs.columns import padded, width
from dingbridge.verbs.words import Words


def explained(config: Config, text: str, *, user: str, group: str) -> dict[str, Any]:
    """`{"command", "route", "matched", "rules": [{"name", "matches", "rule"}]}`; route: who is asked first, or null."""
    message = Message(
        id="route",
        robot=config.dingtalk.client_id,
        conversation=Conversation(group or "route", ConversationKind.GROUP if group else ConversationKind.SINGLE),
        sender=Person(user, user),
        kind=MessageKind.TEXT,
        text=text,
        sent_at=datetime.now(UTC),
    )
    command = commands.match(text)
    judged = [(route.name, judge(route, message)) for route in config.routes]
    matched = [name for name, verdict in judged if verdict.matches]
    return {
        "command": command.name if command is not None else None,
        "route": matched[0] if matched and command is None else None,
        "matched": matched,
        "rules": [{"name": name, "matches": verdict.matches, "rule": verdict.rule} for name, verdict in judged],
    }


def render(told: dict[str, Any], words: Words, *, text: str) -> str:
    widest = max(width(rule["name"]) for rule in told["rules"])
    lines = [
        f"{'✓' if rule['matches'] else '✗'} {padded(rule['name'], widest)}  {words('rule_' + rule['rule'])}"
        for rule in told["rules"]
    ]
    return "\n".join([*lines, "", _result(told, words, text)])


def _result(told: dict[str, Any], words: Words, text: str) -> str:
    if told["command"] is not None:
        return words("route_is_command", text=text)
    if told["route"] is None:
        return words("route_none")
    others = told["matched"][1:]
    key = "route_result" if others else "route_result_last"
    return words(key, name=told["route"], others=", ".join(others))
