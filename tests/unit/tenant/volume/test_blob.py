"""Blobs over HTTP from a real server, and from servers that do not do what they should."""

from __future__ import annotations

import contextlib
import datetime
import http.client
import http.server
import ipaddress
import os
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from parma_api.status import FailedPreconditionError, InvalidArgumentError, UnavailableError
from parma_tenant.sidecar.volume.attach import attach
from parma_tenant.sidecar.volume.blob import BlobError, FileBlob, HttpBlob
from parma_tenant.sidecar.volume.config import Volume
from parma_tenant.volume.key import Kind, VolumeKey
from parma_tenant.volume.serve import BlobServer, Store

CONTENT = os.urandom(20000)
Serve = Callable[[type[http.server.BaseHTTPRequestHandler]], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves on loopback; the URL without a path."""
    with contextlib.ExitStack() as stack:

        def start(handler: type[http.server.BaseHTTPRequestHandler]) -> str:
            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
            return stack.enter_context(running(server))

        yield start


@contextlib.contextmanager
def running(server: http.server.HTTPServer) -> Iterator[str]:
    """The URL without a path."""
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[str]:
    """A writable store with one blob."""
    (tmp_path / "blob").write_bytes(CONTENT)
    blobs = {"blob": tmp_path / "blob"}
    with running(BlobServer(("127.0.0.1", 0), Store(blobs, writable=True))) as url:
        yield url


BlobAt = Callable[..., HttpBlob]


@pytest.fixture
def blob_at() -> Iterator[BlobAt]:
    """A blob that does not wait long between its attempts."""
    opened: list[HttpBlob] = []

    def open_blob(url: str, roots: str = "") -> HttpBlob:
        opened.append(HttpBlob(url, roots, pause=0.001))
        return opened[-1]

    yield open_blob
    for blob in opened:
        blob.close()


def test_reading(blob_at: BlobAt, store: str) -> None:
    blob = blob_at(f"{store}/blob")
    assert blob.size() == len(CONTENT)
    assert blob.read(0, 1) == CONTENT[:1]
    assert blob.read(4096, 8192) == CONTENT[4096:12288]
    assert blob.read(len(CONTENT) - 5, 5) == CONTENT[-5:]


def test_a_range_beyond_the_end_is_no_short_read(blob_at: BlobAt, store: str) -> None:
    with pytest.raises(BlobError):
        blob_at(f"{store}/blob").read(len(CONTENT) - 5, 6)
    with pytest.raises(BlobError):
        blob_at(f"{store}/blob").read(len(CONTENT), 1)


@pytest.mark.parametrize("query", ["", "?sv=2023&sig=a%2Fb"])
def test_writing(blob_at: BlobAt, store: str, tmp_path: Path, query: str) -> None:
    blob = blob_at(f"{store}/blob{query}")
    blob.write(512, b"n" * 512)
    blob.flush()
    wanted = CONTENT[:512] + b"n" * 512 + CONTENT[1024:]
    assert (tmp_path / "blob").read_bytes() == wanted
    assert blob.read(512, 512) == b"n" * 512


def test_a_write_that_is_refused(blob_at: BlobAt, store: str) -> None:
    with pytest.raises(BlobError, match="404 to a write"):
        blob_at(f"{store}/absent").write(0, b"x")


def test_a_blob_that_is_not_there(blob_at: BlobAt, store: str) -> None:
    with pytest.raises(BlobError, match="404"):
        blob_at(f"{store}/absent").size()


def self_signed(folder: Path) -> tuple[str, Path]:
    """A certificate for 127.0.0.1, and the file of it and its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "store")])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - datetime.timedelta(1))
        .not_valid_after(now + datetime.timedelta(1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, SHA256())
    )
    pem = made.public_bytes(Encoding.PEM)
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "both.pem").write_bytes(secret + pem)
    return pem.decode(), folder / "both.pem"


def test_a_store_behind_tls(blob_at: BlobAt, tmp_path: Path) -> None:
    root, file = self_signed(tmp_path)
    (tmp_path / "blob").write_bytes(CONTENT)
    server = BlobServer(("127.0.0.1", 0), Store({"blob": tmp_path / "blob"}, writable=False))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with running(server) as url:
        url = url.replace("http:", "https:") + "/blob"
        assert blob_at(url, root).read(5, 5) == CONTENT[5:10]
        with pytest.raises(UnavailableError, match="SSLCertVerificationError"):
            blob_at(url).read(5, 5)
    with pytest.raises(InvalidArgumentError, match="trusted_roots"):
        blob_at(url, "no PEM")


def ask(url: str, method: str, target: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method, target, body or None, named)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_the_whole_and_its_size(store: str) -> None:
    assert ask(store, "GET", "/blob") == (200, CONTENT)
    assert ask(store, "HEAD", "/blob") == (200, b"")
    assert ask(store, "GET", "/blob?sig=x", Range="bytes=5-9") == (206, CONTENT[5:10])


@pytest.mark.parametrize("target", ["/", "/absent", "/../blob", "/./blob", "/blob/"])
def test_only_what_is_named_is_served(store: str, target: str) -> None:
    assert ask(store, "GET", target)[0] == 404
    assert ask(store, "PUT", f"{target}?comp=page", b"x", x_ms_range="bytes=0-0")[0] == 404


