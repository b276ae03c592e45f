"""Every fault on every way between the daemon and the others: no accepted question is lost or left without a word.

Each row asks before the fault, during it and after it has healed, and looks at what the chat shows in the end.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from dingbridge.app import App
from dingbridge.dispatch import Pauses
from dingbridge.model import trace_code
from dingbridge.sim.anythingllm import AnythingLLM
from dingbridge.sim.gateway import Gateway, Sent
from dingbridge.texts import Texts
from tests.certificates import Authority
from tests.faultproxy import BLACK_HOLE, CLEAN, RESET, End, FaultProxy, How, Way
from tests.house import NOTICE, QUICK, REPEAT, House, leaked, until

TEXTS = Texts("zh-CN")
ROW_S = 90.0  # for a hang
HEALS_S = 0.7
TOO_LATE_S = 3.0
LASTS_S = 12.0  # where the question has its end under the fault: longer than its deadline
UNHEARD_S = 2.5  # where it may have to wait for the fault's end
DEADLINE_S = 5.0

TIMINGS = replace(
    QUICK,
    # A pong may take half a heartbeat, and the slow ways need that.
    stream=replace(QUICK.stream, open_s=2.0, heartbeat_s=2.0, close_s=0.3),
    pauses=Pauses(first_s=0.1, most_s=0.3, send_s=20.0, store_s=0.1, beat_s=0.5),
    reply_s=2.0,
)
ANYTHINGLLM = {
    "attempts": 1,
    "connect_timeout_s": 1,
    "first_token_timeout_s": 2,
    "idle_timeout_s": 1.5,
    "total_timeout_s": 4,
}


@dataclass(frozen=True)
class Fault:
    """What happens to a way. heals_s: it ends then; None: when the question has had its end, or after `lasts_s`."""

    up: Way = CLEAN
    down: Way = CLEAN
    refuse: bool = False
    heals_s: float | None = None


def both(way: Way, heals_s: float | None = None) -> Callable[[int], Fault]:
    return lambda _: Fault(way, way, heals_s=heals_s)


# Made with the number of bytes after which an answer is in its middle.
FAULTS: dict[str, Callable[[int], Fault]] = {
    "latency": both(Way(latency_s=0.2, jitter_s=0.1)),
    "bandwidth": both(Way(bytes_per_s=4_000)),
    "slices": both(Way(slices=(1, 3))),
    "late": both(Way(hold=True), HEALS_S),
    "too late": both(Way(hold=True), TOO_LATE_S),
    "reset at once": both(RESET),
    "reset midway": lambda midway: Fault(down=Way(end=End(How.RESET, midway))),
    "closed midway": lambda midway: Fault(down=Way(end=End(How.CLOSE, midway))),
    "silent midway": lambda midway: Fault(down=Way(end=End(How.SILENCE, midway))),
    "black hole": both(BLACK_HOLE, HEALS_S),
    "answers vanish": lambda _: Fault(down=BLACK_HOLE, heals_s=HEALS_S),
    "requests vanish": lambda _: Fault(up=BLACK_HOLE, heals_s=HEALS_S),
    "half-closed there": lambda _: Fault(down=Way(end=End(How.FIN))),
    "half-closed here": lambda _: Fault(up=Way(end=End(How.FIN, 50))),
    "timeout": both(Way(end=End(How.CLOSE, after_s=0.5))),
    "refused": lambda _: Fault(refuse=True, heals_s=HEALS_S),
}


# What the question asked during a fault comes to, in the words of `Between.shown`, where it is not "answer".
SENDING = {
    "too late": "answer *answer | *answer answer",  # the network let go of both at once
    "reset midway": "answer *answer",
    "closed midway": "answer *answer",
    "silent midway": "answer *answer",
    "black hole": "*answer",
    "answers vanish": "answer *answer",
    "requests vanish": "*answer",
    "half-closed here": "*answer",
    "timeout": "*answer",
}
ASKING = {
    "too late": "trouble answer",
    "reset at once": "trouble failure",
    "reset midway": "answer…",
    "closed midway": "answer…",
    "silent midway": "answer…",
    "black hole": "trouble answer",
    "answers vanish": "trouble answer",
    "requests vanish": "trouble answer",
    "half-closed there": "trouble failure",
    "half-closed here": "trouble failure",
    "timeout": "trouble failure",
    "refused": "trouble answer",
}


@dataclass(frozen=True)
class Edge:
    """A way between the daemon and another. midway: bytes after which an answer on it is in its middle."""

    proxies: tuple[str, ...]
    midway: int
    seen: Mapping[str, str] = field(default_factory=dict)
    lasts_s: float = UNHEARD_S


EDGES = {
    "link": Edge(("link",), 700),
    "open call": Edge(("api",), 250),
    "webhook": Edge(("webhook",), 100, SENDING),
    "openapi": Edge(("api",), 100, SENDING),
    "webhook and openapi": Edge(("webhook", "api"), 100, SENDING),
    "anythingllm": Edge(("anythingllm",), 900, ASKING, LASTS_S),
}


@dataclass
class Between:
    """Both stand-ins, the daemon's house, and a proxy on each way."""

    house: House
    authority: Authority
    proxies: dict[str, FaultProxy]

    @property
    def gateway(self) -> Gateway:
        return self.house.gateway

    @asynccontextmanager
    async def app(self) -> AsyncIterator[App]:
        async with self.house.app(
            timings=TIMINGS,
            dingtalk={"api_base": secure(self.proxies["api"]), "ca_file": self.authority.ca_file},
            anythingllm={**ANYTHINGLLM, "base_url": self.proxies["anythingllm"].url},
            limits={"answer_deadline_min": DEADLINE_S / 60},
            reply={"notice_after_s": 0.4},
        ) as app:
            yield app

    async def strike(self, edge: Edge, fault: Fault) -> None:
        for proxy in (self.proxies[name] for name in edge.proxies):
            proxy.set(up=fault.up, down=fault.down)
            if fault.refuse:
                proxy.refuse()

    async def heal(self, edge: Edge) -> None:
        for proxy in (self.proxies[name] for name in edge.proxies):
            proxy.heal()
            await proxy.listen()

    def shown(self, sent: Sent) -> str:
        """What the chat shows for a question, in order: answer, trouble, failure. *: marked as a repeat, …: partial."""
        code = trace_code(self.gateway.client_id, sent.msg_id)
        shown = []
        for post in self.gateway.posts:
            star = "*" if REPEAT in post.text else ""
            if sent.text in post.text:
                shown.append(star + "answer" + ("…" if TEXTS("partial") in post.text else ""))
            elif code in post.text:
                shown.append(star + ("trouble" if TEXTS("trouble") in post.text else "failure"))
        return " ".join(shown)

    def ends(self) -> set[str]:
        """The states in which the store keeps the messages."""
        store = sqlite3.connect(self.house.folder / "state" / "dingbridge.db")
        states = {state for (state,) in store.execute("SELECT state FROM message")}
        store.close()
        return states


