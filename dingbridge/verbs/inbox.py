"""`dingbridge inbox`: what is kept, and one message of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dingbridge.verbs.columns import labelled, table
from dingbridge.verbs.moments import moment
from dingbridge.verbs.words import Words


def render_list(rows: list[Mapping[str, Any]], words: Words) -> str:
    if not rows:
        return words("inbox_empty")
    head = ("code", "received", "state", "outcome", "tries", "cause")
    return "\n".join(table([tuple(words(f"head_{name}") for name in head), *(_cells(row, words) for row in rows)]))


def _cells(row: Mapping[str, Any], words: Words) -> tuple[str, ...]:
    return (
        row["code"],
        moment(row["received_at"]),
        words(f"state_{row['state']}"),
        words(f"outcome_{row['outcome']}"),
        str(row["tries"] + 1),
        row["cause"] or row["why"],
    )


def render_one(row: Mapping[str, Any], words: Words, *, texts: bool) -> str:
    known = [
        (key, str(value)) for key, value in row.items() if key not in ("question", "answer") and value not in ("", None)
    ]
    lines = labelled((key, moment(row[key]) if key.endswith("_at") else value) for key, value in known)
    if not texts:
        return "\n".join([*lines, "", words("text_hidden" if row["question_kept"] else "text_forgotten")])
    shown = [words(key, text=row[key]) for key in ("question", "answer") if row[key]]
    return "\n".join([*lines, "", *(shown or [words("text_forgotten")])])
