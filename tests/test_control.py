"""The control socket: who reaches it, what becomes of it, and asking where no daemon answers."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from dingbridge.control import ControlServer, NoDaemon, Refused, call, socket_path
from dingbridge.errors import BridgeError
from dingbridge.model import trace_code
from dingbridge.operations import Operations
from dingbridge.store.sqlite import SQLiteStore
from tests.house import House, until
from tests.operating import as_json, verb
from tests.stores import Clock, child, message, opened, rows


@asynccontextmanager
async def served(store: SQLiteStore) -> AsyncIterator[ControlServer]:
    """The socket beside an open store, without a daemon behind it."""
    server = ControlServer(store.beside, Operations(store, robot="ding1", config="/etc/x.toml"))
    running = asyncio.create_task(server.run())
    await until(lambda: server.path.exists() or running.done())
    try:
        yield server
    finally:
        running.cancel()
        await asyncio.wait({running})
        assert running.cancelled()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    """With one message, whose msgId is as ugly as DingTalk's may be."""
    async with opened(tmp_path / "x.db", Clock()) as one:
        await one.put(message("msgA+b/c=="))
        yield one


async def raw(path: Path, sent: bytes, *, end: bool = True) -> bytes:
    """What comes back for these bytes, until the other side closes."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        writer.write(sent)
        if end:
            writer.write_eof()
        async with asyncio.timeout(20):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


def logged(log_file: Path, event: str) -> int:
    return log_file.read_text().count(event)


# -- the file


async def test_only_its_user_may_open_it(store: SQLiteStore) -> None:
    """Mode 0600, whatever the umask."""
    old = os.umask(0)
    try:
        async with served(store) as server:
            facts = server.path.stat()
    finally:
        os.umask(old)
    assert stat.S_ISSOCK(facts.st_mode)
    assert stat.S_IMODE(facts.st_mode) == 0o600


async def test_it_listens_nowhere_else(house: House) -> None:
    """What an operator may do is not on the web port, which others may reach."""
    async with house.app() as app:
        assert app.web is not None
        assert app.web.address is not None
        for path in ("/status", "/inbox", "/trace/x", "/support"):
            reader, writer = await asyncio.open_connection(*app.web.address)
            writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            assert b" 404 " in await reader.readline()
            writer.close()
            await writer.wait_closed()


async def test_it_goes_with_the_daemon(house: House) -> None:
    """After an orderly end nothing is left of it."""
    async with house.app() as app:
        path = socket_path(app.store.beside)
        assert (await call(app.store.beside, "GET", "/status"))["pid"] == os.getpid()
    assert not path.exists()
    with pytest.raises(NoDaemon):
        await call(app.store.beside, "GET", "/status")


async def test_what_a_killed_daemon_left_is_replaced(house: House) -> None:
    """A socket that nobody listens on is no obstacle, and until then it counts as no daemon."""
    path = house.configure()
    daemon = await house.daemon()
    await house.gateway.connected()
    await daemon.kill()
    left = socket_path(house.folder / "state" / "dingbridge.db")
    assert left.exists()
    assert (await as_json("status", "--config", str(path), expected=1))["running"] is None
    daemon = await house.daemon()
    await house.gateway.connected()
    assert (await as_json("status", "--config", str(path)))["pid"] == daemon.process.pid
    assert await daemon.stop() == 0
    assert not left.exists()


async def test_a_path_longer_than_an_address_works(tmp_path: Path) -> None:
    """108 bytes are all that an address holds; folders are longer, in Chinese in particular."""
    folder = tmp_path / ("很长的文件夹" * 8) / ("x" * 100)
    async with opened(folder / "x.db", Clock()) as one:
        await one.put(message("m1"))
        async with served(one) as server:
            assert len(os.fsencode(server.path)) > 200
            assert stat.S_IMODE(server.path.stat().st_mode) == 0o600
            assert (await call(one.path, "GET", "/inbox"))[0]["message"] == "m1"
        assert not server.path.exists()
        with pytest.raises(NoDaemon):
            await call(one.path, "GET", "/inbox")


async def test_a_daemon_that_cannot_listen_goes_on(house: House, log_file: Path) -> None:
    """It says so, once, answers questions, and operators hear what is the matter."""
    path = house.configure()
    folder = socket_path(house.folder / "state" / "dingbridge.db")
    folder.mkdir(parents=True)
    async with house.app():
        sent = await house.gateway.say("年假有几天？")
        assert "7 天" in (await house.gateway.next_post(sent)).text
        code, out, err = await verb("status", "--config", str(path))
    assert (code, out) == (1, "")
    assert "does not answer on its control socket" in err
    assert logged(log_file, "control.not_listening") == 1
    assert folder.is_dir()


# -- what is asked of it


async def test_a_msg_id_comes_through_as_it_is(store: SQLiteStore) -> None:
    """Slashes, plus and equals signs are part of it, and so is whatever an address would eat."""
    for key in ("a?b#c%2Fd&e", "../x", ".", "a//b", "%", "长 blank"):
        await store.put(message(key))
    async with served(store):
        for key in ("msgA+b/c==", "a?b#c%2Fd&e", "../x", ".", "a//b", "%", "长 blank"):
            for verb_path in ("/trace", "/inbox"):
                assert (await call(store.beside, "GET", f"{verb_path}/{quote(key, safe='')}"))["message"] == key


@pytest.mark.parametrize(
    ("method", "path", "query", "why"),
    [
        ("GET", "/nothing", {}, "404"),
        ("GET", "/", {}, "404"),
        ("POST", "/status", {}, "405"),
        ("GET", "/trace/ZZZZZZZZ", {}, "no message of the last seven days"),
        ("GET", "/trace/", {}, "404"),
        ("GET", "/inbox", {"which": "none"}, "which: open, failed or all"),
        ("GET", "/inbox", {"limit": "-1"}, "limit: a number"),
        ("GET", "/inbox", {"limit": "²"}, "limit: a number"),
        ("POST", "/reload", {}, "no daemon is running"),
        ("GET", "/support", {}, "no daemon is running"),
        ("POST", "/retry/msgA+b/c==", {}, "is not ended yet (it is ready)"),
    ],
)
async def test_what_cannot_be_is_refused_with_a_reason(
    store: SQLiteStore, method: str, path: str, query: dict[str, str], why: str
) -> None:
    """Unknown paths, methods, messages and values are no bug and no silence."""
    async with served(store):
        with pytest.raises(Refused) as refused:
            await call(store.beside, method, path, **query)
    assert why in refused.value.detail


async def test_a_bug_is_told_and_logged(store: SQLiteStore, log_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator sees that it was one, and the log has its traceback."""

    async def broken(*_: Any) -> Any:
        raise LookupError("oh")

    async with served(store):
        monkeypatch.setattr(store, "depth", broken)
        with pytest.raises(Refused, match="LookupError"):
            await call(store.beside, "GET", "/status")
    assert logged(log_file, "control.failed") == 1


