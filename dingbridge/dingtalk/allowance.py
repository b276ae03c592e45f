"""What of DingTalk's monthly pools the ways into the chat may use; declared here, kept elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, Protocol

from dingbridge.errors import ReplyError

API = "api"
WEBHOOK_STREAM = "webhook_stream"
QUOTA = "chat.quota"  # DingTalk's refusal for a pool that is spent


class Budget(Protocol):
    """Counts what DingTalk bills, and says what is left out when it has to last."""

    def reply_path(self, one_to_one: bool) -> Literal["webhook", "openapi"]:
        """How an answer goes out first."""

    def notice_allowed(self, pool: str = WEBHOOK_STREAM) -> bool: ...

    def frame_interval_s(self) -> float | None:
        """The least seconds between two frames of one card; None: only its last one."""

    def cards_allowed(self) -> bool: ...

    def count(self, pool: str, kind: str) -> None:
        """What DingTalk has taken, or may have."""

    def refused(self, pool: str) -> None:
        """DingTalk says that the pool is spent."""


class Unlimited:
    """A budget that nobody watches."""

    def reply_path(self, one_to_one: bool) -> Literal["webhook", "openapi"]:  # noqa: ARG002 - the shape of a budget
        return "webhook"

    def notice_allowed(self, pool: str = WEBHOOK_STREAM) -> bool:  # noqa: ARG002 - the shape of a budget
        return True

    def frame_interval_s(self) -> float | None:
        return 0.0

    def cards_allowed(self) -> bool:
        return True

    def count(self, pool: str, kind: str) -> None:
        """Nobody asks."""

    def refused(self, pool: str) -> None:
        """Nobody asks."""


@contextmanager
def counted(budget: Budget, pool: str, kind: str) -> Iterator[None]:
    """The block is one call; refusals are not billed, what may have arrived is taken to be."""
    try:
        yield
    except ReplyError as error:
        if error.cause == QUOTA:
            budget.refused(pool)
        elif not error.certain:
            budget.count(pool, kind)
        raise
    budget.count(pool, kind)
