"""A button of a card that was pressed, as DingTalk's callback tells it, and what the card is told in return.

Topic `/v1.0/card/instances/callback`: `content` is JSON in a string, and `value` often the same again. The answer
travels in the ack, which has to come within two seconds. (DingTalk's pages on card callbacks.)
"""

from __future__ import annotations

import json
from typing import Any

from dingbridge.errors import PayloadError
from dingbridge.model import Press

LONGEST = 256  # bytes of each; an id of ours that is made of them has to fit a database's index


def parse(data: dict[str, Any]) -> Press:
    """Raises PayloadError where nobody knows who pressed what."""
    track, person = _text(data, "outTrackId"), _text(data, "userId")
    private = _private(data)
    actions = private.get("actionIds")
    params = private.get("params")
    action = _text(params, "action") if isinstance(params, dict) else ""
    if not action and isinstance(actions, list) and actions and isinstance(actions[0], str):
        action = _text({"id": actions[0]}, "id")
    if not track or not person:
        raise PayloadError("a card callback without outTrackId or userId")
    if any(len(one.encode()) > LONGEST for one in (track, person)):
        raise PayloadError(f"a card callback whose outTrackId or userId has more than {LONGEST} bytes")
    return Press(track, person, _text(data, "spaceId"), action[:LONGEST].strip().lower())


def response(shown: dict[str, str]) -> dict[str, Any]:
    """For the ack: variables of the presser's own view."""
    return {
        "cardUpdateOptions": {"updateCardDataByKey": True, "updatePrivateDataByKey": True},
        "userPrivateData": {"cardParamMap": shown},
    }


def _private(data: dict[str, Any]) -> dict[str, Any]:
    for key in ("content", "value"):
        content = data.get(key)
        if isinstance(content, str):
            try:
                content = json.loads(content)
            except (ValueError, RecursionError):
                continue
        private = content.get("cardPrivateData") if isinstance(content, dict) else None
        if isinstance(private, dict):
            return private
    return {}


def _text(data: dict[str, Any], key: str) -> str:
    value = data.get(key)
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else ""
