"""Attested TLS: verified before a byte of payload; replay, a man in the middle and another group are refused."""

from __future__ import annotations

import asyncio
import datetime
import logging
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from parma_api.status import InvalidArgumentError, UnavailableError
from parma_tenant.claims.attester import Attester, Session
from parma_tenant.claims.certificate import EVIDENCE_OID, judge_certificate, make_certificate
from parma_tenant.claims.client import connect
from parma_tenant.claims.evidence import Bundle, Demand, RefusedError
from parma_tenant.claims.nonce_name import name_with, nonce_in
from parma_tenant.claims.runtime import RuntimeClaims
from parma_tenant.claims.sealing import seal_request
from parma_tenant.claims.server import AttestedServer
from parma_tenant.claims.source import SocketSource
from parma_tenant.claims.tls import HelloReader, TlsError, TlsStream, server_context
from tests.unit.tenant.stub import StubPsp

NOW = datetime.datetime.now(datetime.UTC)
LIFETIME = datetime.timedelta(minutes=10)


class Echo:
    """A workload that sends back what it gets and remembers it."""

    def __init__(self) -> None:
        self.received: list[bytes] = []

    async def __call__(self, stream: TlsStream) -> None:
        while data := await stream.read():
            self.received.append(data)
            await stream.write(data)


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
async def server(psp: StubPsp, echo: Echo) -> AttestedServer:
    return AttestedServer(Attester(psp.source), echo)


async def test_payload_flows_after_verification(
    psp: StubPsp, server: AttestedServer, echo: Echo
) -> None:
    data = os.urandom(300_000)
    async with (
        server.listen("127.0.0.1", 0) as port,
        connect("127.0.0.1", port, psp.demand()) as peer,
    ):
        assert peer.attested.claims.tls is not None
        assert peer.attested.verification.claims["host_data"] == psp.host_data.hex()
        sending = asyncio.create_task(peer.stream.write(data))
        got = b""
        while len(got) < len(data):
            got += await peer.stream.read()
        await sending
        await peer.stream.finish()
        assert await peer.stream.read() == b""
    assert got == data == b"".join(echo.received)


async def test_another_group_gets_no_byte(
    psp: StubPsp, other_psp: StubPsp, server: AttestedServer, echo: Echo
) -> None:
    async with server.listen("127.0.0.1", 0) as port:
        for demand in (
            psp.demand(host_data=other_psp.host_data),
            psp.demand(measurement=bytes(48)),
            Demand(psp.demand().expectation),
        ):
            with pytest.raises(RefusedError):
                async with connect("127.0.0.1", port, demand):
                    pytest.fail("a connection to another group")
    assert echo.received == []


async def test_each_handshake_has_its_own_certificate(psp: StubPsp, server: AttestedServer) -> None:
    async with (
        server.listen("127.0.0.1", 0) as port,
        connect("localhost", port, psp.demand()) as first,
        connect("localhost", port, psp.demand()) as second,
    ):
        one, two = first.attested.claims, second.attested.claims
    assert one.nonce != two.nonce
    assert one.tls != two.tls
    assert one.sealing != two.sealing


async def test_renewal_leaves_open_connections_alone(psp: StubPsp, server: AttestedServer) -> None:
    async with server.listen("127.0.0.1", 0) as port:
        standing = await plain_certificate(port)
        async with connect("127.0.0.1", port, psp.demand()) as peer:
            for n in range(3):
                await server.renew()
                await peer.stream.write(b"%d" % n)
                assert await peer.stream.read() == b"%d" % n
        renewed = await plain_certificate(port)
    assert standing != renewed
    for der in (standing, renewed):
        certificate = x509.load_der_x509_certificate(der)
        lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
        assert lifetime <= LIFETIME + datetime.timedelta(hours=1)
        with pytest.raises(RefusedError, match="another nonce"):
            judge_certificate(certificate, os.urandom(32), psp.demand(), NOW)


async def test_certificates_are_renewed_by_themselves(psp: StubPsp) -> None:
    renewed = asyncio.Event()

    class Watched(AttestedServer):
        count = 0

        async def renew(self) -> None:
            await super().renew()
            self.count += 1
            if self.count == 3:
                renewed.set()

    server = Watched(Attester(psp.source), Echo(), datetime.timedelta(milliseconds=40))
    async with server.listen("127.0.0.1", 0), asyncio.timeout(30):
        await renewed.wait()


