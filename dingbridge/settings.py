"""What the configuration says, section by section, checked. See `config.py` for how it is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dingbridge.model import Route, Secret
from dingbridge.net import Network


@dataclass(frozen=True, slots=True)
class DingTalkConfig:
    """`[dingtalk]`: the robot's application. Both bases are without a slash at their end.

    card_template_id: empty where answers are no cards. card_content_key: the template's variable for the text.
    """

    client_id: str
    client_secret: Secret
    api_base: str
    oapi_base: str
    card_template_id: str
    card_content_key: str
    network: Network


@dataclass(frozen=True, slots=True)
class AnythingLLMConfig:
    """`[anythingllm]`. `total_timeout_s` bounds the whole ask with all its attempts."""

    base_url: str
    api_key: Secret
    mode: str
    attempts: int
    connect_timeout_s: float
    first_token_timeout_s: float
    idle_timeout_s: float
    total_timeout_s: float
    network: Network


@dataclass(frozen=True, slots=True)
class ReplyConfig:
    """`[reply]`: locale "zh-CN" or "en"; notice "text", "emotion" or "off"; uncertain "repeat" or "drop".

    quick_replies: without a card, "commands" names them below an answer, "buttons" makes it an action card one to one.
    """

    locale: str
    notice_after_s: float
    notice: str
    uncertain: str
    quick_replies: str


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    """`[limits]`: 0 means no limit in each of them."""

    workers: int
    waiting_per_lane: int
    per_user_per_minute: int
    answer_deadline_min: float
    drain_s: float


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """`[store]`. path: the SQLite file; with PostgreSQL what lock and control socket on this machine are named after.

    url: PostgreSQL's, empty for SQLite; a password may stand in it.
    """

    path: Path
    url: Secret = Secret()  # noqa: RUF009 - frozen and empty
    password: Secret = Secret()  # noqa: RUF009 - frozen and empty

    @property
    def is_postgres(self) -> bool:
        return bool(self.url)


@dataclass(frozen=True, slots=True)
class WebConfig:
    """`[web]`: port 0 takes any free one; not `enabled` where `listen` is empty."""

    host: str
    port: int
    admin_token: Secret
    enabled: bool


@dataclass(frozen=True, slots=True)
class ContextConfig:
    """`[context]`: scope "person" or "group"; idle_min 0: a context ends only with `/new`."""

    scope: str
    idle_min: float


@dataclass(frozen=True, slots=True)
class PagesConfig:
    """`[pages]`: not `enabled` where `listen` is empty. public_url: without a slash at its end."""

    host: str
    port: int
    public_url: str
    ttl_days: float
    enabled: bool


@dataclass(frozen=True, slots=True)
class BudgetConfig:
    """`[budget]`: this robot's share of what the organisation may use a month; 0 means no limit.

    reply_path: "auto", "webhook" or "openapi".
    """

    api_calls_per_month: int
    webhook_stream_per_month: int
    reply_path: str


@dataclass(frozen=True, slots=True)
class Config:
    """Everything `dingbridge.toml` says; all paths are absolute. Showing it shows no secret."""

    path: Path
    dingtalk: DingTalkConfig
    anythingllm: AnythingLLMConfig
    routes: tuple[Route, ...]
    reply: ReplyConfig
    limits: LimitsConfig
    handlers_path: tuple[Path, ...]
    store: StoreConfig
    web: WebConfig
    context: ContextConfig
    pages: PagesConfig
    budget: BudgetConfig
    sources: Mapping[str, str]
