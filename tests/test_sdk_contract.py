"""What dingbridge uses of the DingTalk SDK, member by member: a version that changes one of them fails here first."""

from __future__ import annotations

import ast
import inspect
import json
import logging
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dingtalk_stream
import pytest
from dingtalk_stream.frames import Headers
from dingtalk_stream.version import VERSION_STRING

PACKAGE = Path(__file__).parents[1] / "dingbridge"
# Name to the members read from the name itself; those of its instances are in the tests below.
USED: dict[str, set[str]] = {
    "AckMessage": {"STATUS_OK", "STATUS_BAD_REQUEST", "STATUS_NOT_IMPLEMENT"},
    "CallbackHandler": {"TOPIC_CARD_CALLBACK"},
    "CallbackMessage": {"TYPE", "from_dict"},
    "ChatbotMessage": {"TOPIC"},
    "Credential": set(),
    "DingTalkStreamClient": set(),
    "EventMessage": {"TYPE"},
    "Headers": {"CONTENT_TYPE_APPLICATION_JSON"},
    "SystemMessage": {"TYPE", "TOPIC_DISCONNECT", "from_dict"},
    "VERSION_STRING": set(),
}
CONSTANTS = {
    "AckMessage.STATUS_OK": 200,
    "AckMessage.STATUS_BAD_REQUEST": 400,
    "AckMessage.STATUS_NOT_IMPLEMENT": 404,
    "CallbackHandler.TOPIC_CARD_CALLBACK": "/v1.0/card/instances/callback",
    "CallbackMessage.TYPE": "CALLBACK",
    "ChatbotMessage.TOPIC": "/v1.0/im/bot/messages/get",
    "EventMessage.TYPE": "EVENT",
    "SystemMessage.TYPE": "SYSTEM",
    "SystemMessage.TOPIC_DISCONNECT": "disconnect",
}
FRAME: dict[str, Any] = {
    "specVersion": "1.0",
    "headers": {
        "appId": "app",
        "connectionId": "connection",
        "contentType": "application/json",
        "messageId": "frame-1",
        "time": "1700000000000",
        "topic": "somewhere",
    },
}


def _client() -> Any:
    logger = logging.getLogger("dingtalk_stream.contract")
    return dingtalk_stream.DingTalkStreamClient(dingtalk_stream.Credential("ding", "secret"), logger=logger)


def _uses() -> dict[str, set[str]]:
    """Every name the package imports from the SDK, and the attributes it reads from that name."""
    found: dict[str, set[str]] = {}
    for file in PACKAGE.rglob("*.py"):
        tree = ast.parse(file.read_text("utf-8"))
        imported = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "dingtalk_stream"
            for alias in node.names
        }
        for name in imported:
            found.setdefault(name, set())
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in imported:
                found[node.value.id].add(node.attr)
    return found


def test_the_table_above_is_complete() -> None:
    """What the package uses of the SDK is what this file checks; a new use is added to the table with a test."""
    uses = _uses()
    assert set(uses) == set(USED)
    assert {name: members - USED[name] for name, members in uses.items() if members - USED[name]} == {}


@pytest.mark.parametrize("name", sorted(CONSTANTS))
def test_constants_keep_their_values(name: str) -> None:
    """Types, topics and status codes are what DingTalk's gateway speaks."""
    owner, member = name.split(".")
    assert getattr(getattr(dingtalk_stream, owner), member) == CONSTANTS[name]


def test_the_content_type_of_acks() -> None:
    """An ack announces JSON."""
    assert Headers.CONTENT_TYPE_APPLICATION_JSON == "application/json"


def test_the_version_goes_into_the_user_agent() -> None:
    """The SDK names its version as text, the one that is installed."""
    assert isinstance(VERSION_STRING, str)
    assert VERSION_STRING.partition("b")[0] == version("dingtalk-stream").partition("b")[0]


def test_the_credential_keeps_both_halves() -> None:
    """Client id first, secret second, both readable again."""
    credential = _client().credential
    assert (credential.client_id, credential.client_secret) == ("ding", "secret")


def test_a_registered_handler_is_found_by_its_topic() -> None:
    """Registration fills the map that subscriptions and dispatch are read from, and survives `pre_start`."""
    client = _client()
    handler = dingtalk_stream.CallbackHandler()
    client.register_callback_handler("/topic", handler)
    client.pre_start()
    assert client.callback_handler_map == {"/topic": handler}
    assert client.callback_handler_map.get("/other") is None
    assert client.callback_handler_map.get(None) is None


async def test_a_handler_is_awaited_and_answers_with_an_ack() -> None:
    """`raw_process` is the coroutine that a subclass overrides; it takes the message and returns an AckMessage."""
    handler = dingtalk_stream.CallbackHandler()
    assert inspect.iscoroutinefunction(handler.raw_process)
    message = dingtalk_stream.CallbackMessage.from_dict({**FRAME, "type": "CALLBACK", "data": "{}"})
    assert isinstance(await handler.raw_process(message), dingtalk_stream.AckMessage)


def test_a_callback_frame_is_read() -> None:
    """`data` is decoded JSON, of whatever type it was; the frame's id is in the headers."""
    message = dingtalk_stream.CallbackMessage.from_dict({**FRAME, "type": "CALLBACK", "data": '{"msgId": "m"}'})
    assert message.data == {"msgId": "m"}
    assert message.headers.message_id == "frame-1"
    listed = dingtalk_stream.CallbackMessage.from_dict({**FRAME, "type": "CALLBACK", "data": "[1]"})
    assert listed.data == [1]


@pytest.mark.parametrize("data", ["{", 7, [1]])
def test_unreadable_data_raises_what_is_caught(data: object) -> None:
    """Odd `data` raises a ValueError or a TypeError, nothing else."""
    with pytest.raises((ValueError, TypeError)):
        dingtalk_stream.CallbackMessage.from_dict({**FRAME, "type": "CALLBACK", "data": data})


async def test_a_ping_is_echoed() -> None:
    """The system handler's ack carries the frame's id and the very data of the ping, its opaque included."""
    ping = {**FRAME, "type": "SYSTEM", "data": '{"opaque": "0f1e"}'}
    ping["headers"] = {**FRAME["headers"], "topic": "ping"}
    ack = (await _client().system_handler.raw_process(dingtalk_stream.SystemMessage.from_dict(ping))).to_dict()
    assert (ack["code"], ack["message"], ack["headers"]["messageId"]) == (200, "OK", "frame-1")
    assert json.loads(ack["data"]) == {"opaque": "0f1e"}


def test_the_layout_of_an_ack() -> None:
    """Four keys; headers with id and content type alone; data as JSON inside the JSON."""
    ack = dingtalk_stream.AckMessage()
    ack.code = 404
    ack.message = "unknown topic"
    ack.headers.message_id = "frame-1"
    ack.headers.content_type = Headers.CONTENT_TYPE_APPLICATION_JSON
    ack.data = {"response": None}
    assert ack.to_dict() == {
        "code": 404,
        "headers": {"messageId": "frame-1", "contentType": "application/json"},
        "message": "unknown topic",
        "data": '{"response": null}',
    }


def test_an_empty_callback_message_takes_an_id() -> None:
    """A refusal is built around a message that was never read: its headers exist from the start."""
    message = dingtalk_stream.CallbackMessage()
    message.headers.message_id = "frame-1"
    assert message.headers.to_dict() == {"messageId": "frame-1"}
