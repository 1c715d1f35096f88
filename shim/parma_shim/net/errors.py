"""What can go wrong with the pod's network."""

from __future__ import annotations

from parma_api.status import FailedPreconditionError, InternalError


class NetworkError(InternalError):
    """The kernel refused something in the pod's network namespace."""


class NetworkSetupError(FailedPreconditionError):
    """The pod's network is not one that a utility VM can have; the message says why."""
