"""Faults as they happen at night, planted one by one: from the chat's 编号 to cause and remedy in one command."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from dingbridge.app import App
from dingbridge.causes import explain
from dingbridge.model import trace_code
from dingbridge.sim.anythingllm import AnythingLLM
from dingbridge.sim.gateway import Gateway, Sent
from dingbridge.store.operate import Row
from tests.anythingllm_peer import Proxy
from tests.certificates import sloppy
from tests.house import House
from tests.operating import in_language, verb
from tests.stores import bound, make_room

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
    return row, named


def code_of(house: House, sent: Sent) -> str:
    """As the chat shows it; where nothing failed for its asker, as the log does."""
    shown = re.findall(r"编号 (\w{8})", "".join(post.text for post in house.gateway.posts_in(sent)))
    code = trace_code(house.gateway.client_id, sent.msg_id)
    assert set(shown) <= {code}
    return code


async def told(house: House, sent: Sent, cause: str, *, wanted: str = "") -> str:
    """`dingbridge trace CODE` in both languages names cause and remedy, before all else; the Chinese output."""
    chinese = ""
    for locale in ("en", "zh-CN"):
        path = in_language(house, locale)
        code, out, err = 1, "", "full"
        while code == 1 and "full" in err:  # what shares its commit with a write that does not fit is undone with it
            code, out, err = await verb("trace", wanted or code_of(house, sent), "--config", str(path))
        found = explain(cause, locale)
        assert found is not None
        assert (code, err) == (0, "")
        title, blank, *rest = out.splitlines()
        assert code_of(house, sent) in title
        assert not blank
        reasons = "\n".join(rest[: rest.index("")])
        for words in (found.cause, found.remedy, cause):
            assert words in reasons, f"{locale}: {words!r} is not in\n{out}"
        chinese = out
    return chinese


async def test_a_refused_api_key(house: House) -> None:
    """403 of AnythingLLM: the attempt says so, and the message ends with it."""
    house.backend.fault = "bad_key"
    async with house.app() as app:
        sent = await house.gateway.say("年假有几天？")
        row, named = await stored(app, house, sent, "backend.key")
        await told(house, sent, "backend.key")
    assert "AnythingLLM" in await told(house, sent, "backend.key")
    assert named >= {"backend.attempt", "gave_up"}
    assert row.cause == "backend.key"


async def test_a_workspace_that_is_gone(house: House) -> None:
    """The route names a workspace that AnythingLLM does not have any more."""
    async with house.app(route=[{"workspace": "sold"}]) as app:
        sent = await house.gateway.say("年假有几天？")
        row, named = await stored(app, house, sent, "backend.workspace")
        await told(house, sent, "backend.workspace")
    assert "sold" in await told(house, sent, "backend.workspace")
    assert "backend.attempt" in named
    assert row.cause == "backend.workspace"


async def test_an_expired_webhook(house: House) -> None:
    """Passed over for its age, it is named although the OpenAPI brought the answer."""
    async with house.app() as app:
        sent = await house.gateway.say("年假有几天？", webhook_ttl_s=-1.0)
        await house.gateway.next_post(sent)
        _, named = await stored(app, house, sent, "webhook.expired")
        await told(house, sent, "webhook.expired")
    assert "开放接口" in await told(house, sent, "webhook.expired")
    assert named == {"send.skipped"}


async def test_dingtalk_limits_the_rate(house: House) -> None:
    """Too fast: the answer waits, and the row says for what."""
    house.gateway.webhook_faults.append(130101)
    async with house.app() as app:
        sent = await house.gateway.say("年假有几天？")
        row, named = await stored(app, house, sent, "chat.paced")
        assert "130101" in await told(house, sent, "chat.paced")
    await told(house, sent, "chat.paced")
    assert named >= {"send.tried", "later"}
    assert row.cause == "chat.paced"


async def test_a_proxy_that_wants_another_password(house: House) -> None:
    """407 is told as the proxy's, whatever it stands before."""
    async with Proxy() as proxy:
        wrong = {"proxy": f"http://bridge:wrong@127.0.0.1:{proxy.port}"}
        async with house.app(anythingllm=wrong) as app:
            sent = await house.gateway.say("年假有几天？")
            row, _ = await stored(app, house, sent, "proxy.auth")
            await told(house, sent, "proxy.auth")
    assert "wrong" not in await told(house, sent, "proxy.auth")
    assert row.cause == "proxy.auth"
    assert "wrong" not in repr(row)


