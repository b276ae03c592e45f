"""Cards as a chat of the fuzz keeps them: made late, perhaps, and with last words that get lost."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dingbridge.errors import ReplyPaced, ReplyRejected, ReplyUnavailable, ReplyUncertain, ReplyUnsafe
from dingbridge.model import CardState, Message, card_track

if TYPE_CHECKING:
    from tests.fuzz_world import Said, World

MADE_LATE_S = 1.0  # after who asked for it has died


@dataclass
class Shown:
    """What everybody sees. last: its last word, None as long as it says that something is to come."""

    last: tuple[CardState, str] | None = None


class PlayedCards:
    """`Cards` of one daemon. A message's plan says what goes wrong, one after another."""

    def __init__(self, world: World, *, available: bool) -> None:
        self._world = world
        self.available = available
        self.alive = True

    def wanted(self, message: Message) -> bool:
        return self.available

    def seen(self, track: str) -> bool:
        shown = self._world.cards.get(track)
        return shown is not None and shown.last is None

    async def open(self, message: Message, text: str, *, forward: bool, params: Mapping[str, str]) -> PlayedCard | None:
        world, said = self._world, self._world.said[message.id]
        world.expect(not said.card_asked, f"a second card: {said}")
        said.card_asked = True
        fault = said.opens.pop(0) if said.opens else ""
        track = card_track(message.robot, message.id)
        if fault == "refused":
            await asyncio.sleep(0)
            return None
        if fault == "late":  # on its way, whatever becomes of us
            world.loop.call_later(MADE_LATE_S, world.makes_card, said)
            await asyncio.sleep(MADE_LATE_S + 0.1)
        elif fault != "vanished":
            await asyncio.sleep(0)
            world.makes_card(said)
        await asyncio.sleep(0)
        return PlayedCard(self, track)

    def resume(self, track: str, code: str) -> PlayedCard:
        return PlayedCard(self, track)

    def finish(self, track: str, text: str, fault: str) -> None:
        """As DingTalk takes a last frame of one guid once, and what is finished before counts as that."""
        world, said = self._world, self._world.tracks[track]
        shown = world.cards.get(track)
        if fault in ("vanished", "down", "paced", "refused", "unsafe"):
            _raise(fault)
        if shown is None:
            raise ReplyRejected("there is no such card", cause="card.gone")
        if shown.last is None:
            shown.last = (CardState.SHOWN, text)
            world.shows_on_card(said, text)
        if fault == "lost":
            _raise(fault)

    def fail(self, track: str, text: str, fault: str) -> CardState:
        shown = self._world.cards.get(track)
        if fault in ("vanished", "down", "paced"):
            return CardState.OPEN
        if shown is None:
            return CardState.NONE
        if shown.last is None:
            shown.last = (CardState.CLOSED, text)
        says = CardState.CLOSED if shown.last == (CardState.CLOSED, text) else CardState.SHOWN
        return CardState.OPEN if fault == "lost" else says

    def fault(self, track: str) -> str:
        said = self._world.tracks[track]
        self._world.expect(self.alive, f"a dead daemon writes on the card of {said}")
        fault = said.ends.pop(0) if said.ends else ""
        said.met.add({"refused": ""}.get(fault, fault))
        return fault

    def begins(self, track: str, text: str) -> Said:
        said = self._world.tracks[track]
        self._world.begins_on_card(said, text)
        return said


class PlayedCard:
    """`Card`."""

    newest = ""

    def __init__(self, cards: PlayedCards, track: str) -> None:
        self._cards = cards
        self._track = track

    async def show(self, text: str) -> bool:
        self.update(text)
        return self._cards.seen(self._track)

    def update(self, text: str) -> None:
        """What is seen on the way is nobody's promise."""

    def stop(self) -> None:
        """It has no frames."""

    async def finish(self, text: str, *, params: Mapping[str, str], link_hosts: frozenset[str]) -> None:
        self._cards.begins(self._track, text)
        fault = self._cards.fault(self._track)
        await asyncio.sleep(8.0 if fault == "slow" else 0)
        self._cards.finish(self._track, text, fault)
        await asyncio.sleep(0)

    async def fail(self, text: str) -> CardState:
        fault = self._cards.fault(self._track)
        await asyncio.sleep(8.0 if fault == "slow" else 0)
        says = self._cards.fail(self._track, text, fault)
        await asyncio.sleep(0)
        return says


def _raise(fault: str) -> None:
    match fault:
        case "lost" | "vanished":
            raise ReplyUncertain("no answer in time")
        case "down":
            raise ReplyUnavailable("no connection")
        case "paced":
            raise ReplyPaced("too fast", retry_after=7.0)
        case "unsafe":
            raise ReplyUnsafe("the content check refused the text")
    raise ReplyRejected("it does not take that")