async def test_no_page_tells_a_secret_that_an_error_quoted(house: House) -> None:
    """Status, the page, readiness and STATUS are masked, whatever the other side put into its refusal."""
    secret = "plainword-4711"
    async with house.app(web={"admin_token": secret}) as app:
        app.outages.backend.lost(f"the proxy said {secret}", "proxy.auth")
        told = await call(app.store.beside, "GET", "/status")
        assert told["backend"]["why"] == "the proxy said ***"
        assert "the proxy said ***" in app.vitals.page()
        app.stream.state.why = f"no link with {secret}"
        app.stream.state.connected = False
        assert app.vitals.parts()["link"].why == "no link with ***"
        assert secret not in app.vitals.line() + app.vitals.page()
        app.stream.state.connected = True


@pytest.mark.parametrize(
    "sent",
    [
        b"\0" * 100,
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"x" * 1_000_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: " + b"b" * 1_000_000 + b"\r\n\r\n",
        b"POST /reload HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n" + b"x" * 100_000,
        b"POST /retry/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /trace/" + b"%ff%00%d8" * 500 + b" HTTP/1.0\r\n\r\n",
        b"",
    ],
    ids=range(9),
)
async def test_garbage_harms_nobody(store: SQLiteStore, sent: bytes) -> None:
    """Whatever somebody with the right user sends, the next call is answered."""
    async with served(store) as server:
        got = await raw(server.path, sent)
        assert b" 200 " not in got.partition(b"\r\n")[0]
        assert len(await call(store.beside, "GET", "/inbox")) == 1


