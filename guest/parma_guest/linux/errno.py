"""One place that turns a failed kernel call into an error which names the call and its object."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from parma_api.status import InternalError


class KernelError(InternalError):
    """A kernel call failed; `number` is its errno."""

    def __init__(self, call: str, what: object, number: int, hint: str = "") -> None:
        text = f"{call} {what}: {os.strerror(number)}"
        super().__init__(f"{text}; {hint}" if hint else text)
        self.call = call
        self.number = number


@contextmanager
def kernel_call(call: str, what: object = "", hint: str = "") -> Iterator[None]:
    """Raise KernelError in place of an OSError from inside."""
    try:
        yield
    except OSError as error:
        raise KernelError(call, what, error.errno or 0, hint) from error
