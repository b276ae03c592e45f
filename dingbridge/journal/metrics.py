"""Counters for Prometheus. Never a user, a conversation or a message id as a label."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from dingbridge.model import Entry, Outcome, Verdict
from dingbridge.store.operate import Depth

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60, 120, 300)


class Metrics:
    """A registry of its own, so that several daemons of one test do not share counters."""

    def __init__(self, version: str) -> None:
        self.registry = CollectorRegistry()
        self.messages = Counter(
            "dingbridge_messages_total", "Messages by how they ended", ["result"], registry=self.registry
        )
        for outcome in Outcome:
            self.messages.labels(outcome)
        self.duration = Histogram(
            "dingbridge_message_duration_seconds",
            "Time of a message by stage",
            ["stage"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.first_token = Histogram(
            "dingbridge_llm_first_token_seconds", "Time to the first token", buckets=_SECONDS, registry=self.registry
        )
        self.retries = Counter(
            "dingbridge_retries_total", "Repeated calls", ["target", "reason"], registry=self.registry
        )
        self.connected = Gauge(
            "dingbridge_gateway_connected", "1 while a link to DingTalk is up", registry=self.registry
        )
        self.last_frame = Gauge(
            "dingbridge_gateway_last_frame_timestamp_seconds", "When the last frame came", registry=self.registry
        )
        self.reconnects = Counter(
            "dingbridge_gateway_reconnects_total", "Links that ended, by why", ["reason"], registry=self.registry
        )
        self.frames = Counter(
            "dingbridge_gateway_frames_total", "Frames by what became of them", ["result"], registry=self.registry
        )
        self.duplicates = Counter(
            "dingbridge_duplicates_total", "Messages that came again", ["layer"], registry=self.registry
        )
        self.ack = Histogram(
            "dingbridge_ack_duration_seconds",
            "From a message's frame to the end of its commit",
            buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5),
            registry=self.registry,
        )
        self.depth = Gauge("dingbridge_inbox_depth", "Unfinished messages by state", ["state"], registry=self.registry)
        self.oldest = Gauge(
            "dingbridge_inbox_oldest_age_seconds", "Age of the oldest unfinished message", registry=self.registry
        )
        self.dead = Gauge(
            "dingbridge_dead_letters", "Messages of the last seven days that were given up", registry=self.registry
        )
        self.loop_lag = Gauge(
            "dingbridge_loop_lag_seconds", "How late the event loop's last timer was", registry=self.registry
        )
        self.commit = Histogram(
            "dingbridge_store_commit_seconds",
            "Time of a group of commits",
            buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5),
            registry=self.registry,
        )
        for more in (self._daemons, self._reloads, self._quotas, self._people):
            more()
        Gauge("dingbridge_build_info", "Constant 1", ["version"], registry=self.registry).labels(version).set(1)

    def _daemons(self) -> None:
        self.replicas = Gauge(
            "dingbridge_replicas", "Live daemons of this store, this one counted", registry=self.registry
        )
        self.on_duty = Gauge("dingbridge_on_duty", "1 where this daemon does the chores of all", registry=self.registry)

    def _reloads(self) -> None:
        self.reload_ok = Gauge(
            "dingbridge_config_last_reload_successful", "1 unless the last reload was refused", registry=self.registry
        )
        self.reload_at = Gauge(
            "dingbridge_config_last_reload_success_timestamp_seconds",
            "When the configuration in use was read",
            registry=self.registry,
        )

    def _quotas(self) -> None:
        self.quota = Counter(
            "dingbridge_quota_total", "What this daemon has taken of a pool", ["pool", "kind"], registry=self.registry
        )
        self.quota_used = Gauge(
            "dingbridge_quota_used", "Of this month's pool, by all daemons", ["pool"], registry=self.registry
        )
        self.quota_limit = Gauge(
            "dingbridge_quota_limit", "What a month's pool holds, 0: no limit", ["pool"], registry=self.registry
        )

    def _people(self) -> None:
        self.feedback = Counter(
            "dingbridge_feedback_total", "Votes on answers, changed ones again", ["verdict"], registry=self.registry
        )
        self.handovers = Counter(
            "dingbridge_handovers_total", "Questions handed to a colleague", ["event"], registry=self.registry
        )
        for verdict in Verdict:
            self.feedback.labels(verdict)
        for event in ("opened", "closed", "unreached"):
            self.handovers.labels(event)

    def happened(self, what: str, how: str) -> None:
        """Beside messages: `feedback` by verdict, `handover` by event."""
        (self.feedback if what == "feedback" else self.handovers).labels(how).inc()

    def reloaded(self, *, ok: bool) -> None:
        self.reload_ok.set(ok)
        if ok:
            self.reload_at.set(time.time())

    def inbox(self, depth: Depth) -> None:
        for state in ("ready", "leased", "answered", "sending"):
            self.depth.labels(state).set(depth.by_state.get(state, 0))
        self.oldest.set(depth.oldest_age_s)
        self.dead.set(depth.dead)

    def observe(self, entry: Entry) -> None:
        self.messages.labels(entry.outcome).inc()
        if entry.outcome is Outcome.DUPLICATE:
            self.duplicates.labels("message").inc()
        for stage, seconds in (
            ("queue", entry.queue_s),
            ("llm", entry.handler_s),
            ("reply", entry.reply_s),
            ("total", entry.total_s),
        ):
            if seconds is not None:
                self.duration.labels(stage).observe(seconds)
        if entry.first_token_s is not None:
            self.first_token.observe(entry.first_token_s)

    def link_event(self, name: str) -> None:
        """What the stream tells: an ended link by why, or a frame by what became of it."""
        if name in ("rotated", "lost", "rejected"):
            self.reconnects.labels(name).inc()
        elif name != "connected":
            self.frames.labels(name).inc()
            self.last_frame.set(time.time())

    def text(self) -> bytes:
        return generate_latest(self.registry)
