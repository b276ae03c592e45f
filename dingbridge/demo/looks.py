"""What may be chosen at the page while the demo runs: cards, quick replies, how waiting is shown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from dingbridge.demo.room import Refused
from dingbridge.demo.stage import Stage

CHOICES: Final[dict[str, tuple[Any, ...]]] = {
    "cards": (True, False),
    "quick_replies": ("commands", "buttons", "off"),
    "notice": ("text", "emotion", "off"),
}


class Looks:
    """`told` is the page's Look."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    @property
    def told(self) -> dict[str, Any]:
        return self._stage.look_told

    async def choose(self, name: str, value: Any) -> None:
        """Raises Refused."""
        if name not in CHOICES or not any(type(value) is type(one) and value == one for one in CHOICES[name]):
            raise Refused("没有这个设置。", 404)
        await self._stage.choose(replace(self._stage.look, **{name: value}))
