"""Three daemons whose database restarts, dies, hangs, or is out of reach for one of them, while people ask."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from dingbridge.sim.anythingllm import AnythingLLM
from dingbridge.sim.gateway import Gateway
from dingbridge.sim.gateway_records import Sent
from dingbridge.store.store import LEASE_S
from tests.faultproxy import BLACK_HOLE, FaultProxy
from tests.fleet import Fleet, Member, fleet
from tests.house import until
from tests.kills_judge import Count, all_seen, answer, judge
from tests.postgres import Server

EVERY_S = 0.1
PEOPLE = 40
LIMITS = {"waiting_per_lane": 0, "per_user_per_minute": 0, "drain_s": 3}


class People:
    """They `ask()` all the time, until they are judged."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._enough = False
        self.sent: list[Sent] = []

    async def ask(self) -> None:
        while not self._enough:
            number = len(self.sent)
            self.sent.append(
                await self._gateway.say(f"问题{number:05d}", user=f"u{number % PEOPLE:03d}", msg_id=f"msg-{number:05d}")
            )
            await asyncio.sleep(EVERY_S)

    async def see_more(self, count: int = 20) -> None:
        """So many more questions are asked, and answered."""
        begin = len(self.sent)
        await until(lambda: len(self.sent) >= begin + count, 60.0)
        await all_seen(self._gateway, self.sent[begin : begin + count], 60.0)

    async def judge(self) -> Count:
        self._enough = True
        await all_seen(self._gateway, self.sent)
        count = Count(questions=len(self.sent))
        judge(self._gateway, self.sent, count)
        print(count)
        return count


@pytest.fixture
def server() -> Iterator[Server]:
    """One that keeps what was committed."""
    with Server() as one:
        yield one


@asynccontextmanager
async def asked(
    gateway: Gateway, backend: AnythingLLM, folder: Path, url: str, **how: Any
) -> AsyncIterator[tuple[Fleet, People]]:
    """Three daemons at work on questions."""
    gateway.redeliver_after_s = 3.0
    gateway.webhook_delay_s = 0.05
    backend.answer, backend.answer_delay_s = answer, 0.5
    people = People(gateway)
    how = {"limits": LIMITS, "web": {"listen": "127.0.0.1:0"}, **how}
    async with fleet(gateway, backend, folder, url, **how) as ships:
        asking = asyncio.create_task(people.ask())
        try:
            await people.see_more()
            yield ships, people
        finally:
            asking.cancel()
            await asyncio.wait([asking])


async def ready(member: Member) -> tuple[int, dict[str, Any]]:
    """What /readyz says."""
    address = member.events("web.listening")[-1]["address"]
    async with aiohttp.ClientSession() as session, session.get(f"http://{address}/readyz") as response:
        return response.status, json.loads(await response.text())["parts"]


async def become(member: Member, status: int, timeout_s: float = 60.0) -> dict[str, Any]:
    """The parts, as soon as readiness has this status."""
    async with asyncio.timeout(timeout_s):
        while True:
            told, parts = await ready(member)
            if told == status:
                return parts
            await asyncio.sleep(0.1)


def links(gateway: Gateway) -> int:
    return sum(connection.state.value == "live" for connection in gateway.connections)


async def without_links(ships: Fleet, gateway: Gateway, timeout_s: float = 60.0) -> None:
    """All have left theirs, in order, and say why."""
    before = list(gateway.connections)
    await until(lambda: not gateway.connections, timeout_s, "the links to be left")
    assert [connection.closed_code for connection in before] == [1000, 1000, 1000]
    for member in ships.members:
        parts = await become(member, 503)
        assert "PostgreSQL" in parts["store"]["why"]
        assert parts["link"]["why"].startswith("left to other daemons: store PostgreSQL")


async def all_well(ships: Fleet, gateway: Gateway, people: People, outage: Callable[[], Any]) -> None:
    """After the outage's end: links again, ready again, answers again, by the same processes."""
    await asyncio.to_thread(outage)
    await gateway.connected(3, timeout_s=60)
    for member in ships.members:
        await become(member, 200)
    await people.see_more()


