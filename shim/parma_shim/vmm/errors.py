"""What can go wrong with a VM."""

from __future__ import annotations

from parma_api.status import FailedPreconditionError, InternalError, UnavailableError


class VmmError(InternalError):
    """QEMU, or the kernel on its behalf, refused something."""


class VmmSetupError(FailedPreconditionError):
    """This host cannot start the machine that was asked for; the message says what to install or change."""


class VmmGoneError(UnavailableError):
    """The VM has ended; the message is the cause."""


class BootFailureError(VmmGoneError):
    """The VM ended, or stayed silent, before the agent's first answer.

    The caller starts one more machine, counts it and reports `cause`, which carries the exit status and the last lines
    of QEMU and of the console.
    """

    def __init__(self, cause: str) -> None:
        super().__init__(f"the utility VM did not come up: {cause}")
        self.cause = cause
