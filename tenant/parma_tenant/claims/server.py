"""The group's end of attested TLS: a certificate of its own for each nonce, and a standing one for clients that bring
none.

A client that brings a nonce gets a certificate that was made for it. Others (a browser, a probe) get the standing one,
which no verifier of ours takes; it is short-lived and renewed. Renewal touches new connections only: an open one goes
on
with the keys that it has agreed on.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import os
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from OpenSSL import SSL

from parma_api.status import ApiError, InvalidArgumentError
from parma_tenant.claims.attester import Attester, Session
from parma_tenant.claims.certificate import make_certificate
from parma_tenant.claims.nonce_name import nonce_in
from parma_tenant.claims.runtime import NONCE_SIZE
from parma_tenant.claims.sealing import ResponseSealer, SealError, SealingKey
from parma_tenant.claims.tls import HelloReader, TlsStream, server_context

LIFETIME: Final = datetime.timedelta(minutes=10)
HANDSHAKE_SECONDS: Final = 60.0
_MAX_CONNECTIONS: Final = 1024
_ID_SIZE: Final = 16
_log = logging.getLogger("parma.attested")

Handler = Callable[[TlsStream], Awaitable[None]]


@dataclass(slots=True)
class SealingKeys:
    """The sealing keys of sessions that are not over: the newest, and none older than a lifetime."""

    lifetime: float = LIFETIME.total_seconds()
    limit: int = 4096
    clock: Callable[[], float] = field(default=lambda: asyncio.get_running_loop().time())
    _keys: OrderedDict[bytes, tuple[float, SealingKey]] = field(default_factory=OrderedDict)

    def add(self, key: SealingKey) -> None:
        """Remembers a session's key."""
        self._keys[key.id] = (self.clock(), key)
        self._drop()

    def open(self, request: bytes) -> tuple[bytes, ResponseSealer]:
        """As `SealingKey.open`, with the key that the request names. Raises SealError."""
        self._drop()
        found = self._keys.get(request[:_ID_SIZE])
        if found is None:
            raise SealError(
                "the sealed request is for a key that is not, or no more, of this group: attest again"
            )
        return found[1].open(request)

    def _drop(self) -> None:
        oldest = self.clock() - self.lifetime
        while self._keys:
            made, _ = next(iter(self._keys.values()))
            if made >= oldest and len(self._keys) <= self.limit:
                return
            self._keys.popitem(last=False)


class AttestedServer:
    """Serves `handler` over attested TLS; the handler's stream is closed when it returns."""

    def __init__(
        self, attester: Attester, handler: Handler, lifetime: datetime.timedelta = LIFETIME
    ) -> None:
        self._attester = attester
        self._handler = handler
        self._lifetime = lifetime
        self._standing: SSL.Context | None = None
        self._open: set[asyncio.Task[None]] = set()
        self.sealing = SealingKeys(lifetime.total_seconds())
        """For the handler: opens what clients sealed to keys of this server's claims."""

    async def renew(self) -> None:
        """A new standing certificate, over a new key. Raises ApiError of the source of reports."""
        session = await self._attester.session(os.urandom(NONCE_SIZE))
        self._standing = self._context(session)
        self.sealing.add(session.sealing)

    @asynccontextmanager
    async def listen(self, host: str, port: int) -> AsyncIterator[int]:
        """The port on which it listens until left; then every connection is dropped. Raises ApiError, OSError."""
        await self.renew()
        server = await asyncio.start_server(self._accept, host, port)
        renewal = asyncio.create_task(self._keep_renewing(), name="renewal of the certificate")
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for task in (renewal, *self._open):
                task.cancel()
            await asyncio.gather(renewal, *self._open, return_exceptions=True)
            await server.wait_closed()

    async def _keep_renewing(self) -> None:
        """A source that fails leaves the old certificate in place: its dates are information, not proof."""
        while True:
            await asyncio.sleep(self._lifetime.total_seconds() / 2)
            try:
                await self.renew()
            except ApiError as error:
                _log.warning("the certificate was not renewed: %s", error.message)

    def _context(self, session: Session) -> SSL.Context:
        now = datetime.datetime.now(datetime.UTC)
        return server_context(
            session.tls, make_certificate(session.tls, session.bundle, now, self._lifetime)
        )

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            if len(self._open) <= _MAX_CONNECTIONS:
                await self._serve(reader, writer)
        except (ApiError, TimeoutError, OSError) as error:
            _log.info("a connection ended: %s", getattr(error, "message", type(error).__name__))
        except asyncio.CancelledError:
            pass  # the server is leaving, and this task is its own
        except Exception:  # noqa: BLE001 - whatever a workload raises ends its connection, and only that
            _log.exception("a handler failed")
        finally:
            self._open.discard(task)
            writer.transport.abort() if task.cancelling() else writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            hello = await _read_hello(reader)
            nonce = nonce_in(hello.name)
            context = self._standing
            if nonce is not None:
                session = await self._attester.session(nonce)
                self.sealing.add(session.sealing)
                context = self._context(session)
            assert context is not None
            connection = SSL.Connection(context, None)
            connection.set_accept_state()
            stream = TlsStream(connection, reader, writer)
            await stream.handshake(hello.received)
        try:
            await self._handler(stream)
        finally:
            await stream.close()


async def _read_hello(reader: asyncio.StreamReader) -> HelloReader:
    hello = HelloReader()
    while True:
        data = await reader.read(16 * 1024)
        if not data:
            raise InvalidArgumentError("the peer left before its ClientHello was whole")
        if hello.feed(data):
            return hello
