"""Failures of a conversion, each with its name in the format's section 15."""

from __future__ import annotations

from parma_api.status import InvalidArgumentError


class LayerError(InvalidArgumentError):
    """A layer that cannot be converted; `name` is one of section 15's."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"{name}: {what}")
        self.name = name


def header(what: str) -> LayerError:
    """E_TAR_HEADER."""
    return LayerError("E_TAR_HEADER", what)


def truncated() -> LayerError:
    """E_TAR_TRUNCATED."""
    return LayerError("E_TAR_TRUNCATED", "the stream ends inside a header or inside data")
