"""The database's password, in the URL or beside it, is shown nowhere: whatever is asked, and whatever fails."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from dingbridge.decode import Bad, postgres_url
from dingbridge.errors import BridgeError, ConfigError
from dingbridge.model import Secret
from dingbridge.store.postgres import look
from dingbridge.store.postgres_engine import address
from tests.house import House, until
from tests.operating import verb
from tests.places import serving
from tests.postgres import Server
from tests.several import configuration, environ, started, status_of
from tests.test_several import web_port
from tests.test_support import unpacked

PASSWORD = "Pg-s3cr3t@4711"
WRITTEN = "Pg-s3cr3t%404711"
SHOWN = ("s3cr3t", "4711")


@pytest.fixture(scope="module")
def guarded() -> Iterator[Server]:
    """A server that asks for the password, for tests that stop it."""
    with serving(fast=True, password=PASSWORD) as server:
        yield server


@pytest.mark.parametrize("beside", [False, True], ids=["in the url", "beside it"])
async def test_nothing_that_is_shown_holds_the_password(
    house: House, guarded: Server, monkeypatch: pytest.MonkeyPatch, *, beside: bool
) -> None:
    """Not what verbs print, the log, the page, the metrics and the bundle hold, with the database up and away."""
    monkeypatch.setenv("STATE_DIRECTORY", str(house.folder))
    url = await asyncio.to_thread(guarded.create_database)
    assert WRITTEN in url
    store = {"url": url.replace(f":{WRITTEN}@", "@"), "password": PASSWORD} if beside else {"url": url}
    house.configure(store=store)
    (daemon,) = await started(house, 1)
    await status_of(house, 1)
    sent = await house.gateway.say("年假有几天？")
    await house.gateway.next_post(sent)
    shown = [
        *await asked(house, ["status"], ["trace", sent.msg_id], ["inbox", "list"]),
        *await served(web_port(daemon.events())),
    ]
    assert any("PostgreSQL" in one for one in shown)
    await asyncio.to_thread(guarded.stop, "immediate")
    try:
        await until(lambda: "store.lost" in daemon.events())
        shown += [*await asked(house, ["status", "--json"]), *await served(web_port(daemon.events()))]
    finally:
        await asyncio.to_thread(guarded.start)
    await until(lambda: "store.found" in daemon.events())
    assert await daemon.stop() == 0
    house.configure(store={**store, "password": "Wr0ng-s3cr3t-4711"} if beside else {"url": url.replace("Pg-", "Qg-")})
    refused = await house.daemon(environ=environ(house), log=house.folder / "refused.log")
    await refused.process.wait()
    assert "password authentication failed" in refused.events()
    shown += [*await asked(house, ["check"]), daemon.events(), refused.events()]
    assert [one for one in shown for secret in ("s3cr3t", "@4711", "%404711") if secret in one] == []


async def asked(house: House, *verbs: list[str]) -> list[str]:
    """All that these verbs say, and what the bundle holds."""
    path = house.folder / f"bundle{len(list(house.folder.glob('bundle*')))}.tar.gz"
    said = await asyncio.gather(
        *(verb(*words, *configuration(house)) for words in (*verbs, ["support", "--output", str(path)]))
    )
    return [*(text for _, *texts in said for text in texts), *unpacked(path).values()]


async def served(port: int) -> list[str]:
    said: list[str] = []
    async with aiohttp.ClientSession() as session:
        for path in ("/", "/readyz", "/metrics"):
            async with session.get(f"http://127.0.0.1:{port}{path}") as response:
                said.append(await response.text())
    return said


WRONG = [
    "postgresql://u:s3cr3t%zz4711@h/db",
    "postgresql://u:s3cr3t/4711@h/db",
    "postgresql://u:s3cr3t@4711@h/db",
    "postgresql://u:s3cr3t#4711@h/db",
    "postgresql://u:s3cr3t?4711@h/db",
    "postgresql://u:s3cr3t 4711@h/db",
    "postgresql://u:s3cr3t4711@[::1/db",
    "postgresql://h/db?password=s3cr3t4711",
    "postgresql://h/db?sslpassword=s3cr3t%zz4711",
]


@pytest.mark.parametrize("url", WRONG)
def test_a_url_that_is_wrong_is_not_repeated(url: str) -> None:
    """A password that is not written as URLs have it is a fault, and no part of it stands in the fault."""
    with pytest.raises((Bad, ConfigError)) as caught:
        address(Secret(postgres_url(url)), Secret(), "s")
    told = "".join(traceback.format_exception(caught.value, chain=True)).partition("Error")[2] + str(caught.value)
    assert [secret for secret in SHOWN if secret in told] == []


@pytest.mark.parametrize(
    ("rest", "fault"),
    [
        ("h:54x2/db", "the port must be a number"),
        ("u@h:54x2/db", "the port must be a number"),
        ("h/db?ssl_mode=require", "unknown parameter ssl_mode, did you mean sslmode?"),
        ("h:s3cr3t?4711=1", "unknown parameter behind the ?"),
    ],
)
def test_a_typo_in_the_url_is_named(rest: str, fault: str) -> None:
    """No advice about passwords where there is none."""
    with pytest.raises(ConfigError) as caught:
        address(Secret(postgres_url(f"postgresql://{rest}")), Secret(), "s")
    assert caught.value.faults == [f"store.url: {fault}"]


@pytest.mark.parametrize("url", WRONG[::4])
async def test_a_wrong_url_ends_with_78(house: House, url: str) -> None:
    """`run` and the verbs name the fault, and exit as for every fault of the configuration."""
    house.configure(store={"url": url})
    for words in (["run"], ["status"]):
        code, out, err = await verb(*words, *configuration(house))
        assert (code, out) == (78, "")
        assert "store.url" in err
        assert [secret for secret in SHOWN if secret in err] == []


@pytest.mark.parametrize("host", ["127.0.0.1:1", "no-such-host.invalid"])
async def test_a_failed_connection_is_told_without_it(host: str) -> None:
    """Nobody there, an unknown name: the error and its traceback hold no password."""
    where: Any = address(Secret(f"postgresql://u:{WRITTEN}@{host}/db?connect_timeout=2"), Secret(), "s")
    with pytest.raises(BridgeError) as caught:
        await look(where)
    told = "".join(traceback.format_exception(caught.value, chain=True)) + repr(where)
    assert [secret for secret in SHOWN if secret in told] == []
