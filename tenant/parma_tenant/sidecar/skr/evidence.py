"""The group's evidence: a report over runtime data, with certificates that belong to it.

A firmware update moves the TCB beneath a running group: certificates that were right an hour ago then belong to another
one. So they are compared with each report; if they differ they are had anew, then the report, and if they still differ
there is no evidence. Nothing is verified here: that is the relying party's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from parma_api.snp.report import Report, parse
from parma_api.status import (
    ApiError,
    InvalidArgumentError,
    ResourceExhaustedError,
    UnavailableError,
)
from parma_tenant.claims.runtime import report_data_of
from parma_tenant.claims.source import ReportSource
from parma_tenant.services.certificates import chain_for

MAX_RUNTIME: Final = 64 * 1024
SECONDS: Final = 90.0
"""For a report, the wait for others' included; the host may delay it as long as it likes."""
_WAITING: Final = 64

Supplier: TypeAlias = Callable[[Report], Awaitable[bytes]]
"""One place from which certificates for a report may come; empty bytes: it has none. Raises ApiError."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """`chain`: PEM of leaf, issuer, root; empty when no place has any."""

    report: bytes
    chain: bytes

    @property
    def endorsed_tcb(self) -> str:
        """The TCB of the certificate, as Azure writes it: hexadecimal, most significant digit first."""
        return f"{int.from_bytes(parse(self.report).reported_tcb, 'little'):016x}"


class GroupEvidence:
    """Makes it, one report at a time, as the security processor does."""

    def __init__(self, source: ReportSource, suppliers: Sequence[Supplier]) -> None:
        self._source, self._suppliers = source, suppliers
        self._chain = b""
        self._lock = asyncio.Lock()
        self._waiting = 0

    async def report(self, runtime: bytes) -> bytes:
        """A report over SHA-256 of `runtime`. Raises ResourceExhaustedError, InvalidArgumentError, ApiError."""
        if not 0 < len(runtime) <= MAX_RUNTIME:
            raise InvalidArgumentError(f"runtime_data has 1 to {MAX_RUNTIME} bytes")
        if self._waiting >= _WAITING:
            raise ResourceExhaustedError("too many ask for reports at a time: try again")
        self._waiting += 1
        try:
            async with asyncio.timeout(SECONDS), self._lock:
                return await self._source.report(report_data_of(runtime))
        except TimeoutError:
            raise UnavailableError("the security processor does not answer in time") from None
        finally:
            self._waiting -= 1

    async def evidence(self, runtime: bytes) -> Evidence:
        """Raises as `report`; UnavailableError: no certificates that belong to the report can be had."""
        report = await self.report(runtime)
        chain = _matching(parse(report), self._chain)
        if chain is None:
            found = await self._renewed(parse(report))
            if not found:
                return Evidence(report, b"")
            report = await self.report(runtime)
            chain = _matching(parse(report), found)
        if chain is None:
            raise UnavailableError("the processor's TCB is just changing: try again")
        self._chain = chain
        return Evidence(report, chain)

    async def _renewed(self, report: Report) -> bytes:
        """A chain for this report from the first place that has one; empty if no place has any at all."""
        refusals: list[str] = []
        for supplier in self._suppliers:
            try:
                given = await supplier(report)
                chain = _matching(report, given)
            except ApiError as error:
                refusals.append(error.message)
                continue
            if chain is not None:
                return chain
            if given:
                refusals.append("the host's certificates belong to another TCB")
        if refusals:
            raise UnavailableError("no certificates for the report: " + "; ".join(refusals))
        return b""


def _matching(report: Report, source: bytes) -> bytes | None:
    return chain_for(report, source) if source else None
