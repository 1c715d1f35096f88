"""`parma-skr`: reads its settings, finds the source of reports, and serves until SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

from parma_api.snp.report import Report
from parma_api.status import ApiError, FailedPreconditionError
from parma_tenant.claims.device import context_certificates, context_file, own_source
from parma_tenant.claims.encoding import from_b64
from parma_tenant.claims.source import ReportSource
from parma_tenant.release.trust import read_roots
from parma_tenant.services.certificates import CertificateKeeper, CertificateService, Kind
from parma_tenant.services.upstream import Timing, Upstream, upstream
from parma_tenant.sidecar.skr.attestation import Attestation
from parma_tenant.sidecar.skr.evidence import GroupEvidence, Supplier
from parma_tenant.sidecar.skr.options import Options, read_options
from parma_tenant.sidecar.skr.release import KeyRelease
from parma_tenant.sidecar.skr.server import Sidecar, listening

_log = logging.getLogger("parma.skr")
_REFERENCE: Final = "reference-info-base64"
_PUBLIC_ROOTS: Final = "etc/ssl/certs/ca-certificates.crt"


def main() -> int:
    """The exit status: 0 after SIGTERM, 2 when it cannot start."""
    try:
        options = read_options(os.environ)
        _log_to(options)
        asyncio.run(_serve(options))
    except (ApiError, OSError) as error:
        reason = error.message if isinstance(error, ApiError) else error.strerror
        sys.stderr.write(f"error: parma-skr: {reason}\n")
        return 2
    return 0


def _log_to(options: Options) -> None:
    form = "%(asctime)s %(name)s %(levelname)s %(message)s"
    logging.basicConfig(level=options.log_level, format=form, filename=options.log_file)
    # What other libraries say in detail may quote what passes through them.
    for name in ("aiohttp", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)


async def _serve(options: Options) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with serving(options, os.environ) as port:
        _log.info("listening on 127.0.0.1:%d", port)
        await stop.wait()


@contextlib.asynccontextmanager
async def serving(
    options: Options,
    environment: Mapping[str, str],
    root: Path = Path("/"),
    timing: Timing | None = None,
) -> AsyncIterator[int]:
    """A sidecar in this process; the port.

    Raises FailedPreconditionError: there is no source of reports, or no root that could vouch for a vault; OSError.
    """
    source = own_source(environment, root)
    _log.info("reports come from %s", source)
    public = _public_roots(root)
    pem = public if options.roots is None else options.roots
    if not pem:
        raise FailedPreconditionError(
            "no root certificates in this image: name them in trusted_roots of SkrSideCarArgs"
        )
    roots = read_roots(pem)
    async with (
        upstream(pem, options.user_agent, timing) as client,
        # A certificate service is public, and what it says is verified by whoever judges the report.
        upstream(pem + b"\n" + public, options.user_agent, timing) as anybody,
    ):
        group = GroupEvidence(source, _suppliers(options, environment, root, source, anybody))
        attestation = Attestation(group, client, lambda: _endorsements(environment, root))
        keys = KeyRelease(attestation, client, roots, options.client_id)
        async with listening(Sidecar(group, attestation, keys), options.port) as port:
            yield port


def _suppliers(
    options: Options,
    environment: Mapping[str, str],
    root: Path,
    source: ReportSource,
    client: Upstream,
) -> list[Supplier]:
    """The host's file, the report device's table, the certificate service: in this order."""

    async def from_context(_report: Report) -> bytes:
        return context_certificates(environment, root)

    async def from_source(_report: Report) -> bytes:
        return await source.certificates()

    suppliers: list[Supplier] = [from_context, from_source]
    if (cache := options.cert_cache) is not None:
        service = CertificateService(
            Kind(cache.kind), cache.endpoint, cache.tee_type, cache.api_version
        )
        suppliers.append(CertificateKeeper(service, client).chain)
    return suppliers


def _endorsements(environment: Mapping[str, str], root: Path) -> bytes:
    text = context_file(environment, _REFERENCE, root)
    return from_b64(text.decode("ascii", errors="replace").strip(), _REFERENCE) if text else b""


def _public_roots(root: Path) -> bytes:
    """The image's roots of the public web, PEM; empty if it has none."""
    path = root / _PUBLIC_ROOTS
    return path.read_bytes() if path.exists() else b""


if __name__ == "__main__":
    sys.exit(main())
