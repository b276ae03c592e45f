"""A thinking face on the message that is being answered, instead of a waiting notice. Best effort.

`/v1.0/robot/emotion/reply` and `/recall` stand in DingTalk's SDK and in its own connector, on no page of its manual.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import structlog

from dingbridge import trail
from dingbridge.dingtalk.allowance import API, Budget, counted
from dingbridge.dingtalk.openapi import OpenAPI
from dingbridge.errors import ReplyError
from dingbridge.model import Message

log = structlog.get_logger("dingbridge.reply")

NAME = "🤔思考中"
SHOW_AFTER_S = (0.0, 0.4)
RECALL_AFTER_S = (0.0, 1.5)


class Emotions:
    def __init__(self, openapi: OpenAPI, robot: str, budget: Budget) -> None:
        self._openapi = openapi
        self._robot = robot
        self._budget = budget

    async def show(self, message: Message) -> bool:
        """True where it stands."""
        if not self._budget.notice_allowed(API):
            return False
        return await self._try("/v1.0/robot/emotion/reply", message, SHOW_AFTER_S)

    async def recall(self, message: Message) -> None:
        """Also one that was shown before a restart; what was never shown cannot be recalled, and is no harm."""
        await self._try("/v1.0/robot/emotion/recall", message, RECALL_AFTER_S)

    async def _try(self, path: str, message: Message, pauses_s: Sequence[float]) -> bool:
        for pause_s in pauses_s:
            await asyncio.sleep(pause_s)
            try:
                with trail.timed("emotion.sent", path=path.rpartition("/")[2]), counted(self._budget, API, "emotion"):
                    await self._openapi.call("POST", path, self._body(message))
            except ReplyError as error:
                log.info("reply.emotion_failed", code=message.code, why=error.detail, cause=error.cause)
                if not error.retryable:
                    return False
            else:
                return True
        return False

    def _body(self, message: Message) -> dict[str, Any]:
        face = {"emotionId": "2659900", "emotionName": NAME, "text": NAME, "backgroundId": "im_bg_1"}
        return {
            "robotCode": self._robot,
            "openMsgId": message.id,
            "openConversationId": message.conversation.id,
            "emotionType": 2,
            "emotionName": NAME,
            "textEmotion": face,
        }
