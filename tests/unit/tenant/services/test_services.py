"""The certificate service away, slow, rate-limiting, false; a firmware update; the rules of both caches."""

from __future__ import annotations

import asyncio
import dataclasses
import time

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.serialization import Encoding

from parma_api.snp.bits import SigningKey
from parma_api.snp.product import ProductLine
from parma_api.status import (
    ApiError,
    DataLossError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
)
from parma_shim.psp.chain import load_or_create, revocation_list
from parma_tenant.services.certificates import (
    CertificateKeeper,
    CertificateService,
    Kind,
    Patience,
    chain_for,
)
from parma_tenant.services.revocation import RevocationKeeper
from parma_tenant.services.upstream import MAX_ANSWER, Upstream, upstream
from tests.unit.tenant.services.conftest import HASTY, Service, days_later, report_of
from tests.unit.tenant.stub import StubPsp

MILAN = (ProductLine.MILAN, SigningKey.VCEK)


def keeper(
    service: Service, client: Upstream, **more: float
) -> tuple[CertificateKeeper, list[float]]:
    now = [0.0]
    patience = Patience(**{"rest": 30.0, "per_minute": 100} | more)  # type: ignore[arg-type]
    found = CertificateService(Kind.AMD, service.url)
    return CertificateKeeper(found, client, patience, lambda: now[0]), now


def lists(service: Service, client: Upstream, psp: StubPsp) -> tuple[RevocationKeeper, list[float]]:
    now = [time.time()]
    roots = psp.demand().roots
    return RevocationKeeper(service.url, client, roots, Patience(), lambda: now[0]), now


async def test_certificates_are_asked_once(
    service: Service, client: Upstream, psp: StubPsp
) -> None:
    kept, _ = keeper(service, client)
    report = await report_of(psp)
    chains = await asyncio.gather(*(kept.chain(report) for _ in range(5)))
    assert len(set(chains)) == 1
    assert chain_for(report, chains[0]) == chains[0]
    assert len(service.asked) == 2


async def test_a_firmware_update_moves_the_tcbs_apart(
    service: Service, client: Upstream, psp: StubPsp, old_psp: StubPsp
) -> None:
    report = await report_of(psp)
    assert chain_for(report, psp.certificates) is not None
    assert chain_for(report, old_psp.certificates) is None
    kept, _ = keeper(service, client)
    assert chain_for(report, await kept.chain(report)) is not None
    unknown = dataclasses.replace(report, reported_tcb=bytes((9, 0, 0, 0, 0, 0, 9, 9)))
    with pytest.raises(NotFoundError, match="404"):
        await kept.chain(unknown)
    assert chain_for(report, await kept.chain(report)) is not None


async def test_a_service_that_is_away_is_left_alone(
    service: Service, client: Upstream, psp: StubPsp
) -> None:
    kept, now = keeper(service, client)
    report = await report_of(psp)
    service.broken = lambda _path: web.Response(status=503)
    with pytest.raises(UnavailableError, match="503"):
        await kept.chain(report)
    asked = len(service.asked)
    service.broken = None
    with pytest.raises(UnavailableError, match="a moment ago"):
        await kept.chain(report)
    assert len(service.asked) == asked
    now[0] += 31
    assert await kept.chain(report)
    service.broken = lambda _path: web.Response(status=500)
    assert await kept.chain(report), "what is kept needs no service"


async def test_nobody_makes_it_ask_without_end(
    service: Service, client: Upstream, psp: StubPsp
) -> None:
    kept, now = keeper(service, client, per_minute=3)
    report = await report_of(psp)
    for number in range(5):
        other = dataclasses.replace(report, chip_id=bytes([number + 1]) * 64)
        with pytest.raises(ApiError) as caught:
            await kept.chain(other)
        assert isinstance(caught.value, NotFoundError if number < 3 else UnavailableError)
    assert len(service.asked) == 3
    now[0] += 61
    assert await kept.chain(report)


async def test_limited_and_broken_answers(service: Service, client: Upstream, psp: StubPsp) -> None:
    report = await report_of(psp)

    def limited(_path: str) -> web.Response:
        return web.Response(status=429, headers={"Retry-After": "3600"})

    for broken, reason, tries in (
        (limited, "429", 1),
        (lambda _path: web.Response(status=429), "429", 3),
        (lambda _path: web.Response(body=b"x" * (MAX_ANSWER + 1)), "not available", None),
    ):
        kept, _ = keeper(service, client)
        service.asked.clear()
        service.broken = broken
        with pytest.raises(UnavailableError, match=reason):
            await kept.chain(report)
        assert tries is None or len(service.asked) == tries
    for body in (b"", b"no certificate", b"\x30\x03\x02\x01\x00"):
        kept, _ = keeper(service, client)
        service.broken = lambda _path, body=body: web.Response(body=body)
        with pytest.raises(InvalidArgumentError):
            await kept.chain(report)


