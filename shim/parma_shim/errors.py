"""The shim's own errors: what containerd's caller sees; each has its code from `parma_api.status`."""

from __future__ import annotations

from parma_api.status import (
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
)


class UsageError(InvalidArgumentError):
    """The command line, the bundle or the standard input is not what containerd gives."""


class RefusedError(FailedPreconditionError):
    """The pod or container asks for something that no utility VM can give; the message says what."""


class DeniedError(PermissionDeniedError):
    """The guest's policy refused; the message has at most three lines, the record is in a file."""


class NoTaskError(NotFoundError):
    """No such container or process. The ending is what containerd's old clients look for."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}: not found")


class WrongStateError(FailedPreconditionError):
    """The request does not fit the state of the process."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}: failed precondition")


class GuestLostError(UnavailableError):
    """The utility VM, or the way to it, is gone."""


class HostileGuestError(UnavailableError):
    """The guest answered what no honest agent answers."""
