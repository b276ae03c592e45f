"""The nouns. Frozen values that pass between the steps of a message's way; imports nothing of ours."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_BEFORE_CODE = re.compile(r"^\s*(?:编号|code\b)\s*[:：]?", re.IGNORECASE)


class Secret:
    """A text that never shows itself: repr, str and format give `***`; only `reveal()` gives the value."""

    __slots__ = ("_value",)

    def __init__(self, value: str = "") -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __repr__(self) -> str:
        return "***" if self._value else "(empty)"

    __str__ = __repr__


class ConversationKind(StrEnum):
    """DingTalk's `conversationType`: "1" is one to one, "2" is a group."""

    SINGLE = "single"
    GROUP = "group"


@dataclass(frozen=True, slots=True)
class Conversation:
    """Where something was written."""

    id: str
    kind: ConversationKind
    title: str = ""

    @property
    def is_group(self) -> bool:
        return self.kind is ConversationKind.GROUP


@dataclass(frozen=True, slots=True)
class Person:
    """Who wrote it. `id` is the staff id, or DingTalk's encrypted sender id where there is none."""

    id: str
    staff_id: str = ""
    nick: str = ""


class MessageKind(StrEnum):
    """What the message consists of; TEXT, RICH_TEXT and MARKDOWN carry text, AUDIO its recognition.

    CARD and CHAT_RECORD were forwarded: their words are what is `quoted`.
    """

    TEXT = "text"
    RICH_TEXT = "richText"
    PICTURE = "picture"
    AUDIO = "audio"
    VIDEO = "video"
    FILE = "file"
    MARKDOWN = "markdown"
    CARD = "interactiveCard"
    CHAT_RECORD = "chatRecord"
    UNKNOWN = "unknown"
    QUOTA = "quota"  # DingTalk's notice that the organisation's monthly allowance is spent


@dataclass(frozen=True, slots=True)
class File:
    """Something that was sent along. code: what DingTalk gives it out for, for a while."""

    kind: MessageKind
    code: str = field(repr=False)
    name: str = ""


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file's content, as it is handed to a backend."""

    name: str
    mime: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Message:
    """What one person wrote in one chat.

    `id` is stable over redeliveries and restarts: use it as the key for anything that must happen once.
    `frame` is the id of the frame that brought it, another one at each redelivery.
    `quoted`: what it replies to, as far as DingTalk tells. `files`: the pictures and documents sent along.
    """

    id: str
    robot: str
    conversation: Conversation
    sender: Person
    kind: MessageKind
    text: str
    sent_at: datetime
    webhook: Secret = Secret()  # noqa: RUF009 - frozen and empty
    webhook_expires: datetime | None = None
    frame: str = ""
    quoted: str = ""
    files: tuple[File, ...] = ()

    @property
    def code(self) -> str:
        """The 编号 in failure texts, logs and traces: 8 Crockford characters of a hash of robot and id."""
        return trace_code(self.robot, self.id)


def trace_code(robot: str, message_id: str) -> str:
    digest = int.from_bytes(hashlib.sha256(f"{robot}\0{message_id}".encode()).digest()[:5], "big")
    return "".join(CROCKFORD[(digest >> shift) & 31] for shift in range(35, -1, -5))


def card_track(robot: str, message_id: str) -> str:
    """What DingTalk knows a message's card by: the same after a restart, and to be guessed by nobody."""
    digest = hashlib.sha256(f"card\0{robot}\0{message_id}".encode()).hexdigest()
    return f"dingbridge-{trace_code(robot, message_id)}-{digest[:32]}"


_TRACK = re.compile(rf"dingbridge-([{CROCKFORD}]{{8}})-[0-9a-f]{{32}}")


def code_of_track(track: str) -> str:
    """The code of the message that a card belongs to; "" where it is no card of ours."""
    found = _TRACK.fullmatch(track)
    return found[1] if found else ""


@dataclass(frozen=True, slots=True)
class Press:
    """A button of a card. track: the card. chat: where it was pressed, "" where that is not told."""

    track: str
    person: str
    chat: str
    action: str


def typed_code(written: str) -> str:
    """A code as somebody typed or pasted it from a chat: Crockford's alphabet forgives o, i and l."""
    return _BEFORE_CODE.sub("", written).strip().upper().translate(str.maketrans("OIL", "011"))


