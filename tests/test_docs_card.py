"""What `examples/card` tells to put into a template is what the daemon fills in, and understands when pressed."""

from __future__ import annotations

import re

from dingbridge import config
from dingbridge.sim.gateway import Gateway
from tests.house import House, until
from tests.pages import chapters

PAGE = "examples/card/README.md"
TEMPLATE = "answer.schema"
ROUTE = [{"workspace": "handbook", "deep_workspace": "handbook-deep", "contact": "wangwu"}]
PAGES = {"listen": "127.0.0.1:0", "public_url": "http://bot.intra:8789"}


def named(column: int, *headings: str) -> list[dict[str, list[str]]]:
    """Of each table with one of these headings, Chinese first: the name in that column, and its row."""
    found: list[dict[str, list[str]]] = []
    of_ours = False
    for row in (row for chapter in chapters(PAGE) for row in chapter.rows):
        if not re.match(r"[`👍👎-]", row[0]) and column < len(row) and not row[column].startswith("`"):
            of_ours = row[column] in headings
            found += [{}] if of_ours else []
        elif of_ours and (name := re.fullmatch(r"`(\w+)`", row[column])):
            found[-1][name[1]] = row
    return found


def variables() -> list[dict[str, list[str]]]:
    return named(0, "变量", "variable")


def buttons() -> list[dict[str, list[str]]]:
    return named(1, "actionId")


def test_both_languages_name_the_same() -> None:
    """Variables and action ids stand in a Chinese and in an English table, in the same order."""
    for tables in (variables(), buttons()):
        ours, theirs = tables
        assert ours
        assert list(ours) == list(theirs)


def test_the_text_goes_where_the_configuration_says() -> None:
    """The first variable is the default of card_content_key."""
    (field,) = [field for field in config.SCHEMA["dingtalk"] if field.name == "card_content_key"]
    assert next(iter(variables()[0])) == field.default


async def test_the_template_is_filled_and_its_buttons_are_understood(house: House, gateway: Gateway) -> None:
    """A template with these variables and no other gets them all, and each button gets its presser a word."""
    known, ids = variables()[0], buttons()[0]
    private = {name for name, row in known.items() if row[2] == "私有"}
    gateway.add_template(TEMPLATE, known)
    async with house.app(dingtalk={"card_template_id": TEMPLATE}, route=ROUTE, pages=PAGES):
        card = await gateway.next_card(await gateway.say("年假有几天？", user="zhangsan"))
        await until(lambda: card.data.get("page_url"))
        assert card.state == "finished"
        assert set(card.data) == set(known) - private
        assert all(card.data.values())
        told: set[str] = set()
        for action in ids:
            for actions, params in ((action, {}), ("btn_1", {"action": action})):
                press = await gateway.press(card, actions, user="zhangsan", params=params)
                assert press.ok, (action, press.error)
                assert press.response is not None
                shown = press.response["userPrivateData"]["cardParamMap"]
                assert shown["note"], action
                told |= set(shown)
        assert told == private
