"""What systemd wants to hear: READY, STATUS, WATCHDOG, STOPPING. (man sd_notify; a datagram to $NOTIFY_SOCKET)."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress


class Presence:
    """Tells other processes of this machine that a daemon serves this robot, wherever its store is.

    An abstract socket: it needs no file and no right, and goes with the process. (man 7 unix)
    """

    def __init__(self, client_id: str) -> None:
        self._name = "\0dingbridge-" + hashlib.sha256(client_id.encode()).hexdigest()[:32]
        self._socket: socket.socket | None = None

    def announce(self) -> bool:
        """False where another process has: two daemons on one robot split its messages."""
        held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            held.bind(self._name)
        except OSError:
            held.close()
            return False
        self._socket = held
        return True

    def withdraw(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def is_announced(self) -> bool:
        """True while a daemon serves this robot."""
        free = self.announce()
        if free:
            self.withdraw()
        return not free


class Notifier:
    """Silent where nobody listens. Takes the variables away, so that children do not inherit them."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        address = environ.pop("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        period = environ.pop("WATCHDOG_USEC", "")
        owner = environ.pop("WATCHDOG_PID", str(os.getpid()))
        mine = bool(self._address) and period.isdigit() and owner == str(os.getpid())
        self.watchdog_s: float | None = int(period) / 1e6 if mine else None

    def send(self, *lines: str) -> None:
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.setblocking(False)
            sock.sendto("\n".join(lines).encode(), self._address)
