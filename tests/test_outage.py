"""What is lost is told once, with its cause; what is found is told once, with how long it was away."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dingbridge.app import App
from dingbridge.errors import BackendError, BackendMalformed, BackendRejected, BackendUnavailable, StoreUnavailable
from dingbridge.model import Answer
from dingbridge.outage import Lost, Outage
from dingbridge.watched import Watched
from tests.house import House, until


@dataclass
class Watch:
    """An outage, its clock, and what was told."""

    now: float = 1000.0
    told: list[Lost | float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.outage = Outage(self.told.append, self.told.append, clock=lambda: self.now)

    def take(self) -> list[Lost | float]:
        taken, self.told[:] = list(self.told), []
        return taken

    def flap(self, times: int, every_s: float, cause: str = "") -> None:
        for _ in range(times):
            self.outage.lost("gone", cause)
            self.outage.found()
            self.now += every_s


def test_a_loss_is_told_once_and_the_find_with_its_length() -> None:
    """However often it fails meanwhile."""
    watch = Watch()
    for _ in range(300):
        watch.outage.lost("no connection", "refused")
        watch.now += 1.0
    assert watch.take() == [Lost("no connection", "refused", 0)]
    watch.outage.found()
    watch.outage.found()
    assert watch.take() == [300.0]


def test_success_alone_tells_nothing() -> None:
    """What was never lost is not found."""
    watch = Watch()
    watch.outage.found()
    assert watch.take() == []


def test_each_other_cause_is_told_once_in_an_outage() -> None:
    """A full disk that becomes a read-only one is news; two causes that take turns are not."""
    watch = Watch()
    for _ in range(200):
        for cause in ("full", "read-only"):
            watch.outage.lost(cause, cause)
            watch.now += 1.0
    assert watch.take() == [Lost("full", "full", 0), Lost("read-only", "read-only", 0)]
    watch.outage.found()
    assert watch.take() == [400.0]


def test_what_comes_and_goes_is_told_as_one_pair_a_minute() -> None:
    """The next pair brings the count of those that were not told."""
    watch = Watch()
    watch.flap(60, every_s=1.0)
    assert watch.take() == [Lost("gone", "", 0), 0.0]
    watch.flap(60, every_s=1.0)
    assert watch.take() == [Lost("gone", "", 59), 0.0]


def test_a_loss_that_stays_is_told_late_rather_than_never() -> None:
    """Within a minute of an earlier pair it is not told; when it is still lost then, it is."""
    watch = Watch()
    watch.flap(1, every_s=5.0)
    watch.take()
    watch.outage.lost("gone", "")
    assert watch.take() == []
    watch.now += 56.0
    watch.outage.lost("gone", "")
    assert watch.take() == [Lost("gone", "", 0)]
    watch.outage.found()
    assert watch.take() == [56.0]


def test_another_cause_after_a_pair_is_told_at_once() -> None:
    """Only the same trouble is worth no second word."""
    watch = Watch()
    watch.flap(1, every_s=1.0, cause="refused")
    watch.flap(1, every_s=1.0, cause="certificate")
    assert watch.take() == [Lost("gone", "refused", 0), 0.0, Lost("gone", "certificate", 0), 0.0]


def test_a_storm_of_causes_is_bounded() -> None:
    """Four losses a minute are told at most, whatever they are called."""
    watch = Watch()
    for number in range(100):
        watch.outage.lost("gone", f"cause {number}")
    assert len(watch.take()) == 4


def test_its_state_says_what_holds_now_and_since_when() -> None:
    """As a status page shows it."""
    watch = Watch()
    watch.now += 7.0
    assert watch.outage.state() == {"ok": True, "why": "", "cause": "", "since_s": 7.0}
    watch.outage.lost("no connection", "refused")
    watch.now += 3.0
    watch.outage.lost("no name", "dns")
    assert watch.outage.state() == {"ok": False, "why": "no name", "cause": "dns", "since_s": 3.0}
    watch.outage.found()
    watch.now += 2.0
    assert watch.outage.state() == {"ok": True, "why": "", "cause": "", "since_s": 2.0}


class Scripted:
    """A backend that does what it is told."""

    def __init__(self, *script: Answer | BackendError) -> None:
        self._script = list(script)

    async def ask(self, question: str, *, workspace: str, session: str, **_: Any) -> Answer:
        step = self._script.pop(0)
        if isinstance(step, BackendError):
            raise step
        return step


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (BackendUnavailable("down", cause="refused"), True),
        (BackendRejected("the key", cause="refused"), True),
        (BackendMalformed("a web page", retryable=True, cause="refused"), True),
        (BackendMalformed("nothing was asked", cause="refused"), False),
    ],
)
async def test_a_backend_is_lost_by_its_own_faults_only(error: BackendError, counts: bool) -> None:
    """Down or set up wrongly counts; an answer to one question that cannot be read does not; the error is passed on."""
    watch = Watch()
    backend = Watched(Scripted(error, Answer(refused=True)), watch.outage)
    with pytest.raises(type(error)) as raised:
        await backend.ask("问", workspace="w", session="s")
    assert raised.value is error
    assert watch.take() == ([Lost(error.detail, "refused", 0)] if counts else [])
    assert await backend.ask("问", workspace="w", session="s") == Answer(refused=True)
    assert watch.take() == ([0.0] if counts else [])


# -- in the daemon


def told_in(log_file: Path, *names: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in log_file.read_text("utf-8").splitlines()]
    return [line for line in lines if line["event"] in names]


async def make_room(app: App) -> None:
    """May meet a group of writes that is refused as a whole."""
    while True:
        with suppress(StoreUnavailable):
            await app.store._engine.run(lambda c: c.execute("PRAGMA max_page_count = 100000").fetchone())
            return


async def test_a_full_disk_is_told_once_and_so_is_its_end(house: House, log_file: Path) -> None:
    """However many messages and workers meet it, the log has one pair, with the remedy and the length."""
    house.backend.answer = str
    house.gateway.redeliver_after_s = 0.2
    async with house.app() as app:
        await house.gateway.wait_posts(await house.gateway.say("甲"))
        pages = await app.store._engine.run(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
        await app.store._engine.run(lambda c: c.execute(f"PRAGMA max_page_count = {pages}").fetchone())
        sent = [await house.gateway.say("乙" * 3000, user=f"u{number}") for number in range(8)]
        await until(lambda: app.store.trouble)
        await until(lambda: min(one.deliveries for one in sent) >= 3)
        await make_room(app)
        for one in sent:
            await house.gateway.wait_posts(one)
        await until(lambda: app.outages.store.state()["ok"])
        await until(lambda: told_in(log_file, "store.found"))

    told = told_in(log_file, "store.lost", "store.found")
    assert [line["event"] for line in told] == ["store.lost", "store.found"]
    assert "free some space" in told[0]["why"]
    assert told[1]["down_s"] >= 0


async def test_a_backend_that_is_down_is_told_once_and_stands_on_the_status_page(house: House, log_file: Path) -> None:
    """Many questions fail, one line says why; the first answer says that it is over."""
    house.backend.fault = "http503"
    async with house.app() as app:
        sent = [await house.gateway.say("年假有几天？", user=f"u{number}") for number in range(5)]
        await until(lambda: len(told_in(log_file, "message.later")) >= 10)
        assert "backend    NOT OK: " in app.vitals.page()
        assert "HTTP 503" in app.outages.backend.state()["why"]
        house.backend.fault = None
        for one in sent:
            await house.gateway.wait_posts(one, 2)  # the trouble, and the answer
        assert "backend    ok" in app.vitals.page()

    told = told_in(log_file, "backend.lost", "backend.found")
    assert [line["event"] for line in told] == ["backend.lost", "backend.found"]
    assert "HTTP 503" in told[0]["why"]
    assert told[1]["down_s"] > 0
