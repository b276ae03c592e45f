"""A real Chromium on the real demo page: one browser and one demo a module, a clean page a test.

The browser is the system's own. Without one these tests are skipped, but never where CI is set.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
START_S = 60.0
WAIT_MS = 30_000  # a bound for a hang
DESKTOP = (1440, 900)
TABLET = (900, 800)
PHONE = (390, 844)
GRAVE = {"serious", "critical"}

expect.set_options(timeout=WAIT_MS)


@dataclass
class Seen:
    """What a page did besides showing itself: requests to other hosts, and anything on the console."""

    foreign: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)

    def note_request(self, url: str, own: str) -> None:
        if not url.startswith(own):
            self.foreign.append(url)


@dataclass
class Demo:
    """`dingbridge demo` as a process of its own."""

    url: str
    process: subprocess.Popen[str]

    def clear(self) -> None:
        """Nothing said, nothing broken; a restart of the daemon only where it is needed."""
        state = self._ask("/api/state")
        used = state["messages"] or state["tour"] or not state["daemon"]["running"]
        for name in (name for name, on in state["faults"].items() if on):
            self._ask("/api/fault", {"name": name, "on": False})
        if used:
            self._ask("/api/tour", {"action": "stop"})
            self._ask("/api/reset", {})

    def hear(self, text: str) -> None:
        """Somebody asks, from another window, and has the answer."""
        said = self._ask("/api/say", {"chat": "zhangsan", "as": "zhangsan", "text": text})
        while self._ask("/api/state")["messages"][-1]["id"] == said["id"]:
            time.sleep(0.05)

    def act(self, path: str, /, **body: Any) -> None:
        """As the page's script does."""
        self._ask(f"/api/{path}", body)

    def _ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        headers = {"Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        with _DIRECT.open(urllib.request.Request(self.url + path, data, headers), timeout=START_S) as response:
            return json.load(response)


_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass
class Visitor:
    """Somebody with a page open; every look at it waits for what it asks for."""

    page: Page
    seen: Seen

    @property
    def log(self) -> Locator:
        return self.page.get_by_role("log").first

    @property
    def answers(self) -> Locator:
        return self.page.locator(".chat").first.locator(".message.theirs .markdown")

    def ask(self, text: str) -> None:
        self.page.locator("#ask").fill(text)
        self.page.locator("#ask").press("Enter")

    def open_chat(self, title: str) -> None:
        self.page.get_by_role("navigation", name="会话").get_by_role("button", name=title).click()

    def open_tab(self, title: str) -> None:
        self.page.get_by_role("tab", name=title).click()

    def stock(self, messages: list[dict[str, Any]]) -> None:
        """Load the page anew with these said before."""
        self.alter(lambda state: {**state, "messages": [*messages, *state["messages"]]})
        expect(self.page.locator(".message")).to_have_count(len(messages))

    def alter(self, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Load the page anew with a changed state."""
        self.page.route("**/api/state", lambda route: route.fulfill(json=change(route.fetch().json())))
        self.page.reload()
        self.page.locator(".row").first.wait_for(state="attached")

    def overflow_px(self) -> int:
        """By how much the page is wider than its window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


Visit = Callable[..., Visitor]


def said(
    number: int, *, chat: str = "zhangsan", text: str = "第几条？", pc: str = "", phone: str = ""
) -> dict[str, Any]:
    """A message as the demo's state holds it; with `pc` and `phone` it is the bot's, rendered."""
    return {
        "id": f"stocked{number}",
        "chat": chat,
        "from": "bot" if pc else chat,
        "nick": "",
        "at": 1_790_000_000_000 + number * 1000,
        "kind": "markdown" if pc else "text",
        "title": "",
        "text": text,
        "html": {"pc": pc, "phone": phone},
        "mentions": [],
        "notice": False,
        "state": "acked",
        "webhook_expires_at": None,
        "note": "",
    }


def faults_of(page: Page) -> list[str]:
    """What axe finds, in daylight and in the dark, that keeps somebody from using the page."""
    return [fault for scheme in ("light", "dark") for fault in _faults_in(page, scheme)]


def _faults_in(page: Page, scheme: Literal["light", "dark"]) -> list[str]:
    page.emulate_media(color_scheme=scheme)
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [
        f"{scheme}: {one['id']}: {one['help']}: {[node['html'][:120] for node in one['nodes']][:3]}"
        for one in found
        if one["impact"] in GRAVE
    ]


def find() -> str | None:
    """The path of a browser, if the system has one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The browser; a skip says what is missing."""
    path = find()
    if path is None:
        reason = f"no browser: none of {', '.join(NAMES)} is in PATH (Debian: apt-get install chromium)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    """A running demo."""
    with running() as one:
        yield one


@contextmanager
def running(*arguments: str, port: int = 0, name: str = "演示页面") -> Iterator[Demo]:
    """A demo of one's own; its page's address is what it prints after its name."""
    with subprocess.Popen(
        [sys.executable, "-m", "dingbridge", "demo", "--no-browser", "--port", str(port), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    ) as process:
        try:
            yield Demo(_address(process, name), process)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(START_S)
            finally:
                process.kill()


def _address(process: subprocess.Popen[str], name: str) -> str:
    """The address that its stdout calls by this name."""
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in process.stdout or ():
            lines.put(line)
        lines.put("")

    threading.Thread(target=read, daemon=True).start()
    while line := lines.get(timeout=START_S):
        if line.startswith(name):
            return "http://" + line.partition("http://")[2].split()[0]
    raise AssertionError(f"the demo ended with {process.wait(START_S)} before it printed its address")


@pytest.fixture
def visit(chromium: Browser, demo: Demo) -> Iterator[Visit]:
    """Opens the page, by default on a desk in daylight; at the end no page has complained or called out."""
    demo.clear()
    opened: list[tuple[BrowserContext, Seen]] = []

    def open_page(size: tuple[int, int] = DESKTOP, url: str = demo.url, **settings: Any) -> Visitor:
        context = chromium.new_context(viewport={"width": size[0], "height": size[1]}, locale="zh-CN", **settings)
        page, seen = context.new_page(), Seen()
        opened.append((context, seen))
        page.set_default_timeout(WAIT_MS)
        page.on("request", lambda request: seen.note_request(request.url, url))
        page.on("console", lambda message: seen.console.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: seen.console.append(f"error: {error}"))
        page.goto(url)
        page.locator(".row").first.wait_for(state="attached")
        return Visitor(page, seen)

    yield open_page
    for context, seen in opened:
        context.close()
        assert seen.foreign == []
        assert seen.console == []
