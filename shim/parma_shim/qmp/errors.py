"""What can go wrong on QEMU's monitor."""

from __future__ import annotations

from parma_api.status import DeadlineExceededError, InternalError, UnavailableError


class QmpProtocolError(InternalError):
    """QEMU answered what the protocol does not allow."""


class QmpCommandError(InternalError):
    """QEMU refused a command; the message carries its reason."""


class QmpTimeoutError(DeadlineExceededError):
    """QEMU did not answer in time."""


class QmpClosedError(UnavailableError):
    """The monitor is gone: QEMU has ended, or is ending."""
