"""What the control socket says, in an operator's Chinese: causes with their remedies, each step in a sentence.

The words are those of `dingbridge status` and `dingbridge trace`. Whatever is missing in an answer stays missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from dingbridge.causes import explain
from dingbridge.verbs.moments import clock
from dingbridge.verbs.trace import said
from dingbridge.verbs.words import Words

LOCALE: Final = "zh-CN"
WORDS: Final = Words(LOCALE)

Told = Mapping[str, Any]


def status(told: Told) -> dict[str, Any]:
    """`/status`, with `explained` wherever a cause stands, and `words` for states and outcomes."""
    parts = {name: _with_cause(told[name]) for name in ("link", "backend") if isinstance(told.get(name), Mapping)}
    lanes = [{**row, "words": _lane(row)} for row in _rows(told, "lanes")]
    failures = [{**_with_cause(row), "words": _word("outcome", row)} for row in _rows(told, "failures")]
    return {**told, **parts, "lanes": lanes, "failures": failures}


def trace(told: Told) -> dict[str, Any]:
    """`/trace/…`, with `words` for how it ended, `causes` explained, and each step as {at, clock, text, why, ok}."""
    causes = [{"cause": key, **explained} for key in told.get("causes", ()) if (explained := _explained(key))]
    return {
        **told,
        "words": f"{_word('outcome', told)}（{_word('state', told)}）",
        "causes": causes,
        "steps": list(_steps(_rows(told, "steps"))),
    }


def _steps(rows: Iterable[Told]) -> Iterable[dict[str, Any]]:
    """A reason that stands at several steps is told at the first."""
    before = ""
    for row in rows:
        why = str(row.get("why", ""))
        yield {
            "at": row["at"],
            "clock": clock(row["at"]),
            "text": said(row, WORDS),
            "why": "" if why == before else why,
            "ok": not (row.get("ok") is False or row.get("cause")),
        }
        before = why or before


def _rows(told: Told, name: str) -> list[Told]:
    rows = told.get(name)
    return [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []


def _with_cause(told: Told) -> dict[str, Any]:
    return {**told, "explained": _explained(str(told.get("cause", "")))}


def _explained(cause: str) -> dict[str, str] | None:
    found = explain(cause, LOCALE)
    return None if found is None else {"what": found.cause, "remedy": found.remedy}


def _lane(row: Told) -> str:
    if row.get("state") == "ready" and row.get("due_s"):
        return "稍后再试"
    return _word("state", row)


def _word(kind: str, row: Told) -> str:
    key = f"{kind}_{row.get(kind, '')}"
    return WORDS(key) if WORDS.has(key) else str(row.get(kind, ""))
