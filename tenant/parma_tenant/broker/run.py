"""A broker from its settings: files, database, certificates, listener. What `parma broker` runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from parma_api.status import FailedPreconditionError, InvalidArgumentError
from parma_tenant.broker.attestation import AttestationService, Rules
from parma_tenant.broker.authority import Authority, load_authority
from parma_tenant.broker.collateral import AsSent, Collateral, FromService
from parma_tenant.broker.database import Database, open_database
from parma_tenant.broker.freshness import Challenges
from parma_tenant.broker.limits import RateLimit
from parma_tenant.broker.server import make_app
from parma_tenant.broker.service import Broker
from parma_tenant.broker.vault import Master, Vault, load_secret
from parma_tenant.services.certificates import CertificateKeeper, CertificateService, Kind
from parma_tenant.services.revocation import RevocationKeeper
from parma_tenant.services.upstream import Timing, upstream

_log = logging.getLogger("parma.broker")
MASTER: Final = "master.key"
ADMIN: Final = "admin.token"
ROOT: Final = "root.pem"
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
_ANY: Final = ("0.0.0.0", "::")
_SHUTDOWN_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Settings:
    """`database` None: a file in `state`. `issuer` None: the address listened on. `rate`: requests a second of one
    peer. `certificate_service`: the URL of AMD's key service or a mirror; None: groups send what is needed.
    """

    state: Path
    host: str
    port: int
    rules: Rules
    database: str | None = None
    issuer: str | None = None
    rate: float = 20.0
    burst: int = 60
    use_tls: bool = True
    certificate_service: str | None = None


@dataclass(frozen=True, slots=True)
class Running:
    """A broker that answers."""

    issuer: str
    port: int
    root: Path
    admin: Path


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Running]:
    """Serves until left. Raises ApiError (state, database, address, another's master key)."""
    if not settings.use_tls and settings.host not in _LOOPBACK:
        raise InvalidArgumentError(
            "without TLS a broker listens on loopback only, for a proxy that has it"
        )
    state = settings.state
    async with contextlib.AsyncExitStack() as stack:
        database = await asyncio.to_thread(_open, settings)
        stack.callback(database.close)
        secret, admin = (load_secret(state / name) for name in (MASTER, ADMIN))
        vault = Vault(database, Master(secret))
        listener = stack.enter_context(_listener(settings.host, settings.port))
        port = int(listener.getsockname()[1])
        issuer = _issuer(settings, port)
        hosts = _names(issuer, settings.host)
        authority = await asyncio.to_thread(load_authority, vault, hosts)
        _write(state / ROOT, authority.root_pem())
        challenges = Challenges(secret, time.time)
        collateral = await stack.enter_async_context(_collateral(settings))
        attestation = AttestationService(
            _with_lists(settings.rules, collateral), challenges, time.time
        )
        broker = Broker(issuer, authority, attestation, vault)
        limit = RateLimit(settings.rate, settings.burst, time.monotonic)
        app = make_app(broker, collateral, admin.hex().encode(), limit)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        tls = _tls(authority, hosts, state) if settings.use_tls else None
        await web.SockSite(runner, listener, ssl_context=tls).start()
        yield Running(issuer, port, state / ROOT, state / ADMIN)


async def serve(settings: Settings, started: asyncio.Future[Running] | None = None) -> None:
    """Serves until SIGTERM or SIGINT; tells `started` where. Raises as `running`."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running(settings) as about:
        if started is not None:
            started.set_result(about)
        await stop.wait()


@contextlib.asynccontextmanager
async def _collateral(settings: Settings) -> AsyncIterator[Collateral]:
    url = settings.certificate_service
    if url is None:
        yield AsSent()
        return
    if not url.startswith(("https://", "http://")):
        raise InvalidArgumentError(
            "--certificate-service is a URL, such as https://kdsintf.amd.com"
        )
    service = CertificateService(Kind.AMD, url)
    async with upstream(None, "parma-broker", Timing(one=10.0, all=20.0)) as client:
        lists = RevocationKeeper(service.amd_base(), client, settings.rules.roots)
        yield FromService(CertificateKeeper(service, client), lists)


def _with_lists(rules: Rules, collateral: Collateral) -> Rules:
    required = rules.expectation.require_crl or collateral.required
    return Rules(replace(rules.expectation, require_crl=required), rules.roots)


def _open(settings: Settings) -> Database:
    try:
        settings.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise FailedPreconditionError(
            f"{settings.state} cannot be made: {error.strerror}"
        ) from error
    return open_database(settings.database or settings.state / "broker.sqlite")


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise FailedPreconditionError(
            f"cannot listen on {host}:{port}: {error.strerror}"
        ) from error


def _issuer(settings: Settings, port: int) -> str:
    if settings.issuer is not None:
        parts = urlsplit(settings.issuer)
        if parts.scheme not in ("https", "http") or not parts.hostname or parts.query:
            raise InvalidArgumentError("--issuer is the URL under which groups reach this broker")
        return settings.issuer.rstrip("/")
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{'https' if settings.use_tls else 'http'}://{host}:{port}"


def _names(issuer: str, host: str) -> tuple[str, ...]:
    """Under which it is reached: the issuer's, the address listened on, and on this machine, by who administers it."""
    names = dict.fromkeys((urlsplit(issuer).hostname or host, host, *_LOOPBACK))
    return tuple(name for name in names if name not in _ANY)


def _tls(authority: Authority, hosts: tuple[str, ...], state: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Python's ssl reads keys from files only: one that is there for a moment, its owner's, and gone.
    with tempfile.NamedTemporaryFile(dir=state, prefix="tls.") as file:
        file.write(authority.tls_pem(hosts))
        file.flush()
        context.load_cert_chain(file.name)
    return context


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all."""
    part = path.with_suffix(f".part{os.getpid()}")
    part.write_bytes(data)
    part.replace(path)
