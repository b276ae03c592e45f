"""What is asked for a message: its words, or what a picture or file alone means, with what came before in front."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from dingbridge.model import File, Message, MessageKind, Turn
from dingbridge.texts import Texts

MAX_ASKED = 8_000  # characters; the backend asks no more, and cuts at the end
MAX_QUOTED = 2_000
MAX_TURNS = 3
MAX_TURN = 800
# Cleaning may put a blank into a long run and spell a character as two; what is cut then must not be the question.
_SPARE = 200


def question_of(message: Message, texts: Texts) -> str:
    """The question alone; "" where there is nothing that could be answered."""
    if message.text.strip():
        return message.text.strip()
    kinds = {file.kind for file in message.files}
    if MessageKind.FILE in kinds:
        return texts("file_question")
    return texts("picture_question") if MessageKind.PICTURE in kinds else ""


def is_question(message: Message) -> bool:
    """Whether there is something to ask: words of any kind, or something to look at."""
    return bool(message.text.strip()) or any(map(_can_be_looked_at, message.files))


def unreadable(message: Message) -> str:
    """The key of the text for a message that is none, which names what works where it was written."""
    if message.kind is MessageKind.QUOTA:
        return "quota"
    if message.kind is MessageKind.AUDIO:
        return "unreadable_voice"
    return "unreadable_group" if message.conversation.is_group else "unreadable"


def asked(message: Message, texts: Texts, turns: Sequence[Turn] = ()) -> str:
    """What is sent to be answered: turns of before, the quoted message, the question; "" where there is no question.

    turns: oldest first; the last three count. The question is whole: what is in front gives way, oldest first.
    """
    question = question_of(message, texts)
    quoted = _short(message.quoted, MAX_QUOTED)
    front = [_turn(turn, texts) for turn in turns[-MAX_TURNS:]] + (
        [texts("quoted_front", quoted=f"> {quoted}")] if quoted else []
    )
    if not question or not front:
        return question
    marked = texts("question_front", question=question)
    kept: list[str] = []
    left = MAX_ASKED - _SPARE - len(marked)
    for part in reversed(front):
        left -= len(part) + 2
        if left < 0:
            break
        kept.insert(0, part)
    return "\n\n".join([*kept, marked]) if kept else question


def _turn(turn: Turn, texts: Texts) -> str:
    return texts("turn_front", question=_short(turn.question, MAX_TURN), answer=_short(turn.answer, MAX_TURN))


def _short(text: str, most: int) -> str:
    """Every further line begins with `> `: what somebody wrote must not read like the marks around it."""
    text = unicodedata.normalize("NFC", text[: 2 * most].strip())
    lines = (text if len(text) <= most else text[: most - 1] + "…").splitlines()
    return "\n> ".join(line.strip() for line in lines if line.strip())


def _can_be_looked_at(file: File) -> bool:
    return file.kind in (MessageKind.PICTURE, MessageKind.FILE)
