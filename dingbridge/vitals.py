"""How the daemon is: for readiness, STATUS, the status page and `dingbridge status`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from dingbridge import __version__
from dingbridge.bridge import Bridge
from dingbridge.dingtalk.stream import Stream
from dingbridge.journal.budget import Budget
from dingbridge.outage import Condition
from dingbridge.store.store import Store
from dingbridge.watched import Outages
from dingbridge.web.listening import Health


class Vitals:
    """web: the health of the web server, None where there is none. stopping: whether the daemon drains.

    redact: masks what an error's text should not have held.
    """

    def __init__(
        self,
        *,
        store: Store,
        bridge: Bridge,
        stream: Stream,
        outages: Outages,
        web: Callable[[], Health | None],
        pages: Callable[[], Health | None],
        stopping: Callable[[], bool],
        budget: Budget | None = None,
        redact: Callable[[str], str] = str,
    ) -> None:
        self._store = store
        self._bridge = bridge
        self._stream = stream
        self._outages = outages
        self._web = web
        self._pages = pages
        self._stopping = stopping
        self._budget = budget
        self._redact = redact
        self._began = time.monotonic()

    def parts(self) -> dict[str, Health]:
        """What readiness is made of. The backend is not: questions are accepted and kept without it."""
        link, trouble = self._stream.state, self._store.trouble
        parts = {
            "store": Health(trouble is None, self._redact(trouble or "")),
            "link": Health(link.connected, self._redact(link.why)),
        }
        listeners = {"web": self._web(), "pages": self._pages()}
        parts |= {name: one for name, one in listeners.items() if one is not None and not one.ok}
        if self._stopping():
            parts["daemon"] = Health(False, "stopping")
        return parts

    def told(self) -> dict[str, Any]:
        """What the other daemons of the store may know."""
        parts = self.parts()
        bad = [f"{name}: {part.why}" for name, part in parts.items() if not part.ok]
        return {
            "version": __version__,
            "ready": not bad,
            "link": parts["link"].ok,
            "running": self._bridge.running,
            "why": "; ".join(bad),
        }

    def line(self) -> str:
        bad = [f"{name}: {part.why}" for name, part in self.parts().items() if not part.ok]
        return "; ".join(bad) if bad else f"connected, {self._bridge.running} answers in work"

    def page(self) -> str:
        """Plain text."""
        lines = [f"dingbridge {__version__}", ""]
        for name, part in self.parts().items():
            lines.append(f"{name:10} {'ok' if part.ok else 'NOT OK: ' + part.why}")
        backend = self._backend()
        lines.append(f"{'backend':10} {'ok' if backend['ok'] else 'NOT OK: ' + backend['why']}")
        lines.append(f"{'opens':10} {self._stream.state.opens}")
        lines.append(f"{'in work':10} {self._bridge.running}")
        return "\n".join([*lines, *self._quota(), *self._others()]) + "\n"

    def _quota(self) -> list[str]:
        if self._budget is None:
            return []
        return [
            f"{pool.replace('_', ' + '):10} {one['used']} of {one['limit'] or 'any'} this month, "
            f"about {one['forecast']} at its end{'; REFUSED by DingTalk' if one['refused'] else ''}"
            for pool, one in self._budget.facts()["pools"].items()
        ]

    def _others(self) -> list[str]:
        """As of the last heartbeat."""
        peers = self._store.peers_last_seen
        lines = ["", f"{len(peers)} daemons, {self._store.replicas} live"] if peers else []
        for peer in peers:
            notes = [f"{peer.facts.get('running', 0)} in work"] if peer.live else [f"silent for {peer.silent_s:.0f} s"]
            notes += ["this one"] if peer.name == self._store.owner else []
            notes += ["on duty"] if peer.live and peer.facts.get("on_duty") else []
            notes += [f"NOT OK: {self._redact(peer.facts['why'])}"] if peer.live and peer.facts.get("why") else []
            lines.append(f"{peer.name:24} {peer.host:16} {', '.join(notes)}")
        return lines

    def _backend(self) -> Condition:
        state = self._outages.backend.state()
        return {**state, "why": self._redact(state["why"])}

    def facts(self) -> dict[str, Any]:
        """For JSON; durations in seconds."""
        now, parts, link = time.monotonic(), self.parts(), self._stream.state
        backend = self._backend()
        return {
            "pid": os.getpid(),
            "uptime_s": round(now - self._began, 1),
            "ready": all(part.ok for part in parts.values()),
            "parts": {name: asdict(part) for name, part in parts.items()},
            "link": {
                "connected": link.connected,
                "why": parts["link"].why,
                "cause": link.cause,
                "since_s": round(now - link.since, 1),
                "opens": link.opens,
                "last_frame_s": None if link.last_frame is None else round(now - link.last_frame, 1),
            },
            "backend": {**backend, "since_s": round(backend["since_s"], 1)},
            "running": self._bridge.running,
            **({"quota": self._budget.facts()} if self._budget is not None else {}),
        }
