"""What a session webhook's answer means: HTTP 200 always, and the outcome in `errcode`.

Only the number counts; the texts beside it change. (DingTalk's page on custom robots; its server API error codes.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dingbridge.errors import (
    ReplyError,
    ReplyPaced,
    ReplyRejected,
    ReplyTooLong,
    ReplyUnavailable,
    ReplyUncertain,
    ReplyUnsafe,
    SessionExpired,
)

TOO_FAST_S = 60.0  # DingTalk refuses for ten minutes who goes on


@dataclass(frozen=True, slots=True)
class _Meaning:
    """cause: None is the error's own."""

    kind: type[ReplyError]
    why: str
    retry_after: float | None = None
    cause: str | None = None


_REFUSED = _Meaning(ReplyRejected, "refused")
_ERRCODES: dict[int, _Meaning] = {
    -1: _Meaning(ReplyUnavailable, "DingTalk is busy"),
    300001: _Meaning(SessionExpired, "the session webhook has expired"),
    130101: _Meaning(ReplyPaced, "too fast", TOO_FAST_S),
    410100: _Meaning(ReplyPaced, "too fast", TOO_FAST_S),
    90018: _Meaning(ReplyPaced, "too fast", 1.0),
    90002: _Meaning(ReplyPaced, "too fast", 1.0),
    460101: _Meaning(ReplyTooLong, "too long"),
    101002: _Meaning(ReplyTooLong, "too long"),
    430101: _Meaning(ReplyUnsafe, "the content check refused a link"),
    430102: _Meaning(ReplyUnsafe, "the content check refused the text"),
    430103: _Meaning(ReplyUnsafe, "the content check refused a picture"),
    430104: _Meaning(ReplyUnsafe, "the content check refused it"),
    90030: _Meaning(
        ReplyRejected, "the organisation's monthly Webhook & Stream allowance is spent", cause="chat.quota"
    ),
    90020: _Meaning(ReplyRejected, "the organisation's monthly API allowance is spent", cause="chat.quota"),
    400013: _Meaning(ReplyRejected, "the group is disbanded", cause="chat.gone"),
    400102: _Meaning(ReplyRejected, "the robot is stopped", cause="chat.gone"),
    400106: _Meaning(ReplyRejected, "the robot is not in the group", cause="chat.gone"),
}


def read(status: int, answer: dict[str, Any]) -> None:
    """Returns where the message has arrived, else raises ReplyError."""
    if status != 200:
        raise _by_status(status)
    errcode = _number(answer.get("errcode"))
    if errcode is None:
        raise ReplyUncertain("webhook: HTTP 200 without an errcode")
    if errcode != 0:
        meaning = _ERRCODES.get(errcode, _REFUSED)
        said = f"webhook: errcode {errcode}: {meaning.why}"
        raise meaning.kind(said, retry_after=meaning.retry_after, cause=meaning.cause)


def _number(value: Any) -> int | None:
    """The errcode; the custom robot's page shows it as text."""
    if isinstance(value, bool):
        return None
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _by_status(status: int) -> ReplyError:
    """DingTalk answers 200 always; any other status comes from its front or from a proxy."""
    said = f"webhook: HTTP {status}"
    if status == 429:
        return ReplyPaced(said, retry_after=5.0)
    if status == 413:
        return ReplyTooLong(said)
    if status == 503:
        return ReplyUnavailable(said)
    if status >= 500:
        return ReplyUncertain(said)
    return ReplyUnavailable(said, cause="proxy.auth" if status == 407 else "network.intercepted")
