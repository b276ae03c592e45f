"""Answer pages, on a listener that serves nothing else: who has the link reads one answer, and may vote once.

The token in the address is all the right there is: nobody signs in, no cookie is set, nothing of a visitor is kept.
Reading has no effect. A vote is taken only from the page itself, as far as a browser tells where it comes from.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Protocol, TypeVar
from urllib.parse import parse_qs, urlsplit

from aiohttp import web

from dingbridge.bucket import Bucket
from dingbridge.errors import StoreError
from dingbridge.markup import clean
from dingbridge.model import Verdict
from dingbridge.settings import PagesConfig
from dingbridge.store.pages import MAX_COMMENT, AnswerPage
from dingbridge.texts import Texts
from dingbridge.web import document
from dingbridge.web.document import AddressOf, Frame
from dingbridge.web.listening import RETRY_S, Health, Listener

STATIC: Final = Path(__file__).with_name("static")
TYPES: Final = {"css": "text/css", "js": "text/javascript"}
MOST: Final = 16 * 1024  # bytes of a vote
BODY_S: Final = 10.0
LONG: Final = 4_000  # characters of an answer with its sources; more are rendered in a thread
WAITING: Final = 32  # who waits for that thread
RENDERED: Final = 16  # contents that are kept
KNOWN: Final = 4_096  # pages that were opened lately
PER_MINUTE: Final = 300.0  # of addresses never seen before, and of votes
K = TypeVar("K")
V = TypeVar("V")
_TOKEN = re.compile(r"[A-Za-z0-9_-]{22}")
_VERDICTS: Final = {verdict.value: verdict for verdict in Verdict}
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-Robots-Tag": "noindex, nofollow, noarchive",
    "Cross-Origin-Resource-Policy": "same-origin",
}
FOREVER: Final = "public, max-age=31536000, immutable"


class PageStore(Protocol):
    """Both raise StoreError."""

    async def open(self, token: str) -> AnswerPage | None: ...

    async def vote(self, token: str, verdict: Verdict, comment: str = "") -> bool: ...


class Pages:
    """`run()` serves until cancelled, and waits for a taken port instead of failing.

    locale, locale_of: the common one, and a route's, empty where it has none. address_of: where a source can be
    opened. voted: told of each vote. now: seconds that go forward.
    """

    def __init__(
        self,
        config: PagesConfig,
        store: PageStore,
        *,
        locale: str,
        locale_of: Callable[[str], str] = lambda _: "",
        address_of: AddressOf = lambda source: source.url,
        voted: Callable[[str], None] = lambda _: None,
        now: Callable[[], float] = time.monotonic,
        retry_s: float = RETRY_S,
    ) -> None:
        self._store = store
        self._locale = locale
        self._locale_of = locale_of
        self._address_of = address_of
        self._voted = voted
        self._now = now
        self._listener = Listener(config.host, config.port, name="pages", retry_s=retry_s)
        self._url = config.public_url.rstrip("/")
        self._base = urlsplit(self._url).path
        self._authority = _authority(urlsplit(self._url).netloc, self._url)
        self._files = {_hashed(path): (path.read_bytes(), TYPES[path.suffix[1:]]) for path in STATIC.iterdir()}
        css, js = (next(name for name in self._files if name.endswith(kind)) for kind in (".css", ".js"))
        self._frame = Frame(f"{self._base}/static/{css}", f"{self._base}/static/{js}")
        self._guesses = Bucket(left=PER_MINUTE, per_minute=PER_MINUTE)
        self._votes = Bucket(left=PER_MINUTE, per_minute=PER_MINUTE)
        self._known: dict[bytes, None] = {}
        self._contents: dict[tuple[bytes, float, str], str] = {}
        self._thread: ThreadPoolExecutor | None = None
        self._rendering = asyncio.Lock()
        self._waiting = 0

    @property
    def health(self) -> Health:
        return self._listener.health

    @property
    def address(self) -> tuple[str, int] | None:
        return self._listener.address

    def link(self, token: str) -> str:
        """Where people open it."""
        return f"{self._url}/a/{token}"

    async def run(self) -> None:
        app = web.Application(client_max_size=MOST, middlewares=[self._guard])
        app.on_response_prepare.append(_add_headers)
        for base in {"", self._base}:  # whether or not what stands in front of this takes the path off
            app.router.add_get(f"{base}/a/{{token}}", self._get_page)
            app.router.add_post(f"{base}/a/{{token}}/vote", self._post_vote)
            app.router.add_get(f"{base}/static/{{name}}", self._get_static)
        self._thread = ThreadPoolExecutor(1, "pages")
        try:
            await self._listener.serve(app)
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    # -- what is asked for

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        hosts = request.headers.getall("Host", [])
        if len(hosts) != 1 or _authority(hosts[0], self._url) != self._authority:
            # A foreign name means that somebody else's page asks, or a proxy that does not hand on the name.
            return web.Response(status=421, text="this listener answers only to the name in [pages] public_url\n")
        try:
            return await handler(request)
        except (web.HTTPNotFound, web.HTTPMethodNotAllowed):
            return self._notice("page_gone", 404)
        except StoreError:
            return self._notice("page_later", 503)

    async def _get_page(self, request: web.Request) -> web.Response:
        token = request.match_info["token"]
        page = await self._opened(token)
        locale = self._locale_of(page.told.route) or self._locale
        texts = Texts(locale)
        inner = await self._content(_digest(token), page, locale)
        vote_at = f"{self._base}/a/{token}/vote"
        html = document.whole(page, inner, texts, frame=self._frame, locale=locale, vote_at=vote_at)
        return web.Response(text=html, content_type="text/html")

    async def _post_vote(self, request: web.Request) -> web.Response:
        token = request.match_info["token"]
        self._refuse_strangers(request)
        await self._opened(token)
        self._votes = self._take(self._votes)
        fields = await _fields(request)
        verdict = _VERDICTS.get(fields.get("verdict", ""))
        if verdict is None:
            raise web.HTTPBadRequest(text='verdict must be "good" or "bad"\n')
        if not await self._store.vote(token, verdict, clean(fields.get("comment", "")).strip()[:MAX_COMMENT]):
            raise web.HTTPNotFound
        self._voted(verdict)
        if "application/json" in request.headers.get("Accept", ""):
            return web.json_response({"verdict": verdict})
        return web.Response(status=303, headers={"Location": f"{self._base}/a/{token}#feedback"})

    async def _get_static(self, request: web.Request) -> web.Response:
        found = self._files.get(request.match_info["name"])
        if found is None:
            raise web.HTTPNotFound
        body, kind = found
        return web.Response(body=body, content_type=kind, charset="utf-8", headers={"Cache-Control": FOREVER})

    # -- how

    async def _opened(self, token: str) -> AnswerPage:
        """One look-up by its hash, whoever asks; a flood of guesses is held off before that.

        Who has read a page lately is not bothered by it; who opens one for the first time may have to try again.
        """
        if not _TOKEN.fullmatch(token):
            raise web.HTTPNotFound
        digest = _digest(token)
        if digest in self._known:
            del self._known[digest]  # and comes last again
        else:
            self._guesses = self._take(self._guesses)
        page = await self._store.open(token)
        if page is None:
            raise web.HTTPNotFound
        _keep(self._known, digest, None, KNOWN)
        return page

    def _take(self, bucket: Bucket) -> Bucket:
        wait_s, left = bucket.take(self._now())
        if wait_s:
            raise web.HTTPTooManyRequests(
                text=self._notice_text("page_later"), content_type="text/html", headers={"Retry-After": "5"}
            )
        return left

    async def _content(self, digest: bytes, page: AnswerPage, locale: str) -> str:
        key = (digest, page.told.at, locale)
        if (kept := self._contents.get(key)) is not None:
            return kept
        if len(page.told.answer.text) + sum(len(source.text) for source in page.told.answer.sources) <= LONG:
            return self._rendered(page, locale)
        if self._waiting >= WAITING:
            raise web.HTTPServiceUnavailable(text=self._notice_text("page_later"), content_type="text/html")
        self._waiting += 1
        try:
            async with self._rendering:  # one at a time; who waited for the same one finds it
                if (kept := self._contents.get(key)) is not None:
                    return kept
                loop = asyncio.get_running_loop()
                inner = await loop.run_in_executor(self._thread, self._rendered, page, locale)
                _keep(self._contents, key, inner, RENDERED)
                return inner
        finally:
            self._waiting -= 1

    def _rendered(self, page: AnswerPage, locale: str) -> str:
        return document.content(page, Texts(locale), address_of=self._address_of)

    def _refuse_strangers(self, request: web.Request) -> None:
        """Another site's form. "null" is what a browser says of a page that hands on no referrer: of ours, too."""
        site = request.headers.get("Sec-Fetch-Site", "same-origin")
        origin = request.headers.get("Origin", "null")
        ours = origin == "null" or (
            origin.partition("://")[0].lower() == urlsplit(self._url).scheme
            and _authority(origin.partition("://")[2], self._url) == self._authority
        )
        if site not in {"same-origin", "none"} or not ours:
            raise web.HTTPForbidden(text="votes are taken from the page itself\n")

    def _notice(self, key: str, status: int) -> web.Response:
        return web.Response(status=status, text=self._notice_text(key), content_type="text/html")

    def _notice_text(self, key: str) -> str:
        return document.notice(key, Texts(self._locale), frame=self._frame, locale=self._locale)


