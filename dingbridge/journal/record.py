"""One canonical log line a message, and its counters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog

from dingbridge.journal.metrics import Metrics
from dingbridge.model import Entry, Outcome

log = structlog.get_logger("dingbridge.message")


def recorder(metrics: Metrics, pseudonym: Callable[[str, str], str]) -> Callable[[Entry], None]:
    """The function the bridge leaves its entries with."""

    def record(entry: Entry) -> None:
        metrics.observe(entry)
        message = entry.message
        write = _level(entry.outcome)
        write(
            "message.handled",
            code=message.code,
            message=message.id,
            frame=message.frame,
            outcome=entry.outcome.value,
            person=pseudonym(message.robot, message.sender.id),
            conversation=pseudonym(message.robot, message.conversation.id),
            kind=message.conversation.kind.value,
            lane=entry.lane,
            route=entry.route,
            workspace=entry.workspace,
            tries=entry.tries,
            parts=entry.parts,
            reason=entry.reason,
            cause=entry.cause,
            queue_ms=_ms(entry.queue_s),
            first_token_ms=_ms(entry.first_token_s),
            handler_ms=_ms(entry.handler_s),
            reply_ms=_ms(entry.reply_s),
            total_ms=_ms(entry.total_s),
        )

    return record


def _level(outcome: Outcome) -> Callable[..., Any]:
    if outcome is Outcome.DUPLICATE:
        return log.debug  # type: ignore[no-any-return]
    if outcome in (Outcome.FAILED, Outcome.DEAD, Outcome.UNDELIVERABLE):
        return log.warning  # type: ignore[no-any-return]
    return log.info  # type: ignore[no-any-return]


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)
