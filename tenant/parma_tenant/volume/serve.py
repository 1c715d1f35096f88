"""Blobs over HTTP, for hosts without an object store: files and block devices, read by ranges, written by pages.

    GET  /NAME                       the whole, or with `Range: bytes=A-B` that part (RFC 9110)
    PUT  /NAME?comp=page             with `x-ms-range: bytes=A-B` and `x-ms-page-write: update`, as an Azure page blob

Who serves a volume is not trusted, so there is nothing to log in to; whoever reaches the port can read ciphertext, and
write it where that is allowed, which destroys a volume but never changes what a group reads.
"""

from __future__ import annotations

import http.server
import os
import re
import stat
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, NoReturn

from parma_api.status import FailedPreconditionError

MAX_PIECE: Final = 32 << 20
_AT_ONCE: Final = 1 << 20
_CONNECTIONS: Final = 64
_IDLE_SECONDS: Final = 300
_RANGE: Final = re.compile(r"bytes=([0-9]{1,19})-([0-9]{1,19})")


@dataclass(frozen=True, slots=True)
class Store:
    """What is served by its name; the names may not hold a slash."""

    blobs: Mapping[str, Path]
    writable: bool

    def check(self) -> None:
        """Raises FailedPreconditionError for what is neither a file nor a block device, or cannot be opened."""
        for path in self.blobs.values():
            try:
                with self.open(path) as blob:
                    kind = os.fstat(blob.fileno()).st_mode
            except OSError as error:
                raise FailedPreconditionError(f"{path}: {error.strerror}") from error
            if not (stat.S_ISREG(kind) or stat.S_ISBLK(kind)):
                raise FailedPreconditionError(f"{path} is neither a file nor a block device")

    def open(self, path: Path) -> Any:
        """Unbuffered, at its beginning."""
        return path.open("r+b" if self.writable else "rb", buffering=0)


class _RefusedError(Exception):
    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status)
        self.status = status


def refuse(status: HTTPStatus) -> NoReturn:
    """Answers with that status."""
    raise _RefusedError(status)


class BlobServer(http.server.ThreadingHTTPServer):
    """Serves a store; more connections than it takes wait."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], store: Store) -> None:
        """Raises FailedPreconditionError: the address is not to be had."""
        self.store = store
        self._slots = threading.BoundedSemaphore(_CONNECTIONS)
        try:
            super().__init__(address, _Handler)
        except OSError as error:
            raise FailedPreconditionError(
                f"cannot listen on {address[0]}:{address[1]}: {error.strerror}"
            ) from error

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """See socketserver."""
        with self._slots:
            super().process_request_thread(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A peer that went away is no news."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "parma"
    sys_version = ""
    timeout = _IDLE_SECONDS
    server: BlobServer

    def do_GET(self) -> None:
        """The whole, or a range."""
        self._guarded(self._get)

    def do_HEAD(self) -> None:
        """How large it is."""
        self._guarded(self._get)

    def do_PUT(self) -> None:
        """A page."""
        self._guarded(self._put)

    def _guarded(self, work: Any) -> None:
        try:
            work()
        except _RefusedError as refused:
            # What was not read of the request would be taken for the next one.
            self.close_connection = True
            self._head(refused.status, 0)
        except OSError:
            self.close_connection = True

    def _get(self) -> None:
        with self.server.store.open(self._path()) as blob:
            size = blob.seek(0, os.SEEK_END)
            header = self.headers.get("Range")
            first, last = (0, size - 1) if header is None else _read_range(header, size)
            if header is None:
                self._head(HTTPStatus.OK, size)
            else:
                about = f"bytes {first}-{last}/{size}"
                self._head(HTTPStatus.PARTIAL_CONTENT, last - first + 1, about)
            if self.command == "GET":
                self._send(blob, first, last + 1)

    def _send(self, blob: Any, at: int, end: int) -> None:
        while at < end:
            data = os.pread(blob.fileno(), min(_AT_ONCE, end - at), at)
            if not data:
                raise OSError("the blob became shorter")
            self.wfile.write(data)
            at += len(data)

    def _put(self) -> None:
        path, query = self._path(), self.path.partition("?")[2].split("&")
        if not self.server.store.writable:
            refuse(HTTPStatus.FORBIDDEN)
        if "comp=page" not in query or self.headers.get("x-ms-page-write") != "update":
            refuse(HTTPStatus.BAD_REQUEST)
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit() or not 0 < int(length) <= MAX_PIECE:
            refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        with self.server.store.open(path) as blob:
            size = blob.seek(0, os.SEEK_END)
            first, last = _read_range(self.headers.get("x-ms-range", ""), size)
            if last - first + 1 != int(length):
                refuse(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            body = self.rfile.read(int(length))
            if len(body) != int(length) or os.pwrite(blob.fileno(), body, first) != len(body):
                raise OSError("not the whole page")
            os.fdatasync(blob.fileno())
        self._head(HTTPStatus.CREATED, 0)

    def _path(self) -> Path:
        name = self.path.partition("?")[0].removeprefix("/")
        path = self.server.store.blobs.get(name)
        return refuse(HTTPStatus.NOT_FOUND) if path is None else path

    def _head(self, status: HTTPStatus, length: int, content_range: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.send_header("Accept-Ranges", "bytes")
        if content_range:
            self.send_header("Content-Range", content_range)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        """Nothing: one line for each block would be noise."""


def _read_range(header: str, size: int) -> tuple[int, int]:
    """First and last byte, both inside; a range that ends behind the end is cut."""
    found = _RANGE.fullmatch(header)
    first, last = (int(found[1]), min(int(found[2]), size - 1)) if found else (1, 0)
    if first > last:
        refuse(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
    return first, last
