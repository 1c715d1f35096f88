"""The stub's key service over HTTP: `python -m parma_shim.psp.kds_serve FOLDER [--port N] [--limit COUNT SECONDS]`.

On the loopback only. It prints its URL once it listens, and ends with its standard input.
"""

from __future__ import annotations

import argparse
import http.server
import sys
import threading
import time
from pathlib import Path
from typing import Final

from parma_shim.psp.kds import KeyService, RateLimit

_SECONDS: Final = 10.0
"""For one request's head."""


def server(service: KeyService, port: int = 0) -> http.server.ThreadingHTTPServer:
    """Listening on the loopback; run its `serve_forever`. Raises OSError."""

    class Handler(http.server.BaseHTTPRequestHandler):
        server_version, sys_version = "parma-stub-kds", ""
        timeout = _SECONDS

        def do_GET(self) -> None:  # the name is http.server's
            reply = service.get(self.path)
            self.send_response(reply.code)
            self.send_header("Content-Type", reply.kind)
            self.send_header("Content-Length", str(len(reply.body)))
            self.send_header("X-Parma", "stub, not for production")
            if reply.retry_after is not None:
                self.send_header("Retry-After", str(reply.retry_after))
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, *_: object) -> None:
            """Nothing: who asks for what is nobody's business."""

    return http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)


def main() -> int:
    """Serves until standard input ends."""
    parser = argparse.ArgumentParser(prog="parma_shim.psp.kds_serve")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--limit", type=int, nargs=2, metavar=("COUNT", "SECONDS"))
    parser.add_argument("--revoke", type=int, action="append", default=[], metavar="SERIAL")
    chosen = parser.parse_args()
    limit = RateLimit(chosen.limit[0], chosen.limit[1], time.monotonic) if chosen.limit else None
    with server(KeyService(chosen.folder, limit, tuple(chosen.revoke)), chosen.port) as http_server:
        threading.Thread(target=http_server.serve_forever, daemon=True).start()
        sys.stdout.write(f"http://127.0.0.1:{http_server.server_port}\n")
        sys.stdout.flush()
        sys.stdin.read()
        http_server.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
