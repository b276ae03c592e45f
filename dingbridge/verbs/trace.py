"""`dingbridge trace`: the whole way of one message, and what to do where it went wrong."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from dingbridge.causes import explain
from dingbridge.verbs.columns import labelled
from dingbridge.verbs.moments import clock, moment, span
from dingbridge.verbs.words import Words

_ENDS_OF_A_LEASE = frozenset({"crash", "taken_over", "given_back"})
_WELL = frozenset({"answered", "refused", "command"})
_SECONDS = ("waited_s", "delay_s", "wait_s")
_SAID = frozenset({"at", "name", "why", "cause", "ok", "ms", "first_token_ms", "certain", "marked"})


def render(trace: Mapping[str, Any], words: Words, *, now: float | None = None) -> str:
    outcome, state = words(f"outcome_{trace['outcome']}"), words(f"state_{trace['state']}")
    lines = [words("trace_title", code=trace["code"], outcome=outcome, state=state), *_causes(trace, words)]
    lines += labelled(_facts(trace, words, time.time() if now is None else now))
    lines.append("")
    told = ""
    for step in in_order(trace["steps"]):
        sentence, why = said(step, words), step.get("why", "")
        lines.append(f"{clock(step['at'])}  {sentence}")
        if why and why != told and why not in sentence:  # an error is handed on from step to step
            lines.append(f"{' ' * 14}{why}")
        told = why
    return "\n".join(lines)


def in_order(steps: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """By time; but nothing passes the end of a lease, for who goes on may be on a machine with another clock."""
    lease, placed = 0, []
    for step in steps:
        end = step["name"] in _ENDS_OF_A_LEASE
        lease += end
        placed.append(((lease, not end, float(step["at"])), step))
    return [step for _, step in sorted(placed, key=lambda one: one[0])]


def said(step: Mapping[str, Any], words: Words) -> str:
    """One step in a sentence; what the sentence has no place for stands behind it."""
    key = f"step_{step['name']}"
    if not words.has(key):
        return f"{step['name']}  {_rest(step, _SAID)}".rstrip()
    facts = defaultdict(str, step)
    for name in _SECONDS:
        if name in step:
            facts[name] = span(float(step[name]))
    facts["rung"] = words(f"rung_{step['rung']}") if words.has(f"rung_{step.get('rung')}") else ""
    for name in ("kind", "chat", "why"):
        if words.has(word := f"{name}_{facts[name]}"):
            facts[name] = words(word)
    facts["daemon"] = words("by_daemon", name=step["by"]) if step.get("by") else ""
    facts["result"] = _result(step, words)
    return words.filled(key, facts)


def _result(step: Mapping[str, Any], words: Words) -> str:
    if "ok" not in step:
        return ""
    ms = span(float(step.get("ms", 0)) / 1000)
    text = words("marked") if step.get("marked") else ""
    text += words("result_ok" if step["ok"] else "result_bad", ms=ms)
    if "first_token_ms" in step:
        text += words("result_first", first=span(float(step["first_token_ms"]) / 1000))
    return text + (words("uncertain") if step.get("certain") is False else "")


def _rest(step: Mapping[str, Any], without: frozenset[str]) -> str:
    return "  ".join(f"{key}={value}" for key, value in step.items() if key not in without)


def _causes(trace: Mapping[str, Any], words: Words) -> list[str]:
    """Why it ended so; of what ended well, what was met on the way."""
    well = trace["outcome"] in _WELL
    lines = []
    for cause in trace["causes"]:
        if (found := explain(cause, words.locale)) is not None:
            lines += [
                words("met" if well else "cause", text=found.cause, key=cause),
                words("remedy", text=found.remedy),
            ]
    return ["", *(lines or [trace["why"] or words("nothing_wrong")]), ""]


def _facts(trace: Mapping[str, Any], words: Words, now: float) -> list[tuple[str, str]]:
    """What is known of it beside its steps; a message that was not kept has nothing else."""
    pairs = [(words("label_message"), trace["message"])]
    if "received_at" not in trace:
        return pairs
    pairs.append((words("label_asker"), f"{trace['person']} @ {trace['conversation']}"))
    if trace["route"]:
        pairs.append((words("label_route"), trace["route"]))
    ended = trace["finished_at"]
    took = "trace_total" if ended else "trace_open"
    lasted = words(took, span=span(max(0.0, (ended or now) - trace["received_at"])))
    tries = words("tries_crashes", tries=trace["tries"] + 1, crashes=trace["crashes"], lasted=lasted)
    pairs.append((words("label_tries"), tries))
    if not ended and trace["deadline_at"]:
        pairs.append((words("label_deadline"), moment(trace["deadline_at"])))
    if trace["due_at"] and trace["due_at"] > now:
        pairs.append((words("label_next"), moment(trace["due_at"])))
    if trace["owner"]:
        pairs.append((words("label_owner"), trace["owner"]))
    return [*pairs, (words("label_lane"), trace["lane"])]
