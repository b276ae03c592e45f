"""What `/出处 n` shows: the passage an answer came from, readable on a phone without the company's network."""

from __future__ import annotations

import re
from dataclasses import replace

from dingbridge.model import Answer
from dingbridge.texts import Texts

PASSAGE_CHARS = 1_500
_SENTENCE_END = re.compile(r"[。！？；!?][”’」』）)】]*|\.(?=\s)|\n")
_INDENT = re.compile(r"^ {4,}|^ *\t\s*")


def passage(answer: Answer, n: int, texts: Texts) -> Answer:
    """The passage of source n, from 1, as a quote with its title (and link) below; or what there is instead.

    Composed with the question in its shape, the question's key words are bold.
    """
    count = len(answer.sources)
    if not count:
        return Answer(texts("passage_none"))
    if not 1 <= n <= count:
        key = "passage_one" if count == 1 else "passage_range"
        return Answer(texts(key, count=count), answer.sources)
    source = answer.sources[n - 1]
    if not source.text.strip():
        return Answer(texts("passage_empty"), (source,))
    said = _beginning(source.text.strip(), PASSAGE_CHARS)
    # Indented text would be code: documents that were laid out with spaces are full of it.
    quoted = "\n".join(f"> {_INDENT.sub('', line)}".rstrip() for line in said.splitlines())
    return Answer(f"{texts('passage', count=n)}\n\n{quoted}", (replace(source, text=said),))


def _beginning(text: str, limit: int) -> str:
    """Up to `limit` characters, to the end of a sentence where one ends in the second half."""
    if len(text) <= limit:
        return text
    ends = [found.end() for found in _SENTENCE_END.finditer(text, limit // 2, limit)]
    return text[: ends[-1] if ends else limit - 1].rstrip() + "…"
