"""What `dingbridge status` says of DingTalk's monthly pools, in Chinese and English; a part of `words.py`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

QUOTA_ZH: Mapping[str, str] = MappingProxyType(
    {
        "label_quota_api": "接口额度",
        "label_quota_messages": "消息额度",
        "quota_used": "{month} 已用 {used} / {limit}（{percent} %，这个月过了 {elapsed} %）",
        "quota_unlimited": "{month} 已用 {used}，没有设上限",
        "quota_lasts": "，照最近一周到月底约 {forecast}",
        "quota_runs_out": "，照最近一周 {day} 日用完",
        "quota_over": "，已超过上限，仍然回答",
        "quota_refused": "，钉钉说已用完",
        "quota_no_emotion": "；不再用表情提示",
        "quota_no_notice": "；不再发等待提示",
        "quota_fewer_frames": "；卡片刷新放慢到 {seconds} 秒",
        "quota_final_only": "；卡片只显示最后全文",
        "quota_no_card": "；暂不用卡片",
    }
)

QUOTA_EN: Mapping[str, str] = MappingProxyType(
    {
        "label_quota_api": "API quota",
        "label_quota_messages": "message quota",
        "quota_used": "{month}: {used} of {limit} ({percent} %, {elapsed} % of the month gone)",
        "quota_unlimited": "{month}: {used}, no limit is set",
        "quota_lasts": ", by the last week about {forecast} at its end",
        "quota_runs_out": ", by the last week spent on day {day}",
        "quota_over": ", beyond the limit; answers go on",
        "quota_refused": ", DingTalk says it is spent",
        "quota_no_emotion": "; no emotion as a notice",
        "quota_no_notice": "; no waiting notices",
        "quota_fewer_frames": "; cards refresh each {seconds} s only",
        "quota_final_only": "; cards show the whole text only",
        "quota_no_card": "; no cards for now",
    }
)
