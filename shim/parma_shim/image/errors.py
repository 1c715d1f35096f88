"""What can go wrong with an image."""

from __future__ import annotations

from parma_api.status import FailedPreconditionError, NotFoundError


class ImageError(FailedPreconditionError):
    """The image is not one that can run in a utility VM; the message says why and what to do."""


class BlobMissingError(NotFoundError):
    """The content store lacks a blob that the image names."""
