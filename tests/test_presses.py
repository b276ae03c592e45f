"""A card's callback as it comes from the gateway: what is read of it, and what of anything else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dingbridge.dingtalk.presses import LONGEST, parse, response
from dingbridge.errors import PayloadError
from dingbridge.model import Press, Verdict, card_track

TRACK = card_track("ding1", "m1")


def pressed(*, params: Any = None, ids: Any = ("good",), **changed: Any) -> dict[str, Any]:
    content = json.dumps({"cardPrivateData": {"actionIds": ids, "params": params or {}}})
    data = {"outTrackId": TRACK, "userId": "042", "spaceType": "IM", "spaceId": "cid", "content": content}
    return {key: value for key, value in (data | changed).items() if value is not None}


@pytest.mark.parametrize(
    ("data", "press"),
    [
        (pressed(), Press(TRACK, "042", "cid", "good")),
        (pressed(params={"action": " Bad "}), Press(TRACK, "042", "cid", "bad")),
        (pressed(content=None, value=pressed()["content"]), Press(TRACK, "042", "cid", "good")),
        (pressed(spaceType="IM_ROBOT", spaceId="other"), Press(TRACK, "042", "other", "good")),
        (pressed(spaceType=None, spaceId=None), Press(TRACK, "042", "", "good")),
        (pressed(ids="good"), Press(TRACK, "042", "cid", "")),
        (pressed(ids=[{"a": 1}], params=[1]), Press(TRACK, "042", "cid", "")),
        (pressed(content="[" * 100_000), Press(TRACK, "042", "cid", "")),
        (pressed(ids=["x" * 1_000_000]), Press(TRACK, "042", "cid", "x" * LONGEST)),
        (pressed(ids=["go\ud800od"]), Press(TRACK, "042", "cid", "go?od")),
    ],
)
def test_what_was_pressed(data: dict[str, Any], press: Press) -> None:
    """Who, which card, where and which button; what has another form is no button."""
    assert parse(data) == press


@pytest.mark.parametrize(
    "changed",
    [
        {"userId": None},
        {"userId": 42},
        {"userId": "工" * 86},
        {"outTrackId": ""},
        {"outTrackId": ["x"]},
        {"outTrackId": "x" * 257},
    ],
)
def test_a_press_by_nobody_on_nothing(changed: dict[str, Any]) -> None:
    """Refused, and so are ids that no index of a database takes."""
    with pytest.raises(PayloadError):
        parse(pressed(**changed))


anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from(
    ["content", "value", "userId", "outTrackId", "spaceId", "cardPrivateData", "actionIds", "params"]
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(keys, anything | anything.map(lambda one: json.dumps({"cardPrivateData": one})), max_size=6))
def test_anything_else(data: dict[str, Any]) -> None:
    """Whatever comes, it is a press or refused, never a fault; and what goes back is JSON."""
    try:
        press = parse({"outTrackId": TRACK, "userId": "042"} | data)
    except PayloadError:
        return
    assert len(press.action) <= LONGEST
    press.person.encode()
    assert json.dumps(response({"vote": Verdict.GOOD}))
