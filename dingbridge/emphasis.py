"""What a reader looks for in an answer: amounts, dates and the words of the question, if the sources say them too.

Knows no markdown: places in plain text. Without dictionary and model. A key word is a longest piece of the question
that the passages have as well: two Chinese characters or more, or a whole Latin word of three letters or more.
Words that only ask (多少, 怎么, what) are none, and particles (的, 吗) are no part of one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

MAX_WORDS = 20
_QUESTION_CHARS = 300
_PASSAGE_CHARS = 100_000

_HAN = r"[\u3400-\u4dbf\u4e00-\u9fff]"
_WORDS = re.compile(rf"{_HAN}{{2,}}|(?<![A-Za-z0-9_])[A-Za-z][A-Za-z0-9]{{2,}}(?![A-Za-z0-9_])")
_ASKING = re.compile(
    "有没有|能不能|是不是|可不可以|要不要|为什么|怎么样|怎么办|多少|多久|多长|什么|怎么|怎样|如何|请问|哪些|哪里|哪个|哪儿"
    "|几[天个年月日次元名人条种篇点]?|是否|可以|应该|需要|我们|你们|您们|他们|公司的|一下|告诉|谢谢|您好|你好|以及|关于"
)
_LEADING = "的我你您他她它这那是和与或也都"
_TRAILING = "的了吗呢吧啊呀是和与或也都"
_COMMON = frozenset(
    (  # noqa: SIM905 - read as words
        "about all and any are but can could did does for from get got had has have her here him his how into its long "
        "many may might much must need not our out per shall she should tell than that the their them then there these "
        "they this those was were what when where which who whom whose why will with without would you your please"
    ).split()
)

_NUMBER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?"
_NUMBERS = rf"{_NUMBER}(?:\s?[-~～–—至到]\s?{_NUMBER})?"
_MONTHS = "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)[a-z]{0,6}"
_DATE = (
    r"[0-9]{4}\s?年\s?[0-9]{1,2}\s?月(?:\s?[0-9]{1,2}\s?[日号])?|[0-9]{1,2}\s?月\s?[0-9]{1,2}\s?[日号]"
    r"|每(?:年|个?月|季度?|周|星期)\s?[0-9]{1,2}\s?[日号]|每(?:周|星期)[一二三四五六日天]"
    r"|[0-9]{4}[-/.][0-9]{1,2}[-/.][0-9]{1,2}(?![0-9])|[0-9]{1,2}:[0-9]{2}(?![0-9:])"
    rf"|{_MONTHS} [0-9]{{1,2}}(?:, [0-9]{{4}})?(?![0-9])|[0-9]{{1,2}} {_MONTHS}(?: [0-9]{{4}})?(?![0-9A-Za-z])"
)
_CURRENCY = r"(?:US\$|HK\$|RMB|CNY|USD|EUR|[￥¥$€£])"
_UNIT = (
    r"(?:[万亿]?(?:人民币|美元|港元|欧元|日元|元|块)|[万亿]|个?工作日|个?自然日|个?小时|分钟|秒钟?|个?星期|周|个?月|年|岁|天|日"
    r"|周岁|人|位|名|次|份|张|件|套|台|个|间|晚|夜|公里|千米|厘米|毫米|平方米|米|公斤|千克|克|吨|倍|折|级|页|字|[%％‰℃])"
    r"|(?:(?:working|business|calendar) )?(?:days?|hours?|minutes?|weeks?|months?|years?|nights?|people|persons?)"
    r"(?![A-Za-z0-9])|(?:yuan|dollars?|euros?|USD|CNY|RMB|EUR|percent|times|km|kg|cm|mm|[KMGT]B)(?![A-Za-z0-9])"
)
_PER = (
    r"(?:\s?[/／每]\s?(?:人|位|天|日|晚|夜|间|次|月|年|周|小时|份|公里)|(?:\s?/\s?|\sper\s)"
    r"(?:person|day|night|week|month|year|hour|trip|km)(?![A-Za-z])){1,2}"
)
_FACT = re.compile(
    rf"(?<![0-9A-Za-z_.])(?<![0-9][,:/-])(?P<core>{_DATE}"
    rf"|{_CURRENCY}\s?{_NUMBERS}(?![0-9A-Za-z])(?:\s?{_UNIT})?|{_NUMBERS}\s?(?:{_UNIT}))"
    rf"(?:{_PER}|[之以]?[前后内]|以上|以下|[起止])?"
)


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a text. said: the same for all places that say the same."""

    start: int
    end: int
    said: str


