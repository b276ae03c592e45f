"""`dingbridge status`: the daemon on one screen."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from dingbridge.causes import explain
from dingbridge.clock import DRIFT_S
from dingbridge.verbs import quota
from dingbridge.verbs.columns import labelled, table
from dingbridge.verbs.moments import moment, span
from dingbridge.verbs.words import Words


def render(status: dict[str, Any], words: Words, folder: Path) -> str:
    """folder: where a daemon was looked for."""
    pools = quota.rows(status["quota"], words) if "quota" in status else []
    lines = labelled([*_daemon(status, words, folder), *_queue(status, words), *pools])
    lines += [
        "",
        *_daemons(status, words),
        *_explained(status, words),
        *_lanes(status, words),
        *_failures(status, words),
    ]
    return "\n".join(lines)


def _daemon(status: dict[str, Any], words: Words, folder: Path) -> list[tuple[str, str]]:
    if "pid" not in status:
        return [(words("label_daemon"), _not_found(status, words, folder)), (words("label_store"), status["store"])]
    bad = [f"{name}: {part['why']}" for name, part in status["parts"].items() if not part["ok"]]
    link, backend = status["link"], status["backend"]
    frame = words("never") if link["last_frame_s"] is None else words("ago", span=span(link["last_frame_s"]))
    up = words("connected", since=span(link["since_s"]), opens=link["opens"], frame=frame)
    down = words("down", since=span(link["since_s"]), why=link["why"])
    failing = words("backend_bad", since=span(backend["since_s"]), why=backend["why"])
    uptime = words("running", uptime=span(status["uptime_s"]), pid=status["pid"])
    return [
        (words("label_daemon"), f"dingbridge {status['version']}  {uptime}"),
        (words("label_ready"), words("yes") if status["ready"] else f"{words('no')}  {'; '.join(bad)}"),
        (words("label_link"), up if link["connected"] else down),
        (words("label_backend"), words("backend_ok") if backend["ok"] else failing),
        (words("label_config"), status["config"]),
        *([(words("label_store"), status["store"])] if status["daemons"] else []),
    ]


def _not_found(status: dict[str, Any], words: Words, folder: Path) -> str:
    """Of a service, root has to be told the folder; those of another machine are reached there only."""
    live = [one for one in status["daemons"] if one["live"]]
    here = [one["name"] for one in live if one["host"] == socket.gethostname()]
    if here:
        return words("not_found_here", folder=folder, names=", ".join(here))
    return words("running_elsewhere", names=", ".join(one["name"] for one in live)) if live else words("not_running")


def _queue(status: dict[str, Any], words: Words) -> list[tuple[str, str]]:
    queue = status["queue"]
    if queue is None:
        return [(words("label_queue"), words("store_away", why=status["store_why"]))]
    return [(words("label_queue"), words("queue", **{**queue, "oldest": span(queue["oldest_s"])}))]


def _daemons(status: dict[str, Any], words: Words) -> list[str]:
    """Where there may be several: who is there, and what they divide."""
    if not status["daemons"]:
        return []
    shared = status["limits"]["api_per_second"]
    rows = [(f"  {one['name']}", one["host"], _one(one, words)) for one in status["daemons"]]
    return [words("daemons"), *table(rows), words("limits", all=shared["all"], count=shared["divided_by"]), ""]


def _one(daemon: dict[str, Any], words: Words) -> str:
    if not daemon["live"]:
        return words("daemon_silent", span=span(daemon["silent_s"]))
    live = words("daemon_live", pid=daemon["pid"], uptime=span(daemon["uptime_s"]), running=daemon["running"] or 0)
    seen = "" if daemon["answers"] else words("daemon_seen", span=span(daemon["silent_s"]))
    notes = [live + seen]
    notes += [words("daemon_here")] if daemon["answers"] else []
    notes += [words("daemon_duty")] if daemon["on_duty"] else []
    notes += [words("daemon_bad", why=daemon["why"])] if daemon["why"] else []
    if abs(daemon["clock_s"] or 0.0) >= DRIFT_S:
        notes.append(words("daemon_clock", span=span(abs(daemon["clock_s"]))))
    return "; ".join(notes)


def _explained(status: dict[str, Any], words: Words) -> list[str]:
    """What is wrong just now, and what to do."""
    causes = [status[part]["cause"] for part in ("link", "backend") if part in status]
    lines: list[str] = []
    for cause in dict.fromkeys(causes):
        if (found := explain(cause, words.locale)) is not None:
            lines += [words("cause", text=found.cause, key=cause), words("remedy", text=found.remedy), ""]
    return lines


def _lanes(status: dict[str, Any], words: Words) -> list[str]:
    if not status["lanes"]:
        return []
    rows = [(f"  {one['code']}", words(f"state_{one['state']}"), _lane(one, words)) for one in status["lanes"]]
    return [words("lanes", count=len(rows)), *table(rows), ""]


def _lane(lane: dict[str, Any], words: Words) -> str:
    due = words("due", span=span(lane["due_s"])) if lane["due_s"] > 0 else ""
    tries = words("tries", count=lane["tries"]) if lane["tries"] else ""
    return words("lane", behind=lane["waiting"] - 1, oldest=span(lane["oldest_s"]), due=due, tries=tries)


def _failures(status: dict[str, Any], words: Words) -> list[str]:
    if status["queue"] is None:
        return []
    if not status["failures"]:
        return [words("no_failures")]
    rows = [
        (f"  {moment(one['at'])}", one["code"], words(f"outcome_{one['outcome']}"), one["cause"] or one["why"])
        for one in status["failures"]
    ]
    return [words("failures"), *table(rows), words("hint_trace")]
