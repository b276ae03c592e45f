"""The official SDK, untouched: acknowledges a bot message and echoes it through the session webhook.

FORGETS=1: the first delivery of a message stays unacknowledged, because its handler raises.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import dingtalk_stream

known: set[str] = set()


class Echo(dingtalk_stream.ChatbotHandler):  # type: ignore[misc]  # the SDK ships no types
    async def process(self, callback: Any) -> tuple[int, str]:
        message = dingtalk_stream.ChatbotMessage.from_dict(callback.data)
        if os.environ.get("FORGETS") and message.message_id not in known:
            known.add(message.message_id)
            raise RuntimeError("not this time")
        self.reply_text(f"echo: {message.text.content.strip()}", message)
        self.reply_markdown("echo", f"**{message.sender_nick}**", message)
        return dingtalk_stream.AckMessage.STATUS_OK, "OK"


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    credential = dingtalk_stream.Credential(os.environ["CLIENT_ID"], os.environ["CLIENT_SECRET"])
    client = dingtalk_stream.DingTalkStreamClient(credential)
    client.register_callback_handler(dingtalk_stream.ChatbotMessage.TOPIC, Echo())
    client.start_forever()


if __name__ == "__main__":
    main()
