"""The relying party's end of attested TLS: nothing is sent, and nothing returned, before the peer is verified."""

from __future__ import annotations

import asyncio
import datetime
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from OpenSSL import SSL

from parma_api.status import UnavailableError
from parma_tenant.claims.certificate import judge_certificate
from parma_tenant.claims.evidence import Attested, Demand, RefusedError
from parma_tenant.claims.nonce_name import name_with
from parma_tenant.claims.runtime import NONCE_SIZE
from parma_tenant.claims.tls import TlsStream, client_context

SECONDS: Final = 60.0
"""For connection and handshake: the peer makes a report in between."""


@dataclass(frozen=True, slots=True)
class AttestedConnection:
    """A connection whose other end is the attested group's, and what was proved of it."""

    stream: TlsStream
    attested: Attested


@asynccontextmanager
async def connect(
    host: str, port: int, demand: Demand, *, seconds: float = SECONDS
) -> AsyncIterator[AttestedConnection]:
    """A verified connection, closed when left.

    Raises RefusedError (the peer is not what is demanded; nothing was sent to it), UnavailableError, TlsError.
    """
    nonce = os.urandom(NONCE_SIZE)
    name = name_with(nonce, host)
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await _open(host, port)
            try:
                stream = await _handshake(reader, writer, name)
                attested = _judge(stream, nonce, demand)
            except BaseException:
                writer.transport.abort()
                raise
    except TimeoutError:
        raise UnavailableError(f"{host}:{port} does not answer in {seconds:g} seconds") from None
    try:
        yield AttestedConnection(stream, attested)
    finally:
        await stream.close()


async def _open(host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        return await asyncio.open_connection(host, port)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise UnavailableError(f"{host}:{port} cannot be reached: {why}") from error


async def _handshake(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: bytes
) -> TlsStream:
    connection = SSL.Connection(client_context(), None)
    connection.set_connect_state()
    connection.set_tlsext_host_name(name)
    stream = TlsStream(connection, reader, writer)
    await stream.handshake()
    return stream


def _judge(stream: TlsStream, nonce: bytes, demand: Demand) -> Attested:
    certificate = stream.peer_certificate()
    if certificate is None:
        raise RefusedError(
            "an attested group shows exactly one certificate, and this peer does not"
        )
    return judge_certificate(certificate, nonce, demand, datetime.datetime.now(datetime.UTC))
