"""One daemon on one store: a lock on a file beside it, which goes with the process."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import IO

from dingbridge.errors import StoreLocked, StoreUnavailable


def take_lock(path: Path) -> IO[str]:
    """The one-daemon lock beside the store; raises StoreLocked while another process holds it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in (path.name, path.name + ".lock"):  # readable to nobody else; SQLite's other files follow the first
            # Never opened where it is there: closing it would let go of the locks that SQLite has in this process.
            with suppress(FileExistsError):
                os.close(os.open(path.with_name(name), os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        lock = path.with_name(path.name + ".lock").open("a")
    except OSError as error:
        raise StoreUnavailable(
            f"store {path}: {error.strerror}; does the folder exist, may the service's user write to it?",
            cause={errno.ENOSPC: "store.full", errno.EIO: "store.disk"}.get(error.errno or 0, "store.readonly"),
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise StoreLocked(f"store {path}: another dingbridge is running on it; stop that one first") from None
    return lock
