"""What the READMEs say an answer costs is what the stand-in bills; how many a month allows follows from it."""

from __future__ import annotations

import pytest

from dingbridge.sim.gateway import Gateway
from tests.cost import STYLES, TEMPLATE, Style, measured
from tests.house import House
from tests.month import EDITIONS, capacity
from tests.pages import chapters

CHAPTERS = {"README.md": "DingTalk's monthly quotas", "README.zh-CN.md": "钉钉每月的额度"}


def table(page: str) -> list[list[str]]:
    """The rows of the table of costs: style, API, webhook and Stream, and a month's number for each edition."""
    (chapter,) = [one for one in chapters(page) if one.title == CHAPTERS[page]]
    return [row for row in chapter.rows if len(row) == 3 + len(EDITIONS)][2:]


def written(row: list[str]) -> tuple[int, int]:
    return int(row[1]), int(row[2])


@pytest.mark.parametrize("style", [style for style in STYLES if not style.frames], ids=lambda style: style.name)
async def test_an_answer_costs_what_the_readme_says(style: Style, house: House, gateway: Gateway) -> None:
    """Played by the daemon, counted by the stand-in; what takes ten seconds is left to `python -m tests.cost`."""
    gateway.add_template(TEMPLATE)
    row = table("README.md")[STYLES.index(style)]
    async with house.app(**style.tables):
        assert await measured(house, style) == written(row), row[0]


@pytest.mark.parametrize("page", CHAPTERS)
def test_a_month_holds_as_many_as_the_readme_says(page: str) -> None:
    """One row a style, in the order of the styles; the numbers are the smaller of what both pools allow."""
    rows = table(page)
    assert len(rows) == len(STYLES)
    for row in rows:
        cost = written(row)
        assert row[3:] == [f"{capacity(config, *cost):,}" for config in EDITIONS.values()], row[0]
