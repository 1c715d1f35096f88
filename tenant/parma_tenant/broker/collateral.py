"""What a broker adds to a group's evidence: certificates that the group did not send, and revocation lists.

Only with a certificate service; then a revocation list is required, and evidence without one is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from parma_api.snp.product import ProductLine, line_named, line_of_report
from parma_api.snp.report import SIZE, Report, parse
from parma_api.status import InvalidArgumentError, NotFoundError
from parma_tenant.broker.evidence import Submission
from parma_tenant.services.certificates import CertificateKeeper, chain_for, signer_of
from parma_tenant.services.revocation import RevocationKeeper
from parma_tenant.verify.intake import read_sources
from parma_tenant.verify.leaf import read_leaf
from parma_tenant.verify.path import PathError, find_path


@dataclass(frozen=True, slots=True)
class Gathered:
    """One source each."""

    certificates: tuple[bytes, ...]
    crls: tuple[bytes, ...] = ()


class Collateral(Protocol):
    """Where it comes from."""

    required: bool
    """Whether a revocation list is."""

    async def gather(self, submission: Submission) -> Gathered:
        """Raises UnavailableError: what is needed cannot be had now."""
        ...


class AsSent:
    """The group's own certificates and nothing else."""

    required = False

    async def gather(self, submission: Submission) -> Gathered:
        """See Collateral."""
        return Gathered((submission.certificates,))


class FromService:
    """Lists always, certificates where the group sent none for its report's TCB."""

    required = True

    def __init__(self, certificates: CertificateKeeper, lists: RevocationKeeper) -> None:
        self._certificates, self._lists = certificates, lists

    async def gather(self, submission: Submission) -> Gathered:
        """See Collateral. What the service does not know is left out, and the judgement says so."""
        if len(submission.report) != SIZE:
            return Gathered((submission.certificates,))
        report = parse(submission.report)
        sent = submission.certificates
        try:
            if not sent or chain_for(report, sent) is None:
                sent = await self._certificates.chain(report)
            line = line_of_report(report) or _line_in(report, sent)
        except (InvalidArgumentError, NotFoundError):
            line = line_of_report(report)
        if line is None:
            return Gathered((sent,))
        return Gathered((sent,), (await self._lists.crl(line, signer_of(report)),))


def _line_in(report: Report, certificates: bytes) -> ProductLine | None:
    """By the leaf's product name: reports of version 2 have none."""
    try:
        path = find_path(read_sources((certificates,)), signer_of(report))
    except PathError:
        return None
    return line_named(read_leaf(path.leaf.certificate).product_name)
