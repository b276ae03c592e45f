"""Where something that DingTalk names may be fetched from."""

from __future__ import annotations

import re
from collections.abc import Callable

from yarl import URL

_PRINTABLE = re.compile(r"[!-~]+")
_ALIYUN = re.compile(r"(?:[a-z0-9-]+\.)+aliyuncs\.com")
_DINGTALK = re.compile(r"(?:[a-z0-9-]+\.)+dingtalk\.com")
_HOSTS = {"http": (_ALIYUN,), "https": (_ALIYUN, _DINGTALK)}
_PORTS = {"http": 80, "https": 443}


def download_origin_check(api_base: str) -> Callable[[str], bool]:
    """Where a file may lie: on *.aliyuncs.com, https on *.dingtalk.com, or on `api_base`'s own host.

    At the scheme's usual port, or at `api_base`'s on its host. Http is left to storage: DingTalk hands it out so.
    Read as it will be fetched (`encoded=True`): what normalisation would repair into an allowed host is refused.
    """
    base = URL(api_base).origin()

    def allowed(text: str) -> bool:
        if not _PRINTABLE.fullmatch(text) or "\\" in text:
            return False
        try:
            url = URL(text, encoded=True)
            host, port = (url.raw_host or "").lower(), url.port
        except ValueError:
            return False
        if not host or "@" in url.raw_authority:
            return False
        if host == base.raw_host and (url.scheme, port) == (base.scheme, base.port):
            return True
        if url.scheme not in _PORTS or port != _PORTS[url.scheme]:
            return False
        return host == base.raw_host or any(kind.fullmatch(host) for kind in _HOSTS[url.scheme])

    return allowed
