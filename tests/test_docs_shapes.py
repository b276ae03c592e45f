"""What the READMEs show of answers in JSON, and of commands for the stand-in, is what a real one gives and takes."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from dingbridge.control import call
from dingbridge.sim.anythingllm import AnythingLLM
from dingbridge.sim.gateway import Gateway
from tests.house import House, until
from tests.pages import chapters, part

KNOWN_PARTS = {"store", "link", "web", "daemon"}


def documented(name: str) -> Any:
    return json.loads(re.sub(r"```\w*\n?", "", part("README.md", f"shape of {name}")))


def shape(value: Any) -> Any:
    """Names only: of a list the names of its first item."""
    match value:
        case dict():
            return {name: shape(inner) for name, inner in value.items()}
        case [first, *_]:
            return [shape(first)]
    return None


@pytest.fixture
async def troubled(house: House) -> AsyncIterator[House]:
    """A daemon with a question that failed and one that is being answered."""
    async with house.app():
        house.backend.faults.append("bad_key")
        failed = await house.gateway.say("年假有几天？", user="zhangsan")
        await house.gateway.next_post(failed)
        house.backend.answer_delay_s = 60.0
        asked = len(house.backend.asked)
        await house.gateway.say("病假有几天？", user="lisi")
        await until(lambda: len(house.backend.asked) > asked)
        yield house
        house.backend.answer_delay_s = None


def store_of(house: House) -> Path:
    return Path(house.tables["store"]["url"])


async def test_status_has_the_documented_shape(troubled: House) -> None:
    """Every name that the README shows is there, and no other."""
    told, written = await call(store_of(troubled), "GET", "/status"), documented("status")
    parts, known = told.pop("parts"), written.pop("parts")
    assert shape(told) == shape(written)
    assert set(parts) <= set(known) <= KNOWN_PARTS
    assert {frozenset(part) for part in (*parts.values(), *known.values())} == {frozenset({"ok", "why"})}


async def test_trace_has_the_documented_shape(troubled: House) -> None:
    """Every name of the message that the README shows is there, and no other; so are the steps it shows."""
    (failure,) = (await call(store_of(troubled), "GET", "/status"))["failures"]
    told, written = await call(store_of(troubled), "GET", f"/trace/{failure['code']}"), documented("trace")
    steps = {step["name"]: set(step) for step in told.pop("steps")}
    shown = {step["name"]: set(step) for step in written.pop("steps")}
    assert shape(told) == shape(written)
    assert {name: steps[name] for name in shown} == shown


async def test_every_curl_for_the_stand_in_works(
    backend: AnythingLLM, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """The README's lines, sent to a stand-in with a daemon on it, are all taken."""
    (chapter,) = [one for one in chapters("README.md") if one.title.startswith("Developing a bot")]
    curls = [shlex.split(line[2:]) for line in chapter.commands if line.startswith("$ curl")]
    assert len(curls) == 8
    async with Gateway(control=True) as gateway, House(gateway, backend, tmp_path).app():
        for words in curls:
            url = words[-1].replace("http://127.0.0.1:8786", gateway.url)
            body = words[words.index("-d") + 1].encode() if "-d" in words else None
            async with http.request("POST" if body else "GET", url, data=body) as response:
                assert response.status == 200, (words, await response.text())
