"""What the stand-in gateway remembers and writes down."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import stat
import time
from datetime import datetime, timedelta
from pathlib import Path

import aiohttp

from dingbridge.sim.gateway import Gateway, Sent
from dingbridge.sim.gateway_tape import Tape
from tests.gateway_client import JSON, OPEN, ack, connect, opening, oto, post, text, token, webhook

SECRET = "SEC0123456789"


async def test_traffic_tells_everything_in_order(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """One list has opens, connections, frames, acks and posts, with monotonic times."""
    started = time.monotonic()
    ws, _ = await connect(gateway, http)
    sent = await gateway.say("你好")
    await ack(ws, await ws.receive_json())
    await gateway.acked(sent)
    await post(http, webhook(sent), text("好"))
    await ws.close()
    await gateway.until(lambda: not gateway.connections)
    kinds = [entry["kind"] for entry in gateway.traffic]
    assert kinds == ["open", "connected", "live", "frame", "ack", "post", "closed"]
    times = [entry["at"] for entry in gateway.traffic]
    assert times == sorted(times)
    assert times[0] >= started


async def a_conversation(gateway: Gateway, http: aiohttp.ClientSession) -> Sent:
    """Everything that handles something secret."""
    await http.post(gateway.url + OPEN, json=opening(gateway, clientSecret="somebody-elses"), headers=JSON)
    ws, connection = await connect(gateway, http)
    sent = await gateway.say("你好")
    await ack(ws, await ws.receive_json(), json.dumps({"clientSecret": gateway.client_secret, "ticket": "t-1"}))
    await gateway.acked(sent)
    await ws.send_str(f"garbage {gateway.client_secret} {json.dumps(gateway.client_secret)[1:-1]}")
    await post(http, webhook(sent), text(f"see {webhook(sent)} and {next(iter(gateway.tickets))}"))
    await post(http, webhook(sent), {"msgtype": "image", "image": {"picURL": f"http://x/?access_token={SECRET}"}})
    headers = await token(gateway, http)
    await post(http, f"{gateway.url}/v1.0/robot/oToMessages/batchSend", oto(gateway, "042"), headers=headers)
    body = {"robotCode": "other", "downloadCode": gateway.add_file(b"x"), "accessToken": next(iter(headers.values()))}
    await http.post(f"{gateway.url}/v1.0/robot/messageFiles/download", json=body, headers=headers)
    code = (await gateway.send_picture(b"x")).data["content"]["downloadCode"]
    fetched = await post(
        http, f"{gateway.url}/v1.0/robot/messageFiles/download", oto(gateway) | {"downloadCode": code}, headers=headers
    )
    await http.get(fetched["downloadUrl"])
    await post(http, gateway.custom_robot(secret=SECRET), text(next(iter(gateway.custom_robots))))
    connection.cut()
    await gateway.until(lambda: not gateway.connections)
    return sent


def secrets_of(gateway: Gateway) -> list[str]:
    given = [*gateway.sessions, *gateway.tickets, *gateway.files, *gateway.custom_robots, *gateway._tokens]
    given += [*gateway._previews, *gateway._links]
    escaped = json.dumps(gateway.client_secret)[1:-1]
    return [*given, gateway.client_secret, escaped, json.dumps(escaped)[1:-1], "somebody-elses", "t-1", SECRET]


async def test_a_recording_has_everything_but_what_is_secret(http: aiohttp.ClientSession, tmp_path: Path) -> None:
    """One JSON object a line with wall-clock time and number; no secret, ticket, session, token or file code."""
    path = tmp_path / "traffic.jsonl"
    started = datetime.now().astimezone() - timedelta(seconds=1)
    async with Gateway(record=path, client_secret='qu"ote\\and更多') as gateway:
        sent = await a_conversation(gateway, http)
        memory = list(gateway.traffic)
        hidden = secrets_of(gateway)
    written = path.read_text("utf-8")
    lines = [json.loads(line) for line in written.splitlines()]
    assert [line["kind"] for line in lines] == [entry["kind"] for entry in memory]
    assert [line["number"] for line in lines] == list(range(1, len(lines) + 1))
    assert {"open", "frame", "ack", "garbage", "post", "webhook", "token", "openapi", "closed"} <= {
        line["kind"] for line in lines
    }
    times = [datetime.fromisoformat(line["time"]) for line in lines]
    assert started < times[0] <= times[-1] < datetime.now().astimezone() + timedelta(seconds=1)
    assert times == sorted(times)
    assert all(time.tzinfo is not None for time in times)
    assert not [secret for secret in hidden if secret in written]
    assert sent.msg_id in written
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_the_memory_keeps_what_the_recording_masks(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """Tests look at real sessions and bodies in `traffic`."""
    sent = await a_conversation(gateway, http)
    frames = [entry["frame"]["data"] for entry in gateway.traffic if entry["kind"] == "frame"]
    assert sent.session in frames[0]


async def test_a_recording_into_a_stream(http: aiohttp.ClientSession) -> None:
    """It stays the owner's, and open, after the gateway's end."""
    stream = io.StringIO()
    async with Gateway(record=stream) as gateway:
        await connect(gateway, http)
    assert [json.loads(line)["kind"] for line in stream.getvalue().splitlines()][:3] == ["open", "connected", "live"]
    assert not stream.closed


async def test_a_huge_frame_is_shortened(http: aiohttp.ClientSession) -> None:
    """A line stays readable, and says how long the text was."""
    stream = io.StringIO()
    async with Gateway(record=stream) as gateway:
        await connect(gateway, http)
        await gateway.say("x" * 1_200_000)
    frame = next(line for line in stream.getvalue().splitlines() if '"frame"' in line)
    assert len(frame) < 20_000
    assert re.search(r"… \(12\d{5} characters\)", json.loads(frame)["frame"]["data"])


def test_a_full_file_makes_room(tmp_path: Path) -> None:
    """The newest lines are in the file, those before in one more; together they stay below twice the limit."""
    path = tmp_path / "t.jsonl"
    tape = Tape(path, limit_bytes=100)
    for number in range(40):
        tape.write(f'{{"n": {number}}}')
    tape.close()
    written = [(tmp_path / name).read_text("utf-8") for name in ("t.jsonl.1", "t.jsonl")]
    numbers = [json.loads(line)["n"] for part in written for line in part.splitlines()]
    assert numbers == list(range(40 - len(numbers), 40))
    assert len(numbers) >= 10
    assert all(one.stat().st_size <= 100 for one in tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) == 2


def test_what_is_no_file_is_never_moved(tmp_path: Path) -> None:
    """A named pipe, and so a device, stays where it is, however much goes into it."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    tape = Tape(str(path), limit_bytes=10)
    for _ in range(5):
        tape.write("0123456789")
    assert os.read(reader, 1000) == b"0123456789\n" * 5
    tape.close()
    os.close(reader)
    assert [one.name for one in tmp_path.iterdir()] == ["pipe"]


