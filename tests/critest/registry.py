"""A read-only image registry on loopback: as much of the OCI distribution specification as a pull needs.

It runs in the network namespace of the private containerd, which is told by `hosts.toml` that this is registry.k8s.io
and gcr.io; so critest pulls what it always pulls, by the same names. containerd says which registry it means by `ns=`.
"""

from __future__ import annotations

import json
import sys
import tarfile
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

PORT = 5000
HOSTS = ("registry.k8s.io", "gcr.io")


@dataclass(frozen=True, slots=True)
class Blob:
    """A manifest or a blob."""

    media_type: str
    data: bytes


class Store:
    """The content of an OCI archive, by what a client asks for."""

    def __init__(self, archive: Path) -> None:
        self._by_digest: dict[str, Blob] = {}
        self._by_name: dict[str, str] = {}
        with tarfile.open(archive) as packed:
            files = {
                member.name: stream.read()
                for member in packed
                if (stream := packed.extractfile(member)) is not None
            }
        for name, data in files.items():
            if name.startswith("blobs/sha256/"):
                digest = "sha256:" + Path(name).name
                self._by_digest[digest] = Blob("application/octet-stream", data)
        for row in json.loads(files["index.json"])["manifests"]:
            digest = row["digest"]
            self._by_digest[digest] = Blob(row["mediaType"], self._by_digest[digest].data)
            self._by_name[row["annotations"]["io.containerd.image.name"]] = digest

    def find(self, registry: str, path: str) -> tuple[str, Blob] | None:
        """Digest and content for `/v2/NAME/manifests/REFERENCE` and `/v2/NAME/blobs/DIGEST`."""
        for kind in ("/manifests/", "/blobs/"):
            name, found, reference = path.removeprefix("/v2/").rpartition(kind)
            if found:
                digest = self._by_name.get(f"{registry}/{name}:{reference}", reference)
                blob = self._by_digest.get(digest)
                return (digest, blob) if blob else None
        return None


class Handler(BaseHTTPRequestHandler):
    """One request."""

    store: Store
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """The content."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """The headers alone."""
        self._answer(with_body=False)

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def _answer(self, *, with_body: bool) -> None:
        address = urlsplit(self.path)
        if address.path in ("/v2", "/v2/"):
            self._send(200, Blob("application/json", b"{}"), None, with_body=with_body)
            return
        registry = parse_qs(address.query).get("ns", [""])[0]
        found = self.store.find(registry, address.path)
        if found is None:
            missing = Blob("application/json", b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}')
            self._send(404, missing, None, with_body=with_body)
        else:
            self._send(200, found[1], found[0], with_body=with_body)

    def _send(self, status: int, blob: Blob, digest: str | None, *, with_body: bool) -> None:
        self.send_response(status)
        self.send_header("Content-Type", blob.media_type)
        self.send_header("Content-Length", str(len(blob.data)))
        if digest:
            self.send_header("Docker-Content-Digest", digest)
        self.end_headers()
        if with_body:
            self.wfile.write(blob.data)


def main(archive: str) -> None:
    """Serves until it is ended; says `ready` on standard output."""
    Handler.store = Store(Path(archive))
    with ThreadingHTTPServer(("127.0.0.1", PORT), Handler) as server:
        print("ready", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1])
