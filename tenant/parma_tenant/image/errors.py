"""What can be wrong with an image or with the place it comes from."""

from __future__ import annotations

from parma_api.status import InvalidArgumentError, NotFoundError, UnavailableError


class ImageError(InvalidArgumentError):
    """The image, or the archive that it lies in, is not what it has to be."""


class ImageMissingError(NotFoundError):
    """Nothing of that name is where images were looked for."""


class RegistryError(UnavailableError):
    """The registry cannot be reached, or does not give what was asked for."""


MAX_SHOWN = 120


def shown(text: object) -> str:
    """A foreign text as one printable line, cut where it is long."""
    line = str(text)[:MAX_SHOWN].encode("unicode_escape").decode("ascii")
    return line + ("..." if len(str(text)) > MAX_SHOWN else "")
