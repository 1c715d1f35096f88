"""Evidence of a group: a firmware update beneath it, certificates from several places, a device that fails."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import pytest

from parma_api.snp.report import parse
from parma_api.status import (
    UnavailableError,
)
from parma_tenant.services.certificates import CertificateKeeper, CertificateService, Kind
from parma_tenant.services.upstream import Upstream
from parma_tenant.sidecar.skr import evidence
from parma_tenant.sidecar.skr.evidence import GroupEvidence
from parma_tenant.sidecar.skr.options import CertCache
from tests.unit.tenant.broker.conftest import Client
from tests.unit.tenant.services.conftest import Service, client, old_psp, service
from tests.unit.tenant.sidecar.conftest import Source, endpoints, sidecar
from tests.unit.tenant.stub import StubPsp

__all__ = ["client", "old_psp", "service"]


async def test_a_firmware_update_beneath_the_group(
    psp: StubPsp, old_psp: StubPsp, authority: Path, tmp_path: Path
) -> None:
    """Certificates that belonged to the report before: had anew, then the report; else there is no evidence."""
    from tests.unit.tenant.services.conftest import OLD_TCB
    from tests.unit.tenant.stub import stub_psp

    with stub_psp(tmp_path, authority, tcb=OLD_TCB) as before:
        source = Source(before, psp)
        group = GroupEvidence(source, [source.supplier])
        first = await group.evidence(b"{}")
        source.now = 1
        with pytest.raises(UnavailableError, match="another TCB"):
            await group.evidence(b"{}")
        source.table = psp.certificates
        second = await group.evidence(b"{}")
        assert parse(first.report).reported_tcb != parse(second.report).reported_tcb
        assert first.chain != second.chain
        assert first.endorsed_tcb != second.endorsed_tcb

        moving = Source(before, psp)
        moving.after = 1
        with pytest.raises(UnavailableError, match="just changing"):
            await GroupEvidence(moving, [moving.supplier]).evidence(b"{}")


async def test_a_stale_file_of_the_host_is_passed_over(
    broker: Client, psp: StubPsp, old_psp: StubPsp, service: Service, tmp_path: Path
) -> None:
    folder = tmp_path / "security-context-x"
    folder.mkdir()
    (folder / "host-amd-cert-base64").write_bytes(base64.b64encode(old_psp.certificates))
    await broker.import_for("model", psp.host_data)
    cache = CertCache("AMD", service.url, "", "")
    root = broker.about.root.read_bytes()
    async with sidecar(psp, root, tmp_path, cert_cache=cache) as skr:
        status, answer = await skr.post("/key/release", **endpoints(broker, "model"))
        assert status == 200, answer
    assert service.asked == [], "the device's own table came first"


async def test_where_certificates_come_from(
    psp: StubPsp, old_psp: StubPsp, service: Service, client: Upstream
) -> None:
    source = Source(psp)

    async def stale(_report: object) -> bytes:
        return old_psp.certificates

    async def away(_report: object) -> bytes:
        raise UnavailableError("away")

    async def nothing(_report: object) -> bytes:
        return b""

    async def garbage(_report: object) -> bytes:
        return b"garbage"

    kept = CertificateKeeper(CertificateService(Kind.AMD, service.url), client)
    for suppliers in (
        [nothing, source.supplier],
        [stale, garbage, away, source.supplier],
        [stale, kept.chain],
    ):
        assert (await GroupEvidence(source, suppliers).evidence(b"{}")).chain
    assert (await GroupEvidence(source, [nothing]).evidence(b"{}")).chain == b""
    for suppliers in ([stale], [garbage], [nothing, away]):
        with pytest.raises(UnavailableError, match="no certificates"):
            await GroupEvidence(source, suppliers).evidence(b"{}")


async def test_a_device_that_fails(psp: StubPsp) -> None:
    source = Source(psp)
    source.error = UnavailableError("the device gives no report")
    with pytest.raises(UnavailableError):
        await GroupEvidence(source, [source.supplier]).evidence(b"{}")


async def test_a_device_that_never_answers(psp: StubPsp, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stuck(Source):
        async def report(self, report_data: bytes) -> bytes:
            await asyncio.Event().wait()
            raise AssertionError(report_data)

    monkeypatch.setattr(evidence, "SECONDS", 0.1)
    with pytest.raises(UnavailableError, match="in time"):
        await GroupEvidence(Stuck(psp), []).report(b"{}")


async def test_too_many_at_a_time(psp: StubPsp) -> None:
    class Stuck(Source):
        async def report(self, report_data: bytes) -> bytes:
            await asyncio.Event().wait()
            raise AssertionError(report_data)

    group = GroupEvidence(Stuck(psp), [])
    tasks = [asyncio.create_task(group.report(b"{}")) for _ in range(70)]
    done, waiting = await asyncio.wait(tasks, timeout=1)
    assert len(done) == 6
    assert all(type(task.exception()).__name__ == "ResourceExhaustedError" for task in done)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