async def test_a_ca_that_has_expired(gateway: Gateway, tmp_path: Path) -> None:
    """The private CA in ca_file ran out last night."""
    ca_file, context = sloppy(tmp_path, "localhost", ca_days=-1)
    async with AnythingLLM(ssl_context=context) as backend:
        house = House(gateway, backend, tmp_path)
        async with house.app(anythingllm={"ca_file": str(ca_file)}) as app:
            sent = await gateway.say("年假有几天？")
            row, _ = await stored(app, house, sent, "tls.expired")
            await told(house, sent, "tls.expired")
        await told(house, sent, "tls.expired")
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
        await app.store._engine.run(bound)
        go.touch()
        async with asyncio.timeout(20):
            while app.store.trouble is None:
                await asyncio.sleep(0.02)
        await make_room(app.store)
        _, named = await stored(app, house, sent, "store.full")
        await told(house, sent, "store.full")
    await told(house, sent, "store.full")
    assert named == {"store.failed"}


async def test_a_disk_so_full_that_the_message_was_not_kept(house: House) -> None:
    """Not acknowledged, and no row: the running daemon still knows why, by msgId and by code, until it comes again."""
    async with house.app() as app:
        await app.store._engine.run(bound)
        sent = await house.gateway.say("长" * 50_000)
        async with asyncio.timeout(20):
            while app.unkept(sent.msg_id) is None:
                await asyncio.sleep(0.02)
        out = await told(house, sent, "store.full", wanted=sent.msg_id)
        assert out == await told(house, sent, "store.full")
        assert "没有存下来" in out
        assert not sent.acks

        await make_room(app.store)
        await house.gateway.redeliver(sent)
        await house.gateway.next_post(sent)
        code, out, _ = await verb("trace", sent.msg_id, "--config", str(house.folder / "dingbridge.toml"))
    assert code == 0
    assert "没有存下来" not in out


async def test_a_slow_model(house: House) -> None:
    """No first token in time: the attempt says so, and the message waits for a better moment."""
    house.backend.fault = "stall"
    async with house.app(anythingllm={"first_token_timeout_s": 0.2}) as app:
        sent = await house.gateway.say("年假有几天？")
        row, named = await stored(app, house, sent, "backend.slow")
        await told(house, sent, "backend.slow")
    await told(house, sent, "backend.slow")
    assert named >= {"backend.attempt", "later"}
    assert row.cause == "backend.slow"


async def test_a_webhook_of_somebody_else(house: House) -> None:
    """Left out at receipt, so there is none to send to; its host is noted, and nothing else of its address."""
    async with house.app() as app:
        sent = await house.gateway.say("年假有几天？", sessionWebhook=FOREIGN)
        row, named = await stored(app, house, sent, "webhook.none")
        await told(house, sent, "webhook.foreign")
    assert "evil.example" in await told(house, sent, "webhook.foreign")
    assert named == {"send.skipped"}
    assert [step.name for step in row.steps if step.facts.get("cause") == "webhook.foreign"] == ["webhook.foreign"]
    assert "session=1" not in repr(row)
    assert "sendBySession" not in repr(row)


async def test_a_handler_that_raises(house: House) -> None:
    """A stranger's exception: which handler, which kind, and that it is the handler's."""
    (house.folder / "sample_raises.py").write_text(
        "async def handle(message, reply):\n    raise LookupError('secret')\n"
    )
    async with house.app(route=[{"handler": "sample_raises:handle"}], handlers={"path": [str(house.folder)]}) as app:
        sent = await house.gateway.say("x")
        row, named = await stored(app, house, sent, "handler.raised")
        await told(house, sent, "handler.raised")
    assert "sample_raises:handle" in await told(house, sent, "handler.raised")
    assert named >= {"handler.ran", "gave_up"}
    assert row.cause == "handler.raised"
    assert "secret" not in repr(row.steps)
