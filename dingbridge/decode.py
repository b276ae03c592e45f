"""Checked values out of a TOML file: encoding, syntax, types, ranges.

A decoder takes what TOML gave and returns the value, or raises `Bad` with the sentence for the operator.
Sentences never show an address or a secret: both may hold a password.
"""

from __future__ import annotations

import hashlib
import importlib.util
import ipaddress
import json
import os
import re
import tomllib
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from yarl import URL

Decode = Callable[[Any], Any]

MOST = 1_000_000  # in every unit in use far beyond sense, and small enough for timedelta and SQLite
MANY = 1_000_000_000
CARD_VARIABLES = ("code", "page_url", "deep", "vote", "note")
DEFAULT_HANDLER = "anythingllm"
CURLY = "“”„‟‘’‚‛"
LENTICULAR = {"【": "[", "】": "]", "「": '"', "」": '"'}  # the rest of full-width ASCII is found by NFKC


class Bad(Exception):
    """Why something cannot be used; pairs of what follows the key's name (`""`, `_file`, `[2]`) and why."""

    def __init__(self, *reasons: str | tuple[str, str]) -> None:
        super().__init__(*reasons)
        self.reasons = [("", reason) if isinstance(reason, str) else reason for reason in reasons]


def shown(value: object) -> str:
    """A value as its owner wrote it: one line, short, nothing a terminal could obey."""
    if isinstance(value, str):
        value = value if len(value) <= 40 else value[:40] + "…"
        return '"' + "".join(c if c.isprintable() else "�" for c in value) + '"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) > 10**18:  # str() of it may raise
        return "a very large number"
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, dict):
        return "a table"
    return "a list" if isinstance(value, list) else "a date or time"


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """What the system says about this path becomes `Bad`, with the path and the remedy."""
    try:
        yield
    except FileNotFoundError:
        raise Bad(f"{path}: not there, create it or correct the path") from None
    except PermissionError:
        raise Bad(f"{path}: permission denied, {_who_may_read(path)}") from None
    except OSError as error:
        raise Bad(f"{path}: cannot be read: {error.strerror}") from None


def read_bytes(path: Path) -> bytes:
    with naming(path):
        return path.read_bytes()


def _who_may_read(path: Path) -> str:
    reader = f"dingbridge runs as uid {os.geteuid()}"
    try:
        facts = path.stat()
    except OSError:
        return f"{reader}, which may not enter the folder; give that user access to it"
    mode = f"{facts.st_mode & 0o7777:04o}"
    owner = f"uid {facts.st_uid} gid {facts.st_gid} with mode {mode}"
    return f"it belongs to {owner} and {reader}; let that user read it"


def read_toml(path: Path) -> dict[str, Any]:
    """The decoded file. Raises `Bad` with the path in front: unreadable, not UTF-8, or no TOML."""
    data = read_bytes(path)
    try:
        written = _utf8(data)
        return _parsed(written)
    except Bad as bad:
        raise Bad(*(f"{path}: {reason}" for _, reason in bad.reasons)) from None


