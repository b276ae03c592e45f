"""The stand-in gateway's emotions: what a robot sticks to a message of a user, like 思考中, and takes off again.

The calls are in DingTalk's SDK (PyPI alibabacloud-dingtalk, robot_1_0), without a page of their own.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from dingbridge.sim.gateway_files import FileSide
from dingbridge.sim.gateway_openapi import required


@dataclass(slots=True, eq=False)
class Emotion:
    """One emotion on one message; `recalled_at` is None while it is shown. Monotonic seconds."""

    at: float
    msg_id: str
    conversation: str
    name: str
    recalled_at: float | None = None


class EmotionSide(FileSide):
    """`emotions` in the order they were given."""

    def __init__(self, client_id: str, client_secret: str) -> None:
        super().__init__(client_id, client_secret)
        self.emotions: list[Emotion] = []
        self._lists.append(self.emotions)

    def emotions_on(self, msg_id: str) -> list[str]:
        """The names of those that are shown on a message now."""
        return [one.name for one in self.emotions if one.msg_id == msg_id and one.recalled_at is None]

    async def _emotion(self, request: web.Request) -> web.StreamResponse:
        recalls = request.path.endswith("/recall")

        def accept(body: dict[str, Any]) -> dict[str, Any]:
            self._check_robot(body)
            fields = ("openMsgId", "openConversationId", "emotionName")
            msg_id, conversation, name = (required(body, field, f"miss.param.{field}") for field in fields)
            if recalls:
                for one in self.emotions:
                    if (one.msg_id, one.name, one.recalled_at) == (msg_id, name, None):
                        one.recalled_at = time.monotonic()
            else:
                self.emotions.append(Emotion(time.monotonic(), msg_id, conversation, name))
            self.note("emotion", msg_id=msg_id, conversation=conversation, name=name, recalled=recalls)
            return {"success": True}

        return await self._call(request, accept)