async def test_a_failed_renewal_is_survived(psp: StubPsp, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(SocketSource):
        working = True
        asked = asyncio.Event()

        async def report(self, report_data: bytes) -> bytes:
            if not self.working:
                self.asked.set()
                raise UnavailableError("the host withholds reports")
            return await super().report(report_data)

    source = Failing(psp.path)
    server = AttestedServer(Attester(source), Echo(), datetime.timedelta(milliseconds=40))
    with caplog.at_level(logging.WARNING):
        async with server.listen("127.0.0.1", 0) as port, asyncio.timeout(30):
            source.working = False
            await source.asked.wait()
            with pytest.raises(TlsError):
                async with connect("127.0.0.1", port, psp.demand()):
                    pytest.fail("evidence without a report")
            source.working = True
            async with connect("127.0.0.1", port, psp.demand()) as peer:
                await peer.stream.write(b"x")
                assert await peer.stream.read() == b"x"
    assert "was not renewed: the host withholds reports" in caplog.text


async def plain_certificate(port: int) -> bytes:
    """What a client gets that brings no nonce."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    assert isinstance(found, bytes)
    return found


@asynccontextmanager
async def impostor(context: SSL.Context, received: list[bytes]) -> AsyncIterator[int]:
    """A server that presents `context` to everybody and keeps what it hears."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = SSL.Connection(context, None)
        connection.set_accept_state()
        stream = TlsStream(connection, reader, writer)
        try:
            await stream.handshake()
            while data := await stream.read():
                received.append(data)
        except TlsError:
            pass
        finally:
            stream.abort()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def refused(context: SSL.Context, psp: StubPsp) -> str:
    """The reason for which a client leaves this server; it must not have sent anything."""
    received: list[bytes] = []
    async with impostor(context, received) as port:
        with pytest.raises(RefusedError) as caught:
            async with connect("127.0.0.1", port, psp.demand()) as peer:
                await peer.stream.write(b"canary-secret")
    assert received == []
    return caught.value.message


async def genuine(psp: StubPsp, nonce: bytes) -> Session:
    return await Attester(psp.source).session(nonce)


async def test_replay_of_a_genuine_certificate(psp: StubPsp) -> None:
    """Even by the group itself, with the key: the nonce is another one."""
    session = await genuine(psp, os.urandom(32))
    context = server_context(
        session.tls, make_certificate(session.tls, session.bundle, NOW, LIFETIME)
    )
    assert "another nonce" in await refused(context, psp)


async def test_man_in_the_middle_with_evidence_of_the_group(psp: StubPsp) -> None:
    """It asks the group with the victim's nonce and shows the evidence over a key of its own."""
    middle = ec.generate_private_key(ec.SECP256R1())

    class Relay(Attester):
        async def session(self, nonce: bytes) -> Session:
            session = await super().session(nonce)
            return Session(middle, session.sealing, session.claims, session.bundle)

    received: list[bytes] = []

    async def listen(stream: TlsStream) -> None:
        received.append(await stream.read())

    async with AttestedServer(Relay(psp.source), listen).listen("127.0.0.1", 0) as port:
        with pytest.raises(RefusedError, match="man in the middle"):
            async with connect("127.0.0.1", port, psp.demand()) as peer:
                await peer.stream.write(b"canary-secret")
    assert not any(received)


async def test_man_in_the_middle_with_the_groups_certificate(psp: StubPsp) -> None:
    """The certificate as it is, without its key: the handshake itself fails."""
    session = await genuine(psp, os.urandom(32))
    certificate = make_certificate(session.tls, session.bundle, NOW, LIFETIME)
    other = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(SSL.Error):
        server_context(other, certificate).check_privatekey()


def signed(key: ec.EllipticCurvePrivateKey, *extensions: bytes) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "parma attested group")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + LIFETIME)
    )
    for value in extensions:
        builder = builder.add_extension(x509.UnrecognizedExtension(EVIDENCE_OID, value), False)
    return builder.sign(key, hashes.SHA256())


async def test_certificates_without_good_evidence(psp: StubPsp) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    assert "ordinary certificate" in await refused(server_context(key, signed(key)), psp)
    garbage = Bundle(b"r", b"c", b"{}").encode()
    assert "runtime data" in await refused(server_context(key, signed(key, garbage)), psp)
    assert "no evidence" in await refused(server_context(key, signed(key, b"garbage")), psp)


async def test_a_chain_of_certificates_is_refused(psp: StubPsp) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    context = server_context(key, signed(key, b"x"))
    context.add_extra_chain_cert(signed(ec.generate_private_key(ec.SECP256R1())))
    assert "exactly one" in await refused(context, psp)


async def test_a_certificate_signed_by_another_key(psp: StubPsp) -> None:
    nonce = os.urandom(32)
    session = await genuine(psp, nonce)
    good = make_certificate(session.tls, session.bundle, NOW, LIFETIME)
    assert judge_certificate(good, nonce, psp.demand(), NOW).claims == session.claims
    der = bytearray(good.public_bytes(Encoding.DER))
    der[-1] ^= 1
    with pytest.raises(RefusedError):
        judge_certificate(x509.load_der_x509_certificate(bytes(der)), nonce, psp.demand(), NOW)


