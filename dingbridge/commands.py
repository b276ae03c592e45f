"""What a chat user can tell the robot itself. The table is all there is: help is made from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol
from unicodedata import category

from dingbridge.model import Message
from dingbridge.texts import Texts


class Desk(Protocol):
    """What commands may ask of the rest: given by the bridge."""

    @property
    def texts(self) -> Texts: ...

    async def cancel(self, message: Message, *, before: int) -> int:
        """Drop the sender's unanswered questions older than row `before`; how many."""

    async def waiting_since(self, message: Message) -> list[float]:
        """How long each of the sender's unanswered questions has waited, in seconds, oldest first."""


Run = Callable[[Message, int, Desk], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Command:
    """aliases: whole messages that mean the same, in any language, without a slash.

    fresh: starts a new generation of the sender's context, in the transaction that stores it.
    """

    name: str
    run: Run
    aliases: tuple[str, ...] = ()
    fresh: bool = False


async def _help(message: Message, row: int, desk: Desk) -> str:  # noqa: ARG001 - the shape of all commands
    texts = desk.texts
    lines = [texts("help_line", name=f"/{c.name}", about=texts(f"about_{c.name}")) for c in COMMANDS]
    return texts("help", commands="\n".join(lines))


async def _new(message: Message, row: int, desk: Desk) -> str:  # noqa: ARG001 - the shape of all commands
    return desk.texts("new")  # the generation rose when it was stored


async def _cancel(message: Message, row: int, desk: Desk) -> str:
    count = await desk.cancel(message, before=row)
    return desk.texts("cancelled", count=count) if count else desk.texts("nothing_to_cancel")


async def _status(message: Message, row: int, desk: Desk) -> str:  # noqa: ARG001 - the shape of all commands
    waits = await desk.waiting_since(message)
    if not waits:
        return desk.texts("status_idle")
    return desk.texts("status_waiting", count=len(waits), seconds=round(waits[0]))


async def _whoami(message: Message, row: int, desk: Desk) -> str:  # noqa: ARG001 - the shape of all commands
    if message.conversation.is_group:
        return desk.texts("whoami_group", conversation=message.conversation.id, person=message.sender.id)
    return desk.texts("whoami_single", person=message.sender.id)


COMMANDS: tuple[Command, ...] = (
    Command("help", _help, ("帮助", "help", "?", "？")),
    Command("new", _new, ("新对话", "新话题", "重新开始"), fresh=True),
    Command("cancel", _cancel, ("取消", "取消提问")),
    Command("status", _status, ("状态", "进度")),
    Command("whoami", _whoami, ("我是谁",)),
)
# A Chinese keyboard gives these for the key with the slash.
_SLASHES = "/／、"
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
_BY_WORD = {word: command for command in COMMANDS for word in (command.name, *command.aliases)}
_BARE = {alias: command for command in COMMANDS for alias in command.aliases}
_HELP = COMMANDS[0]


def match(text: str) -> Command | None:
    """The command a message is, or None for a question. A message without a visible character asks for help."""
    said = "".join(character for character in text if category(character) not in _INVISIBLE).strip().lower()
    if not said:
        return _HELP
    if said[0] in _SLASHES:
        return _BY_WORD.get((said[1:].split() or [""])[0])
    return _BARE.get(said.rstrip("。.!！"))
