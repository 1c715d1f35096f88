"""TLS 1.3 over asyncio streams: pyOpenSSL does the protocol in memory, this moves the bytes.

Nothing is resumed: a resumed session has no certificate, and so no evidence.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from parma_api.status import ApiError, Code, InvalidArgumentError

_CHUNK: Final = 16 * 1024
_HELLO_LIMIT: Final = 32 * 1024
_SERVER_OPTIONS: Final = SSL.OP_NO_TICKET | SSL.OP_CIPHER_SERVER_PREFERENCE


class TlsError(ApiError):
    """The peer broke the protocol, or the connection."""

    code = Code.UNAVAILABLE


def server_context(key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> SSL.Context:
    """A context that presents this certificate."""
    context = _context(SSL.TLS_SERVER_METHOD)
    context.set_options(_SERVER_OPTIONS)
    context.use_privatekey(key)
    context.use_certificate(certificate)
    return context


def client_context() -> SSL.Context:
    """A context that takes any certificate: the caller judges it before a byte of payload."""
    context = _context(SSL.TLS_CLIENT_METHOD)
    context.set_verify(SSL.VERIFY_NONE)
    return context


def _context(method: int) -> SSL.Context:
    context = SSL.Context(method)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    return context


class HelloReader:
    """Finds the name in a ClientHello, by a connection that never answers: OpenSSL reads the hostile bytes."""

    def __init__(self) -> None:
        self.received = b""
        """Everything so far: the real connection gets it again."""
        self._name: bytes | None = None
        self._done = False
        context = _context(SSL.TLS_SERVER_METHOD)
        context.set_tlsext_servername_callback(self._found)
        self._connection = SSL.Connection(context, None)
        self._connection.set_accept_state()

    def _found(self, connection: SSL.Connection) -> None:
        self._name = connection.get_servername()
        self._done = True

    def feed(self, data: bytes) -> bool:
        """Whether the name, or that there is none, is known. Raises InvalidArgumentError for what is no ClientHello."""
        self.received += data
        if len(self.received) > _HELLO_LIMIT:
            raise InvalidArgumentError("the ClientHello is too long")
        self._connection.bio_write(data)
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            pass
        except SSL.Error:  # there is no certificate here: the handshake always fails in the end
            if not self._done:
                raise InvalidArgumentError("the peer does not speak TLS 1.3") from None
        return self._done

    @property
    def name(self) -> bytes | None:
        """The name asked for."""
        return self._name


class TlsStream:
    """One connection. `read` and `write` may run at the same time; each by one task only."""

    def __init__(
        self,
        connection: SSL.Connection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._connection = connection
        self._reader = reader
        self._writer = writer

    async def handshake(self, already: bytes = b"") -> None:
        """Makes the connection; `already` was received before. Raises TlsError."""
        if already:
            self._connection.bio_write(already)
        await self._until(self._connection.do_handshake)
        await self._flush()

    def peer_certificate(self) -> x509.Certificate | None:
        """The peer's certificate if it sent exactly one. Raises TlsError for a certificate that cannot be read."""
        try:
            chain = self._connection.get_peer_cert_chain(as_cryptography=True)
        except ValueError:
            raise TlsError("the peer's certificate cannot be read") from None
        return chain[0] if chain is not None and len(chain) == 1 else None

    async def read(self, size: int = _CHUNK) -> bytes:
        """At least one byte; b"" when the peer has finished. Raises TlsError (also: cut off without a goodbye)."""
        try:
            return await self._until(lambda: self._connection.recv(size))
        except SSL.ZeroReturnError:
            return b""

    async def write(self, data: bytes) -> None:
        """All of it. Raises TlsError."""
        for start in range(0, len(data), _CHUNK):
            chunk = data[start : start + _CHUNK]
            try:
                self._connection.sendall(chunk)
            except SSL.Error:
                raise TlsError("the connection is closed for writing") from None
            await self._flush()

    async def finish(self) -> None:
        """Says goodbye; reading may go on. Raises TlsError."""
        try:
            self._connection.shutdown()
        except SSL.Error:
            raise TlsError("the connection is broken") from None
        await self._flush()

    def abort(self) -> None:
        """Drops the connection."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """Says goodbye if that is still possible, and closes."""
        with contextlib.suppress(TlsError):
            await self.finish()
        self._writer.close()

    async def _until(self, step: Callable[[], bytes | None]) -> bytes:
        while True:
            try:
                return step() or b""
            except SSL.WantReadError:
                await self._flush()
                await self._receive()
            except SSL.ZeroReturnError:
                raise
            except SSL.Error as error:
                await self._flush_quietly()
                raise TlsError(f"TLS failed: {_reason(error)}") from None

    async def _receive(self) -> None:
        try:
            data = await self._reader.read(4 * _CHUNK)
        except OSError as error:
            raise TlsError(f"the connection is lost: {error.strerror}") from error
        if not data:
            raise TlsError("the connection was cut off without a goodbye")
        self._connection.bio_write(data)

    async def _flush(self) -> None:
        try:
            while True:
                try:
                    data = self._connection.bio_read(4 * _CHUNK)
                except SSL.WantReadError:
                    break
                self._writer.write(data)
            await self._writer.drain()
        except OSError as error:
            raise TlsError(f"the connection is lost: {error.strerror}") from error

    async def _flush_quietly(self) -> None:
        """Sends the alert, if the peer still hears it."""
        with contextlib.suppress(TlsError):
            await self._flush()


def _reason(error: SSL.Error) -> str:
    try:
        return str(error.args[0][0][2])
    except (IndexError, TypeError):
        return "protocol error"
