"""The ways into DingTalk that one configuration opens: replies, cards, faces, and the files that come along."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

from dingbridge.dingtalk.allowance import Budget
from dingbridge.dingtalk.cards import Cards
from dingbridge.dingtalk.emotions import Emotions
from dingbridge.dingtalk.media import Media
from dingbridge.dingtalk.openapi import OpenAPI, SharedToken
from dingbridge.dingtalk.pace import Pace
from dingbridge.dingtalk.rate import Rate
from dingbridge.dingtalk.replies import NewestWebhook, Replies
from dingbridge.settings import DingTalkConfig, ReplyConfig
from dingbridge.texts import Texts


@dataclass(frozen=True, slots=True)
class Common:
    """What outlives a configuration: one a robot."""

    pace: Pace
    rate: Rate
    budget: Budget
    token: SharedToken | None
    newest_webhook: NewestWebhook
    clock: Callable[[], float]
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Ways:
    """emotions: None where the configuration wants none."""

    replies: Replies
    files: Media
    cards: Cards
    emotions: Emotions | None


async def open_ways(
    stack: AsyncExitStack,
    dingtalk: DingTalkConfig,
    reply: ReplyConfig,
    texts: Texts,
    links: Mapping[str, str],
    common: Common,
) -> Ways:
    """What it opens is closed with the stack."""
    network, robot, budget = dingtalk.network, dingtalk.client_id, common.budget
    session = await stack.enter_async_context(network.open_session(plain_calls=True))
    openapi = OpenAPI(
        session,
        network,
        api_base=dingtalk.api_base,
        client_id=robot,
        client_secret=dingtalk.client_secret,
        timeout_s=common.timeout_s,
        rate=common.rate,
        shared=common.token,
    )
    replies = Replies(
        session,
        network,
        openapi,
        newest_webhook=common.newest_webhook,
        texts=texts,
        clock=common.clock,
        uncertain=reply.uncertain,
        timeout_s=common.timeout_s,
        pace=common.pace,
        links=links,
        budget=budget,
    )
    stack.callback(replies.close)
    # Without a template, too: cards that were opened with one have to be closed.
    template, key = dingtalk.card_template_id, dingtalk.card_content_key
    cards = Cards(openapi, robot=robot, template_id=template, content_key=key, budget=budget)
    stack.push_async_callback(cards.close)
    return Ways(
        replies,
        files=Media(session, network, openapi, api_base=dingtalk.api_base, robot=robot, budget=budget),
        cards=cards,
        emotions=Emotions(openapi, robot, budget) if reply.notice == "emotion" else None,
    )