async def test_a_service_that_is_slow(service: Service, psp: StubPsp) -> None:
    service.broken = lambda _path: 30.0
    async with upstream(None, "tests", HASTY) as hasty:
        kept, _ = keeper(service, hasty)
        with pytest.raises(UnavailableError, match="in time"):
            await kept.chain(await report_of(psp))


async def test_a_service_that_recovers_within_the_tries(
    service: Service, client: Upstream, psp: StubPsp
) -> None:
    left = [2]

    def broken(_path: str) -> web.Response | float:
        left[0] -= 1
        return web.Response(status=503) if left[0] >= 0 else 0.0

    service.broken = broken
    kept, _ = keeper(service, client)
    assert await kept.chain(await report_of(psp))


async def test_redirects_are_not_followed(service: Service, client: Upstream, psp: StubPsp) -> None:
    service.broken = lambda _path: web.Response(status=302, headers={"Location": service.url})
    kept, _ = keeper(service, client)
    with pytest.raises(NotFoundError, match="302"):
        await kept.chain(await report_of(psp))


async def test_the_other_two_kinds(service: Service, client: Upstream, psp: StubPsp) -> None:
    report = await report_of(psp)
    service.broken = lambda _path: web.Response(body=psp.certificates)
    for kind, path in ((Kind.THIM, "/thim"), (Kind.AZURE, "/certificates/")):
        found = CertificateService(kind, service.url + ("/thim" if kind is Kind.THIM else ""))
        assert chain_for(report, await found.fetch(client, report)) is not None
        assert path in service.asked[-1]
    level = int.from_bytes(report.reported_tcb, "little")
    assert service.asked[-1] == f"/SevSnpVM/certificates/{report.chip_id.hex()}/{level:x}"


async def test_upstream_answers_that_are_no_json(service: Service, client: Upstream) -> None:
    service.broken = lambda _path: web.Response(body=b"[]")
    with pytest.raises(DataLossError):
        await client.get_object(service.url + "/x", "it")
    service.broken = lambda _path: web.json_response(
        {"error": {"message": "no\nsuch " + "thing" * 200}}, status=403
    )
    with pytest.raises(PermissionDeniedError, match=r"no\?such") as caught:
        await client.get(service.url + "/x", "it")
    assert len(caught.value.message) < 400


async def test_a_list_is_kept_and_renewed(service: Service, client: Upstream, psp: StubPsp) -> None:
    kept, now = lists(service, client, psp)
    first = await kept.crl(*MILAN)
    assert await kept.crl(*MILAN) == first
    assert service.count("/crl") == 1
    now[0] += 25 * 3600
    await kept.crl(*MILAN)
    assert service.count("/crl") == 2


async def test_a_list_is_used_until_it_ends_and_no_longer(
    service: Service, client: Upstream, psp: StubPsp
) -> None:
    kept, now = lists(service, client, psp)
    first = await kept.crl(*MILAN)
    service.broken = lambda _path: web.Response(status=503)
    now[0] = days_later(179)
    assert await kept.crl(*MILAN) == first
    asked = len(service.asked)
    assert await kept.crl(*MILAN) == first
    assert len(service.asked) == asked, "a service that failed is left alone"
    now[0] = days_later(181)
    with pytest.raises(UnavailableError, match="no revocation list"):
        await kept.crl(*MILAN)
    service.broken = None
    now[0] = days_later(182)
    with pytest.raises(UnavailableError, match="does not hold now"):
        await kept.crl(*MILAN)


async def test_lists_that_are_none(service: Service, client: Upstream, psp: StubPsp) -> None:
    for body in (b"", b"x", b"\x30\x00"):
        kept, _ = lists(service, client, psp)
        service.broken = lambda _path, body=body: web.Response(body=body)
        with pytest.raises(UnavailableError):
            await kept.crl(*MILAN)


async def test_a_list_of_a_strange_root_or_an_older_one_changes_nothing(
    service: Service, client: Upstream, psp: StubPsp, tmp_path_factory: pytest.TempPathFactory
) -> None:
    kept, now = lists(service, client, psp)
    first = await kept.crl(*MILAN)
    strange = load_or_create(tmp_path_factory.mktemp("strange"))

    def theirs(path: str) -> web.Response:
        crl = revocation_list(strange, (), days=3000).public_bytes(Encoding.DER)
        return web.Response(body=crl if path.endswith("/crl") else strange.pem())

    service.broken = theirs
    now[0] += 26 * 3600
    assert await kept.crl(*MILAN) == first
    fresh, _ = lists(service, client, psp)
    with pytest.raises(UnavailableError, match="no trusted root"):
        await fresh.crl(*MILAN)
