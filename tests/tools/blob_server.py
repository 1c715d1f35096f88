"""Blobs over HTTP as an object store serves them: ranges, and writes as to an Azure page blob.

blob_server.py FOLDER HOST PORT [LOG]
"""

from __future__ import annotations

import http.server
import os
import re
import sys
from pathlib import Path
from typing import Any

_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


class Handler(http.server.BaseHTTPRequestHandler):
    """Files of one folder by name."""

    protocol_version = "HTTP/1.1"
    folder = Path()

    def _file(self) -> Path | None:
        name = self.path.partition("?")[0].removeprefix("/")
        path = self.folder / name
        return path if "/" not in name and path.is_file() else None

    def _range(self, header: str, size: int) -> tuple[int, int] | None:
        found = _RANGE.fullmatch(self.headers.get(header, ""))
        if found is None:
            return None
        first, last = int(found[1]), min(int(found[2]), size - 1)
        return (first, last) if first <= last else None

    def do_GET(self) -> None:
        """A range, always."""
        path = self._file()
        if path is None:
            return self._answer(404)
        size = path.stat().st_size
        if (wanted := self._range("Range", size)) is None:
            return self._answer(416)
        first, last = wanted
        with path.open("rb") as stream:
            data = os.pread(stream.fileno(), last - first + 1, first)
        return self._answer(206, data, f"bytes {first}-{last}/{size}")

    def do_PUT(self) -> None:
        """A page."""
        path = self._file()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        page = "comp=page" in self.path.partition("?")[2].split("&")
        if path is None or not page or self.headers.get("x-ms-page-write") != "update":
            return self._answer(400)
        wanted = self._range("x-ms-range", path.stat().st_size)
        if wanted is None or wanted[1] - wanted[0] + 1 != len(body):
            return self._answer(416)
        with path.open("r+b") as stream:
            os.pwrite(stream.fileno(), body, wanted[0])
        return self._answer(201)

    def _answer(self, status: int, body: bytes = b"", content_range: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        """Method, range, status."""
        where = self.headers.get("Range") or self.headers.get("x-ms-range")
        sys.stderr.write(f"{self.command} {where} {arguments[1] if len(arguments) > 1 else ''}\n")


def main() -> None:
    """Serves until it is killed; says so on standard output once it listens."""
    Handler.folder = Path(sys.argv[1])
    with http.server.ThreadingHTTPServer((sys.argv[2], int(sys.argv[3])), Handler) as server:
        sys.stdout.write(f"{server.server_port}\n")
        sys.stdout.flush()
        server.serve_forever()


if __name__ == "__main__":
    main()
