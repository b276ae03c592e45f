"""One question through routes, handlers and backend, without DingTalk and without the store."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime

from dingbridge.answerer import Answerer, Ask
from dingbridge.building import import_handlers_from, open_backend
from dingbridge.errors import BridgeError
from dingbridge.model import Answer, Conversation, ConversationKind, Message, MessageKind, Outcome, Person
from dingbridge.settings import Config
from dingbridge.texts import Texts


async def ask(config: Config, question: str, *, user: str, group: str) -> str:
    """The answer and its sources as text; raises BridgeError where there is none."""
    import_handlers_from(config)
    kind = ConversationKind.GROUP if group else ConversationKind.SINGLE
    message = Message(
        id=secrets.token_hex(8),
        robot=config.dingtalk.client_id,
        conversation=Conversation(group or "ask", kind),
        sender=Person(user or "ask", user),
        kind=MessageKind.TEXT,
        text=question,
        sent_at=datetime.now(UTC),
    )
    texts = Texts(config.reply.locale)
    async with open_backend(config) as backend:
        answerer = Answerer(config.routes, backend, handler_s=config.anythingllm.total_timeout_s)
        found = await answerer.answer(Ask(message, f"dingbridge-ask-{message.id}", texts), _Silent())
    if found.outcome is Outcome.UNROUTED:
        raise BridgeError("no route matches: name a user with --as, or a group with --in")
    return shown(found.answer, texts)


def shown(answer: Answer | None, texts: Texts) -> str:
    if answer is None:
        return ""
    lines = [answer.text if answer.text.strip() else texts("refused")]
    if answer.partial:
        lines += ["", texts("partial")]
    if answer.sources:
        lines += ["", texts("sources")]
        lines += [f"- {source.title}" + (f" {source.url}" if source.url else "") for source in answer.sources]
    return "\n".join(lines)


class _Silent:
    async def update(self, text: str) -> None:
        """Nobody waits in a chat."""
