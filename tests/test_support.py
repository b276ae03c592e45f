"""The support bundle: what explains a fault, without a secret, a name, a question or an answer."""

from __future__ import annotations

import io
import json
import sqlite3
import stat
import tarfile
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from dingbridge.log import pseudonym
from dingbridge.sim.gateway import Sent
from tests.house import House
from tests.operating import as_json, verb

PROXY_PASSWORD = "pr0xy-pass-4711"
TOKEN = "admin-t0ken-0815"
PRIVATE = ("年假", "7 天", "机密", "张三", "u-private", "cid-private")
NAMES = {
    *("versions.json", "configuration.json", "status.json", "inbox-open.json", "inbox-failed.json"),
    *("check.json", "log.jsonl"),
}


def unpacked(path: Path) -> dict[str, str]:
    with tarfile.open(path) as archive:
        found = {}
        for member in archive.getmembers():
            content = archive.extractfile(member)
            assert content is not None
            found[member.name.removeprefix("dingbridge-support/")] = io.TextIOWrapper(content, "utf-8").read()
            assert stat.S_IMODE(member.mode) == 0o600
    return found


async def packed(house: House, name: str = "bundle.tar.gz") -> dict[str, str]:
    path = house.folder / name
    code, out, err = await verb("support", "--output", str(path), "--config", str(house.folder / "dingbridge.toml"))
    assert (code, err) == (0, "")
    assert str(path) in out
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    return unpacked(path)


def seeded(house: House) -> dict[str, Any]:
    """Secrets wherever a configuration takes them; the proxy is not used for the stand-ins."""
    return {
        "dingtalk": {"proxy": f"http://user:{PROXY_PASSWORD}@127.0.0.1:9", "no_proxy": ["127.0.0.1"]},
        "anythingllm": {"proxy": f"http://user:{PROXY_PASSWORD}@127.0.0.1:9", "no_proxy": ["127.0.0.1"]},
        "web": {"admin_token": TOKEN},
        "route": [
            {"workspace": "handbook", "users": ["u-private"], "conversations": ["cid-private"]},
            {"name": "all", "workspace": "handbook"},
        ],
    }


async def played(house: House) -> tuple[Sent, Sent]:
    """An answered question and one that failed."""
    good = await house.gateway.say("年假有几天？机密", user="u-private")
    await house.gateway.next_post(good)
    house.backend.faults.append("bad_key")
    bad = await house.gateway.say("年假有几天？机密", user="u-private")
    await house.gateway.next_post(bad)
    while (await as_json("inbox", "show", bad.msg_id, "--config", f"{house.folder}/dingbridge.toml"))[
        "state"
    ] != "done":
        pass
    return good, bad


def unfit(house: House, files: dict[str, str]) -> list[str]:
    """What stands in a bundle and must not."""
    whole = "\n".join(f"{name}\n{text}" for name, text in files.items())
    gateway, backend = house.gateway, house.backend
    assert gateway.sessions
    secrets = {gateway.client_secret, backend.api_key, *gateway.sessions, *gateway.tickets, PROXY_PASSWORD, TOKEN}
    return [one for one in (*secrets, *PRIVATE) if one and one in whole]


async def test_beside_a_running_daemon(house: House) -> None:
    """Everything is in it: what runs, what was set, what waits, what failed and how, the log and the checks."""
    house.configure(**seeded(house))
    daemon = await house.daemon()
    await house.gateway.connected()
    _, bad = await played(house)
    files = await packed(house)
    row = await as_json("inbox", "show", bad.msg_id, "--config", f"{house.folder}/dingbridge.toml")
    assert await daemon.stop() == 0

    assert set(files) == {*NAMES, f"traces/{row['code']}.json"}
    assert unfit(house, files) == []
    told = {name: json.loads(text) for name, text in files.items() if name.endswith(".json")}
    assert told["versions.json"]["packages"]["aiohttp"] != "-"
    assert told["status.json"]["pid"] == daemon.process.pid
    assert [one["code"] for one in told["inbox-failed.json"]] == [row["code"]]
    assert told[f"traces/{row['code']}.json"]["causes"] == ["backend.key"]
    events = [json.loads(line)["event"] for line in files["log.jsonl"].splitlines()]
    assert {"daemon.started", "stream.connected", "message.handled", "backend.lost"} <= {*events}
    assert {one["part"]: one["level"] for one in told["check.json"]}["dingtalk"] == "ok"
    assert len(house.gateway.accepted) == 1  # no second connection, which would be handed users' messages


