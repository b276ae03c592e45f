"""Which routes a message may take, in the order they are written."""

from __future__ import annotations

from dataclasses import dataclass

from dingbridge.model import Message, Route


class Router:
    def __init__(self, routes: tuple[Route, ...]) -> None:
        self._routes = routes

    def match(self, message: Message) -> list[Route]:
        """All that match; the first whose handler does not refuse answers."""
        return [route for route in self._routes if judge(route, message).matches]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a route matches, and by which rule.

    rule: open, group, group_not_named, no_groups, person, person_not_named or groups_only.
    """

    matches: bool
    rule: str


def judge(route: Route, message: Message) -> Verdict:
    """A route without conditions is open to everyone.

    In a group only the group counts: everybody there reads the answer, so who asks must not open more. One to one
    only the person counts: a route for groups alone stays closed.
    """
    if not route.users and not route.conversations:
        return Verdict(True, "open")
    if message.conversation.is_group:
        if message.conversation.id in route.conversations:
            return Verdict(True, "group")
        return Verdict(False, "group_not_named" if route.conversations else "no_groups")
    if message.sender.id in route.users:
        return Verdict(True, "person")
    return Verdict(False, "person_not_named" if route.users else "groups_only")
