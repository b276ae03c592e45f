"""What must not leave the process: masked by key, by look, and by knowing the secret, in whatever dress it comes."""

from __future__ import annotations

import base64
import dataclasses
import re
from binascii import Error as NotBase64
from collections.abc import Mapping, MutableMapping
from typing import Any
from urllib.parse import unquote

from dingbridge.disguise import disguised, parts_of, plain_run
from dingbridge.model import Secret

MASK = "***"
SHORTEST = 4  # a shorter secret would mask half of every log; it is still hidden by key and by look
DEEPEST = 12
LONGEST_VALUE = 8192

# By name of a field, whatever its value.
_KEYS = re.compile(
    r"(?i)secret|passw|passphrase|\bpwd\b|ticket|api[-_]?key|access[-_]?key|private[-_]?key|authorization|webhook"
    r"|credential|cookie|download[-_]?code|(?<!first_)token|^session$|^sign(?:ature)?$|phone|mobile|id[-_]?card"
    r"|密码|密钥|口令|令牌|手机|身份证"
)
# A number of something is no secret, though it may count tokens.
_MEASURES = re.compile(r"(?i)(?:_s|_ms|_at|bytes|size|count|total|tokens)$|^webhook_stream$")

# A name and what stands behind it: in JSON, in a repr, in a query, in a header; quoted once, twice or for a URL.
_PAIR = re.compile(
    r"""(?ix)
    (?: secret | passw(?:or)?d | passphrase | pwd | ticket | (?<!first_)token | api[-_\ ]?key | access[-_]?key
      | access[-_]?key[-_]?id | download[-_]?code
      | private[-_]?key | session[-_]?webhook | credential | 密码 | 密钥 | 口令 | 令牌
      | (?<![a-z0-9])(?: session | sign(?:ature)? )
      | (?P<header> (?:proxy-)?authorization | cookie ) )
    s? (?: [-_]?(?:key|value|text) )?
    (?: \\{0,64}["'] )?
    [\s+]{0,4}
    (?P<sep> => | [=:：] | \\{1,64}u003[ad] | (?<=["']),(?=[\s+]{0,4}b?\\{0,64}["']) )
    [\s+]{0,4} (?P<list> [\[(] )? b?
    (?P<quote> (?P<run> \\{0,64} ) (?P<mark> ["'] ) )?
    """
)
_VALUE = re.compile(r"""[^\s&"'<>,;)\]}\\]{1,8192}""")
_LINE = re.compile(r"""(?:(?!\\{1,64}[rn])[^\r\n>]){1,8192}""")
_FOLLOWING = re.compile(r"""\\{0,64}["'],[\s+]{0,4}b?\\{0,64}["']""")
_NOTHING = frozenset({"None", "True", "False", "null", "NULL", "true", "false", MASK, "(empty", "..."})
_BEARER = re.compile(r"\b((?i:bearer))([\s+]{1,4})(?=\S{0,400}?[\dA-Z_]|\S{20})[\w.~+/=-]{6,}", re.ASCII)
_BASIC = re.compile(r"\b((?i:basic)[\s+]{1,4})([A-Za-z0-9+/_-]{4,}={0,2})", re.ASCII)
_USERINFO = re.compile(r"""(:(?:\\{0,64}/){2})[^\s/?#"'<>\\]*@(?=[\w\[])""")
_PEM = re.compile(r"(-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----)[^-]*")
# By look alone: a JSON web token, a model provider's key, a custom robot's, AnythingLLM's, an answer page's token.
_SHAPES = re.compile(
    r"\beyJ[\w-]{8,}\.[\w-]{4,}\.?[\w-]*|\bsk-[\w-]{16,}|\bSEC[0-9a-f]{32,}|\b[A-Z0-9]{7}(?:-[A-Z0-9]{7}){3}\b"
    r"|(?<=/a/)[\w-]{22}(?![\w-])",
    re.ASCII,
)
# A mobile number, with or without its country; an identity card number.
_PERSONAL = re.compile(
    r"(?<![\d.])(?:(?:\+|00)?86[- ]?)?1[3-9]\d(?:\d{8}|[- ]\d{4}[- ]\d{4})(?!\d)|(?<!\d)\d{17}[\dXx](?![\dA-Za-z])"
)
# Escapes of URLs, but for those of control characters, and of HTML.
_CONTROL = re.compile("%([01][0-9A-Fa-f]|7[Ff])")
_ENTITIES = {"&quot;": '"', "&#x27;": "'", "&#39;": "'", "&lt;": "<", "&gt;": ">", "&amp;": "&"}
_ENTITY = re.compile("|".join(_ENTITIES))
LAYERS = 3
_HEX = frozenset("0123456789abcdefABCDEF-")
_HASH = 12  # the shortest that we write
_WORD, _WORD_BEFORE = re.compile("[A-Za-z0-9]"), re.compile(r"[A-Za-z0-9%\\]")
_WORDS = (
    *("secret", "passw", "passphrase", "pwd", "ticket", "token", "key", "credential", "session", "sign", "auth"),
    *("cookie", "bearer", "basic", "eyj", "sk-", "/a/", "download", "密", "口令", "令牌"),
)
_DIGITS = re.compile(r"[0-9][0-9 -]{9}[0-9]")
_WITHIN_KEY = re.compile(r"-[A-Z0-9]{7}-[A-Z0-9]{7}-")  # of AnythingLLM's; the other shapes have a word above


