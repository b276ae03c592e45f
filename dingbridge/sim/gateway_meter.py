"""What DingTalk bills: API calls, and Webhook & Stream. Both are pools of one organisation, for a month.

Free are tokens, calls that a QPS limit or the monthly one refuses, and calls that do not arrive. Whether messages at a
session webhook are billed is not published; here they are. (open.dingtalk.com/document/development:
how-to-process-api-throttling-on-the-dingtalk-server, dingtalk-application-development-platform-billing-model)
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

API: Final = "api"
WEBHOOK_STREAM: Final = "webhook_stream"
POOLS: Final = (API, WEBHOOK_STREAM)


class Meter:
    """Units used since the last `reset`, by pool and kind; `free` counts what costs nothing. `caps`: None is no cap.

    Kinds of `api` are the values of `gateway_openapi.API_KINDS`; those of `webhook_stream` are message, card_callback,
    callback, event (frames, each delivery counts) and webhook, custom (sends).
    """

    def __init__(self) -> None:
        self.used: dict[str, Counter[str]] = {pool: Counter() for pool in POOLS}
        self.free: Counter[str] = Counter()
        self.caps: dict[str, int | None] = dict.fromkeys(POOLS)

    def count(self, pool: str, kind: str) -> None:
        self.used[pool][kind] += 1

    def frame(self, kind: str) -> None:
        """One delivery; what still comes once the pool is used up is not billed."""
        if self.spent(WEBHOOK_STREAM):
            self.free[kind] += 1
        else:
            self.count(WEBHOOK_STREAM, kind)

    def total(self, pool: str) -> int:
        return self.used[pool].total()

    def spent(self, pool: str) -> bool:
        """Whether the pool's cap is reached."""
        cap = self.caps[pool]
        return cap is not None and self.total(pool) >= cap

    def reset(self) -> None:
        """A new month."""
        for counter in (*self.used.values(), self.free):
            counter.clear()

    def told(self) -> dict[str, Any]:
        """As JSON: {"api": {"total", "cap", "kinds": {kind: n}}, "webhook_stream": {…}, "free": {kind: n}}."""
        pools = {
            pool: {"total": self.total(pool), "cap": self.caps[pool], "kinds": dict(self.used[pool])} for pool in POOLS
        }
        return {**pools, "free": dict(self.free)}
