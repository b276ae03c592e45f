"""What dingbridge lives by is watched: the store and the backend, lost and found told once. The link tells its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from dingbridge.answerer import Backend
from dingbridge.errors import BackendError, BackendMalformed, StoreError
from dingbridge.model import Answer, Attachment
from dingbridge.outage import Lost, Outage

log = structlog.get_logger("dingbridge.watched")


class Outages:
    """One for each part. on_store: told, too, what the store tells."""

    def __init__(self) -> None:
        self.on_store: Callable[[StoreError | None], None] = lambda _: None
        self.store = Outage(_store_lost, lambda down_s: log.warning("store.found", down_s=round(down_s, 1)))
        self.backend = Outage(_backend_lost, lambda down_s: log.warning("backend.found", down_s=round(down_s, 1)))

    def of_store(self, error: StoreError | None) -> None:
        """What the store's `on_trouble` tells."""
        if error is None:
            self.store.found()
        else:
            self.store.lost(error.detail, error.cause)
        self.on_store(error)


def _store_lost(lost: Lost) -> None:
    log.error("store.lost", why=lost.why, cause=lost.cause, untold=lost.untold)


def _backend_lost(lost: Lost) -> None:
    log.error("backend.lost", why=lost.why, cause=lost.cause, untold=lost.untold)


class Watched:
    """Asks as the backend does, and tells the outage how it went. A refusal is an answer."""

    def __init__(self, backend: Backend, outage: Outage) -> None:
        self._backend = backend
        self._outage = outage

    async def ask(
        self,
        question: str,
        *,
        workspace: str,
        session: str,
        on_text: Callable[[str], None] | None = None,
        attachments: Sequence[Attachment] = (),
    ) -> Answer:
        try:
            answer = await self._backend.ask(
                question, workspace=workspace, session=session, on_text=on_text, attachments=attachments
            )
        except BackendError as error:
            if _blames_the_server(error):
                self._outage.lost(error.detail, error.cause)
            raise
        self._outage.found()
        return answer


def _blames_the_server(error: BackendError) -> bool:
    """Down, or set up wrongly. An answer that nobody can read is often the question's; a web page never is."""
    return error.retryable or not isinstance(error, BackendMalformed)
