"""A bot as the official SDK's own examples build one: ask, reply, acknowledge; nothing is kept on disk.

    DINGTALK_OPENAPI_ENDPOINT=http://127.0.0.1:… CLIENT_ID=… CLIENT_SECRET=… ANYTHINGLLM_URL=… ANYTHINGLLM_KEY=… \
        python -m dingbridge.sim.bare_bot

The demo runs it beside dingbridge. It is given nothing worse than dingbridge is: the same stand-ins, the same kill.
"""

from __future__ import annotations

import os
from typing import Any

import aiohttp
import dingtalk_stream

TIMEOUT_S = 180.0


class Bot(dingtalk_stream.ChatbotHandler):  # type: ignore[misc]  # the SDK ships no types
    async def process(self, callback: Any) -> tuple[int, str]:
        message = dingtalk_stream.ChatbotMessage.from_dict(callback.data)
        answer = await ask(message.text.content.strip(), f"bare-{message.sender_staff_id}")
        self.reply_markdown("回复", answer, message)
        return dingtalk_stream.AckMessage.STATUS_OK, "OK"


async def ask(question: str, session_id: str) -> str:
    """The workspace's answer as AnythingLLM's developer API gives it."""
    url = f"{os.environ['ANYTHINGLLM_URL']}/api/v1/workspace/{os.environ.get('WORKSPACE', 'handbook')}/chat"
    headers = {"Authorization": f"Bearer {os.environ['ANYTHINGLLM_KEY']}"}
    body = {"message": question, "mode": "query", "sessionId": session_id}
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with (
        aiohttp.ClientSession(timeout=timeout) as http,
        http.post(url, json=body, headers=headers, raise_for_status=True) as response,
    ):
        return str((await response.json())["textResponse"])


def main() -> None:
    credential = dingtalk_stream.Credential(os.environ["CLIENT_ID"], os.environ["CLIENT_SECRET"])
    client = dingtalk_stream.DingTalkStreamClient(credential)
    client.register_callback_handler(dingtalk_stream.ChatbotMessage.TOPIC, Bot())
    client.start_forever()


if __name__ == "__main__":
    main()
