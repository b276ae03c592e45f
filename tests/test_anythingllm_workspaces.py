"""The AnythingLLM client's plain endpoints: address, key, list of workspaces, names and slugs."""

from __future__ import annotations

import pytest

from dingbridge.backends.anythingllm import AnythingLLM, Limits
from dingbridge.errors import BackendError, BackendMalformed, BackendRejected
from dingbridge.model import Secret
from tests.anythingllm_asking import FULL, KEY, ONCE, ask
from tests.anythingllm_peer import Peer, Script, answer, replay


@pytest.mark.parametrize("tail", ["", "/", "/api", "/api/", "/api/v1", "/api/v1/", "//", "?a=1"])
async def test_base_url_may_be_written_in_many_ways(tail: str) -> None:
    """The address works with and without slash, /api and /api/v1."""
    async with (
        Peer(replay("50-")) as peer,
        AnythingLLM(base_url=peer.url + tail, api_key=Secret(KEY)) as backend,
    ):
        await backend.check_key()
        assert await backend.workspaces() == {
            "a13df2a6-ad3b-4009-a56d-34bc97e1932c": "差旅报销",
            "finance": "Finance 财务制度",
            "empty-ws": "Empty WS",
        }


@pytest.mark.parametrize("base_url", ["", "nonsense", "ftp://127.0.0.1/", "http://", "http://[::1", "127.0.0.1:9"])
async def test_an_address_that_is_none_is_rejected(base_url: str) -> None:
    """A base_url that cannot work is a configuration error that names the key."""
    async with AnythingLLM(base_url=base_url, api_key=Secret(KEY), limits=ONCE) as backend:
        with pytest.raises(BackendRejected, match="base_url") as caught:
            await backend.check_key()
    assert caught.value.cause == "backend.address"


@pytest.mark.parametrize("key", ["", "two words", "key\n", "密钥"])
async def test_a_key_that_is_none_is_rejected(key: str) -> None:
    """A key no server ever issued is told as such and not sent."""
    async with Peer() as peer, AnythingLLM(base_url=peer.url, api_key=Secret(key), limits=ONCE) as backend:
        with pytest.raises(BackendRejected, match="api_key_file") as caught:
            await backend.check_key()
    assert caught.value.cause == "backend.key"
    assert peer.requests == []


async def test_check_key_tells_a_refused_key() -> None:
    """A 403 and a 200 without `authenticated` are a refused key; a web page is a wrong address."""
    async with Peer() as peer, AnythingLLM(base_url=peer.url, api_key=Secret(KEY), limits=ONCE) as backend:
        for script, words, cause in (
            (replay("03-"), "api_key_file", "backend.key"),
            (answer(200, '{"authenticated":false}'), "api_key_file", "backend.key"),
            (replay("22-"), "web page", "backend.address"),
        ):
            peer.plain["/api/v1/auth"] = script
            with pytest.raises(BackendError, match=words) as caught:
                await backend.check_key()
            assert caught.value.cause == cause


async def test_plain_answers_are_capped_and_checked() -> None:
    """A list that is none, no JSON and a body without end are malformed."""
    async with Peer() as peer, AnythingLLM(base_url=peer.url, api_key=Secret(KEY), limits=ONCE) as backend:
        scripts: list[Script] = [
            answer(200, '{"workspaces":{}}'),
            answer(200, "nope"),
            [b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n", *[b" " * 1_000_000] * 9],
        ]
        for script in scripts:
            peer.plain["/api/v1/workspaces"] = script
            with pytest.raises(BackendMalformed):
                await backend.workspaces()


async def test_a_workspace_is_found_by_slug_or_exact_name() -> None:
    """A slug wins over a name, names must fit exactly, and an ambiguous name is nobody's."""
    listed = (
        '{"workspaces":[{"slug":"one","name":"two"},{"slug":"two","name":"手册"},{"slug":"x","name":"同名"},'
        '{"slug":"y","name":"同名"},{"slug":"z","name":""},{"slug":7},5]}'
    )
    async with Peer() as peer, AnythingLLM(base_url=peer.url, api_key=Secret(KEY), limits=ONCE) as backend:
        peer.plain["/api/v1/workspaces"] = answer(200, listed)
        found = {wanted: await backend.resolve(wanted) for wanted in ("two", "手册", "手", "同名", "", "Two")}
    assert found == {"two": "two", "手册": "two", "手": None, "同名": None, "": None, "Two": None}


async def test_names_are_looked_up_once() -> None:
    """The list of workspaces is read once for any number of questions."""
    async with Peer(replay("50-")) as peer, AnythingLLM(base_url=peer.url, api_key=Secret(KEY)) as backend:
        for _ in range(3):
            await backend.ask("问", workspace="Finance 财务制度", session="s")
    assert [request.target for request in peer.requests].count("/api/v1/workspaces") == 1
    assert {request.target for request in peer.asked} == {"/api/v1/workspace/finance/stream-chat"}


async def test_a_workspace_made_anew_is_found_again() -> None:
    """When the remembered slug is gone, the name is looked up once more and asked at its new slug."""
    async with Peer(replay("50-")) as peer, AnythingLLM(base_url=peer.url, api_key=Secret(KEY)) as backend:
        await backend.ask("问", workspace="Empty WS", session="s")
        peer.plain["/api/v1/workspaces"] = answer(200, '{"workspaces":[{"slug":"new/ws","name":"Empty WS"}]}')
        peer.scripts = [replay("53-"), replay("50-")]
        got = await backend.ask("问", workspace="Empty WS", session="s")
    assert (got.text, got.tries) == (FULL, 1)
    assert peer.asked[-1].target == "/api/v1/workspace/new%2Fws/stream-chat"


async def test_a_slug_that_stays_unknown_is_asked_once() -> None:
    """When the list still has the slug that was refused, the refusal stands."""
    async with Peer(replay("53-")) as peer:
        with pytest.raises(BackendRejected, match="not a valid workspace"):
            await ask(peer, limits=Limits())
    assert len(peer.asked) == 1


async def test_an_unknown_workspace_is_rejected_at_once() -> None:
    """A workspace the server does not list is configuration: no question is sent, nothing is retried."""
    async with Peer() as peer:
        with pytest.raises(BackendRejected, match="no workspace, or several, called 'nowhere'") as caught:
            await ask(peer, workspace="nowhere", limits=Limits())
    assert caught.value.cause == "backend.workspace"
    assert peer.asked == []
