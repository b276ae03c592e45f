"""How one answer is to be shown. Decided where route, chat and person are known, used where it is composed."""

from __future__ import annotations

from dataclasses import dataclass

from dingbridge.texts import Texts


@dataclass(frozen=True, slots=True)
class Shape:
    """The default is the bare answer with its sources.

    question: what was asked; its key words are bold where the sources have them too.
    code: the answer's code, which quick replies name.
    card: the text is for a card: tables are kept; the card has buttons of its own.
    buttons: the last part carries quick replies. commands: they are named in a line of the text.
    deep: a deeper answer is offered; human: a colleague is. page_url: the whole answer on a page, "" where there is
        none.
    hint: what else can be sent, for who meets the robot first. examples: shown after a refusal.
    """

    texts: Texts
    question: str = ""
    code: str = ""
    card: bool = False
    buttons: bool = False
    commands: bool = False
    deep: bool = False
    human: bool = False
    page_url: str = ""
    hint: bool = False
    examples: tuple[str, ...] = ()
