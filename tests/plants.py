"""Bugs planted on purpose: a piece of real code is written differently, and has to be found out."""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FunctionType
from typing import Any
from unittest.mock import patch

from dingbridge.desk import Desk
from dingbridge.sending import Sending
from dingbridge.store import intake, postgres_schema, recovery, schema, work
from dingbridge.store.sqlite import SQLiteStore


@dataclass(frozen=True, slots=True)
class Change:
    """In `owner.name`, a function or a constant, `old` becomes `new`; it stands there exactly once."""

    owner: Any
    name: str
    old: str
    new: str

    def changed(self) -> object:
        value = inspect.getattr_static(self.owner, self.name)
        if isinstance(value, str | tuple):
            return _replaced(value, self.old, self.new)
        if isinstance(value, dict):
            return dict(zip(value, _replaced(tuple(value.values()), self.old, self.new), strict=True))
        assert isinstance(value, FunctionType)
        source = textwrap.dedent(inspect.getsource(value))
        assert source.count(self.old) == 1, f"{self.name} has changed: plant another bug"
        scope: dict[str, Any] = {}
        code = "from __future__ import annotations\n" + source.replace(self.old, self.new)
        # With the module's own globals, so that what is planted elsewhere is seen, too.
        exec(compile(code, inspect.getfile(value), "exec"), sys.modules[value.__module__].__dict__, scope)
        return scope[self.name]


def _replaced(value: str | tuple[str, ...], old: str, new: str) -> str | tuple[str, ...]:
    text = value if isinstance(value, str) else "\0".join(value)
    assert text.count(old) == 1, "the statement has changed: plant another bug"
    text = text.replace(old, new)
    return text if isinstance(value, str) else tuple(text.split("\0"))


@contextmanager
def planted(*changes: Change) -> Iterator[None]:
    with ExitStack() as stack:
        for change in changes:
            stack.enter_context(patch.object(change.owner, change.name, change.changed()))
        yield


BUGS: dict[str, tuple[Change, ...]] = {
    "dedupe: a message that comes again is not known": (
        Change(schema, "MIGRATIONS", "UNIQUE (robot, key)", "CHECK (robot <> '')"),
        Change(intake, "put", "if (known := found.fetchone()) is not None:", "if known := None:"),
    ),
    "dedupe: only unfinished messages are known": (
        Change(schema, "MIGRATIONS", "UNIQUE (robot, key)", "CHECK (robot <> '')"),
        Change(intake, "put", "found.fetchone()) is not None:", "found.fetchone()) and known[3] is None:"),
    ),
    "dedupe: a duplicate /new starts one more topic": (
        Change(intake, "put", "remember_webhook(c, message)", "fresh and _raised(c, limits.context_of(message), now)"),
    ),
    "lane order: the newest comes next": (Change(work, "advance", "min(id)", "max(id)"),),
    "lane order: /cancel frees a lane whose head still runs": (
        Change(work, "cancel", "if head in ended:", "if True:"),
    ),
    "lane order: a lane in work is leased again": (
        Change(work, "_DUE", "WHERE token IS NULL AND express = ?", "WHERE express = ?"),
    ),
    "sending marker: a crash forgets that a part was going out": (
        Change(recovery, "_BACK", "CASE WHEN state = 'sending' THEN TRUE ELSE uncertain END", "uncertain"),
    ),
    "sending marker: a planned stop forgets it": (
        Change(recovery, "release_all", "SET {_BACK}, ", "SET {_BACK.replace('THEN TRUE', 'THEN FALSE')}, "),
    ),
    "sending marker: a reply given back forgets it": (
        Change(work, "give_back", "part = ?, uncertain = ?", "part = ?, uncertain = 0 * ?"),
    ),
    "notice: told again": (Change(SQLiteStore, "claim_notice", "SET noticed = TRUE", "SET noticed = FALSE"),),
    "trouble: told again": (Change(work, "claim_trouble", "SET troubled = TRUE", "SET troubled = FALSE"),),
    "context: /new moves nothing": (
        Change(intake, "put", "_raised(c, context, now) if fresh else generation()", "generation()"),
    ),
    "card: its last word is said before that is kept": (
        Change(Sending, "_leave_card", "await lease.card_is(CardState.LEFT)", "lease.card = None"),
    ),
    "card: what may stand on it comes without a mark": (
        Change(Sending, "send", "(delivery.uncertain or doubt)", "delivery.uncertain"),
    ),
    "card: another answer than the one on it is not told": (Change(work, "UNSHOWN", "'closed'", "'shown'"),),
    "card: one that nobody could close is forgotten": (
        Change(Desk, "close_cards", "says is CardState.OPEN and age_s < CARD_TRIED_S", "False"),
    ),
    "card: one that is still being made is forgotten": (
        Change(Desk, "close_cards", "says is not CardState.NONE or age_s >= CARD_MADE_S", "True"),
    ),
    "cancel: what is being answered, too": (
        Change(work, "cancel", "('ready', 'leased')", "('ready', 'leased', 'answered', 'sending')"),
    ),
}

# The three promises that the rest stands on, on either database.
BROKEN: dict[str, tuple[Change, ...]] = {
    "fence": (Change(work, "check", "!= (delivery.row, delivery.token)", "== ()"),),
    # One at a time, and in order.
    "lane rule": (
        Change(work, "_DUE", "WHERE token IS NULL AND express = ?", "WHERE express = ?"),
        Change(work, "advance", "min(id)", "max(id)"),
    ),
    "dedupe": (
        *BUGS["dedupe: a message that comes again is not known"],
        Change(postgres_schema, "MIGRATIONS", "UNIQUE (robot, key)", "CHECK (robot <> '')"),
    ),
}

# What shows only when three things meet, as a lane whose head is being sent, a question behind it, and a /cancel.
RARE = (
    "lane order: /cancel frees a lane whose head still runs",
    "sending marker: a planned stop forgets it",
    "card: one that is still being made is forgotten",
)
