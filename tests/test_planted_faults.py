"""Faults as they happen at night, planted one by one: what is stored of the message names cause and remedy."""

from __future__ import annotations

import asyncio
from pathlib import Path

from dingbridge.app import App
from dingbridge.causes import explain
from dingbridge.sim.anythingllm import AnythingLLM
from dingbridge.sim.gateway import Gateway, Sent
from dingbridge.store.operate import Row
from tests.anythingllm_peer import Proxy
from tests.certificates import sloppy
from tests.house import House
from tests.stores import bound, unbound

FOREIGN = "https://oapi.dingtalk.com.evil.example/robot/sendBySession?session=1"


async def stored(app: App, house: House, sent: Sent, cause: str) -> tuple[Row, set[str]]:
    """The message's row as soon as one of its steps carries the cause, and the names of the steps that do."""
    async with asyncio.timeout(20):
        while True:
            row = await app.store.find(house.gateway.client_id, sent.msg_id)
            named = {step.name for step in row.steps if step.facts.get("cause") == cause} if row is not None else set()
            if row is not None and named:
                break
            await asyncio.sleep(0.02)
    assert explain(cause, "zh-CN") is not None
    assert explain(cause, "en") is not None
    return row, named


async def test_a_refused_api_key(house: House) -> None:
    """403 of AnythingLLM: the attempt says so, and the message ends with it."""
    house.backend.fault = "bad_key"
    async with house.app() as app:
        row, named = await stored(app, house, await house.gateway.say("年假有几天？"), "backend.key")
    assert named >= {"backend.attempt", "gave_up"}
    assert row.cause == "backend.key"


async def test_a_workspace_that_is_gone(house: House) -> None:
    """The route names a workspace that AnythingLLM does not have any more."""
    async with house.app(route=[{"workspace": "sold"}]) as app:
        row, named = await stored(app, house, await house.gateway.say("年假有几天？"), "backend.workspace")
    assert "backend.attempt" in named
    assert row.cause == "backend.workspace"


async def test_an_expired_webhook(house: House) -> None:
    """Passed over for its age, it is named although the OpenAPI brought the answer."""
    async with house.app() as app:
        sent = await house.gateway.say("年假有几天？", webhook_ttl_s=-1.0)
        await house.gateway.next_post(sent)
        _, named = await stored(app, house, sent, "webhook.expired")
    assert named == {"send.skipped"}


async def test_dingtalk_limits_the_rate(house: House) -> None:
    """Too fast: the answer waits, and the row says for what."""
    house.gateway.webhook_faults.append(130101)
    async with house.app() as app:
        row, named = await stored(app, house, await house.gateway.say("年假有几天？"), "chat.paced")
    assert named >= {"send.tried", "later"}
    assert row.cause == "chat.paced"


async def test_a_proxy_that_wants_another_password(house: House) -> None:
    """407 is told as the proxy's, whatever it stands before."""
    async with Proxy() as proxy:
        wrong = {"proxy": f"http://bridge:wrong@127.0.0.1:{proxy.port}"}
        async with house.app(anythingllm=wrong) as app:
            row, _ = await stored(app, house, await house.gateway.say("年假有几天？"), "proxy.auth")
    assert row.cause == "proxy.auth"
    assert "wrong" not in repr(row)


async def test_a_ca_that_has_expired(gateway: Gateway, tmp_path: Path) -> None:
    """The private CA in ca_file ran out last night."""
    ca_file, context = sloppy(tmp_path, "localhost", ca_days=-1)
    async with AnythingLLM(ssl_context=context) as backend:
        house = House(gateway, backend, tmp_path)
        async with house.app(anythingllm={"ca_file": str(ca_file)}) as app:
            row, _ = await stored(app, house, await gateway.say("年假有几天？"), "tls.expired")
    assert row.cause == "tls.expired"


async def test_a_full_disk(house: House) -> None:
    """The answer could not be kept for a while: the step comes with the first write that works again."""
    go = house.folder / "go"
    source = (
        "import asyncio, pathlib\n"
        "async def handle(message, reply):\n"
        f"    while not pathlib.Path({str(go)!r}).exists():\n"
        "        await asyncio.sleep(0.01)\n"
        "    return '长' * 50_000\n"
    )
    (house.folder / "sample_full.py").write_text(source)
    async with house.app(
        route=[{"handler": "sample_full:handle"}], handlers={"path": [str(house.folder)]}, reply={"notice": "off"}
    ) as app:
        sent = await house.gateway.say("x")
        await house.gateway.acked(sent)
        await app.store._writer.run(bound)
        go.touch()
        async with asyncio.timeout(20):
            while app.store.trouble is None:
                await asyncio.sleep(0.02)
        await app.store._writer.run(unbound)
        _, named = await stored(app, house, sent, "store.full")
    assert named == {"store.failed"}


async def test_a_slow_model(house: House) -> None:
    """No first token in time: the attempt says so, and the message waits for a better moment."""
    house.backend.fault = "stall"
    async with house.app(anythingllm={"first_token_timeout_s": 0.2}) as app:
        row, named = await stored(app, house, await house.gateway.say("年假有几天？"), "backend.slow")
    assert named >= {"backend.attempt", "later"}
    assert row.cause == "backend.slow"


async def test_a_webhook_of_somebody_else(house: House) -> None:
    """Left out at receipt, so there is none to send to, and nothing of its address is kept."""
    async with house.app() as app:
        sent = await house.gateway.say("年假有几天？", sessionWebhook=FOREIGN)
        row, named = await stored(app, house, sent, "webhook.none")
    assert named == {"send.skipped"}
    assert "evil" not in repr(row)


async def test_a_handler_that_raises(house: House) -> None:
    """A stranger's exception: which handler, which kind, and that it is the handler's."""
    (house.folder / "sample_raises.py").write_text(
        "async def handle(message, reply):\n    raise LookupError('secret')\n"
    )
    async with house.app(route=[{"handler": "sample_raises:handle"}], handlers={"path": [str(house.folder)]}) as app:
        row, named = await stored(app, house, await house.gateway.say("x"), "handler.raised")
    assert named >= {"handler.ran", "gave_up"}
    assert row.cause == "handler.raised"
    assert "secret" not in repr(row.steps)
