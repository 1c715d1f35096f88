"""Names of images, completed as docker completes them (distribution/reference grammar)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from parma_tenant.image.errors import ImageError, shown

_PART: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST: Final = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]+)?"
)
_PATH: Final = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
DEFAULT_HOST: Final = "docker.io"


@dataclass(frozen=True, slots=True)
class Reference:
    """Host, repository, and a tag, a digest or both; the digest counts."""

    host: str
    path: str
    tag: str | None
    digest: str | None

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.host}/{self.path}{tag}" + (f"@{self.digest}" if self.digest else "")

    @property
    def without_digest(self) -> str:
        """Host, repository and tag alone."""
        return f"{self.host}/{self.path}" + (f":{self.tag}" if self.tag else "")


def parse_reference(text: str) -> Reference:
    """Raises ImageError."""
    name, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise ImageError(f"image {shown(text)}: what is behind the @ is no digest")
    name, tag = _split_tag(name)
    host, path = _split_host(name)
    if len(name) > 255 or not _HOST.fullmatch(host) or not _PATH.fullmatch(path):
        raise ImageError(f"image {shown(text)}: no name of an image (lower case, HOST/PATH:TAG)")
    if tag is not None and not _TAG.fullmatch(tag):
        raise ImageError(f"image {shown(text)}: {shown(tag)} is no tag")
    if tag is None and not at:
        tag = "latest"
    return Reference(host, path, tag, digest or None)


def _split_tag(name: str) -> tuple[str, str | None]:
    head, colon, tag = name.rpartition(":")
    return (head, tag) if colon and "/" not in tag else (name, None)


def _split_host(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        host, path = DEFAULT_HOST, name
    else:
        host, path = first, rest
    if host in ("index.docker.io", "registry-1.docker.io"):
        host = DEFAULT_HOST
    if host == DEFAULT_HOST and "/" not in path:
        path = f"library/{path}"
    return host, path
