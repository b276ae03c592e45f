"""DingTalk's monthly pools in words, for `dingbridge status`."""

from __future__ import annotations

from typing import Any

from dingbridge.journal.thrift import API, WEBHOOK_STREAM, Level, interval_s
from dingbridge.verbs.columns import labelled
from dingbridge.verbs.words import Words

_LABELS = {API: "label_quota_api", WEBHOOK_STREAM: "label_quota_messages"}


def render(quota: dict[str, Any], words: Words) -> str:
    return "\n".join(labelled(rows(quota, words)))


def rows(quota: dict[str, Any], words: Words) -> list[tuple[str, str]]:
    return [
        (words(label), _pool(pool, quota["pools"][pool], quota, words))
        for pool, label in _LABELS.items()
        if pool in quota["pools"]
    ]


def _pool(name: str, pool: dict[str, Any], quota: dict[str, Any], words: Words) -> str:
    month, used, limit = quota["month"], pool["used"], pool["limit"]
    if not limit:
        return words("quota_unlimited", month=month, used=used) + _refused(pool, words)
    percent, elapsed = str(100 * used // limit), f"{100 * quota['elapsed']:.0f}"
    told = words("quota_used", month=month, used=used, limit=limit, percent=percent, elapsed=elapsed)
    if used >= limit:
        told += words("quota_over")
    elif pool["runs_out_day"] is not None:
        told += words("quota_runs_out", day=pool["runs_out_day"])
    else:
        told += words("quota_lasts", forecast=pool["forecast"])
    return told + _refused(pool, words) + _left_out(name, pool["level"], words)


def _refused(pool: dict[str, Any], words: Words) -> str:
    return words("quota_refused") if pool["refused"] else ""


def _left_out(pool: str, level: str, words: Words) -> str:
    """A level of another version is not explained."""
    now = Level.__members__.get(level.upper(), Level.FULL)
    if now is Level.FULL:
        return ""
    if pool == WEBHOOK_STREAM:
        return words("quota_no_notice")
    if now is Level.NO_NOTICE:
        return words("quota_no_emotion")
    if now is Level.NO_CARD:
        return words("quota_no_card")
    pause_s = interval_s(now)
    return words("quota_final_only") if pause_s is None else words("quota_fewer_frames", seconds=int(pause_s))
