"""What systemd wants to hear: READY, STATUS, WATCHDOG, STOPPING. (man sd_notify; a datagram to $NOTIFY_SOCKET)."""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress


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