@asynccontextmanager
async def between(folder: Path, authority: Authority) -> AsyncIterator[Between]:
    """With a robot and secrets that no other row has. DingTalk speaks TLS, which a fault may strike, too."""
    async with (
        Gateway(
            client_id=f"ding{secrets.token_hex(8)}",
            client_secret=secrets.token_hex(16),
            ssl_context=authority.server(),
            public_host="localhost",
        ) as gateway,
        AnythingLLM(api_key=secrets.token_hex(16)) as backend,
        FaultProxy(gateway.port) as link,
        FaultProxy(gateway.port) as api,
        FaultProxy(gateway.port) as webhook,
        FaultProxy(int(backend.url.rsplit(":", 1)[1])) as anythingllm,
    ):
        gateway.endpoint = gateway.endpoint.replace(str(gateway.port), str(link.port))
        gateway.url = secure(webhook)
        gateway.redeliver_after_s = 0.4
        backend.answer = lambda question: f"{question}：" + "一二三四五六七八九十" * 5
        proxies = {"link": link, "api": api, "webhook": webhook, "anythingllm": anythingllm}
        yield Between(House(gateway, backend, folder), authority, proxies)


def secure(proxy: FaultProxy) -> str:
    return f"https://localhost:{proxy.port}"


def events(log_file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log_file.read_text(encoding="utf-8").splitlines()]


