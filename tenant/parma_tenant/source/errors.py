"""What can be wrong with a file that a user wrote."""

from __future__ import annotations

from parma_api.status import InvalidArgumentError


class SourceError(InvalidArgumentError):
    """The file cannot become a policy; the message names the file and the place in it."""
