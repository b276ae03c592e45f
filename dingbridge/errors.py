"""Every error dingbridge raises on purpose. Anything else is a bug and shows a traceback.

    BridgeError
    ├── ConfigError             every fault at once; exit code 78
    ├── StoreError
    │   ├── StoreLocked         another daemon holds this store
    │   ├── StoreUnavailable    cannot be opened, full, broken
    │   └── LeaseLost           the row was cancelled or taken over: stop, send nothing
    ├── PayloadError            a frame or a message that cannot be read
    ├── LinkError               no connection to DingTalk's gateway
    │   └── CredentialsRejected told once, retried slowly
    ├── BackendError
    │   ├── BackendUnavailable  retryable: down, overloaded, timed out
    │   ├── BackendRejected     configuration: key, workspace, model
    │   └── BackendMalformed    an answer nobody can read
    ├── MediaError              what was sent along cannot be fetched or read
    ├── HandlerError            a handler raised; or could not be loaded
    └── ReplyError
        ├── SessionExpired      the session webhook is gone: next rung
        ├── ReplyPaced          too fast: wait retry_after
        ├── ReplyTooLong        split smaller
        ├── ReplyUnsafe         DingTalk's content check refused the text
        ├── ReplyRejected       permanent: wrong target, missing permission
        ├── ReplyUnavailable    certain not to have arrived; may be repeated
        └── ReplyUncertain      may have arrived (certain = False)

The edges classify, the centre decides by `retryable`, `retry_after`, `certain` and `public` alone.
The message is for the operator and names the remedy; it never carries a secret, a query string or a body.
"""

from __future__ import annotations


class BridgeError(Exception):
    """Base of all.

    retryable: the same call may succeed later.
    retry_after: seconds the other side asked for, if it did.
    certain: False when the effect may have happened although it failed.
    public: key of the text for the chat user, in `texts.py`.
    cause: key of the explanation for the operator, in `causes.py`; "" where there is nothing to add to the detail.
    route: name of the route that it happened on; "" where it was on none.
    """

    retryable: bool = False
    retry_after: float | None = None
    certain: bool = True
    public: str = "failed"
    cause: str = ""
    route: str = ""

    def __init__(
        self,
        detail: str,
        *,
        retryable: bool | None = None,
        retry_after: float | None = None,
        certain: bool | None = None,
        public: str | None = None,
        cause: str | None = None,
    ) -> None:
        super().__init__(detail)
        if retryable is not None:
            self.retryable = retryable
        if retry_after is not None:
            self.retry_after = retry_after
        if certain is not None:
            self.certain = certain
        if public is not None:
            self.public = public
        if cause is not None:
            self.cause = cause

    @property
    def detail(self) -> str:
        return str(self.args[0])


class ConfigError(BridgeError):
    """All faults of a configuration, one line each, like `route[0].workspce: unknown key, …`."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class StoreError(BridgeError):
    retryable = True


class StoreLocked(StoreError):
    retryable = False
    cause = "store.locked"


class StoreUnavailable(StoreError):
    cause = "store.unavailable"


class LeaseLost(StoreError):
    retryable = False


class PayloadError(BridgeError):
    pass


class LinkError(BridgeError):
    retryable = True
    cause = "link.lost"


class CredentialsRejected(LinkError):
    cause = "link.rejected"


class BackendError(BridgeError):
    public = "backend_failed"
    cause = "backend.failed"


class BackendUnavailable(BackendError):
    retryable = True
    public = "backend_unavailable"
    cause = "backend.down"


class BackendRejected(BackendError):
    public = "backend_rejected"
    cause = "backend.refused"


class BackendMalformed(BackendError):
    public = "backend_failed"
    cause = "backend.unreadable"


class MediaError(BridgeError):
    public = "file_unavailable"
    cause = "media.unavailable"


class HandlerError(BridgeError):
    public = "failed"
    cause = "handler.raised"


class ReplyError(BridgeError):
    """code, status: how DingTalk's OpenAPI named a refusal, and its HTTP status; "" and 0 where it did not refuse."""

    code: str = ""
    status: int = 0


class SessionExpired(ReplyError):
    cause = "webhook.expired"


class ReplyPaced(ReplyError):
    retryable = True
    cause = "chat.paced"


class ReplyTooLong(ReplyError):
    cause = "chat.too_long"


class ReplyUnsafe(ReplyError):
    public = "unsafe"
    cause = "chat.unsafe"


class ReplyRejected(ReplyError):
    cause = "chat.refused"


class ReplyUnavailable(ReplyError):
    retryable = True
    cause = "chat.busy"


class ReplyUncertain(ReplyError):
    retryable = True
    certain = False
    cause = "chat.unknown_outcome"
