"""Where a stream goes or comes from, as containerd names it (containerd.md 3.5). Pure."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from parma_api.status import InvalidArgumentError

MAX_URI = 4096


@dataclass(frozen=True, slots=True)
class Null:
    """Nowhere."""


@dataclass(frozen=True, slots=True)
class Fifo:
    """A FIFO of the client's, or a file that stands in its place."""

    path: str


@dataclass(frozen=True, slots=True)
class LogFile:
    """A file that is appended to."""

    path: str


@dataclass(frozen=True, slots=True)
class Binary:
    """A program that gets both streams; `must_signal`: it has to write a byte when it is ready."""

    path: str
    arguments: tuple[str, ...]
    must_signal: bool


Target = Null | Fifo | LogFile | Binary


def parse_target(uri: str) -> Target:
    """Raises InvalidArgumentError for a scheme that is not offered."""
    if not uri:
        return Null()
    if len(uri) > MAX_URI or "\0" in uri:
        raise InvalidArgumentError("stdio: the name of a stream is too long")
    if uri.startswith("/"):
        return Fifo(uri)
    scheme, _, rest = uri.partition("://")
    if scheme not in ("fifo", "file", "binary", "binary-v2") or not rest:
        raise InvalidArgumentError(
            f"stdio: {uri[:100]!r} is not offered; use a FIFO, file:// or binary://"
        )
    parts = urlsplit(uri)
    path = unquote(parts.netloc + parts.path)
    if not path.startswith("/"):
        raise InvalidArgumentError(f"stdio: {uri[:100]!r} has no absolute path")
    if scheme == "fifo":
        return Fifo(path)
    if scheme == "file":
        return LogFile(path)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    words = tuple(word for pair in pairs for word in pair if word)
    return Binary(path, words, must_signal=scheme == "binary-v2")


@dataclass(frozen=True, slots=True)
class StdioPaths:
    """The three names of a Create or Exec request."""

    stdin: str = ""
    stdout: str = ""
    stderr: str = ""
    terminal: bool = False

    def targets(self) -> tuple[Target, Target, Target]:
        """Input, output, errors. Raises InvalidArgumentError."""
        stdin, stdout, stderr = (parse_target(x) for x in (self.stdin, self.stdout, self.stderr))
        if isinstance(stdin, LogFile | Binary):
            # `ctr run --log-uri` gives all three names the same URI.
            stdin = Null()
        if self.terminal:
            stderr = Null()
        return stdin, stdout, stderr
