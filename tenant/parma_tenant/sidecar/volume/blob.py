"""Where a blob's bytes are: behind HTTP, or in a file. What comes from there the kernel's tables authenticate."""

from __future__ import annotations

import http.client
import os
import re
import stat
import threading
import time
import urllib.parse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Protocol

from parma_api.status import (
    ApiError,
    FailedPreconditionError,
    InvalidArgumentError,
    UnavailableError,
)

if TYPE_CHECKING:
    import ssl

ATTEMPTS: Final = 4
SECONDS: Final = 30.0
_RANGE: Final = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})")
_PUBLIC_ROOTS: Final = "/etc/ssl/certs/ca-certificates.crt"
_MAX_ERROR: Final = 4096


class BlobError(ApiError):
    """The blob cannot be had as it must be."""


class Blob(Protocol):
    """Bytes at positions. Every call raises BlobError or OSError."""

    def size(self) -> int:
        """Bytes."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes."""
        ...

    def write(self, offset: int, data: bytes) -> None:
        """Durable when it returns, or after `flush`."""
        ...

    def flush(self) -> None:
        """What was written is on the store."""
        ...

    def close(self) -> None:
        """Nobody reads it any more."""
        ...


class FileBlob:
    """A regular file, or a block device."""

    def __init__(self, path: str, *, writable: bool) -> None:
        """Raises FailedPreconditionError."""
        try:
            self._fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
        except OSError as error:
            raise FailedPreconditionError(f"{path}: {error.strerror}") from error
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            os.close(self._fd)
            raise FailedPreconditionError(f"{path} is no regular file")

    def size(self) -> int:
        """See Blob."""
        return os.fstat(self._fd).st_size

    def read(self, offset: int, length: int) -> bytes:
        """See Blob."""
        data = os.pread(self._fd, length, offset)
        if len(data) != length:
            raise BlobError("the file is shorter than it was")
        return data

    def write(self, offset: int, data: bytes) -> None:
        """See Blob."""
        if os.pwrite(self._fd, data, offset) != len(data):
            raise BlobError("the file took less than was written")

    def flush(self) -> None:
        """See Blob."""
        os.fsync(self._fd)

    def close(self) -> None:
        """See Blob."""
        os.close(self._fd)


class HttpBlob:
    """A blob behind HTTP(S): GET with a range; PUT as for a page of an Azure page blob (`?comp=page`).

    A request is sent again when the connection fails or the server is busy (429, 5xx), which is harmless: a page
    written twice is the same page. Each thread has a connection of its own.
    """

    def __init__(self, url: str, roots: str = "", pause: float = 0.5) -> None:
        """`roots`: PEM, who may vouch for the server; without it the image's usual ones.

        Raises InvalidArgumentError.
        """
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidArgumentError("a blob's url is http://HOST/... or https://HOST/...")
        if parts.fragment or parts.username or parts.password or not url.isascii():
            raise InvalidArgumentError("a blob's url has no fragment, no user and ASCII only")
        self._secure, self._host, self._port = parts.scheme == "https", parts.hostname, parts.port
        self._path, self._query = parts.path or "/", parts.query
        self._pause = pause
        self._context = _tls(roots) if self._secure else None
        self._mine = threading.local()
        self._all: list[http.client.HTTPConnection] = []

    def size(self) -> int:
        """See Blob: by a range of one byte, which every server that can serve ranges answers."""
        _, total = self._ranged(0, 1)
        return total

    def read(self, offset: int, length: int) -> bytes:
        """See Blob."""
        data, _ = self._ranged(offset, length)
        return data

    def write(self, offset: int, data: bytes) -> None:
        """See Blob."""
        headers = {
            "x-ms-version": "2023-11-03",
            "x-ms-page-write": "update",
            "x-ms-range": f"bytes={offset}-{offset + len(data) - 1}",
        }
        status, _, _ = self._ask("PUT", _with(self._query, "comp=page"), headers, data, 0)
        if status != 201:
            raise BlobError(f"the blob's server answers {status} to a write")

    def flush(self) -> None:
        """See Blob: a write that was answered is durable."""

    def close(self) -> None:
        """See Blob."""
        for connection in self._all:
            connection.close()

    def _ranged(self, offset: int, length: int) -> tuple[bytes, int]:
        headers = {"Range": f"bytes={offset}-{offset + length - 1}"}
        status, found, data = self._ask("GET", self._query, headers, None, length)
        match = _RANGE.fullmatch(found.get("content-range", ""))
        if status != 206 or match is None:
            raise BlobError(f"the blob's server answers {status}, not the range that was asked for")
        first, last, total = map(int, match.groups())
        if (first, last, len(data)) != (offset, offset + length - 1, length):
            raise BlobError("the blob's server gives another range than was asked for")
        return data, total

    def _ask(
        self, method: str, query: str, headers: Mapping[str, str], body: bytes | None, length: int
    ) -> tuple[int, dict[str, str], bytes]:
        reason = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(self._pause * 2**attempt)
            try:
                status, found, data = self._once(method, query, headers, body, length)
            except (OSError, http.client.HTTPException) as error:
                self._connection().close()
                reason = type(error).__name__
                continue
            if status != 429 and status < 500:
                return status, found, data
            reason = f"status {status}"
        raise UnavailableError(f"the blob at {self._host} cannot be reached: {reason}")

    def _once(
        self, method: str, query: str, headers: Mapping[str, str], body: bytes | None, length: int
    ) -> tuple[int, dict[str, str], bytes]:
        connection = self._connection()
        target = self._path + (f"?{query}" if query else "")
        connection.request(method, target, body, dict(headers))
        answer = connection.getresponse()
        limit = max(length, _MAX_ERROR)
        data = answer.read(limit + 1)
        if len(data) > limit:
            connection.close()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, data

    def _connection(self) -> http.client.HTTPConnection:
        """This thread's; one that was closed connects again by itself."""
        found: http.client.HTTPConnection | None = getattr(self._mine, "connection", None)
        if found is None:
            found = self._mine.connection = self._new_connection()
            self._all.append(found)
        return found

    def _new_connection(self) -> http.client.HTTPConnection:
        if self._context is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=SECONDS)
        return http.client.HTTPSConnection(
            self._host, self._port, timeout=SECONDS, context=self._context
        )


def _tls(roots: str) -> ssl.SSLContext:
    """What a volume is rests on its key; TLS hides names and credentials of the store from the network."""
    import ssl  # costs an emulated machine half a second

    usual = _PUBLIC_ROOTS if os.path.exists(_PUBLIC_ROOTS) else None  # noqa: PTH110
    try:
        return ssl.create_default_context(cafile=None if roots else usual, cadata=roots or None)
    except ssl.SSLError:
        raise InvalidArgumentError("trusted_roots holds no PEM certificates") from None


def _with(query: str, more: str) -> str:
    return f"{query}&{more}" if query else more
