"""A daemon's place on this machine: its name among the daemons of a shared store, which a restart finds again."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dingbridge.errors import StoreLocked, StoreUnavailable

SEATS = 64


@dataclass(frozen=True, slots=True)
class Seat:
    """name: who sat here before had it, too; he is dead. beside: what stands beside it begins with this path."""

    name: str
    beside: Path
    lock: IO[str]

    def leave(self) -> None:
        self.lock.close()


def seat_paths(path: Path) -> list[Path]:
    """Where daemons may sit, or have sat."""
    return [seat for number in range(1, SEATS + 1) if _lock_of(seat := _numbered(path, number)).exists()]


def seat_name(beside: Path) -> str:
    """Of who sits there or sat there last; the file's name where that cannot be read."""
    try:
        return _lock_of(beside).read_text()[:200].strip() or beside.name
    except (OSError, ValueError):
        return beside.name


def is_anyone_seated(path: Path) -> bool:
    """Whether a daemon runs here, whatever becomes of the database; also where that cannot be found out."""
    return any(_is_taken(_lock_of(seat)) for seat in seat_paths(path))


def _is_taken(lock: Path) -> bool:
    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def take_seat(path: Path) -> Seat:
    """The first free one. path: of the store, in a folder of this machine."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        for number in range(1, SEATS + 1):
            if seat := _try(_numbered(path, number)):
                return seat
    except OSError as error:
        raise StoreUnavailable(
            f"{path}: {error.strerror}; does the folder exist, may the service's user write to it?",
            cause={errno.ENOSPC: "store.full", errno.EIO: "store.disk"}.get(error.errno or 0, "store.readonly"),
        ) from error
    raise StoreLocked(f"{path}: {SEATS} daemons are running here; stop some of them first")


def _try(beside: Path) -> Seat | None:
    lock = os.fdopen(os.open(_lock_of(beside), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        return None
    host = socket.gethostname()[:40]
    name = lock.read(200).strip()
    if name.rpartition("-")[0] != host:  # new, or copied here from another machine
        name = new_name()
        lock.seek(0)
        lock.truncate()
        lock.write(name + "\n")
        lock.flush()
    return Seat(name, beside, lock)


def new_name() -> str:
    return f"{socket.gethostname()[:40]}-{secrets.token_hex(4)}"


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}-{number}")


def _lock_of(beside: Path) -> Path:
    return beside.with_name(beside.name + ".lock")
