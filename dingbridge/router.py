"""Which routes a message may take, in the order they are written."""

from __future__ import annotations

from dingbridge.model import Message, Route


class Router:
    def __init__(self, routes: tuple[Route, ...]) -> None:
        self._routes = routes

    def match(self, message: Message) -> list[Route]:
        """All that match; the first whose handler does not refuse answers."""
        return [route for route in self._routes if matches(route, message)]


def matches(route: Route, message: Message) -> bool:
    """A route without conditions is open to everyone.

    In a group only the group counts: everybody there reads the answer, so who asks must not open more. One to one
    only the person counts: a route for groups alone stays closed.
    """
    if not route.users and not route.conversations:
        return True
    if message.conversation.is_group:
        return message.conversation.id in route.conversations
    return message.sender.id in route.users
