"""ID blocks against those of sev-snp-measure; KDS paths against AMD's form."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sevsnpmeasure.id_block import snp_calc_id_block

from parma_api.snp import id_block, kds
from parma_api.snp.bits import SigningKey
from parma_api.snp.product import ProductLine, TcbLayout
from parma_api.snp.report import parse
from parma_api.snp.tcb import Tcb, parse_tcb
from parma_api.status import InvalidArgumentError

VECTORS = Path(__file__).parents[3] / "vectors/snp"
DIGEST = bytes(range(48))


def make_key(path: Path) -> tuple[bytes, Path]:
    """A key in the firmware's form, and its PEM file."""
    key = ec.generate_private_key(ec.SECP384R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    path.write_bytes(pem)
    numbers = key.public_key().public_numbers()
    return id_block.public_key(numbers.x, numbers.y), path


def numbers(signature: bytes) -> tuple[int, int]:
    return int.from_bytes(signature[:72], "little"), int.from_bytes(signature[72:144], "little")


def test_the_same_bytes_as_sev_snp_measure(tmp_path: Path) -> None:
    id_key, id_pem = make_key(tmp_path / "id.pem")
    author_key, author_pem = make_key(tmp_path / "author.pem")
    text = snp_calc_id_block(DIGEST, str(id_pem), str(author_pem))
    found = [base64.b64decode(part) for part in re.findall(r"[=:] ?([A-Za-z0-9+/]{40,}=*)", text)]
    block, auth, id_digest, author_digest = found
    assert id_block.IdBlock(DIGEST, 0x30000).to_bytes() == block
    assert id_block.parse_id_block(block) == id_block.IdBlock(DIGEST, 0x30000)
    assert id_block.key_digest(id_key) == id_digest
    assert id_block.key_digest(author_key) == author_digest
    own = id_block.signature(*numbers(auth[0x040:0x240]))
    over_key = id_block.signature(*numbers(auth[0x680:0x880]))
    assert id_block.id_auth(own, id_key, (over_key, author_key)) == auth


def test_without_an_author_the_rest_is_zero(tmp_path: Path) -> None:
    key, _ = make_key(tmp_path / "id.pem")
    auth = id_block.id_auth(id_block.signature(1, 2), key)
    assert auth[:8] == bytes((1, 0, 0, 0, 0, 0, 0, 0))
    assert not any(auth[0x680:])


def test_every_field_has_its_place() -> None:
    block = id_block.IdBlock(DIGEST, 0xB0000, b"f" * 16, b"i" * 16, 7)
    data = block.to_bytes()
    assert data[48:80] == b"f" * 16 + b"i" * 16
    assert data[80:88] == bytes((1, 0, 0, 0, 7, 0, 0, 0))
    assert id_block.parse_id_block(data) == block


@pytest.mark.parametrize("data", [b"", bytes(95), bytes(97), bytes(96)])
def test_what_is_no_id_block(data: bytes) -> None:
    with pytest.raises(InvalidArgumentError):
        id_block.parse_id_block(data)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: id_block.IdBlock(b"", 0),
        lambda: id_block.IdBlock(DIGEST, 1 << 64),
        lambda: id_block.IdBlock(DIGEST, 0, guest_svn=-1),
        lambda: id_block.public_key(0, 1),
        lambda: id_block.signature(1, 1 << 384),
        lambda: id_block.key_digest(b""),
        lambda: id_block.id_auth(b"", bytes(0x404)),
        lambda: id_block.id_auth(bytes(512), b""),
    ],
)
def test_values_that_cannot_be(wrong: object) -> None:
    assert callable(wrong)
    with pytest.raises(InvalidArgumentError):
        wrong()


@pytest.mark.parametrize(
    ("name", "line", "query"),
    [
        ("milan-v3", ProductLine.MILAN, "blSPL=4&teeSPL=0&snpSPL=24&ucodeSPL=219"),
        ("turin-v5", ProductLine.TURIN, "fmcSPL=1&blSPL=1&teeSPL=1&snpSPL=4&ucodeSPL=81"),
    ],
)
def test_where_the_certificate_of_a_report_is(name: str, line: ProductLine, query: str) -> None:
    report = parse((VECTORS / name / "report.bin").read_bytes())
    tcb = parse_tcb(report.reported_tcb, line.tcb_layout)
    path = kds.vcek_path(line, report.chip_id, tcb)
    chip = report.chip_id[: line.chip_id_size].hex()
    assert path == f"/vcek/v1/{line}/{chip}?{query}"


def test_authorities_and_lists() -> None:
    assert kds.chain_path(ProductLine.GENOA) == "/vcek/v1/Genoa/cert_chain"
    assert kds.crl_path(ProductLine.MILAN, SigningKey.VLEK) == "/vlek/v1/Milan/crl"
    with pytest.raises(InvalidArgumentError):
        kds.crl_path(ProductLine.MILAN, SigningKey.NONE)


@pytest.mark.parametrize(
    ("line", "chip", "tcb"),
    [
        (ProductLine.MILAN, bytes(64), Tcb(TcbLayout.MILAN, 0, 0, 0, 0)),
        (ProductLine.MILAN, b"\1" * 8, Tcb(TcbLayout.MILAN, 0, 0, 0, 0)),
        (ProductLine.TURIN, b"\1" * 64, Tcb(TcbLayout.TURIN, 0, 0, 0, 0, fmc=0)),
        (ProductLine.MILAN, b"\1" * 64, Tcb(TcbLayout.TURIN, 0, 0, 0, 0, fmc=0)),
    ],
)
def test_no_path_for_what_is_no_chip(line: ProductLine, chip: bytes, tcb: Tcb) -> None:
    with pytest.raises(InvalidArgumentError):
        kds.vcek_path(line, chip, tcb)
