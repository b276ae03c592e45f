"""What is behind a failure, in the operator's words: the cause and its remedy, by the key that errors carry.

A key says what an operator would do differently, not where in the program it happened. The error's own text says
the rest: which host, which status, which part of the configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from dingbridge.causes import en, zh


@dataclass(frozen=True, slots=True)
class Explanation:
    """One sentence each: what is wrong, and what to look at or to do."""

    cause: str
    remedy: str


def _explained(texts: Mapping[str, tuple[str, str]]) -> Mapping[str, Explanation]:
    return MappingProxyType({key: Explanation(cause, remedy) for key, (cause, remedy) in texts.items()})


CAUSES: Mapping[str, Mapping[str, Explanation]] = MappingProxyType(
    {"zh-CN": _explained(zh.TEXTS), "en": _explained(en.TEXTS)}
)


def explain(cause: str, locale: str) -> Explanation | None:
    """In the locale of the configuration, "zh-CN" or "en"; None for a key that nothing is known of."""
    return CAUSES[locale].get(cause)
