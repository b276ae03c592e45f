"""The truth table of routes: who is let in where."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from dingbridge.model import Conversation, ConversationKind, Message, MessageKind, Person, Route
from dingbridge.router import Router, judge

OPEN = Route("open", "w")
FOR_A = Route("for-a", "w", users=frozenset({"a"}))
FOR_G = Route("for-g", "w", conversations=frozenset({"G"}))
BOTH = Route("both", "w", users=frozenset({"a"}), conversations=frozenset({"G"}))


def message(person: str, group: str = "") -> Message:
    kind = ConversationKind.GROUP if group else ConversationKind.SINGLE
    return Message(
        id="m",
        robot="r",
        conversation=Conversation(group or "single", kind),
        sender=Person(person, person),
        kind=MessageKind.TEXT,
        text="x",
        sent_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("route", "person", "group", "expected"),
    [
        (OPEN, "a", "", True),
        (OPEN, "a", "G", True),
        (OPEN, "b", "H", True),
        (FOR_A, "a", "", True),
        (FOR_A, "b", "", False),
        (FOR_A, "a", "G", False),  # a person condition never opens a route in a group
        (FOR_G, "a", "", False),  # a route for groups alone stays closed one to one
        (FOR_G, "a", "G", True),
        (FOR_G, "b", "G", True),
        (FOR_G, "a", "H", False),
        (BOTH, "a", "", True),
        (BOTH, "b", "", False),
        (BOTH, "b", "G", True),  # in a group only the group counts
        (BOTH, "a", "H", False),
    ],
)
def test_truth_table(route: Route, person: str, group: str, expected: bool) -> None:
    """One to one the person decides, in a group the group alone, and no condition means everyone."""
    assert judge(route, message(person, group)).matches is expected


def test_all_matching_routes_come_in_the_order_they_are_written() -> None:
    """The first that does not refuse answers, so the order is the administrator's."""
    found = Router((FOR_G, BOTH, FOR_A, OPEN)).match(message("a"))

    assert [route.name for route in found] == ["both", "for-a", "open"]
