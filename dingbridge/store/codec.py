"""How a message and an answer are written into a row, and read back by any later version."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from dingbridge.model import (
    Answer,
    Conversation,
    ConversationKind,
    File,
    Message,
    MessageKind,
    Person,
    Secret,
    Source,
)
from dingbridge.trail import Step

TRAIL_LENGTH = 32_768  # characters
_HEAD, _TAIL = 8_192, 16_384
_encode = json.JSONEncoder(ensure_ascii=False).encode
# A question that waits for hours keeps its beginning and its end.
APPEND_TRAIL = (
    f"trail = CASE WHEN length(trail) > {TRAIL_LENGTH}"
    f" THEN substr(trail, 1, {_HEAD}) || '\n…' || substr(trail, length(trail) - {_TAIL - 1}) ELSE trail END || ?"
)


def encode_message(message: Message) -> str:
    """Everything but the webhook, which has columns of its own because a newer one may replace it."""
    conversation, sender = message.conversation, message.sender
    return _encode(
        {
            "conversation": {"id": conversation.id, "kind": conversation.kind, "title": conversation.title},
            "sender": {"id": sender.id, "staff_id": sender.staff_id, "nick": sender.nick},
            "kind": message.kind,
            "text": message.text,
            "sent_at": message.sent_at.timestamp(),
            "frame": message.frame,
            **({"quoted": message.quoted} if message.quoted else {}),
            **({"files": [[file.kind, file.code, file.name] for file in message.files]} if message.files else {}),
        }
    )


def decode_message(*, robot: str, key: str, body: str, webhook: str, webhook_expires: float | None) -> Message:
    fields = json.loads(body)
    conversation = fields["conversation"]
    sender = fields["sender"]
    return Message(
        id=key,
        robot=robot,
        conversation=Conversation(
            id=conversation["id"],
            kind=ConversationKind(conversation["kind"]),
            title=conversation.get("title", ""),
        ),
        sender=Person(id=sender["id"], staff_id=sender.get("staff_id", ""), nick=sender.get("nick", "")),
        kind=MessageKind(fields["kind"]),
        text=fields["text"],
        sent_at=datetime.fromtimestamp(fields["sent_at"], UTC),
        webhook=Secret(webhook),
        webhook_expires=datetime.fromtimestamp(webhook_expires, UTC) if webhook_expires is not None else None,
        frame=fields.get("frame", ""),
        quoted=fields.get("quoted", ""),
        files=tuple(File(MessageKind(kind), code, name) for kind, code, name in fields.get("files", ())),
    )


def encode_answer(answer: Answer) -> str:
    return _encode(asdict(answer))


def decode_answer(text: str) -> Answer:
    fields = json.loads(text)
    return Answer(
        text=fields["text"],
        sources=tuple(Source(**source) for source in fields.get("sources", ())),
        refused=fields.get("refused", False),
        partial=fields.get("partial", False),
        question_cut=fields.get("question_cut", False),
        tries=fields.get("tries", 1),
        first_token_s=fields.get("first_token_s"),
        origin=fields.get("origin", ""),
        first=fields.get("first", False),
        question=fields.get("question", ""),
        page_of=fields.get("page_of", 0),
        unread=tuple(fields.get("unread", ())),
        late=fields.get("late", False),
    )


def encode_steps(steps: Iterable[Step], redact: Callable[[str], str] = str) -> str:
    """JSON lines, to be put behind those that are there. redact: masks the facts, before they are quoted."""
    return _storable("".join([_encode(_fields(step, redact)) + "\n" for step in steps]))


def _fields(step: Step, redact: Callable[[str], str]) -> dict[str, Any]:
    facts = {key: redact(fact) if isinstance(fact, str) else fact for key, fact in step.facts.items()}
    return {"at": round(step.at, 3), "name": step.name, **facts}


def _storable(text: str) -> str:
    """A lone surrogate, which an error's text may quote, is no UTF-8."""
    return text.encode("utf-8", "replace").decode("utf-8")


def decode_steps(trail: str) -> list[Step]:
    """What can be read of them; where the middle was cut out stands a step named "…"."""
    steps: list[Step] = []
    for line in trail.split("\n"):  # not splitlines: JSON leaves other line breaks as they are
        try:
            fields = json.loads(line)
            steps.append(Step(float(fields.pop("at")), str(fields.pop("name")), fields))
        except (ValueError, KeyError, TypeError, AttributeError):
            if line and (not steps or steps[-1].name != "…"):
                steps.append(Step(steps[-1].at if steps else 0.0, "…", {}))
    return steps