async def test_the_configuration_is_whole_but_for_secrets_and_names(house: House) -> None:
    """Every key as it counts, defaults included; people and groups as traces have them."""
    house.configure(**seeded(house))
    async with house.app(**seeded(house)):
        sent, _ = await played(house)
        files = await packed(house)
        row = await as_json("inbox", "show", sent.msg_id, "--config", f"{house.folder}/dingbridge.toml")
    told = json.loads(files["configuration.json"])
    assert told["limits"]["workers"] == 64
    assert told["dingtalk"]["client_id"] == house.gateway.client_id
    assert told["routes"][0]["users"] == [row["person"]] == [pseudonym(house.gateway.client_id, "u-private")]
    assert told["routes"][0]["workspace"] == "handbook"
    for section, key in (("dingtalk", "client_secret"), ("anythingllm", "api_key"), ("web", "admin_token")):
        assert told[section][key] in ("***", "set")
    assert unfit(house, files) == []


async def test_without_a_daemon(house: House) -> None:
    """From the store and by trying each hop from here; only the log is missing."""
    house.configure(**seeded(house))
    daemon = await house.daemon()
    await house.gateway.connected()
    await played(house)
    await daemon.stop()
    with closing(sqlite3.connect(house.folder / "state" / "dingbridge.db")) as store, store:
        store.execute("UPDATE message SET reason = ? WHERE outcome = 'failed'", (f"proxy said {PROXY_PASSWORD}",))
    files = await packed(house)
    assert set(files) > NAMES
    assert "proxy said ***" in files["inbox-failed.json"]
    assert unfit(house, files) == []
    assert json.loads(files["status.json"])["running"] is None
    assert files["log.jsonl"] == ""
    assert {one["part"] for one in json.loads(files["check.json"])} >= {"store", "dingtalk", "anythingllm"}


@pytest.mark.parametrize("store", [True, False])
async def test_with_a_configuration_that_has_faults(house: House, *, store: bool) -> None:
    """Its faults are in it instead; and before the first start there is just less."""
    async with AsyncExitStack() as running:
        if store:
            await running.enter_async_context(house.app())
        path = house.configure(reply={"locale": "fr"})
        files = await packed(house)
    assert "reply.locale" in json.loads(files["configuration.json"])["error"]
    assert ("pid" in json.loads(files["status.json"])) == store
    assert path.exists()


async def test_a_file_is_never_overwritten(house: House) -> None:
    """Neither a file nor what a link points to; the exit code says so, and the default name is new each second."""
    path = house.configure()
    there = house.folder / "there.tar.gz"
    there.write_text("mine")
    link = house.folder / "link.tar.gz"
    link.symlink_to(there)
    for target in (there, link, house.folder / "none" / "x.tar.gz"):
        code, out, err = await verb("support", "--output", str(target), "--config", str(path))
        assert (code, out) == (1, "")
        assert str(target) in err
        assert "Traceback" not in err
    assert there.read_text() == "mine"


async def test_a_long_failure_list_is_bounded(house: House) -> None:
    """Of a bad night the newest failures are traced, not all of them."""
    house.backend.fault = "bad_key"
    async with house.app(reply={"notice": "off"}):
        for number in range(25):
            await house.gateway.next_post(await house.gateway.say("x", user=f"u{number}"))
        files = await packed(house)
    assert len([name for name in files if name.startswith("traces/")]) == 20
    assert len(json.loads(files["inbox-failed.json"])) >= 24