@dataclass(frozen=True, slots=True)
class Emphasis:
    """words: as `key_words` gives them. facts: amounts and dates of the passages, in `_same` writing."""

    words: tuple[str, ...]
    facts: frozenset[str]

    def marks(self, text: str, *, facts: bool = True) -> list[Mark]:
        """The places worth bold, in order, none overlapping another."""
        found = list(self._facts(text)) if facts and self.facts else []
        taken = sorted((mark.start, mark.end) for mark in found)
        for start, end in highlights(text, self.words):
            if all(end <= before or after <= start for before, after in taken):
                found.append(Mark(start, end, text[start:end].lower()))
        return sorted(found, key=lambda mark: mark.start)

    def _facts(self, text: str) -> Iterator[Mark]:
        for found in _FACT.finditer(text):
            for end in (found.end(), found.end("core")):
                said = _same(text[found.start() : end])
                if said in self.facts:
                    yield Mark(found.start(), end, said)
                    break


def emphasis(question: str, passages: Iterable[str]) -> Emphasis:
    """What of an answer may be bold."""
    passages = tuple(passages)
    return Emphasis(key_words(question, passages), facts_of(passages))


def key_words(question: str, passages: Iterable[str]) -> tuple[str, ...]:
    """The question's words that stand in the passages, in the question's order, each once, at most `MAX_WORDS`."""
    text = "\n".join(passages)[:_PASSAGE_CHARS].lower()
    words: dict[str, str] = {}
    for found in _WORDS.finditer(question[:_QUESTION_CHARS]) if text else ():
        for word in _latin(found[0], text) if found[0].isascii() else _chinese(found[0], text):
            words.setdefault(word.lower(), word)
    return tuple(words.values())[:MAX_WORDS]


def facts_of(passages: Iterable[str]) -> frozenset[str]:
    """Amounts and dates as they compare: `1,200 元/晚` is there as `1200元/晚` and as `1200元`."""
    text = "\n".join(passages)[:_PASSAGE_CHARS]
    return frozenset(_same(said) for found in _FACT.finditer(text) for said in (found[0], found["core"]))


def highlights(text: str, words: Iterable[str]) -> list[tuple[int, int]]:
    """Where the words stand in a text: (start, end) in order, the longest first where they overlap."""
    ordered = sorted(filter(None, words), key=len, reverse=True)
    if not ordered:
        return []
    return [found.span() for found in re.finditer("|".join(map(_pattern, ordered)), text, re.IGNORECASE)]


def _pattern(word: str) -> str:
    return rf"(?<![A-Za-z0-9_]){re.escape(word)}(?![A-Za-z0-9_])" if word.isascii() else re.escape(word)


def _same(said: str) -> str:
    """`￥1,200` and `¥ 1200` are one amount."""
    return re.sub(r"[\s,]", "", unicodedata.normalize("NFKC", said)).lower()


def _latin(word: str, text: str) -> Iterator[str]:
    if word.lower() not in _COMMON and re.search(_pattern(word.lower()), text):
        yield word


def _chinese(run: str, text: str) -> Iterator[str]:
    for piece in _ASKING.split(run):
        for shared in _shared(piece, text):
            word = shared.lstrip(_LEADING).rstrip(_TRAILING)
            if len(word) >= 2:
                yield word


def _shared(piece: str, text: str) -> Iterator[str]:
    """The longest pieces that both have, from left to right, none overlapping another."""
    ends: list[int] = []
    end = 0
    for start in range(len(piece)):
        end = max(end, start)
        while end < len(piece) and piece[start : end + 1] in text:
            end += 1
        ends.append(end)

    def within(low: int, high: int) -> Iterator[str]:
        best = max(range(low, high), key=lambda start: (min(ends[start], high) - start, -start), default=low)
        stop = min(ends[best], high) if best < high else best
        if stop - best < 2:
            return
        yield from within(low, best)
        yield piece[best:stop]
        yield from within(stop, high)

    yield from within(0, len(piece))
