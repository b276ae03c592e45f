"""Where what DingTalk names may be sent to or fetched from.

An address is read as it will be used (`encoded=True`): what normalisation would repair into an allowed host is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from yarl import URL

_PRINTABLE = re.compile(r"[!-~]+")
_ALIYUN = re.compile(r"(?:[a-z0-9-]+\.)+aliyuncs\.com")
_DINGTALK = re.compile(r"(?:[a-z0-9-]+\.)+dingtalk\.com")
_HOSTS = {"http": (_ALIYUN,), "https": (_ALIYUN, _DINGTALK)}
_PORTS = {"http": 80, "https": 443}


def _read(text: str) -> URL | None:
    """None for what nobody would write: unprintable characters, a user, no host, a port that is none."""
    if not _PRINTABLE.fullmatch(text) or "\\" in text:
        return None
    try:
        url = URL(text, encoded=True)
        usable = bool(url.raw_host) and url.port is not None and "@" not in url.raw_authority
    except ValueError:
        return None
    return url if usable else None


def webhook_origin_check(oapi_base: str) -> Callable[[str], bool]:
    """Session webhooks may point to `oapi_base`'s own origin, or to https on *.dingtalk.com, port 443."""
    home = _origin(URL(oapi_base))

    def allowed(text: str) -> bool:
        if (url := _read(text)) is None:
            return False
        scheme, host, port = _origin(url)
        dingtalk = scheme == "https" and port == 443 and _DINGTALK.fullmatch(host) is not None
        return dingtalk or (scheme, host, port) == home

    return allowed


def download_origin_check(api_base: str) -> Callable[[str], bool]:
    """Where a file may lie: on *.aliyuncs.com, https on *.dingtalk.com, or on `api_base`'s own host.

    At the scheme's usual port, or at `api_base`'s on its host. Http is left to storage: DingTalk hands it out so.
    """
    home_scheme, home, home_port = _origin(URL(api_base))

    def allowed(text: str) -> bool:
        if (url := _read(text)) is None:
            return False
        scheme, host, port = _origin(url)
        if host == home and (scheme, port) == (home_scheme, home_port):
            return True
        if scheme not in _PORTS or port != _PORTS[scheme]:
            return False
        return host == home or any(kind.fullmatch(host) for kind in _HOSTS[scheme])

    return allowed


def _origin(url: URL) -> tuple[str, str, int | None]:
    return url.scheme, (url.raw_host or "").lower(), url.port