class Redactor:
    """Masks by key, by look, and the very secrets it was given. Use one for everything that leaves the process.

    As a structlog processor it masks a line; `text`, `structure` and `file` serve everything else.
    A secret is known in each form in which it may appear: for URLs, in JSON or a repr, and within base64.
    """

    def __init__(self, secrets: tuple[str, ...] = ()) -> None:
        self._secrets: frozenset[str] = frozenset()
        self._known: re.Pattern[str] | None = None
        self._runs: tuple[str, ...] = ()
        self._numeric = False
        self._keys: dict[str, tuple[str, bool, bool]] = {}
        self.learn(*secrets)

    def learn(self, *secrets: str | Secret) -> None:
        """Know these too, from now on; nothing is forgotten. Of an address only its user and password are secret."""
        plain = [secret.reveal() if isinstance(secret, Secret) else secret for secret in secrets]
        new = {part for secret in plain for part in parts_of(secret) if len(part) >= SHORTEST}
        if new <= self._secrets:
            return
        self._secrets |= new
        known = sorted(self._secrets, key=len, reverse=True)
        self._known = re.compile("|".join(form for secret in known for form in disguised(secret)))
        self._runs = tuple({run for secret in known for run in plain_run(secret)})
        self._numeric = any(secret.isdigit() for secret in known)
        self._keys = {}

    def text(self, text: str) -> str:
        """The text without secrets; also for whole files' contents. Takes time in proportion to its length.

        Where only what was escaped, for a URL or HTML, shows a secret, the text is given without these escapes.
        """
        if not self._suspect(text):
            return text
        masked = plain = self._masked(text)
        for _ in range(LAYERS):
            if (inner := _unescaped(plain)) == plain:
                break
            plain = self._masked(inner)
            if plain != inner:
                masked = plain
        return masked

    def _masked(self, text: str) -> str:
        if self._known is not None:
            text = self._known.sub(MASK, text)
        text = _PEM.sub(r"\1***", _USERINFO.sub(r"\1***@", text))
        text = _BASIC.sub(_basic, _BEARER.sub(r"\1\2***", text))
        text = _SHAPES.sub(MASK, _without_pairs(text))
        return _PERSONAL.sub(_personal, text)

    def structure(self, value: Any) -> Any:
        """A copy of dicts, lists, dataclasses and scalars that is masked and that JSON can take."""
        return self._value(value)

    def __call__(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:  # noqa: ARG002 - structlog's shape
        try:
            return self._line(event)
        except Exception as error:  # noqa: BLE001 - a line that cannot be looked through is not shown, and ends nothing
            return {"level": method, "event": "log.unprintable", "why": type(error).__name__}

    # -- inside

    def _line(self, event: MutableMapping[str, Any]) -> dict[str, Any]:
        """Most lines are short texts and numbers: they are looked at once, together."""
        clean = not self._suspect("\n".join([value for value in event.values() if type(value) is str]))
        masked: dict[str, Any] = {}
        for key, value in event.items():
            name, hidden, measure = self._judged(key)
            if hidden and _may_be_secret(value, measure=measure):
                masked[name] = MASK
            elif clean and type(value) is str:
                masked[name] = value
            else:
                masked[name] = self._value(value, measure=measure)
        return masked

    def _judged(self, key: str) -> tuple[str, bool, bool]:
        """The key as it is shown, whether its value is hidden, and whether it measures something."""
        if (found := self._keys.get(key)) is None:
            if len(self._keys) > 1000:  # keys may be data
                self._keys = {}
            hidden = _KEYS.search(key) is not None and not key.endswith("_file")  # where it lies is no secret
            found = (self.text(key), hidden, _MEASURES.search(key) is not None)
            self._keys[key] = found
        return found

    def _suspect(self, text: str) -> bool:
        """May there be something to mask? Cheap, and never wrongly no."""
        lower = text.lower()
        for word in _WORDS:  # this is asked of every text: any() would take twice as long
            if word in lower:
                return True
        for run in self._runs:
            if run in text:
                return True
        if "@" in text or "%2" in text or "SEC" in text or _DIGITS.search(text) is not None:
            return True
        return _WITHIN_KEY.search(text) is not None

    def _value(self, value: Any, *, measure: bool = False, depth: int = 0) -> Any:
        if value is None or isinstance(value, bool | int | float):
            return value if measure else self._number(value)
        if isinstance(value, str):
            return self.text(str(value))
        if depth >= DEEPEST:
            return "…"
        if (items := _items(value)) is not None:
            return dict(self._item(key, one, depth) for key, one in items)
        if isinstance(value, list | tuple | set | frozenset):
            return self._sequence(value, depth)
        return self.text(_shown(value))

    def _item(self, key: Any, value: Any, depth: int) -> tuple[str, Any]:
        name, hidden, measure = self._judged(_shown(key))
        if hidden and _may_be_secret(value, measure=measure):
            return name, MASK
        return name, self._value(value, measure=measure, depth=depth + 1)

    def _sequence(self, value: Any, depth: int) -> list[Any]:
        if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str | bytes):
            return list(self._item(*value, depth))  # a header, or a dict's item
        return [self._value(one, depth=depth + 1) for one in value]

    def _number(self, value: float | None) -> float | str | None:
        if value is None or abs(value) < (1000 if self._numeric else 10**10):
            return value
        plain = str(value)
        masked = self.text(plain)
        return value if masked == plain else masked


