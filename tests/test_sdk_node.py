"""The unmodified official Node SDK on the stand-in gateway: it receives, acks, replies, and survives a rotation."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dingbridge.sim.gateway import Gateway
from tests.certificates import Authority
from tests.proxy import TunnelProxy
from tests.sdk_bots import endpoint, hints, install_node_sdk, interceptor, node_bot

START_S = 60.0


@pytest.fixture(autouse=True, scope="module")
def sdk() -> None:
    install_node_sdk()


@asynccontextmanager
async def bot(gateway: Gateway, folder: Path, lines: str | None = None, **settings: str) -> AsyncIterator[None]:
    """The bot, connected."""
    who = {"client_id": gateway.client_id, "client_secret": gateway.client_secret}
    pointed = interceptor(hints(gateway)) if lines is None else lines
    async with node_bot(pointed, folder, **who, **settings):
        await gateway.connected(timeout_s=START_S)
        yield


async def answers(gateway: Gateway, text: str, user: str) -> None:
    sent = await gateway.say(text, user=user)
    assert (await gateway.next_post(sent, timeout_s=30)).text == f"echo: {text}"
    ack = await gateway.acked(sent)
    assert (ack.code, ack.message, ack.data) == (200, "OK", '{"response":null}')


async def test_the_sdk_receives_acks_and_replies(gateway: Gateway, tmp_path: Path) -> None:
    """With the printed axios lines: token, message, ack, reply, system ping, and the events that it always asks for."""
    async with bot(gateway, tmp_path, TOKEN="1"):
        await answers(gateway, "年假有几天？", "042")
        pong = await gateway.connections[0].ping_opaque("123-dsfs")
        event = await gateway.push_callback("*", {"userId": ["015"]}, "EVENT", headers={"eventId": "e1"})
        said = await gateway.acked(event)
    assert json.loads(pong.data) == {"opaque": "123-dsfs"}
    assert said.data == '{"status":"SUCCESS"}'
    assert event.acknowledged.is_set()
    assert gateway.token_calls == 1
    assert gateway.opens[0].body["ua"] == ""
    assert not gateway.wrong_socket_acks


async def test_the_sdk_without_axios_of_the_bots_own(gateway: Gateway, tmp_path: Path) -> None:
    """With the printed `getEndpoint` lines: message, ack, reply."""
    async with bot(gateway, tmp_path, endpoint(hints(gateway))):
        await answers(gateway, "年假有几天？", "042")


async def test_the_sdk_without_a_changed_line(tmp_path: Path) -> None:
    """Through a proxy that leads DingTalk's own names to the stand-in, whose CA Node is told of."""
    authority = Authority(tmp_path / "ca")
    context = authority.server("localhost", "api.dingtalk.com", "oapi.dingtalk.com")
    async with Gateway(ssl_context=context, public_host="localhost") as gateway:
        names = dict.fromkeys(("localhost", "api.dingtalk.com", "oapi.dingtalk.com"), gateway.port)
        async with TunnelProxy(addresses=names, password="word-7") as proxy:
            settings = {
                "HTTPS_PROXY": proxy.url("bridge:word-7"),
                "NODE_EXTRA_CA_CERTS": str(authority.ca_file),
                "TOKEN": "1",
            }
            async with bot(gateway, tmp_path, "", **settings):
                await answers(gateway, "年假有几天？", "042")
        assert proxy.tunnels["CONNECT api.dingtalk.com:443"] == 1


@pytest.mark.parametrize("with_message_id", [True, False])
async def test_the_sdk_survives_a_rotation(gateway: Gateway, tmp_path: Path, *, with_message_id: bool) -> None:
    """After `disconnect` and the end of TCP it comes back, and gets what was said meanwhile."""
    async with bot(gateway, tmp_path):
        await answers(gateway, "早", "041")
        first = gateway.connections[0]
        await first.disconnect(close_after_s=0.5, with_message_id=with_message_id)
        meanwhile = await gateway.say("等一下", user="042")
        assert meanwhile.deliveries == 0
        assert (await gateway.next_post(meanwhile, timeout_s=30)).text == "echo: 等一下"
        await answers(gateway, "晚", "043")
    assert len(gateway.accepted) == 2
    assert first.closed_code == 1006
    assert [one.outcome for one in gateway.opens] == ["ticket", "ticket"]


async def test_what_the_sdk_does_not_ack_comes_once_more(gateway: Gateway, tmp_path: Path) -> None:
    """With a new messageId and the same msgId, and after the ack not again."""
    gateway.redeliver_after_s, gateway.redeliver_at_most = 0.5, 1
    async with bot(gateway, tmp_path, FORGETS="1"):
        sent = await gateway.say("你好")
        ack = await gateway.acked(sent, timeout_s=30)
        await gateway.wait_posts(sent, timeout_s=30)
        with pytest.raises(TimeoutError):
            await gateway.until(lambda: sent.deliveries > 2, 1.2)
    assert sent.deliveries == 2
    assert ack.push is sent.pushes[1]
    assert len({push.message_id for push in sent.pushes}) == 2
    assert {json.loads(push.frame["data"])["msgId"] for push in sent.pushes} == {sent.msg_id}
