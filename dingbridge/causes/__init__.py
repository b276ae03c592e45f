"""What is behind a failure, in the operator's words: the cause and its remedy, by the key that errors carry.

A key says what an operator would do differently, not where in the program it happened. The error's own text says
the rest: which host, which status, which part of the configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from dingbridge.causes import en, zh
from dingbridge.causes.explanation import Explanation

__all__ = ["CAUSES", "Explanation", "explain"]

CAUSES: Mapping[str, Mapping[str, Explanation]] = MappingProxyType({"zh-CN": zh.TEXTS, "en": en.TEXTS})


def explain(cause: str, locale: str) -> Explanation | None:
    """In the locale of the configuration, "zh-CN" or "en"; None for a key that nothing is known of."""
    return CAUSES[locale].get(cause)
