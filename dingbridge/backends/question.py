"""Makes a chat message safe to send to AnythingLLM."""

from __future__ import annotations

import re
import unicodedata

from dingbridge.backends.sse import whole_characters

MAX_QUESTION = 8_000
MAX_RUN = 200
# Raw text is cut here first, so that cleaning a frame of a megabyte does not hold up the loop.
_MAX_RAW = 4 * MAX_QUESTION

_NEWLINES = re.compile(r"\r\n?|[\u0085\u2028\u2029]")
_WIDE_GAP = re.compile(r"\s{33,}")
_AGENT = re.compile(r"^[@＠﹫](?=agent)", re.IGNORECASE)
_PRESET = re.compile(r"(?<!\S)/(?=[^\s/])")
_LONG = re.compile(rf"\S{{{MAX_RUN + 1}}}")
# Letters and marks that draw nothing: joiners, Hangul and Khmer fillers, variation selectors.
_BLANKS = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\uffa0\ufe00-\ufe0f\U000e0100-\U000e01ef]"
)


def clean_question(text: str) -> tuple[str, bool]:
    """The text to send and whether its end was cut; "" when nothing readable is left. Idempotent.

    At most 8,000 characters. Control, zero-width and bidi characters are dropped, the rest is NFC. No run of
    letters and digits, or of symbols, is longer than 200: AnythingLLM's token counter needs quadratic time for
    one and holds up every other user meanwhile (measured: 8,000 characters block it for 35 s). `@agent` at the
    beginning would start an agent in any mode, and `/word` would be replaced by any user's preset of that name;
    both are spelled so that AnythingLLM does not see them.
    """
    visible = _visible(text[:_MAX_RAW])
    broken = _break_runs(visible[:MAX_QUESTION])
    harmless = _PRESET.sub("／", _AGENT.sub("＠ ", broken))
    cut = len(text) > _MAX_RAW or len(visible) > MAX_QUESTION or len(harmless) > MAX_QUESTION
    return harmless[:MAX_QUESTION].strip(), cut


def _visible(text: str) -> str:
    text = _NEWLINES.sub("\n", whole_characters(text))
    if not text.isprintable():
        text = "".join(map(_seen, text))
    text = unicodedata.normalize("NFC", _BLANKS.sub("", text))
    return _WIDE_GAP.sub(lambda gap: "\n" if "\n" in gap.group() else " ", text).strip()


def _seen(character: str) -> str:
    if character in "\n\t":
        return character
    category = unicodedata.category(character)
    if category == "Zs":
        return " "
    # Private and unassigned code points stay: rare Chinese names live there.
    return "" if category in ("Cc", "Cf", "Cs") else character


def _break_runs(text: str) -> str:
    """Puts a space into runs; which characters continue one follows the counter's own word pattern."""
    if _LONG.search(text) is None:
        return text
    pieces: list[str] = []
    kind = run = 0
    for character in text:
        now = _kind(character) or kind
        run = run + 1 if now == kind else 1
        kind = now
        if run > MAX_RUN and not character.isspace():
            pieces.append(" ")
            run = 1
        pieces.append(character)
    return "".join(pieces)


def _kind(character: str) -> int:
    """1 word, 2 space, 3 symbol; 0 for a combining mark, which continues whatever stands before it."""
    if character.isspace():
        return 2
    category = unicodedata.category(character)[0]
    return {"L": 1, "N": 1, "M": 0}.get(category, 3)
