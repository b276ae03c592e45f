"""What an operator changes in the inbox keeps its promises, too."""

from __future__ import annotations

from dingbridge.model import Outcome
from tests.places import Place
from tests.stores import Clock, head, message


async def test_dropping_again_keeps_what_may_have_been_said(place: Place) -> None:
    """Where nobody knows whether the asker was told of the drop, dropping once more does not say it unmarked."""
    async with place.opened(Clock()) as store:
        placed = await store.put(message("m1"))
        await store.drop(placed.row, tell=True)
        telling = await head(store)
        await store.sending(telling, 1)
        await store.later(telling, 0.0, uncertain=True)

        await store.drop(placed.row, tell=True)
        again = await head(store)

    assert again.outcome is Outcome.CANCELLED
    assert again.uncertain
