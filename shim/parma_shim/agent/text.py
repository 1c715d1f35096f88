"""Text of the guest's, made safe for a log line, an event or an error (attacks.md, K18d). Pure."""

from __future__ import annotations

from parma_api.status import ApiError, Code, RemoteError
from parma_shim.errors import HostileGuestError

MAX_TEXT = 300
MAX_REFUSAL = 4096
"""Of a refusal's text: the agent sends 3072 characters at most, and the codes whole."""


def clean(text: str, limit: int = MAX_TEXT) -> str:
    """One line of printable characters, at most `limit`; what is cut is said."""
    printable = "".join(c if c.isprintable() else " " for c in text[: limit + 1])
    return printable if len(printable) <= limit else printable[: limit - 3] + "..."


def translated(error: ApiError, method: str) -> ApiError:
    """The error of a call as the rest of the shim may show it."""
    if isinstance(error, RemoteError):
        limit = MAX_REFUSAL if error.code is Code.PERMISSION_DENIED else MAX_TEXT
        code = error.code if error.code is not Code.OK else Code.UNKNOWN
        return RemoteError(code, clean(error.message, limit) or f"{method} failed in the guest")
    if error.code in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED):
        return error
    return HostileGuestError(f"the guest's answer to {method} is refused: {clean(error.message)}")
