"""HTTP as a registry's client needs it: redirects that carry no credentials elsewhere, deadlines, one-line errors."""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any, Final, Protocol
from urllib.parse import urljoin, urlsplit

from parma_tenant.image.errors import RegistryError, shown

SECONDS: Final = 30.0
"""Without a byte."""
_MAX_REDIRECTS: Final = 10
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_AGENT: Final = "parma-policy"


class Reader(Protocol):
    """An answer's body."""

    def read(self, size: int = -1) -> bytes:
        """Raises RegistryError."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers (names in lower case) and body."""

    status: int
    headers: Mapping[str, str]
    reader: Reader


class _Body:
    """The body; what breaks in it is a RegistryError."""

    def __init__(self, response: IO[bytes], host: str) -> None:
        self._response = response
        self._host = host

    def read(self, size: int = -1) -> bytes:
        """As in Reader."""
        try:
            return self._response.read(size)
        except (OSError, http.client.HTTPException) as error:
            raise RegistryError(f"{self._host}: the connection broke: {_reason(error)}") from error


class _KeepRedirects(urllib.request.HTTPRedirectHandler):
    """Redirects are followed here, not by urllib, which would carry headers along."""

    def redirect_request(self, *_: Any) -> None:
        return None


@dataclass(slots=True)
class Client:
    """Requests with the machine's proxy settings and certificates."""

    context: ssl.SSLContext = field(default_factory=ssl.create_default_context)
    seconds: float = SECONDS
    unverified: frozenset[str] = frozenset()
    """Hosts whose certificates are not verified, as docker treats loopback and insecure registries."""

    @contextmanager
    def get(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        plain_allowed: bool,
        body: bytes | None = None,
    ) -> Iterator[Answer]:
        """The answer, behind at most ten redirects; with a `body` a POST. Raises RegistryError."""
        sent = dict(headers)
        for _ in range(_MAX_REDIRECTS):
            response = self._request(url, sent, body)
            with response:
                found = {key.lower(): value for key, value in response.headers.items()}
                if response.status not in _REDIRECTS:
                    yield Answer(response.status, found, _Body(response, urlsplit(url).netloc))
                    return
            target = self._target(url, found.get("location", ""), plain_allowed=plain_allowed)
            if _origin(target) != _origin(url):
                sent.pop("Authorization", None)
            url, body = target, None
        raise RegistryError(f"{urlsplit(url).netloc}: more than {_MAX_REDIRECTS} redirects")

    def _target(self, url: str, location: str, *, plain_allowed: bool) -> str:
        target = urljoin(url, location)
        scheme = urlsplit(target).scheme
        if not location or scheme not in ("http", "https"):
            raise RegistryError(f"{urlsplit(url).netloc} redirects to nowhere: {shown(location)}")
        plain = scheme == "http" and urlsplit(url).scheme == "https"
        if plain or (scheme == "http" and not plain_allowed):
            raise RegistryError(
                f"{urlsplit(url).netloc} redirects to {shown(target)}, which has no TLS"
            )
        return target

    def _request(self, url: str, headers: Mapping[str, str], body: bytes | None) -> Any:
        host = urlsplit(url).netloc
        context = _unverified_context() if host in self.unverified else self.context
        opener = urllib.request.build_opener(
            _KeepRedirects, urllib.request.HTTPSHandler(context=context)
        )
        request = urllib.request.Request(url, body, {"User-Agent": _AGENT, **headers})
        try:
            return opener.open(request, timeout=self.seconds)
        except urllib.error.HTTPError as error:
            return error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise RegistryError(
                f"registry {shown(host)} cannot be reached: {_reason(error)}"
            ) from error

    def speaks_tls(self, host: str) -> bool:
        """Whether TLS is spoken there at all, with whatever certificate. Raises RegistryError where nobody listens."""
        parts = urlsplit(f"https://{host}")
        context = _unverified_context()
        try:
            address = (parts.hostname or "", parts.port or 443)
            with socket.create_connection(address, self.seconds) as plain:
                context.wrap_socket(plain, server_hostname=parts.hostname).close()
        except ssl.SSLError:
            return False
        except (OSError, ValueError) as error:
            if parts.port is None or isinstance(error, ConnectionResetError):
                return False
            raise RegistryError(
                f"registry {shown(host)} cannot be reached: {_reason(error)}"
            ) from error
        return True


def _unverified_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _reason(error: Exception) -> str:
    cause = getattr(error, "reason", error)
    text = getattr(cause, "strerror", None) or str(cause) or type(error).__name__
    return shown(" ".join(str(text).split()))


def is_loopback(host: str) -> bool:
    """Whether a host, perhaps with a port, is this machine."""
    name = urlsplit(f"//{host}").hostname or ""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