def _utf8(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise Bad("saved as UTF-16, save as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
    try:
        data.decode("gbk")
    except UnicodeDecodeError:
        raise Bad(f"line {line}: not UTF-8, save as UTF-8") from None
    raise Bad(f"line {line}: saved as GBK, save as UTF-8")


def _parsed(written: str) -> dict[str, Any]:
    try:
        return tomllib.loads(written)
    except ValueError as error:  # TOMLDecodeError, and int() of thousands of digits
        raise Bad(_syntax(written, str(error))) from None
    except RecursionError:
        raise Bad("too deeply nested") from None


def _syntax(written: str, message: str) -> str:
    """`line 2, column 13: …`; never the line itself, it may hold a secret."""
    lines = written.replace("\r\n", "\n").split("\n")
    line, column = len(lines), len(lines[-1]) + 1  # "at end of document"
    if found := re.search(r"at line (\d+), column (\d+)\)$", message):
        line, column = int(found[1]), int(found[2])
    what = re.sub(r" \(at [^)]*\)$", "", message)
    culprit = _typographic(lines[line - 1], column) if line <= len(lines) else ""
    return f"line {line}, column {column}: {culprit or what}"


def _typographic(line: str, column: int) -> str:
    """Names the character an input method or a word processor put there instead of an ASCII one."""
    at = line[column - 1 : column]
    curly = [c for c in dict.fromkeys(line.partition("#")[0]) if c in CURLY]
    if (at and at in CURLY) or (curly and not _ascii_for(at)):
        return f"curly quotes {' '.join(curly) or at}, write straight ones"
    straight = _ascii_for(at)
    return f"full-width {at}, write {straight or 'a space'}" if straight is not None else ""


def _ascii_for(char: str) -> str | None:
    if not char or char.isascii():
        return None
    folded = LENTICULAR.get(char) or unicodedata.normalize("NFKC", char)
    return folded.strip() if len(folded) == 1 and folded.isascii() else None


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise Bad(f"must be a text in quotes, got {shown(value)}")
    if value != value.strip():
        raise Bad("has blanks at its ends, remove them")
    if any(unicodedata.category(c) == "Cc" for c in value):
        raise Bad("has a control character inside, write it anew")
    return value


def visible(value: Any) -> str:
    """A text that came by copy and paste: zero-width and other unseen characters are refused too."""
    if not text(value).isprintable():
        raise Bad("has an invisible character inside, copy it again")
    return str(value)


def texts(value: Any, item: Decode = visible) -> tuple[str, ...]:
    """A list of texts, none empty; every bad item is told."""
    if not isinstance(value, list):
        raise Bad(f'must be a list like ["a", "b"], got {shown(value)}')
    reasons: list[tuple[str, str]] = []
    for index, entry in enumerate(value):
        try:
            if not item(entry):
                raise Bad("must not be empty")  # noqa: TRY301 - gathered with the others
        except Bad as bad:
            reasons += [(f"[{index}]{at}", reason) for at, reason in bad.reasons]
    if reasons:
        raise Bad(*reasons)
    return tuple(value)


def sentences(value: Any) -> tuple[str, ...]:
    """A list of texts that people read."""
    return texts(value, text)


def hosts(value: Any) -> tuple[str, ...]:
    """A `no_proxy` list: host, .suffix, *.suffix, IP, CIDR, or `*`."""
    return texts(value, _host)


def _host(value: Any) -> str:
    host = visible(value)
    if "/" in host:
        try:
            ipaddress.ip_network(host, strict=False)
        except ValueError:
            raise Bad("must be a host, .suffix, IP, network like 10.0.0.0/8, or *") from None
    return host


def flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Bad(f"must be true or false, got {shown(value)}")
    return value


def whole(lowest: int, most: int = MOST) -> Decode:
    def decode(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise Bad(f"must be a whole number, got {shown(value)}")
        if not lowest <= value <= most:
            raise Bad(f"must be from {lowest} to {most}, got {shown(value)}")
        return value

    return decode


def number(*, zero: bool) -> Decode:
    """A duration, with fractions; `zero` says whether 0 is allowed."""

    def decode(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise Bad(f"must be a number, got {shown(value)}")
        if not 0 <= value <= MOST or (value == 0 and not zero):
            raise Bad(f"must be {'from 0' if zero else 'above 0'} to {MOST}, got {shown(value)}")
        return float(value)

    return decode


def choice(*options: str) -> Decode:
    def decode(value: Any) -> str:
        if value not in options:
            raise Bad(f"must be {' or '.join(map(json.dumps, options))}, got {shown(value)}")
        return str(value)

    return decode


def url(value: Any) -> str:
    """An http(s) address without user, query and fragment; a slash at its end is trimmed."""
    address = _web_address(value)
    if address is None:
        raise Bad("must be an address like https://host or http://host:port")
    if address.raw_user is not None or address.raw_password is not None:
        raise Bad("must not hold a user or password")
    if "?" in value or "#" in value:
        raise Bad("must not hold a query (?) or fragment (#)")
    return str(value).rstrip("/")


def card_variable(value: Any) -> str:
    """The template's variable for the answer; the others are ours and would overwrite it."""
    name = visible(value)
    if name in CARD_VARIABLES:
        raise Bad(
            f"is one of the template's other variables ({', '.join(CARD_VARIABLES)}), name the one for the answer"
        )
    return name


def link(value: Any) -> str:
    """An http(s) address that people open; a wiki's page is often named by its query."""
    address = _web_address(value)
    if address is None:
        raise Bad("must be an address like https://host/page")
    if address.raw_user is not None or address.raw_password is not None:
        raise Bad("must not hold a user or password")
    return str(value)


def page_url(value: Any) -> str:
    """An address as `url`; empty where there is none."""
    return url(value) if value != "" else ""


def base_url(value: Any) -> str:
    """AnythingLLM's address; a pasted `/api` would double the one that every call brings."""
    address = url(value)
    if re.search(r"/api(/v1)?$", address):
        raise Bad("must not end with /api or /api/v1, remove that")
    return address


def proxy(value: Any) -> str:
    address = _web_address(value)
    stray = "?" in value or "#" in value
    if address is None or address.explicit_port is None or address.raw_path.strip("/") or stray:
        raise Bad("must look like http://user:password@host:port, the password's special characters as %XX")
    return str(value)


def _web_address(value: Any) -> URL | None:
    try:
        address = URL(visible(value))
        usable = address.scheme in ("http", "https") and bool(address.host) and " " not in value
    except (ValueError, UnicodeError):
        return None
    return address if usable else None


def handler(value: Any) -> str:
    """`anythingllm`, or the syntax of `package.module:function`; whether it exists is found at its import."""
    name = text(value)
    module, _, function = name.partition(":")
    if name != DEFAULT_HANDLER and not all(part.isidentifier() for part in (*module.split("."), function)):
        raise Bad(f'must be "anythingllm" or "package.module:function", got {shown(name)}')
    return name


_USERINFO = re.compile(r"(?:[\w.~!$&'()*+,;=:-]|%[0-9A-Fa-f]{2})*", re.ASCII)


def is_postgres(value: str) -> bool:
    return value.startswith(("postgresql:", "postgres:"))


def postgres_url(value: str) -> str:
    """A connection URL as PostgreSQL's clients take it; several hosts may stand in it.

    A password that is not written as URLs have it would be taken for a host or a database, and shown as that.
    """
    scheme, _, rest = value.partition("://")
    if scheme not in ("postgresql", "postgres") or not rest:
        raise Bad('must be "postgresql://user@host:5432/database"')
    who, at, _ = rest.rpartition("@")
    if at and not _USERINFO.fullmatch(who):
        raise Bad("in user and password write what is no letter or digit as %40 and the like, or use [store] password")
    if re.search(r"[?&]password=", rest):
        raise Bad("a password stands before the host, or in [store] password")
    if importlib.util.find_spec("psycopg") is None:
        raise Bad(
            "PostgreSQL needs psycopg: in the source folder pip install '.[postgres]', else 'dingbridge[postgres]'"
        )
    return value


def password_in(url: str) -> str:
    """As it is written in a URL that `postgres_url` has taken."""
    return url.partition("://")[2].rpartition("@")[0].partition(":")[2]


def identifier(name: str) -> str:
    """A name that files and database objects can have; another one for each."""
    if re.fullmatch(r"[a-z0-9_]{1,40}", name):
        return name
    return "x" + hashlib.sha256(name.encode()).hexdigest()[:16]


def sqlite_file(value: str) -> str:
    """The path in `sqlite:///path` (a fourth slash begins an absolute one), or a bare path."""
    path = value.removeprefix("sqlite:///")
    if path == value and ("://" in value or value.startswith("sqlite:")):
        raise Bad('must be a path, or "sqlite:////absolute/path"')
    if path in ("", ":memory:"):
        raise Bad("must name a file, or nothing would be kept through a restart")
    return path


def listen(value: Any) -> tuple[str, int] | None:
    """`host:port`, an IPv6 host in brackets; None for the empty text, which means off."""
    if not visible(value):
        return None
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})", value)
    if found is None or int(found[3]) > 65_535 or (found[1] and not _is_ip(found[1])):
        raise Bad(f'must be "host:port" or "[IPv6]:port" or "" (off), got {shown(value)}')
    return found[1] or found[2], int(found[3])


def is_loopback(host: str) -> bool:
    return host.lower() == "localhost" or (_is_ip(host) and ipaddress.ip_address(host).is_loopback)


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
