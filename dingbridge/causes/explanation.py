"""The noun that both catalogues are made of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Explanation:
    """One sentence each: what is wrong, and what to look at or to do."""

    cause: str
    remedy: str