def folders(within: Path) -> list[Path]:
    """One a fault."""
    made = [within / str(number) for number, _ in enumerate(FAULTS)]
    for one in made:
        one.mkdir()
    return made


async def settled(app: App, sent: Sent) -> None:
    """Accepted, and nothing in the inbox any more."""
    await sent.acknowledged.wait()
    while (await app.store.depth()).by_state:
        await asyncio.sleep(0.02)


async def play(edge: Edge, fault: Fault, way: Between) -> dict[str, str]:
    """What the chat shows for a question before the fault, one during it, and one after it."""
    gateway = way.gateway
    if edge is EDGES["openapi"]:
        gateway.webhook_fault = 300001
    async with way.app() as app:
        before = await gateway.say("之前的问题")
        await settled(app, before)
        await way.strike(edge, fault)
        if edge is EDGES["open call"]:  # it is made when the link is gone
            (await gateway.connected()).cut()
        during = await gateway.say("其间的问题")
        with suppress(TimeoutError):
            async with asyncio.timeout(fault.heals_s or edge.lasts_s):
                await settled(app, during)
        struck = fault.refuse or any(way.proxies[name].struck for name in edge.proxies)
        await way.heal(edge)
        after = await gateway.say("之后的问题")
        await settled(app, after)
        await settled(app, during)
        await until(lambda: app.stream.state.connected)
    assert struck, "the fault never acted"
    assert edge is not EDGES["openapi"] or {post.path for post in gateway.posts} == {"oto"}
    assert way.ends() == {"done"}
    assert not gateway.wrong_socket_acks
    assert [post.text for post in gateway.posts].count(NOTICE) <= 3
    return {"before": way.shown(before), "during": way.shown(during), "after": way.shown(after)}


async def row(edge: Edge, name: str, folder: Path, authority: Authority, log_file: Path) -> None:
    """Raises where the promise is broken, with the row's name."""
    try:
        async with asyncio.timeout(ROW_S), between(folder, authority) as way:
            shown = await play(edge, FAULTS[name](edge.midway), way)
            promised = edge.seen.get(name, "answer").split(" | ")
            assert shown in [{"before": "answer", "during": one, "after": "answer"} for one in promised]
            assert not leaked(way.house, log_file)
    except Exception as error:
        error.add_note(f"fault: {name}")
        raise


@pytest.mark.parametrize("edge", list(EDGES))
async def test_each_fault_on(edge: str, tmp_path: Path, log_file: Path) -> None:
    """What was accepted is answered once, or once more and marked, or its asker is told; then all is as before."""
    authority = Authority(tmp_path / "pki")
    rows = zip(FAULTS, folders(tmp_path), strict=True)
    results = await asyncio.gather(
        *(row(EDGES[edge], name, folder, authority, log_file) for name, folder in rows), return_exceptions=True
    )
    failures = {name: one for name, one in zip(FAULTS, results, strict=True) if one is not None}
    if failures:
        raise BaseExceptionGroup(f"{edge}: {', '.join(failures)}", list(failures.values()))
    # What is lost is told as an error, once; nothing else is one.
    louder = {one["event"] for one in events(log_file) if one["level"] not in ("info", "warning")}
    assert louder <= {"backend.lost", "store.lost"}
