"""The stub's key service, by the paths of AMD's: what it knows, what not, when it is asked too often; measurement."""

from __future__ import annotations

import hashlib
import http.client
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from parma_api.launch import VmSize, parse_image
from parma_api.snp import kds as paths
from parma_api.snp import report
from parma_api.snp.bits import SigningKey
from parma_api.snp.product import ProductLine
from parma_api.snp.tcb import parse_tcb
from parma_shim.psp.chain import Authority, load_or_create
from parma_shim.psp.chips import find, hwid, register
from parma_shim.psp.kds import Code, KeyService, RateLimit
from parma_shim.psp.kds_serve import server
from parma_shim.psp.launch import TURIN_TCB, LaunchValues
from parma_shim.psp.leaf import vcek_certificate
from parma_shim.psp.measure import Source, measurement
from parma_shim.psp.psp import Processor

MILAN = LaunchValues(bytes(48), bytes(32))
TURIN = LaunchValues(bytes(48), bytes(32), line=ProductLine.TURIN, tcb=TURIN_TCB, version=5)
ROOT = "/vcek/v1/Milan"


@pytest.fixture(scope="module")
def chips(folder: Path, authority: Authority) -> Path:
    del authority
    for launch in (MILAN, TURIN):
        register(folder, launch)
        register(folder, launch)
    return folder


@pytest.mark.parametrize("launch", [MILAN, TURIN], ids=["milan", "turin"])
def test_the_leaf_of_a_report_is_found_by_the_report(chips: Path, launch: LaunchValues) -> None:
    authority = load_or_create(chips, launch.line)
    found = report.parse(Processor(authority, launch).report(bytes(64), 0))
    tcb = parse_tcb(found.reported_tcb, launch.line.tcb_layout)
    reply = KeyService(chips).get(paths.vcek_path(launch.line, found.chip_id, tcb))
    assert reply.code is Code.OK
    leaf = x509.load_der_x509_certificate(reply.body)
    signer = vcek_certificate(authority, launch.chip_seed, launch.tcb)
    assert leaf.public_key() == signer.public_key()
    leaf.verify_directly_issued_by(authority.ask)


@pytest.mark.parametrize("signer", [SigningKey.VCEK, SigningKey.VLEK])
def test_chain_and_revocation_list(chips: Path, signer: SigningKey) -> None:
    service = KeyService(chips, revoked=(65537,))
    chain = service.get(paths.chain_path(ProductLine.MILAN, signer))
    issuer, root = x509.load_pem_x509_certificates(chain.body)
    issuer.verify_directly_issued_by(root)
    assert issuer.serial_number == (65793 if signer is SigningKey.VLEK else 65537)
    reply = service.get(paths.crl_path(ProductLine.MILAN, signer))
    crl = x509.load_der_x509_crl(reply.body)
    assert crl.is_signature_valid(root.public_key())  # type: ignore[arg-type]
    assert [entry.serial_number for entry in crl] == [65537]


LEVELS = "blSPL=4&teeSPL=0&snpSPL=24&ucodeSPL=219"
HWID = "ab" * 64


def own(query: str = LEVELS) -> str:
    return f"{ROOT}/{hwid(MILAN)}?{query}"


@pytest.mark.parametrize(
    ("target", "code"),
    [
        (own(), Code.OK),
        (own().replace("219", "218"), Code.NOT_FOUND),
        (f"{ROOT}/{HWID}?{LEVELS}", Code.NOT_FOUND),
        (f"{ROOT}/../chips?{LEVELS}", Code.NOT_FOUND),
        (f"{ROOT}/lock?{LEVELS}", Code.NOT_FOUND),
        (own(""), Code.BAD_REQUEST),
        (own("blSPL=4"), Code.BAD_REQUEST),
        (own(LEVELS + "&fmcSPL=1"), Code.BAD_REQUEST),
        (own(LEVELS + "&more=1"), Code.BAD_REQUEST),
        (own(LEVELS.replace("24", "-1")), Code.BAD_REQUEST),
        (own(LEVELS.replace("24", "256")), Code.BAD_REQUEST),
        (own().replace("vcek", "vlek"), Code.NOT_FOUND),
        (own().replace("vcek", "ark"), Code.NOT_FOUND),
        (own().replace("Milan", "Rome"), Code.NOT_FOUND),
        (own().replace("v1", "v2"), Code.NOT_FOUND),
        ("/", Code.NOT_FOUND),
        ("", Code.NOT_FOUND),
        ("/vcek/v1/Milan/crl/x", Code.NOT_FOUND),
        ("/vcek/v1/Milan/" + "a" * 2000, Code.NOT_FOUND),
    ],
)
def test_what_it_answers(chips: Path, target: str, code: Code) -> None:
    reply = KeyService(chips).get(target)
    assert reply.code is code
    assert bool(reply.body) is (code is Code.OK)