def test_a_file_that_cannot_be_written_ends_the_recording_only() -> None:
    """Nothing is raised into the traffic; `error` says why."""
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        tape = Tape(full)
        tape.write("{}")
        tape.write("{}")
        assert "No space left" in tape.error
        with contextlib.suppress(OSError):
            full.close()


async def test_a_gateway_that_runs_for_days_forgets(http: aiohttp.ClientSession) -> None:
    """With `keep` the newest are remembered, at most twice as many; posts are still handed out once each, in order."""
    async with Gateway(keep=5) as gateway:
        ws, _ = await connect(gateway, http)
        handed = []
        for number in range(40):
            sent = await gateway.say(str(number))
            await ack(ws, await ws.receive_json())
            await gateway.acked(sent)
            await post(http, webhook(sent), text(str(number)))
            handed.append((await gateway.next_post(sent)).text)
        kept = (gateway.traffic, gateway.sent, gateway.posts, gateway.acks, gateway.pushes, gateway.sessions)
        assert all(5 <= len(rows) <= 11 for rows in kept)
        assert handed == [str(number) for number in range(40)]
        assert [entry["number"] for entry in gateway.since(gateway.traffic[-1]["number"] - 3)] == [
            entry["number"] for entry in gateway.traffic[-3:]
        ]
