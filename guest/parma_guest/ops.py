"""Effects as values: what a plan consists of, and the one place that carries plans out.

A plan is a tuple of operations, made by pure functions. `apply` runs them in order; each gives its inverse, and a
failure runs the inverses in reverse. Inverses are synchronous, so that no cancellation can cut them short.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Protocol

from parma_api.status import ApiError, InternalError

Undo = Callable[[], None]


class UndoFailedError(InternalError):
    """State and books may differ now: the group must be marked inconsistent."""


class Operation(Protocol):
    """One effect."""

    def describe(self) -> str:
        """One line for logs and golden tests; no secrets."""
        ...

    def apply(self) -> Undo | None:
        """Do it. The result takes it back; None if there is nothing to take back."""
        ...


def irreversible(what: str) -> Undo:
    """The inverse of something that has none: if a later step fails, the group is inconsistent."""

    def undo() -> None:
        raise UndoFailedError(f"cannot take back: {what}")

    return undo


def describe(operations: Iterable[Operation]) -> tuple[str, ...]:
    """The plan as text."""
    return tuple(operation.describe() for operation in operations)


def apply(operations: Iterable[Operation], *, finish: Undo | None = None) -> None:
    """Run the operations in order, then `finish`; whatever fails takes back what was done, last first.

    Every inverse runs, also after one that failed. Raises UndoFailedError, with the first failure as its cause, if
    any inverse failed, else what the operation raised.
    """
    failures: list[str] = []
    try:
        with ExitStack() as stack:
            for operation in operations:
                undo = operation.apply()
                if undo is not None:
                    stack.callback(_attempt, operation.describe(), undo, failures)
            if finish is not None:
                finish()
            stack.pop_all()
    except BaseException as error:
        if failures:
            raise UndoFailedError(f"{_message(error)}; then: {'; '.join(failures)}") from error
        raise


def _attempt(what: str, undo: Undo, failures: list[str]) -> None:
    try:
        undo()
    except (ApiError, OSError) as error:
        failures.append(f"undo of [{what}] failed: {_message(error)}")


def _message(error: BaseException) -> str:
    return error.message if isinstance(error, ApiError) else f"{type(error).__name__}: {error}"
