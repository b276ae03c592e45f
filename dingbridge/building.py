"""From a configuration to parts: the one place, beside `app`, that knows concrete classes."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING
from urllib.parse import unquote

from dingbridge.answerer import Answerer, Backend
from dingbridge.backends.anythingllm import AnythingLLM
from dingbridge.backends.anythingllm import Limits as AskLimits
from dingbridge.decode import identifier, password_in
from dingbridge.dingtalk.allowance import Budget
from dingbridge.dingtalk.pace import Pace
from dingbridge.dingtalk.rate import Rate
from dingbridge.dingtalk.ways import Common, open_ways
from dingbridge.errors import BridgeError, StoreError
from dingbridge.model import Secret
from dingbridge.redaction import Redactor
from dingbridge.settings import Config, StoreConfig
from dingbridge.setup import Setup
from dingbridge.store.intake import Limits
from dingbridge.store.sqlite import SQLiteStore
from dingbridge.store.store import Store
from dingbridge.texts import CATALOGUES, Texts
from dingbridge.web.pages import Pages

if TYPE_CHECKING:
    from dingbridge.store.postgres_engine import Address

DAY_S = 24 * 3600.0
OnRetry = Callable[[BridgeError, int, float], None]


def secrets_of(config: Config) -> tuple[Secret, ...]:
    dingtalk, anythingllm = config.dingtalk, config.anythingllm
    in_url = password_in(config.store.url.reveal())
    return (
        dingtalk.client_secret,
        anythingllm.api_key,
        config.web.admin_token,
        config.store.password,
        Secret(in_url),
        Secret(unquote(in_url)),
        dingtalk.network.proxy,
        anythingllm.network.proxy,
    )


def redactor_for(config: Config) -> Redactor:
    """Knows this configuration's secrets by value."""
    return Redactor(tuple(secret.reveal() for secret in secrets_of(config)))


def import_handlers_from(config: Config) -> None:
    """Make `[handlers] path` importable, in the order it is written; what was written there just now, too."""
    importlib.invalidate_caches()
    sys.path[:0] = [str(folder) for folder in config.handlers_path if str(folder) not in sys.path]


def store_limits(config: Config) -> Limits:
    limits = config.limits
    return Limits(
        waiting_per_lane=limits.waiting_per_lane,
        per_user_per_minute=limits.per_user_per_minute,
        answer_deadline_s=limits.answer_deadline_min * 60.0,
        idle_s=config.context.idle_min * 60.0,
        by_group=config.context.scope == "group",
        keep_s=config.pages.ttl_days * DAY_S if config.pages.enabled else 0.0,
    )


def postgres_address(place: StoreConfig, robot: str) -> Address:
    """Each robot has a schema of its own, so several may share a database. Raises ConfigError."""
    from dingbridge.store.postgres_engine import address  # noqa: PLC0415 - 20 MiB that SQLite does not need

    return address(place.url, place.password, f"dingbridge_{identifier(robot)}")


def make_store(
    place: StoreConfig,
    robot: str,
    *,
    clock: Callable[[], float],
    limits: Limits,
    on_commit: Callable[[float], None] = lambda _: None,
    redact: Callable[[str], str] = str,
    on_trouble: Callable[[StoreError | None], None] = lambda _: None,
    on_time: Callable[[float], None] = lambda _: None,
) -> Store:
    """Not opened yet. Raises ConfigError for a URL that PostgreSQL's client does not understand."""
    if not place.is_postgres:
        return SQLiteStore(
            place.path, clock=clock, limits=limits, on_commit=on_commit, redact=redact, on_trouble=on_trouble
        )
    from dingbridge.store.postgres import PostgresStore  # noqa: PLC0415 - 20 MiB that SQLite does not need

    return PostgresStore(
        postgres_address(place, robot),
        place.path,
        clock=clock,
        limits=limits,
        on_commit=on_commit,
        redact=redact,
        on_trouble=on_trouble,
        on_time=on_time,
    )


def open_backend(config: Config, on_retry: OnRetry | None = None) -> AnythingLLM:
    settings = config.anythingllm
    return AnythingLLM(
        base_url=settings.base_url,
        api_key=settings.api_key,
        mode=settings.mode,
        limits=AskLimits(
            attempts=settings.attempts,
            connect_s=settings.connect_timeout_s,
            first_token_s=settings.first_token_timeout_s,
            idle_s=settings.idle_timeout_s,
            total_s=settings.total_timeout_s,
        ),
        network=settings.network,
        on_retry=on_retry,
    )


class Linked:
    """Links to answer pages (setup.Pages)."""

    def __init__(self, store: Store, pages: Pages) -> None:
        self._store = store
        self._pages = pages

    async def link(self, row: int) -> str:
        return self._pages.link(await self._store.pages.issue(row))


class Setups:
    """Opens setups that share what must be one per robot: the paces, the access token, the budget, the pages."""

    def __init__(
        self, store: Store, *, clock: Callable[[], float], reply_s: float, budget: Budget, pages: Pages | None
    ) -> None:
        self._pages = Linked(store, pages) if pages is not None else None
        self._common = Common(
            pace=Pace(clock, shared=store.shared),
            rate=Rate(lambda: store.replicas),
            budget=budget,
            token=store.shared,
            newest_webhook=store.webhook,
            clock=clock,
            timeout_s=reply_s,
        )

    async def open(self, stack: AsyncExitStack, config: Config, backend: Backend) -> Setup:
        """What it opens is closed with the stack. Raises ConfigError for a handler that cannot be used."""
        texts = Texts(config.reply.locale)
        answerer = Answerer(config.routes, backend, handler_s=config.anythingllm.total_timeout_s)
        ways = await open_ways(stack, config.dingtalk, config.reply, texts, config.sources, self._common)
        return Setup(
            robot=config.dingtalk.client_id,
            answerer=answerer,
            replies=ways.replies,
            texts=texts,
            notice_after_s=config.reply.notice_after_s,
            notice=config.reply.notice != "off",
            waiting_per_lane=config.limits.waiting_per_lane,
            workers=config.limits.workers,
            quick_replies=config.reply.quick_replies,
            cards=ways.cards,
            files=ways.files,
            pages=self._pages,
            emotions=ways.emotions,
            locales={locale: Texts(locale) for locale in CATALOGUES},
        )
