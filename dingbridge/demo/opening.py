"""Where a page is told to be, and whether a browser opens it."""

from __future__ import annotations

import getpass
import os
import sys
import threading
import webbrowser
from collections.abc import Mapping

PORT = 8787


def welcome(port: int, wanted: int, environ: Mapping[str, str], name: str = "演示页面") -> str:
    """Where the page is, and how to reach it from the machine one sits at."""
    lines = [f"{name}：http://127.0.0.1:{port}    （Ctrl-C 结束）"]
    if wanted not in {0, port}:
        lines.append(f"端口 {wanted} 已被占用，改用 {port}。")
    connection = environ.get("SSH_CONNECTION", "").split()
    if len(connection) == 4:
        server, server_port = connection[2:]
        option = "" if server_port == "22" else f" -p {server_port}"
        lines.append("在您自己的电脑上运行下面这条命令，再用浏览器打开上面的地址：")
        lines.append(f"  ssh -N -L {port}:127.0.0.1:{port}{option} {getpass.getuser()}@{server}")
    return "\n".join(lines)


def opens_a_browser(environ: Mapping[str, str]) -> bool:
    """Where somebody sits at this machine's screen; a text browser would take the terminal."""
    if environ.get("SSH_CONNECTION"):
        return False
    return sys.platform == "darwin" or any(environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))


def open_browser(url: str) -> None:
    """Without waiting for it; nothing where nobody would see it."""
    if opens_a_browser(os.environ):
        threading.Thread(target=webbrowser.open, args=(url,), daemon=True, name="browser").start()
