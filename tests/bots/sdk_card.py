"""The official SDK, untouched: answers with an AI card that streams, and with thanks to who presses its button."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

import dingtalk_stream
from dingtalk_stream import AckMessage, AIMarkdownCardInstance, CallbackHandler, ChatbotMessage


class Answer(dingtalk_stream.ChatbotHandler):  # type: ignore[misc]  # the SDK ships no types
    async def process(self, callback: Any) -> tuple[int, str]:
        message = ChatbotMessage.from_dict(callback.data)
        await asyncio.to_thread(self._stream, message)
        return AckMessage.STATUS_OK, "OK"

    def _stream(self, message: Any) -> None:
        card = AIMarkdownCardInstance(self.dingtalk_client, message)
        card.ai_start()
        for text in ("年假", "年假 5 天"):
            card.ai_streaming(text)
        card.ai_finish(button_list=[{"text": "👍", "id": "good"}])


class Pressed(dingtalk_stream.CallbackHandler):  # type: ignore[misc]
    async def process(self, callback: Any) -> tuple[int, Any]:
        message = dingtalk_stream.CardCallbackMessage.from_dict(callback.data)
        private = {"cardParamMap": {"thanks": f"谢谢 {message.user_id}"}}
        return AckMessage.STATUS_OK, {"userPrivateData": private}


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    credential = dingtalk_stream.Credential(os.environ["CLIENT_ID"], os.environ["CLIENT_SECRET"])
    client = dingtalk_stream.DingTalkStreamClient(credential)
    client.register_callback_handler(ChatbotMessage.TOPIC, Answer())
    client.register_callback_handler(CallbackHandler.TOPIC_CARD_CALLBACK, Pressed())
    client.start_forever()


if __name__ == "__main__":
    main()
