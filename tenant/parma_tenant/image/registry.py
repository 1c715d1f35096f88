"""Images from a registry (OCI distribution-spec 1.1; docker's token authentication).

Content is checked against its digest whoever delivers it. Credentials go to the registry, and to the token service
that it names, over TLS only (plain HTTP on loopback and for registries that are named as insecure), and never along a
redirect to another host.
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Final, cast

from parma_tenant.image.credentials import Credentials, config_path, find_credentials
from parma_tenant.image.documents import INDEXES, MANIFESTS, MAX_DOCUMENT, Descriptor, parse_json
from parma_tenant.image.errors import ImageError, ImageMissingError, RegistryError
from parma_tenant.image.http import Answer, Client, is_loopback
from parma_tenant.image.image import Image, load_image
from parma_tenant.image.reference import DEFAULT_HOST, Reference
from parma_tenant.image.token import Challenge, basic, fetch_token, parse_challenge

_ACCEPT: Final = ", ".join((*INDEXES, *MANIFESTS))
_DOCKER_SERVER: Final = "registry-1.docker.io"


@dataclass(slots=True)
class RegistrySource:
    """Any registry that a reference names."""

    insecure: frozenset[str] = frozenset()
    docker_config: Path = field(default_factory=config_path)
    client: Client = field(default_factory=Client)

    def find(self, reference: Reference) -> Image | None:
        """As in ImageSource; never None: a registry is asked last. Raises ImageMissingError."""
        repository = _Repository(self, reference)
        root = repository.resolve()
        return replace(load_image(repository, root, str(reference)), pinnable=True)


class _Repository:
    """One repository of one registry, and the token for it."""

    def __init__(self, source: RegistrySource, reference: Reference) -> None:
        self._source = source
        self._reference = reference
        host = reference.host
        self._server = _DOCKER_SERVER if host == DEFAULT_HOST else host
        self._plain_allowed = is_loopback(host) or host in source.insecure
        unverified = frozenset({self._server}) if self._plain_allowed else frozenset[str]()
        self._client = replace(source.client, unverified=unverified)
        self._base: str | None = None
        self._authorization = ""
        self._documents: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def resolve(self) -> Descriptor:
        """The descriptor of what the reference names. Raises ImageError, ImageMissingError, RegistryError."""
        name = self._reference.digest or self._reference.tag
        with self._get(f"manifests/{name}", _ACCEPT) as answer:
            body = answer.reader.read(MAX_DOCUMENT + 1)
            kind = answer.headers.get("content-type", "").partition(";")[0].strip()
        if len(body) > MAX_DOCUMENT:
            raise ImageError(f"{self._reference}: the manifest is larger than {MAX_DOCUMENT} bytes")
        algorithm = (self._reference.digest or "sha256").partition(":")[0]
        digest = f"{algorithm}:{hashlib.new(algorithm, body).hexdigest()}"
        if self._reference.digest not in (None, digest):
            raise ImageError(
                f"{self._reference}: the registry gives other content: its digest is {digest}"
            )
        self._documents[digest] = body
        stated = parse_json(body, str(self._reference)).get("mediaType")
        return Descriptor(stated if isinstance(stated, str) else kind, digest, len(body))

    @contextmanager
    def open(self, descriptor: Descriptor) -> Iterator[BinaryIO]:
        """As in BlobStore."""
        kept = self._documents.get(descriptor.digest)
        if kept is not None:
            yield io.BytesIO(kept)
            return
        is_manifest = descriptor.media_type in (*INDEXES, *MANIFESTS)
        path = f"{'manifests' if is_manifest else 'blobs'}/{descriptor.digest}"
        with self._get(path, descriptor.media_type if is_manifest else "*/*") as answer:
            yield cast("BinaryIO", answer.reader)

    @contextmanager
    def _get(self, path: str, accept: str) -> Iterator[Answer]:
        url = f"{self._find_base()}/v2/{self._reference.path}/{path}"
        for attempt in range(2):
            headers = {"Accept": accept}
            if self._authorization:
                headers["Authorization"] = self._authorization
            with self._client.get(url, headers, plain_allowed=self._plain_allowed) as answer:
                if answer.status == 401 and not attempt:
                    self._log_in(answer)
                    continue
                self._check(answer, path)
                yield answer
                return

    def _find_base(self) -> str:
        """https, or where that is allowed and there is no TLS, http."""
        with self._lock:
            if self._base is None:
                self._base = f"https://{self._server}"
                if self._plain_allowed and not self._client.speaks_tls(self._server):
                    self._base = f"http://{self._server}"
            return self._base

    def _check(self, answer: Answer, path: str) -> None:
        if answer.status == 200:
            return
        what = f"image {self._reference}"
        if answer.status in (401, 403):
            raise RegistryError(
                f"{what}: {self._server} refuses access (HTTP {answer.status}): log in with `docker login "
                f"{self._reference.host}`, or correct the image's name"
            )
        if answer.status == 404:
            raise ImageMissingError(f"{what}: {self._server} has no {path}")
        if answer.status == 429:
            raise RegistryError(
                f"{what}: {self._server} limits the number of pulls: log in, or try later"
            )
        raise RegistryError(f"{what}: {self._server} answers with HTTP {answer.status}")

    def _log_in(self, answer: Answer) -> None:
        with self._lock:
            challenge = parse_challenge(answer.headers.get("www-authenticate", ""))
            if challenge is None:
                raise RegistryError(
                    f"{self._server} asks for a login of a kind that is not known here"
                )
            found = find_credentials(self._reference.host, self._source.docker_config)
            self._authorization = self._answer(challenge, found)

    def _answer(self, challenge: Challenge, found: Credentials | None) -> str:
        if challenge.scheme == "basic":
            return basic(found) if found is not None else ""
        scope = challenge.scope or f"repository:{self._reference.path}:pull"
        token = fetch_token(
            self._client,
            challenge,
            scope,
            found,
            plain_host=self._server if self._plain_allowed else "",
        )
        return f"Bearer {token}"
