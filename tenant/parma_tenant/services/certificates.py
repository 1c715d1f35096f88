"""Certificates that belong to a report, from a certificate service.

    AMD        AMD's key distribution service: leaf by chip and TCB, then the chain
    AzCache    Azure's cache of the same: the chain by chip and TCB, PEM
    LocalTHIM  Azure's service on the host: whatever the host has now, THIM JSON

Nothing here is trusted: who judges the report verifies all of it. `CertificateKeeper` is the cache and its rules:
certificates of a chip at a TCB never change, so they are kept as long as there is room; a service that failed is left
alone for a while; the same question is asked once at a time, and questions are few for each minute.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from parma_api.snp import kds
from parma_api.snp.bits import SigningKey, key_info
from parma_api.snp.product import ProductLine, line_named, line_of_report
from parma_api.snp.report import Report
from parma_api.snp.tcb import parse_tcb
from parma_api.status import ApiError, InvalidArgumentError, NotFoundError, UnavailableError
from parma_tenant.services.upstream import Upstream
from parma_tenant.verify.intake import read_sources
from parma_tenant.verify.leaf import read_leaf
from parma_tenant.verify.path import PathError, find_path

_KEPT: Final = 256
_REST_SECONDS: Final = 30.0
_PER_MINUTE: Final = 30
_WHAT: Final = "the certificate service"
_AMD_FOLDER: Final = "/vcek/v1"
_AZURE: Final = "global.acccache.azure.net"
_AZURE_VERSION: Final = "api-version=2020-10-15-preview"
_THIM: Final = "169.254.169.254/metadata/THIM/amd/certification"


class Kind(enum.StrEnum):
    """Azure's words."""

    AMD = "AMD"
    AZURE = "AzCache"
    THIM = "LocalTHIM"


@dataclass(frozen=True, slots=True)
class CertificateService:
    """Where certificates are; empty texts mean the usual ones. `line`: for reports that do not name theirs."""

    kind: Kind
    endpoint: str = ""
    tee_type: str = ""
    api_version: str = ""

    async def fetch(self, client: Upstream, report: Report) -> bytes:
        """Leaf, issuer and root in a form that `verify.intake` reads.

        Raises UnavailableError, PermissionDeniedError (the service knows none), InvalidArgumentError (a report that
        names no chip).
        """
        if self.kind is Kind.AMD:
            return await self._from_amd(client, report)
        if self.kind is Kind.THIM:
            url = _url(self.endpoint or _THIM, "http")
            return await client.get(url, _WHAT, {"Metadata": "true"})
        base, tee = _url(self.endpoint or _AZURE, "https"), self.tee_type or "SevSnpVM"
        level = f"{int.from_bytes(report.reported_tcb, 'little'):x}"
        query = self.api_version or _AZURE_VERSION
        return await client.get(
            f"{base}/{tee}/certificates/{report.chip_id.hex()}/{level}?{query}", _WHAT
        )

    async def _from_amd(self, client: Upstream, report: Report) -> bytes:
        line, base = self.line_of(report), self.amd_base()
        tcb = parse_tcb(report.reported_tcb, line.tcb_layout)
        leaf = await client.get(base + kds.vcek_path(line, report.chip_id, tcb), _WHAT)
        chain = await client.get(base + kds.chain_path(line), _WHAT)
        return _pem(leaf) + chain

    def amd_base(self) -> str:
        """The URL before `/vcek/`; AMD's own by default, where the endpoint's words end with that folder."""
        return _url(self.endpoint or kds.HOST, "https").removesuffix(_AMD_FOLDER)

    def line_of(self, report: Report) -> ProductLine:
        """The report's product line, else the one in `tee_type`. Raises InvalidArgumentError."""
        line = line_of_report(report) or line_named(self.tee_type)
        if line is None:
            raise InvalidArgumentError(
                "the report does not name its product line: give its certificates"
            )
        return line


def _url(endpoint: str, scheme: str) -> str:
    return endpoint.rstrip("/") if "://" in endpoint else f"{scheme}://{endpoint.rstrip('/')}"


def _pem(der: bytes) -> bytes:
    given = read_sources((der,)).given
    if len(given) != 1:
        raise UnavailableError(f"{_WHAT} answers with something else than a certificate")
    return given[0].certificate.public_bytes(Encoding.PEM)


def signer_of(report: Report) -> SigningKey:
    """VCEK or VLEK."""
    return (
        SigningKey.VLEK
        if key_info(report.key_info).signing_key == SigningKey.VLEK
        else SigningKey.VCEK
    )


def chain_for(report: Report, source: bytes) -> bytes | None:
    """Leaf, issuer, root as PEM, if `source` holds them for this report's TCB; else None.

    Raises InvalidArgumentError for bytes that are no certificates.
    """
    try:
        path = find_path(read_sources((source,)), signer_of(report))
        leaf = read_leaf(path.leaf.certificate)
        if leaf.tcb().to_bytes() != report.reported_tcb:
            return None
    except PathError:
        return None
    return b"".join(_as_pem(one) for one in path.certificates)


def _as_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds for which a service that failed is left alone; how many questions a minute it gets."""

    rest: float = _REST_SECONDS
    per_minute: int = _PER_MINUTE


class CertificateKeeper:
    """Certificates by chip and TCB. `clock`: seconds that never go back."""

    def __init__(
        self,
        service: CertificateService,
        client: Upstream,
        patience: Patience | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._service, self._client, self._clock = service, client, clock
        self._patience = patience or Patience()
        self._kept: OrderedDict[tuple[bytes, bytes], bytes] = OrderedDict()
        self._lock = asyncio.Lock()
        self._asked: list[float] = []
        self._rest_until, self._why = 0.0, ""

    async def chain(self, report: Report) -> bytes:
        """PEM of leaf, issuer, root for this report's chip and TCB.

        Raises UnavailableError (also: it failed a moment ago, or was asked too often), NotFoundError,
        InvalidArgumentError.
        """
        key = (report.chip_id, report.reported_tcb)
        async with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            self._kept[key] = found = await self._ask(report)
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
            return found

    async def _ask(self, report: Report) -> bytes:
        now = self._clock()
        if now < self._rest_until:
            raise UnavailableError(f"{_WHAT} failed a moment ago: {self._why}")
        self._asked = [at for at in self._asked if now - at < 60]
        if len(self._asked) >= self._patience.per_minute:
            raise UnavailableError(f"{_WHAT} was asked too often in this minute: try again")
        self._asked.append(now)
        try:
            found = chain_for(report, await self._service.fetch(self._client, report))
        except UnavailableError as error:
            self._rest_until, self._why = self._clock() + self._patience.rest, error.message
            raise
        except InvalidArgumentError:
            raise
        except ApiError as error:
            raise NotFoundError(error.message) from None
        if found is None:
            raise NotFoundError(f"{_WHAT} has certificates for another TCB only")
        return found