async def _fields(request: web.Request) -> dict[str, str]:
    if request.content_type != "application/x-www-form-urlencoded":
        raise web.HTTPUnsupportedMediaType(text="a vote is sent as a form\n")
    try:
        async with asyncio.timeout(BODY_S):
            body = await request.read()
        fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=8)
    except TimeoutError:
        raise web.HTTPRequestTimeout(text="the vote did not arrive\n") from None
    except (ValueError, web.RequestPayloadError):
        raise web.HTTPBadRequest(text="a vote has a verdict and a comment\n") from None
    return {name: values[0] for name, values in fields.items()}


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    """On every answer, the refusals too."""
    response.headers.update(HEADERS)
    response.headers.setdefault("Cache-Control", "private, no-store")
    response.headers.pop("Server", None)


def _authority(netloc: str, url: str) -> tuple[str, int] | None:
    """Host and port as a browser means them; None for what is neither. url: whose scheme says the usual port."""
    try:
        parts = urlsplit(f"//{netloc}")
        host, port = parts.hostname, parts.port
        if not host or parts.netloc != netloc or "@" in netloc:
            return None
        name = host if ":" in host else host.encode("idna").decode()
    except ValueError:
        return None
    return name, port or {"https": 443}.get(urlsplit(url).scheme, 80)


def _hashed(path: Path) -> str:
    return f"{path.stem}-{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}{path.suffix}"


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _keep(kept: dict[K, V], key: K, value: V, most: int) -> None:
    """The oldest gives way."""
    kept[key] = value
    if len(kept) > most:
        del kept[next(iter(kept))]
