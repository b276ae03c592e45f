"""A frame's data becomes a message that is kept; what raises is not acknowledged as kept."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import structlog

from dingbridge import trail
from dingbridge.bridge import Bridge
from dingbridge.dingtalk import origins, payload, presses
from dingbridge.errors import StoreError, StoreUnavailable
from dingbridge.model import Message, typed_code
from dingbridge.trail import Trail

log = structlog.get_logger("dingbridge.daemon")

PRESS_S = 1.7  # DingTalk waits for two
UNKEPT = 200  # messages that the store did not take, remembered for `trace`


class Receiving:
    """took: told how many seconds each message took until it was kept. came: told of each that DingTalk bills."""

    def __init__(
        self,
        bridge: Bridge,
        *,
        robot: str,
        oapi_base: str,
        clock: Callable[[], float],
        took: Callable[[float], None],
        came: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._bridge = bridge
        self._robot = robot
        self._oapi_base = oapi_base
        self._webhook_allowed = origins.webhook_origin_check(oapi_base)
        self._clock = clock
        self._took = took
        self._came = came
        self._unkept: deque[dict[str, Any]] = deque(maxlen=UNKEPT)

    async def accept(self, data: dict[str, Any], frame_id: str) -> None:
        """A bot message's data: read it, keep it."""
        self._came("inbound")
        started = time.perf_counter()
        with trail.follow(Trail()):
            message = payload.parse(
                data,
                robot=self._robot,
                frame_id=frame_id,
                webhook_allowed=partial(self._webhook_checked, frame_id),
                now=self._clock(),
            )
            try:
                await self._bridge.accept(message)
            except StoreError as error:
                self._unkept.append(_unkept(message, error))
                raise
        self._took(time.perf_counter() - started)

    async def press(self, data: dict[str, Any], frame_id: str) -> dict[str, Any]:  # noqa: ARG002 - as `accept`
        """A button of a card: what it stands for is kept, and what its card shows goes back. Raises StoreError."""
        self._came("callback")
        try:
            async with asyncio.timeout(PRESS_S):
                shown = await self._bridge.press(presses.parse(data))
        except (
            TimeoutError
        ):  # nobody knows whether it is kept: DingTalk says that it failed, and it may be pressed again
            raise StoreUnavailable("a press was not kept in time") from None
        return presses.response(shown)

    def _webhook_checked(self, frame_id: str, url: str) -> bool:
        allowed = self._webhook_allowed(url)
        if not allowed:
            host = payload.host_of(url)
            trail.note("webhook.foreign", host=host, cause="webhook.foreign")
            log.error(
                "security.foreign_webhook",
                frame=frame_id[:80],
                host=host,
                expected=payload.host_of(self._oapi_base),
                remedy="nothing is sent there; if it is your private DingTalk, name it in [dingtalk] oapi_base",
            )
        return allowed

    def unkept(self, wanted: str) -> Mapping[str, Any] | None:
        """A message that was not kept, by 编号 or msgId."""
        keys = (wanted, typed_code(wanted))
        return next((one for one in reversed(self._unkept) if one["message"] in keys or one["code"] in keys), None)


def _unkept(message: Message, error: StoreError) -> dict[str, Any]:
    """As `trace` shows it: there is no row to look at."""
    step = {"at": time.time(), "name": "not_kept", "why": error.detail, "cause": error.cause}
    return {
        "code": message.code,
        "message": message.id,
        "state": "not_kept",
        "outcome": "",
        "why": error.detail,
        "cause": error.cause,
        "causes": [error.cause] if error.cause else [],
        "steps": [step],
    }
