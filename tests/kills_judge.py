"""What came of questions that were asked while daemons died. Every run with kills is judged by the same rules.

Every accepted question is answered, or its asker is told; a repeat is marked; order holds within a person's chat.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from dingbridge.model import card_track, trace_code
from dingbridge.sim.gateway import Gateway
from dingbridge.sim.gateway_card_records import FINISHED, Card
from dingbridge.sim.gateway_records import Sent
from dingbridge.texts import Texts
from tests.house import REPEAT

TROUBLE = Texts("zh-CN")("trouble")
HELD_S = 0.5
FRONT = Texts("zh-CN")("question_front", question="")
TEMPLATE = "kills.schema"
NOT_ON_CARDS = 4
_FAULTS = ("lost", "unmarked_repeats", "disorder", "second_cards", "open_cards", "twice")


@dataclass
class Count:
    """What came of it. disorder: lanes whose first answers are out of order, apart from frames that came late.

    cards: shown at all. second_cards: of a message that has one, or of none. open_cards: that say for ever that
    something is to come. twice: answered on a card, and by a message without a mark.
    """

    questions: int = 0
    kills: int = 0
    answered: int = 0
    told: int = 0
    lost: list[str] = field(default_factory=list)
    repeats: int = 0
    unmarked_repeats: list[str] = field(default_factory=list)
    disorder: list[str] = field(default_factory=list)
    cards: int = 0
    on_cards: int = 0
    second_cards: list[str] = field(default_factory=list)
    open_cards: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    late: int = 0
    redelivered: int = 0
    asked: int = 0
    seconds: float = 0.0

    @property
    def faults(self) -> dict[str, list[str]]:
        found = {name: getattr(self, name) for name in _FAULTS}
        return {name: broken for name, broken in found.items() if broken}

    def __str__(self) -> str:
        return (
            f"{self.kills} kills, {self.questions} questions in {self.seconds:.0f} s: {self.answered} answered, "
            f"{self.told} told instead, {len(self.lost)} lost, {self.repeats} repeats "
            f"({len(self.unmarked_repeats)} unmarked), {len(self.disorder)} out of order, "
            f"{self.on_cards} on {self.cards} cards ({len(self.second_cards)} second cards, {len(self.open_cards)} left"
            f" open, {len(self.twice)} answered twice), "
            f"{self.redelivered} redelivered frames, {self.late} late ones answered behind newer ones, "
            f"{self.asked} asks of the backend"
        )


def answer(question: str) -> str:
    return f"答：{question.rpartition(FRONT)[2]}"


def cardless(number: int) -> dict[str, str]:
    """What makes DingTalk show no card for some lanes' questions: who asks has no staff id."""
    return {"senderStaffId": ""} if number % NOT_ON_CARDS == 0 else {}


class Seen:
    """The posts of a gateway by conversation, read once each, and what stands on its cards. Times are monotonic."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._read = 0
        self._posts: dict[str, list[tuple[float, str]]] = defaultdict(list)

    def card(self, sent: Sent) -> Card | None:
        card = self._gateway.cards.get(card_track(self._gateway.client_id, sent.msg_id))
        return card if card is not None and card.is_in(None) else None

    def outcomes(self, sent: Sent) -> list[tuple[str, float]]:
        """What the chat saw for one question, and when: answers, marked or not, and failure texts by their code."""
        self._catch_up()
        code = trace_code(self._gateway.client_id, sent.msg_id)
        seen = []
        said = self._posts[sent.conversation]
        if (card := self.card(sent)) is not None:
            said = sorted([*said, *((frame.at, frame.text) for frame in card.frames if frame.final)])
        for number, text in said:
            if answer(sent.text) in text:
                seen.append(("repeat" if REPEAT in text else "answer", number))
            elif code in text and not text.startswith(TROUBLE):
                seen.append(("told", number))
        return seen

    def waiting(self, sent: Iterable[Sent]) -> list[Sent]:
        """Those of which nothing has been seen, or whose card says that something is to come."""
        return [one for one in sent if not self.outcomes(one) or ((card := self.card(one)) and not card.ended)]

    def _catch_up(self) -> None:
        for number in range(self._read, len(self._gateway.posts)):
            post = self._gateway.posts[number]
            self._posts[post.conversation].append((post.at, post.text))
        self._read = len(self._gateway.posts)


async def all_seen(gateway: Gateway, sent: list[Sent], timeout_s: float = 120.0) -> None:
    """Until something was seen of each, or nothing more is to be hoped for: what is missing then is lost."""
    seen, waiting, end = Seen(gateway), sent, time.monotonic() + timeout_s
    while (waiting := seen.waiting(waiting)) and time.monotonic() < end:
        await asyncio.sleep(0.2)


def judge(gateway: Gateway, sent: list[Sent], count: Count) -> None:
    """sent: in the order of asking."""
    seen = Seen(gateway)
    lanes: dict[str, list[tuple[Sent, float]]] = defaultdict(list)
    _judge_cards(gateway, sent, count, seen)
    for one in sent:
        outcomes = seen.outcomes(one)
        kinds = Counter(kind for kind, _ in outcomes)
        shown = kinds["answer"] + kinds["repeat"]
        count.answered += bool(shown)
        count.told += bool(kinds["told"] and not shown)
        if not outcomes:
            count.lost.append(one.text)
        count.repeats += max(0, shown - 1)
        if kinds["answer"] > 1:
            count.unmarked_repeats.append(one.text)
        count.redelivered += one.deliveries - 1
        if shown:
            lanes[one.conversation].append((one, next(at for kind, at in outcomes if kind != "told")))
    for lane, firsts in lanes.items():
        known = [at for one, at in firsts if not _came_late(one)]
        if known != sorted(known):
            count.disorder.append(lane)
        count.late += sum(
            _came_late(one) and any(at > other for _, other in firsts[number + 1 :])
            for number, (one, at) in enumerate(firsts)
        )


def _judge_cards(gateway: Gateway, sent: list[Sent], count: Count, seen: Seen) -> None:
    cards = {card.out_track_id: card for card in gateway.cards_in()}
    count.cards = len(cards)
    for one in sent:
        if (card := seen.card(one)) is None:
            continue
        del cards[card.out_track_id]
        if not card.ended:
            count.open_cards.append(one.text)
        if card.state == FINISHED and answer(one.text) in card.data["content"]:
            count.on_cards += 1
            again = [kind for kind, _ in seen.outcomes(one) if kind == "answer"]
            if len(again) > 1:
                count.twice.append(one.text)
    count.second_cards += cards


def _came_late(one: Sent) -> bool:
    """DingTalk has sent it again, or had nobody to send it to: newer ones may have come before it."""
    return one.deliveries > 1 or one.pushes[0].at - one.at > HELD_S


def arguments(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--questions", type=int, default=0, help="default: ten a kill")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    return parser


def told(count: Count, seed: int) -> int:
    """Print what came of it; the exit code."""
    print(f"seed {seed}: {count}")
    for name, found in count.faults.items():
        print(f"{name}: {', '.join(found[:20])}")
    return 1 if count.faults else 0
