"""Status codes and the root of every error tree.

Codes are those of google.rpc.Code, which ttrpc and gRPC share. An error is turned into a status once, at the edge of
a server (`parma_api.ttrpc.server`); below it, code raises the subclass that names the cause.
"""

from __future__ import annotations

import enum


class Code(enum.IntEnum):
    """google.rpc.Code."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class ApiError(Exception):
    """An error with a status code; `message` is one line: what, why, what to do."""

    code: Code = Code.UNKNOWN

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidArgumentError(ApiError):
    """The caller sent something that can never work."""

    code = Code.INVALID_ARGUMENT


class NotFoundError(ApiError):
    """What the caller names does not exist."""

    code = Code.NOT_FOUND


class AlreadyExistsError(ApiError):
    """The name is taken."""

    code = Code.ALREADY_EXISTS


class FailedPreconditionError(ApiError):
    """Legal, but not in this state."""

    code = Code.FAILED_PRECONDITION


class PermissionDeniedError(ApiError):
    """The policy, or a rule that no policy can lift, refuses."""

    code = Code.PERMISSION_DENIED


class ResourceExhaustedError(ApiError):
    """A limit on size or number was reached."""

    code = Code.RESOURCE_EXHAUSTED


class DeadlineExceededError(ApiError):
    """It did not finish in time."""

    code = Code.DEADLINE_EXCEEDED


class UnimplementedError(ApiError):
    """Known, and not offered."""

    code = Code.UNIMPLEMENTED


class UnavailableError(ApiError):
    """The peer is gone or not there yet."""

    code = Code.UNAVAILABLE


class InternalError(ApiError):
    """The environment failed (a kernel call, a program); the message names it."""

    code = Code.INTERNAL


class DataLossError(ApiError):
    """Bytes that must be right are wrong."""

    code = Code.DATA_LOSS


class RemoteError(ApiError):
    """A peer answered with a status other than OK."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