def _may_be_secret(value: Any, *, measure: bool) -> bool:
    """Whether there is one may be told."""
    return bool(value) and not isinstance(value, bool) and not (measure and isinstance(value, int | float))


def _unescaped(text: str) -> str:
    if "%" in text:
        text = unquote(_CONTROL.sub(r"%25\1", text))
    return _ENTITY.sub(lambda found: _ENTITIES[found[0]], text) if "&" in text else text


def _items(value: Any) -> list[tuple[Any, Any]] | None:
    """Names and values of what has such; headers may have a name twice, of which the last is shown."""
    if isinstance(value, Mapping):
        return list(value.items())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(one.name, getattr(value, one.name, None)) for one in dataclasses.fields(value) if one.repr]
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return list(value._asdict().items())
    return None


def _shown(value: Any) -> str:
    """A text of whatever it is; somebody else's `__str__` may raise."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "backslashreplace")
    try:
        return str(value)
    except Exception:  # noqa: BLE001
        return f"<{type(value).__name__} that cannot be shown>"


def _without_pairs(text: str) -> str:
    """What stands behind the name of a secret is masked up to its own end, however often it is quoted."""
    kept: list[str] = []
    done = at = 0
    while (found := _PAIR.search(text, at)) is not None:
        at = found.end()
        if (end := _end_of_value(text, found)) > at:
            kept += [text[done:at], MASK]
            done = at = end
    return "".join([*kept, text[done:]]) if kept else text


def _end_of_value(text: str, found: re.Match[str]) -> int:
    """Where the value behind a name ends; its own start where that is no secret."""
    start = found.end()
    if found["quote"]:
        end = _closing_quote(text, start, found["mark"], len(found["run"]))
        while found["list"] and (following := _FOLLOWING.match(text, end)):
            end = _closing_quote(text, following.end(), found["mark"], len(found["run"]))
        return start if text[start:end] in _NOTHING else end
    if found["header"]:
        value = _LINE.match(text, start)
        return start if value is None or value[0] in _NOTHING else value.end()
    value = _VALUE.match(text, start)
    if value is None or value[0] in _NOTHING:
        return start
    return start if found["sep"] in (":", "：") and _is_prose(value[0]) else value.end()


def _is_prose(word: str) -> bool:
    """A colon stands in sentences, too; a secret has a digit, or is long, and is no path and no address."""
    if word.startswith(("/", "http")) or len(word) < 6:
        return True
    return len(word) < 20 and not re.search(r"\d", word)


def _closing_quote(text: str, start: int, mark: str, run: int) -> int:
    """The end of a quoted text whose quotes follow `run` backslashes: 0, and 1, 3, 7 where it was quoted again.

    A quote inside it has more. Without an end it ends with the line.
    """
    last = text.find("\n", start, start + LONGEST_VALUE)
    last = min(len(text), start + LONGEST_VALUE) if last < 0 else last
    at = start
    while (at := text.find(mark, at, last)) >= 0:
        slashes = 0
        while at - slashes > start and text[at - slashes - 1] == "\\":
            slashes += 1
        if slashes < run or (slashes - run) % (2 * (run + 1)) == 0:
            return at - min(slashes, run)
        at += 1
    return last


def _basic(found: re.Match[str]) -> str:
    """As a word it may stand anywhere: credentials are base64 with a colon inside."""
    coded = found[2].rstrip("=").replace("-", "+").replace("_", "/")
    try:
        plain = base64.b64decode(coded + "=" * (-len(coded) % 4))
    except (NotBase64, ValueError):
        return found[0]
    return f"{found[1]}{MASK}" if b":" in plain else found[0]


def _personal(found: re.Match[str]) -> str:
    """Digits within a hash only look like a number."""
    text, start, end = found.string, found.start(), found.end()
    while start > 0 and found.start() - start < 64 and text[start - 1] in _HEX:
        start -= 1
    while end < len(text) and end - found.end() < 64 and text[end] in _HEX:
        end += 1
    if _WORD_BEFORE.search(text[max(0, start - 1) : start]):
        start = text.find("-", start, found.start()) + 1 or start  # behind a name and its hyphen
    around = text[start:end]
    long = len(around.replace("-", "")) >= _HASH and re.search("[a-fA-F]", around) is not None
    is_hash = long and not _WORD_BEFORE.search(text[max(0, start - 1) : start]) and not _WORD.match(text[end : end + 1])
    return found[0] if is_hash else MASK