@pytest.mark.parametrize("header", ["bytes=5-", "bytes=-5", "bytes=9-5", "bytes=20000-20001", "x"])
def test_ranges_that_are_none(store: str, header: str) -> None:
    assert ask(store, "GET", "/blob", Range=header)[0] == 416


PAGE = {"x_ms_range": "bytes=0-3", "x_ms_page_write": "update"}


@pytest.mark.parametrize(
    ("target", "headers", "status"),
    [
        ("/blob", {}, 400),
        ("/blob?comp=page", {"x_ms_page_write": "clear"}, 400),
        ("/blob?comp=page", {"x_ms_range": "bytes=0-4"}, 416),
        ("/blob?comp=page", {"x_ms_range": "bytes=19999-20002"}, 416),
        ("/blob?comp=page", {"Content_Length": "99999999"}, 413),
        ("/blob?comp=page", {"Content_Length": "-1"}, 413),
    ],
)
def test_writes_that_are_refused(
    store: str, tmp_path: Path, target: str, headers: dict[str, str], status: int
) -> None:
    assert ask(store, "PUT", target, b"1234", **(PAGE | headers))[0] == status
    assert (tmp_path / "blob").read_bytes() == CONTENT


def test_a_store_that_is_read_only(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(CONTENT)
    store = Store({"blob": tmp_path / "blob"}, writable=False)
    with running(BlobServer(("127.0.0.1", 0), store)) as url:
        assert ask(url, "PUT", "/blob?comp=page", b"1234", **PAGE)[0] == 403
        assert ask(url, "GET", "/blob") == (200, CONTENT)


@pytest.mark.parametrize("path", ["/dev/null", "/absent", "/"])
def test_what_cannot_be_served(path: str) -> None:
    with pytest.raises(FailedPreconditionError):
        Store({"x": Path(path)}, writable=False).check()


class Lying(http.server.BaseHTTPRequestHandler):
    """Answers as its attributes say."""

    protocol_version = "HTTP/1.1"
    status, header, body = 206, "bytes 0-9/100", b"0123456789"
    failures = 0

    def do_GET(self) -> None:
        """See the class."""
        if type(self).failures > 0:
            type(self).failures -= 1
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(self.status)
        if self.header:
            self.send_header("Content-Range", self.header)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


def lying(**attributes: object) -> type[Lying]:
    return type("Liar", (Lying,), attributes)


def test_a_server_that_is_busy_for_a_while(blob_at: BlobAt, serve: Serve) -> None:
    assert blob_at(serve(lying(failures=3))).read(0, 10) == b"0123456789"


def test_a_server_that_stays_busy(blob_at: BlobAt, serve: Serve) -> None:
    with pytest.raises(UnavailableError, match="status 503"):
        blob_at(serve(lying(failures=99))).read(0, 10)


@pytest.mark.parametrize(
    "attributes",
    [
        {"status": 200, "header": ""},
        {"header": ""},
        {"header": "bytes 1-10/100"},
        {"header": "bytes 0-9/*"},
        {"body": b"01234567"},
        {"body": b"x" * 5000},
        {"status": 302, "header": ""},
    ],
)
def test_another_range_than_was_asked_for(
    blob_at: BlobAt, serve: Serve, attributes: dict[str, object]
) -> None:
    with pytest.raises(BlobError):
        blob_at(serve(lying(**attributes))).read(0, 10)


def test_nobody_listens(blob_at: BlobAt) -> None:
    with pytest.raises(UnavailableError, match="ConnectionRefusedError"):
        blob_at("http://127.0.0.1:1/blob").size()


@pytest.mark.parametrize(
    "url",
    ["ftp://host/x", "http:///x", "http://u:p@host/x", "http://host/x#y", "http://höst/x", "x"],
)
def test_urls_that_cannot_be_meant(url: str) -> None:
    with pytest.raises(InvalidArgumentError):
        HttpBlob(url)


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(CONTENT)
    blob = FileBlob(str(path), writable=True)
    assert (blob.size(), blob.read(5, 5)) == (len(CONTENT), CONTENT[5:10])
    blob.write(5, b"12345")
    blob.flush()
    assert path.read_bytes()[5:10] == b"12345"
    with pytest.raises(BlobError):
        blob.read(len(CONTENT) - 1, 2)
    blob.close()


@pytest.mark.parametrize("path", ["/absent/file", "/dev/null"])
def test_what_is_no_file(path: str) -> None:
    with pytest.raises(FailedPreconditionError):
        FileBlob(path, writable=False)


@pytest.mark.parametrize("size", [(16 << 20) - 4096, (16 << 20) + 4096])
def test_a_writable_blob_of_another_size_is_not_attached(tmp_path: Path, size: int) -> None:
    path = tmp_path / "blob"
    path.touch()
    os.truncate(path, size)
    key = VolumeKey(Kind.READ_WRITE, 4096, None, b"s" * 32)
    volume = Volume(None, str(path), "kid", "/volumes/x", read_write=True)
    with pytest.raises(Exception, match=f"has {size} bytes, the volume's key says {16 << 20}"):
        attach(volume, key)