def lane_key(robot: str, conversation: str, person: str, generation: int) -> str:
    """One AnythingLLM context, and the unit of order; also the `sessionId` sent to AnythingLLM."""
    scope = "\0".join((robot, conversation, person, str(generation)))
    return "dingbridge-" + hashlib.sha256(scope.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Source:
    """A document an answer came from. `url` is set only where a person can open it (http or https)."""

    title: str
    text: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a handler found. Only a refusal may be without text.

    refused: the documents do not say; the next matching route is tried, and the first refusal is shown.
    partial: the text broke off; it is shown and marked.
    question_cut: the question was too long and only its beginning was asked.
    origin: the workspace it came from; empty where a handler of one's own found it.
    first: its asker has had none before, refusals aside.
    question: what was asked, where the message itself does not say it.
    page_of: the row of the answer whose page is to be opened; the link is made when it is sent, and kept nowhere.
    unread: names of attached documents that the backend did not look at.
    late: it begins with its question, for the chat has gone on since.
    """

    text: str = ""
    sources: tuple[Source, ...] = ()
    refused: bool = False
    partial: bool = False
    question_cut: bool = False
    tries: int = 1
    first_token_s: float | None = None
    origin: str = ""
    first: bool = False
    question: str = ""
    page_of: int = 0
    unread: tuple[str, ...] = ()
    late: bool = False


class Reply(Protocol):
    """A handler's line to the chat while it works."""

    async def update(self, text: str) -> None:
        """Show progress: replaces a waiting notice that has not been sent yet, otherwise does nothing."""


@dataclass(frozen=True, slots=True)
class Route:
    """A rule that names who is answered by what. See `router.py` for when it matches.

    contact: the staff id of who takes over questions. deep_workspace: where `/deep` asks. locale: empty for the
    common one. answer_page: whether its answers may be read on a page. examples: questions it answers well.
    """

    name: str
    workspace: str = ""
    handler: str = "anythingllm"
    users: frozenset[str] = frozenset()
    conversations: frozenset[str] = frozenset()
    contact: str = ""
    deep_workspace: str = ""
    locale: str = ""
    answer_page: bool = True
    examples: tuple[str, ...] = ()


class Outcome(StrEnum):
    """How a message ended: the `result` label of `dingbridge_messages_total`."""

    ANSWERED = "answered"
    PARTIAL = "partial"
    REFUSED = "refused"
    FAILED = "failed"
    DEAD = "dead"
    CANCELLED = "cancelled"
    BUSY = "busy"
    LIMITED = "limited"
    UNROUTED = "unrouted"
    COMMAND = "command"
    DUPLICATE = "duplicate"
    UNDELIVERABLE = "undeliverable"


class Task(StrEnum):
    """What has to be done for a stored message. Everything but QUESTION takes the express path.

    TELL: nobody wrote it; it is to be told to somebody by ourselves.
    """

    QUESTION = "question"
    COMMAND = "command"
    BUSY = "busy"
    LIMITED = "limited"
    UNREADABLE = "unreadable"
    TELL = "tell"


class State(StrEnum):
    """Where a stored message is on its way.

    READY: to be worked on · LEASED: being worked on · ANSWERED: the answer is stored, `part` parts of it are sent
    SENDING: part `part` is going out, its outcome unknown until the next state · DONE, DEAD: the end.
    """

    READY = "ready"
    LEASED = "leased"
    ANSWERED = "answered"
    SENDING = "sending"
    DONE = "done"
    DEAD = "dead"


class CardState(StrEnum):
    """NONE: there is no card. OPEN: there may be one that says that something is to come.

    LEFT: so, too, but the answer goes elsewhere. SHOWN: it shows the answer's first part.
    CLOSED: it says that the answer stands elsewhere.
    """

    NONE = ""
    OPEN = "open"
    LEFT = "left"
    SHOWN = "shown"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message as handed to a worker, under a lease.

    Times are seconds of the store's clock. `uncertain`: part `part` may have reached the chat already.
    """

    row: int
    token: str
    lane: str
    message: Message
    task: Task
    state: State
    part: int
    uncertain: bool
    answer: Answer | None
    outcome: Outcome | None
    crashes: int
    tries: int
    received_at: float
    leased_at: float
    deadline_at: float | None
    answered_at: float | None
    reason: str = ""
    route: str = ""
    card: CardState = CardState.NONE


@dataclass(frozen=True, slots=True)
class Turn:
    """A question that was answered before in the same context, and where the answer came from; see `Answer.origin`."""

    question: str
    answer: str
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """An answer that was given: what somebody may come back to. row: of the message in the store."""

    row: int
    message: Message
    answer: Answer
    outcome: Outcome
    route: str
    at: float

    @property
    def code(self) -> str:
        return self.message.code

    @property
    def question(self) -> str:
        return self.answer.question or self.message.text


class Verdict(StrEnum):
    """What somebody thinks of an answer."""

    GOOD = "good"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Placed:
    """What became of a message handed to the inbox; `duplicate` rows are already there."""

    row: int
    lane: str
    task: Task
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """What is left behind of one message: one log line, a few counters. Durations in seconds."""

    message: Message
    outcome: Outcome
    lane: str = ""
    route: str = ""
    workspace: str = ""
    reason: str = ""
    cause: str = ""
    tries: int = 0
    parts: int = 0
    queue_s: float | None = None
    first_token_s: float | None = None
    handler_s: float | None = None
    reply_s: float | None = None
    total_s: float | None = None