def test_a_damaged_record_is_no_chip(chips: Path, tmp_path: Path) -> None:
    (tmp_path / "chips").mkdir()
    for text in ("", "[]", '{"seed": "zz", "tcbs": []}', '{"seed": "", "tcbs": ["ff"]}'):
        (tmp_path / f"chips/Milan-{hwid(MILAN)}.json").write_text(text)
        assert find(tmp_path, ProductLine.MILAN, hwid(MILAN)) is None
    assert find(chips, ProductLine.MILAN, hwid(MILAN)) is not None


def test_asked_too_often(chips: Path) -> None:
    now = [100.0]
    service = KeyService(chips, RateLimit(2, 10.0, lambda: now[0]))
    target = paths.crl_path(ProductLine.MILAN)
    codes = [service.get(target).code for _ in range(3)]
    assert codes == [Code.OK, Code.OK, Code.TOO_MANY]
    assert service.get(target).retry_after == 11
    now[0] += 10.0
    assert service.get(target).code is Code.OK


@pytest.fixture
def port(chips: Path) -> Iterator[int]:
    with server(KeyService(chips, RateLimit(1, 1000.0, lambda: 0.0))) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield listening.server_port
        listening.shutdown()
        thread.join()


def test_over_http(port: int) -> None:
    answers = []
    for _ in range(2):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", paths.chain_path(ProductLine.MILAN))
        answer = connection.getresponse()
        answers.append((answer.status, answer.read(), answer.headers["Retry-After"]))
        assert "stub" in answer.headers["X-Parma"]
        connection.close()
    (first, chain, _), (second, nothing, retry) = answers
    assert (first, second, nothing, retry) == (200, 429, b"", "1001")
    assert len(x509.load_pem_x509_certificates(chain)) == 2


def test_the_process(chips: Path) -> None:
    command = [sys.executable, "-m", "parma_shim.psp.kds_serve", str(chips), "--revoke", "65537"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        url = process.stdout.readline().decode().strip()
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
        connection.request("GET", paths.crl_path(ProductLine.MILAN))
        crl = x509.load_der_x509_crl(connection.getresponse().read())
        connection.close()
        assert [entry.serial_number for entry in crl] == [65537]
        process.communicate(timeout=30)
        assert process.returncode == 0


# The measurement


def digest(text: str) -> dict[str, object]:
    return {"sha256": hashlib.sha256(text.encode()).hexdigest(), "size": len(text)}


def test_without_firmware_the_measurement_is_a_stand_in(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = {name: digest(name) for name in ("vmlinux", "bzImage", "initrd", "root")}
    described = {"format": 1, "variant": "stub", "kernel_version": "6", "cmdline": "a"}
    image = parse_image(tmp_path, json.dumps(described | {"files": files}).encode())
    other = parse_image(tmp_path, json.dumps(described | {"files": files, "cmdline": "b"}).encode())
    found, source = measurement(image, tmp_path / "none", VmSize.MEDIUM)
    assert (len(found), source) == (48, Source.STAND_IN)
    assert measurement(other, tmp_path / "none", VmSize.MEDIUM)[0] != found
    (tmp_path / "fw").write_bytes(b"no firmware")
    assert measurement(image, tmp_path / "fw", VmSize.MEDIUM) == (found, Source.STAND_IN)
    assert caplog.text.count("stands for the image's files only") == 3


def test_with_firmware_it_is_the_launch_digest(tmp_path: Path, synthetic_firmware: bytes) -> None:
    (tmp_path / "OVMF.fd").write_bytes(synthetic_firmware)
    files = {n: digest(n) for n in ("vmlinux", "root")}
    files |= {"bzImage": digest("kernel"), "initrd": digest("initrd")}
    described = {"format": 1, "variant": "stub", "kernel_version": "6", "files": files}
    text = json.dumps(described | {"cmdline": "console=ttyS0 panic=1"}).encode()
    found, source = measurement(parse_image(tmp_path, text), tmp_path / "OVMF.fd", VmSize.SMALL)
    golden = "c75dccc4d1c16b4a65b7183ce113410b2710c9a7a0956da4ec483cb574c95be3fac42eef81e16768cd5138b3662bedde"
    assert (found.hex(), source) == (golden, Source.LAUNCH_DIGEST)