async def test_one_who_says_nothing_holds_up_nothing(store: SQLiteStore) -> None:
    """Neither the others nor the end."""
    async with asyncio.timeout(20), served(store) as server:
        _, writer = await asyncio.open_unix_connection(str(server.path))
        writer.write(b"GET /status HTTP/1.1\r\nHost")
        assert len(await call(store.beside, "GET", "/inbox")) == 1
    writer.close()


async def test_an_answer_that_is_none_is_told(tmp_path: Path) -> None:
    """Somebody else on that socket: no traceback, no wait for ever."""
    store = tmp_path / "x.db"

    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        writer.close()

    async with await asyncio.start_unix_server(rude, str(socket_path(store))):
        with pytest.raises(BridgeError, match="the daemon did not answer"):
            await call(store, "GET", "/status")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_somebody_else_is_told_who_may(house: House, tmp_path: Path) -> None:
    """Permission denied is no missing daemon: the sentence says whom to be."""
    async with house.app() as app:
        address = socket_path(app.store.beside)
        for folder in (*tmp_path.parents, tmp_path, app.store.beside.parent):
            if folder.is_relative_to("/tmp") and folder != Path("/tmp"):
                folder.chmod(0o755)
        told = await as_nobody(app.store.beside)
        app.store.beside.parent.chmod(0o700)
        hidden = await as_nobody(app.store.beside)
    for said in (told, hidden):
        assert said == f"BridgeError: {address}: permission denied: call this as root or as the service's user"


async def as_nobody(store: Path) -> str:
    """What `call` raises in a process of another user."""
    source = (
        "import asyncio, sys, os\n"
        "from pathlib import Path\n"
        "from dingbridge.control import call\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try:\n"
        "    asyncio.run(call(Path(sys.argv[1]), 'GET', '/status'))\n"
        "except Exception as error:\n"
        "    print(f'{type(error).__name__}: {error}')\n"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", source, str(store)), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    return out.decode().strip()


# -- without a daemon


async def test_looking_without_a_daemon_changes_nothing(house: House) -> None:
    """Status, trace and inbox read the store that a killed daemon left; no crash is counted by looking."""
    path = house.configure()
    store = house.folder / "state" / "dingbridge.db"
    store.parent.mkdir()
    async with child(store, "put:m1", "lease", "kill") as process:
        await process.wait()
    before = rows(store)
    wanted = trace_code("ding1", "m1")
    for arguments in (("status",), ("inbox", "list"), ("inbox", "show", wanted), ("trace", wanted)):
        code, out, err = await verb(*arguments, "--config", str(path))
        assert (code, err) == (int(arguments == ("status",)), "")
        assert wanted in out
    assert rows(store) == before
    assert rows(store, "crashes") == [(0,)]


async def test_no_store_is_made_by_looking(house: House) -> None:
    """A wrong path, or before the first start: the sentence names the path, and nothing is created."""
    path = house.configure()
    for arguments in (("status",), ("inbox", "list"), ("trace", "x"), ("inbox", "retry", "x"), ("reload",)):
        code, out, err = await verb(*arguments, "--config", str(path))
        assert (code, out) == (1, "")
        assert f"no daemon is running, and there is no store yet at {house.folder}/state/dingbridge.db" in err
    assert not (house.folder / "state").exists()


async def test_a_store_that_is_held_in_silence(house: House) -> None:
    """A daemon that starts, stops or is stuck: not taken for none, and its store is left alone."""
    path = house.configure()
    async with opened(house.folder / "state" / "dingbridge.db", Clock()):
        code, out, err = await verb("status", "--config", str(path))
    assert (code, out) == (1, "")
    assert "is it starting, stopping or stuck? see its log" in err


async def test_a_listener_that_is_gone_is_no_daemon(tmp_path: Path) -> None:
    """A file of the right kind that nobody serves."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(socket_path(tmp_path / "x.db")))
    with pytest.raises(NoDaemon):
        await call(tmp_path / "x.db", "GET", "/status")
