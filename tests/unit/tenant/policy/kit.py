"""Small images, layouts and a registry on loopback for the tests of the policy tools."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import ssl
import tarfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from parma_tenant.image.documents import Descriptor

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
PASSWD = "root:x:0:0:root:/:/bin/sh\napp:x:1000:1001::/:/bin/sh\n"
GROUP = "root:x:0:\napp:x:1001:\nlogs:x:50:app\n"


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def tar_of(files: Mapping[str, bytes | None], **members: tarfile.TarInfo) -> bytes:
    """Files with content, folders where there is None; then `members` as they are."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            else:
                info.size, info.mode = len(content), 0o644
            tar.addfile(info, io.BytesIO(content or b""))
        for info in members.values():
            tar.addfile(info)
    return out.getvalue()


def base_layer() -> bytes:
    return tar_of(
        {
            "etc": None,
            "etc/passwd": PASSWD.encode(),
            "etc/group": GROUP.encode(),
            "bin": None,
            "bin/sh": b"#!",
        }
    )


@dataclass
class Blobs:
    """An image's blobs by digest."""

    content: dict[str, bytes] = field(default_factory=dict)

    def put(self, data: bytes, media_type: str, **more: object) -> dict[str, object]:
        digest = sha256(data)
        self.content[digest] = data
        return {"mediaType": media_type, "digest": digest, "size": len(data), **more}

    def put_json(self, value: object, media_type: str, **more: object) -> dict[str, object]:
        return self.put(json.dumps(value).encode(), media_type, **more)

    def image(
        self, layers: Sequence[bytes], name: str | None = None, **config: object
    ) -> dict[str, object]:
        """The descriptor of an image's manifest."""
        document = {
            "os": "linux",
            "architecture": "amd64",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [sha256(layer) for layer in layers]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.put_json(document, CONFIG),
            "layers": [self.put(gzip.compress(layer, mtime=0), LAYER) for layer in layers],
        }
        found = self.put_json(manifest, MANIFEST)
        if name is not None:
            found["annotations"] = {"io.containerd.image.name": name}
        return found

    @contextmanager
    def open(self, descriptor: Descriptor) -> Iterator[io.BytesIO]:
        yield io.BytesIO(self.content[descriptor.digest])

    def layout_files(self, *manifests: Mapping[str, object]) -> dict[str, bytes]:
        return {
            "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
            "index.json": json.dumps({"schemaVersion": 2, "manifests": manifests}).encode(),
            **{"blobs/" + key.replace(":", "/"): data for key, data in self.content.items()},
        }

    def archive(self, path: Path, *manifests: Mapping[str, object]) -> Path:
        path.write_bytes(tar_of(self.layout_files(*manifests)))
        return path


NAME = "docker.io/library/app:1"


def simple_archive(path: Path, /, name: str = NAME, **config: Any) -> Path:
    """One image of one layer."""
    blobs = Blobs()
    config = {"Env": ["PATH=/bin"], "Entrypoint": ["/bin/sh"], "Cmd": ["-c"], **config}
    return blobs.archive(path, blobs.image([base_layer()], name, **config))


def docker_archive(path: Path, tag: str, layers: Sequence[bytes], **config: object) -> Path:
    document = json.dumps(
        {
            "os": "linux",
            "architecture": "amd64",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [sha256(layer) for layer in layers]},
        }
    ).encode()
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    entries = [{"Config": "config.json", "RepoTags": [tag], "Layers": names}]
    files = {
        "manifest.json": json.dumps(entries).encode(),
        "config.json": document,
        **dict(zip(names, layers, strict=True)),
    }
    path.write_bytes(tar_of(files))
    return path


@dataclass
class Registry:
    """What the server does, and what it saw."""

    blobs: Blobs = field(default_factory=Blobs)
    tags: dict[str, str] = field(default_factory=dict)
    """`repository:tag` -> digest."""
    token: str | None = None
    """Asked for, if set; given for NAME and PASSWORD or for IDENTITY."""
    basic: bool = False
    redirect: str | None = None
    """Base address that blobs are redirected to."""
    seen: list[tuple[str, str]] = field(default_factory=list)
    """Path and Authorization of each request."""
    address: str = ""
    wrong_manifest: bool = False


USER, PASSWORD, IDENTITY = "user", "pass", "refresh"
BASIC = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


def self_signed(folder: Path) -> ssl.SSLContext:
    """A server's TLS with a certificate that nobody trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "registry")])
    start = datetime(2020, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(
        name, name, key.public_key(), 1, start, start + timedelta(days=20000)
    )
    certificate = builder.sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    form = serialization.PrivateFormat.PKCS8
    (folder / "tls.pem").write_bytes(
        key.private_bytes(pem, form, serialization.NoEncryption()) + certificate.public_bytes(pem)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.pem")
    return context


@contextmanager
def serving(registry: Registry, tls: ssl.SSLContext | None = None) -> Iterator[Registry]:
    """The registry, served on loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            registry.seen.append((self.path, self.headers.get("Authorization", "")))
            if self.path.startswith("/token"):
                return self._token(self.headers.get("Authorization") == BASIC)
            if (refusal := self._refusal()) is not None:
                return self._send(401, b"", {"WWW-Authenticate": refusal})
            kind, _, name = self.path.removeprefix("/v2/").rpartition("/")
            repository, _, kind = kind.rpartition("/")
            if kind == "blobs" and registry.redirect is not None:
                return self._send(307, b"", {"Location": f"{registry.redirect}{self.path}"})
            digest = registry.tags.get(f"{repository}:{name}", name)
            data = registry.blobs.content.get(digest)
            if data is None:
                return self._send(404, b"", {})
            if kind == "manifests" and registry.wrong_manifest:
                data += b" "
            media_type = INDEX if b'"manifests"' in data else MANIFEST
            return self._send(200, data, {"Content-Type": media_type})

        def do_POST(self) -> None:
            form = self.rfile.read(int(self.headers["Content-Length"])).decode()
            registry.seen.append((f"{self.path}?{form}", ""))
            self._token(f"refresh_token={IDENTITY}" in form)

        def _token(self, good: bool) -> None:
            body = json.dumps({"token": registry.token}).encode() if good else b"{}"
            self._send(200 if good else 401, body, {})

        def _refusal(self) -> str | None:
            given = self.headers.get("Authorization")
            if registry.basic and given != BASIC:
                return 'Basic realm="x"'
            if registry.token is not None and given != f"Bearer {registry.token}":
                return f'Bearer realm="http://{registry.address}/token",service="s"'
            return None

        def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    registry.address = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
