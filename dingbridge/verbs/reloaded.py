"""`dingbridge reload`: what counts now, at each daemon."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dingbridge.verbs.words import Words


def render(told: Mapping[str, Any], words: Words) -> str:
    lines = _lines(told, words) if "daemons" not in told else []
    for one in told.get("daemons", ()):
        what = [one["error"]] if "error" in one else _lines(one, words)
        lines += [f"{one['name']}: {line}" for line in what]
    if elsewhere := told.get("elsewhere"):
        lines.append(words("reload_elsewhere", names=", ".join(elsewhere)))
    return "\n".join(lines)


def _lines(told: Mapping[str, Any], words: Words) -> list[str]:
    applied, restart = ", ".join(told["applied"]), ", ".join(told["restart"])
    lines = [words("reloaded", keys=applied)] if applied else []
    lines += [words("restart_needed", keys=restart)] if restart else []
    return lines or [words("reloaded_nothing")]
