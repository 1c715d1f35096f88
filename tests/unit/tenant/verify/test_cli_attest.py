"""`parma attest verify`: exit status, JSON, one line for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from parma_api.cli import run
from parma_tenant.verify.checks import NAMES
from tests.unit.tenant.verify import amd
from tests.unit.tenant.verify.conftest import VECTORS

MILAN = VECTORS / "milan-v2"
GOOD = ("--report", str(MILAN / "report.bin"), "--certs", str(MILAN / "chain.pem"))
TIME = ("--time", "2023-06-01T00:00:00Z")


def attest(*arguments: str | Path) -> int:
    return run(["attest", "verify", *map(str, arguments)])


def test_accept(capsys: pytest.CaptureFixture[str]) -> None:
    assert attest(*GOOD, *TIME, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["verdict"] == "accept"
    assert printed["claims"]["product_line"] == "Milan"
    assert [check["name"] for check in printed["checks"]] == list(NAMES)
    assert {tuple(check) for check in printed["checks"]} == {
        ("name", "result", "expected", "got", "reason")
    }


def test_refuse_says_why(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    expect = tmp_path / "expect.json"
    expect.write_text('{"vmpl": 2}')
    assert attest(*GOOD, *TIME, "--expect", expect) == 1
    out = capsys.readouterr().out
    assert out.startswith("refuse")
    assert "fail value.vmpl" in out


def test_another_length_is_a_refusal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    report = tmp_path / "report.bin"
    report.write_bytes(bytes(1185))
    assert attest("--report", report, "--certs", MILAN / "chain.pem", "--json") == 1
    printed = json.loads(capsys.readouterr().out)
    failed = [check["name"] for check in printed["checks"] if check["result"] == "fail"]
    assert failed == ["report.length"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--report", "nowhere", "--certs", str(MILAN / "chain.pem")), "cannot be read"),
        (("--report", str(MILAN / "report.bin"), "--certs", "nowhere"), "cannot be read"),
        ((*GOOD, "--crl", "nowhere"), "cannot be read"),
        ((*GOOD, "--expect", "nowhere"), "cannot be read"),
        ((*GOOD, "--transcript", "nowhere"), "cannot be read"),
        ((*GOOD, "--report", str(VECTORS)), "cannot be read"),
        ((*GOOD, "--time", "yesterday"), "is not a time"),
        ((*GOOD, "--time", "2023-06-01T00:00:00"), "is not a time"),
        ((*GOOD, "--time", "2023-13-01T00:00:00Z"), "is not a time"),
        ((*GOOD, "--trust-root", str(MILAN / "report.bin")), "neither PEM"),
        ((*GOOD, "--trust-root", str(VECTORS / "milan-v3/ask.pem")), "self-signed"),
        ((*GOOD, "--expect", str(MILAN / "thim.json")), "unknown expectation"),
        (GOOD[:2], "--certs"),
        ((*GOOD, "--frobnicate"), "--frobnicate"),
    ],
)
def test_bad_usage_is_one_line(
    options: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert attest(*options) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    "when", ["2023-06-01T02:00:00+02:00", "2023-06-01", "2023-06-01t00:00:00z"]
)
def test_times(when: str) -> None:
    assert attest(*GOOD, "--time", when) == 0


def test_now_without_a_time(tmp_path: Path) -> None:
    """A chain that ended long ago is refused without --time."""
    old = amd.chain()
    year = amd.NOW.replace(year=2001)
    leaf = old.leaf.but(start=year, end=year.replace(year=2002))
    parts = [spec.make().public_bytes(Encoding.PEM) for spec in (leaf, old.issuer, old.root)]
    (tmp_path / "chain.pem").write_bytes(b"".join(parts))
    (tmp_path / "ark.pem").write_bytes(parts[2])
    (tmp_path / "report.bin").write_bytes(amd.sign(amd.report()))
    words = ("--report", tmp_path / "report.bin", "--certs", tmp_path / "chain.pem")
    root = ("--trust-root", tmp_path / "ark.pem")
    assert attest(*words, *root) == 1
    assert attest(*words, *root, "--time", "2001-06-01T00:00:00Z") == 1  # the others: not yet


def test_a_stub_is_called_a_stub(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    chain = amd.chain()
    stub = amd.Chain(
        chain.root.but(subject="ARK-STUB-Milan", issuer="ARK-STUB-Milan"),
        chain.issuer.but(subject="SEV-STUB-Milan", issuer="ARK-STUB-Milan"),
        chain.leaf.but(issuer="SEV-STUB-Milan"),
    )
    for name, der in zip(("vcek", "ask", "ark"), stub.ders(), strict=True):
        (tmp_path / name).write_bytes(der)
    (tmp_path / "report.bin").write_bytes(amd.sign(amd.report()))
    words: list[str | Path] = ["--report", tmp_path / "report.bin", "--time", "2026-03-01"]
    for name in ("vcek", "ask", "ark"):
        words += ["--certs", tmp_path / name]
    assert attest(*words) == 1
    assert "not trusted" in capsys.readouterr().out
    assert attest(*words, "--trust-root", tmp_path / "ark") == 0
    assert capsys.readouterr().out.startswith("accept: root stub")