def no_harm(ships: Fleet) -> None:
    """Nobody was taken for dead, and no message for what kills a daemon."""
    assert ships.query("SELECT count(*) FROM message WHERE crashes > 0") == [(0,)]
    for member in ships.members:
        assert member.events("store.taken_over") == []
        assert len(member.events("daemon.started")) == 1


@pytest.mark.timeout(300)
async def test_a_database_that_restarts_or_dies_costs_nothing_that_was_accepted(
    server: Server, gateway: Gateway, backend: AnythingLLM, tmp_path: Path
) -> None:
    """All is answered once, nobody is taken for dead; without it the daemons are not ready, have no link, and end."""
    async with asked(gateway, backend, tmp_path, server.url) as (ships, people):
        await asyncio.to_thread(server.restart)
        await people.see_more()

        await asyncio.to_thread(server.kill)
        await without_links(ships, gateway)
        await all_well(ships, gateway, people, server.start)
        no_harm(ships)

        await asyncio.to_thread(server.kill)
        assert await ships.stop() in ([0, 0, 0], [1, 1, 1])
        await asyncio.to_thread(server.start)
        await ships.start()
        count = await people.judge()
        assert await ships.stop() == [0, 0, 0]
    assert count.faults == {}
    assert count.told == 0


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_database_that_hangs_costs_nothing_that_was_accepted(
    server: Server, gateway: Gateway, backend: AnythingLLM, tmp_path: Path
) -> None:
    """Longer than a lease lasts; and a daemon ends within its bounds while it hangs."""
    async with asked(gateway, backend, tmp_path, server.url) as (ships, people):
        await asyncio.to_thread(server.pause)
        await without_links(ships, gateway)
        await asyncio.sleep(LEASE_S)
        await all_well(ships, gateway, people, server.resume)
        no_harm(ships)

        await asyncio.to_thread(server.pause)
        began = asyncio.get_running_loop().time()
        print(await ships.stop(), asyncio.get_running_loop().time() - began)
        await asyncio.to_thread(server.resume)
        await ships.start()
        count = await people.judge()
        assert await ships.stop() == [0, 0, 0]
    assert count.faults == {}
    assert count.told == 0


@pytest.mark.timeout(300)
@pytest.mark.slow
@pytest.mark.parametrize("hole", [False, True])
async def test_a_daemon_that_alone_has_lost_the_database_is_relieved(
    server: Server, gateway: Gateway, backend: AnythingLLM, tmp_path: Path, *, hole: bool
) -> None:
    """The others go on with what it had, what it may have sent twice is marked, and it comes back by itself."""
    async with FaultProxy(server.port) as proxy:
        urls = {0: server.url_of(port=proxy.port)}
        async with asked(gateway, backend, tmp_path, server.url, urls=urls) as (ships, people):
            alone, *others = ships.members
            while not (await ships.held(alone.pid))[0]:
                await asyncio.sleep(0.01)
            if hole:
                proxy.both(BLACK_HOLE)
            else:
                proxy.refuse()
            in_hand, sending = await ships.held(alone.pid)
            await until(lambda: links(gateway) == 2, 60.0, "its link to be left")
            await people.see_more()
            assert "PostgreSQL" in (await become(alone, 503))["store"]["why"]
            async with asyncio.timeout(3 * LEASE_S):
                while (await ships.held(alone.pid))[0]:
                    await asyncio.sleep(0.2)
            taken = sum(event["returned"] for member in others for event in member.events("store.taken_over"))
            if hole:
                proxy.heal()
            else:
                await proxy.listen()
            await become(alone, 200)
            await gateway.connected(3, timeout_s=60)
            await people.see_more()
            count = await people.judge()
            print(f"{in_hand} in hand, {sending} of them going out, {taken} taken over")
            assert await ships.stop() == [0, 0, 0]
    assert count.faults == {}
    assert count.told == 0
    assert count.repeats <= sending
    assert taken > 0