async def test_claims_without_a_tls_key_bind_none(psp: StubPsp) -> None:
    nonce, key = os.urandom(32), ec.generate_private_key(ec.SECP256R1())
    attester = Attester(psp.source)
    session = await attester.session(nonce)
    claims = RuntimeClaims(nonce, sealing=session.sealing.public)
    certificate = make_certificate(key, await attester.evidence(claims), NOW, LIFETIME)
    with pytest.raises(RefusedError, match="man in the middle"):
        judge_certificate(certificate, nonce, psp.demand(), NOW)


async def test_nothing_is_resumed(psp: StubPsp, server: AttestedServer) -> None:
    """A client that tries to go on with an old session gets a whole handshake, with a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE

    def visit(port: int, session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bool]:
        with (
            socket.create_connection(("127.0.0.1", port)) as tcp,
            context.wrap_socket(tcp, session=session) as tls,
        ):
            tls.sendall(b"x")
            assert tls.recv(1) == b"x"
            return tls.session, bool(tls.session_reused)

    async with server.listen("127.0.0.1", 0) as port:
        session, _ = await asyncio.to_thread(visit, port, None)
        _, resumed = await asyncio.to_thread(visit, port, session)
    assert session is not None
    assert not resumed


async def test_sealed_requests_of_the_servers_sessions(psp: StubPsp) -> None:
    async def workload(stream: TlsStream) -> None:
        await stream.read()

    server = AttestedServer(Attester(psp.source), workload)
    async with (
        server.listen("127.0.0.1", 0) as port,
        connect("127.0.0.1", port, psp.demand()) as peer,
    ):
        assert peer.attested.claims.sealing is not None
        request, opener = seal_request(peer.attested.claims.sealing, b"for the group only")
        payload, sealer = server.sealing.open(request)
        assert payload == b"for the group only"
        assert opener.open(sealer.seal(b"understood")) == b"understood"


@pytest.mark.parametrize(
    "garbage",
    [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"\0" * 40_000, b"\x80" * 9],
)
async def test_garbage_ends_quietly(
    psp: StubPsp, server: AttestedServer, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        async with server.listen("127.0.0.1", 0) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(garbage)
            writer.write_eof()
            with suppress(ConnectionResetError):
                await reader.read()
            writer.close()
            async with connect("127.0.0.1", port, psp.demand()) as peer:
                await peer.stream.write(b"x")
                assert await peer.stream.read() == b"x"
    assert "Traceback" not in caplog.text


async def test_a_hello_in_single_bytes() -> None:
    nonce = os.urandom(32)
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    client = SSL.Connection(context, None)
    client.set_connect_state()
    client.set_tlsext_host_name(name_with(nonce, "group.example"))
    with pytest.raises(SSL.WantReadError):
        client.do_handshake()
    hello, reader = client.bio_read(65536), HelloReader()
    ends = [n for n in range(len(hello)) if reader.feed(hello[n : n + 1])]
    assert ends == [len(hello) - 1]
    assert nonce_in(reader.name) == nonce
    assert reader.received == hello


async def test_a_peer_that_cuts_off(psp: StubPsp) -> None:
    """An end without a goodbye is an error, never the end of the data."""

    async def cut(stream: TlsStream) -> None:
        await stream.write(b"half of it")
        stream.abort()

    async with (
        AttestedServer(Attester(psp.source), cut).listen("127.0.0.1", 0) as port,
        connect("127.0.0.1", port, psp.demand()) as peer,
    ):
        assert await peer.stream.read() == b"half of it"
        with pytest.raises(TlsError):
            await peer.stream.read()


async def test_nobody_there_and_nobody_who_answers(psp: StubPsp) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        with pytest.raises(UnavailableError, match="does not answer"):
            async with connect("127.0.0.1", port, psp.demand(), seconds=0.1):
                pytest.fail("connected to silence")
    with pytest.raises(UnavailableError, match="cannot be reached"):
        async with connect("127.0.0.1", port, psp.demand()):
            pytest.fail("connected to nobody")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "a-b.example.org.", "x" * 63])
def test_names_carry_nonces(host: str) -> None:
    nonce = os.urandom(32)
    name = name_with(nonce, host)
    assert len(name) < 255
    assert nonce_in(name) == nonce_in(name.upper()) == nonce


@pytest.mark.parametrize(
    "name", [None, b"", b"example.org", b"parma-aa.x", b"\xff.x", b"parma-" + b"a" * 52]
)
def test_names_without_a_nonce(name: bytes | None) -> None:
    assert nonce_in(name) is None


@pytest.mark.parametrize("host", ["", "a b", "é", "x" * 64, "a" * 30 + ".b" * 90])
def test_hosts_that_are_none(host: str) -> None:
    with pytest.raises(InvalidArgumentError):
        name_with(bytes(32), host)
