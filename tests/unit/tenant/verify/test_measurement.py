"""`parma measure`: the shim's own configuration in, measurements out, and what differs from a claim."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import pytest
from sevsnpmeasure import guest, vcpu_types
from sevsnpmeasure.sev_mode import SevMode

from parma_api.cli import run
from parma_api.launch import SNP_CPU_MODEL, SNP_GUEST_FEATURES
from parma_api.snp.measure.digest import Vcpus, launch_digest
from parma_api.snp.measure.vmsa import signature_of
from parma_api.status import DataLossError
from parma_tenant.verify.measurement import explain, read_inputs
from tests.unit.api.snp.test_measure import synthetic

FILES = {
    "vmlinux": ("vmlinux", b"v"),
    "bzImage": ("bzImage", b"kernel" * 1000),
    "initrd": ("initrd.img", b"initrd" * 700),
    "root": ("root.img", b"r"),
}
CMDLINE = "console=ttyS0 parma.verity=1,00,00"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    folder = tmp_path / "image"
    folder.mkdir()
    files = {}
    for key, (name, data) in FILES.items():
        (folder / name).write_bytes(data)
        files[key] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    description = {
        "format": 1,
        "variant": "release",
        "kernel_version": "6.12",
        "cmdline": CMDLINE,
        "files": files,
    }
    (folder / "image.json").write_text(json.dumps(description))
    return folder


@pytest.fixture
def ovmf(tmp_path: Path) -> Path:
    file = tmp_path / "OVMF.amdsev.fd"
    file.write_bytes(synthetic(65536))
    return file


def oracle(image: Path, ovmf: Path, count: int, model: str, features: int) -> str:
    digest: bytes = guest.calc_launch_digest(
        SevMode.SEV_SNP,
        count,
        vcpu_types.CPU_SIGS[model],
        str(ovmf),
        str(image / "bzImage"),
        str(image / "initrd.img"),
        CMDLINE,
        features,
    )
    return digest.hex()


def measure(*arguments: str | Path) -> int:
    return run(["measure", *map(str, arguments)])


def test_json(image: Path, ovmf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert measure("--image", image, "--ovmf", ovmf, "--vcpus", "1,2,4", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    expected = {
        str(count): oracle(image, ovmf, count, SNP_CPU_MODEL, SNP_GUEST_FEATURES)
        for count in (1, 2, 4)
    }
    assert printed["measurements"] == expected
    inputs = printed["inputs"]
    assert inputs["vcpus"] == [1, 2, 4]
    assert inputs["cmdline"] == CMDLINE
    assert inputs["kernel"]["sha256"] == hashlib.sha256(FILES["bzImage"][1]).hexdigest()
    assert inputs["ovmf"]["size"] == 65536
    assert (inputs["cpu"], inputs["features"]) == (SNP_CPU_MODEL, "0x1")


@pytest.mark.parametrize(("model", "features"), [("EPYC-Genoa", 0x21), ("EPYC-Milan", 0x1)])
def test_other_models_and_features(
    model: str, features: int, image: Path, ovmf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--cpu", model, "--features", f"0x{features:x}", "--vcpus", "3", "--json")
    assert measure("--image", image, "--ovmf", ovmf, *options) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["measurements"] == {"3": oracle(image, ovmf, 3, model, features)}


def test_lines_for_people(image: Path, ovmf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert measure("--image", image, "--ovmf", ovmf, "--vcpus", "1") == 0
    out = capsys.readouterr().out
    assert oracle(image, ovmf, 1, SNP_CPU_MODEL, 1) in out
    assert f"cmdline        {CMDLINE}" in out


CLAIMS: list[tuple[str, dict[str, object], list[str]]] = [
    ("ours", {}, []),
    ("one vCPU more than asked for", {"count": 3}, ["the count of vCPUs"]),
    ("many", {"count": 64}, ["the count of vCPUs"]),
    ("DebugSwap", {"features": 0x21}, ["features"]),
    ("another model", {"model": "EPYC-Turin"}, ["the CPU model"]),
    ("model and count", {"model": "EPYC-Milan", "count": 8}, ["the CPU model", "the count of vCPUs"]),
    ("no kernel", {"kernel": "none"}, ["the kernel's measurement"]),
    ("no initrd", {"kernel": "initrd"}, ["the kernel's measurement"]),
]  # fmt: skip


@pytest.mark.parametrize("case", CLAIMS, ids=lambda case: case[0])
def test_a_claim_is_explained(
    case: tuple[str, dict[str, object], list[str]],
    image: Path,
    ovmf: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, changes, expected = case
    inputs = read_inputs(image, ovmf)
    hashes = {
        "none": None,
        "initrd": dataclasses.replace(inputs.hashes, initrd=hashlib.sha256(b"").digest()),
    }.get(str(changes.get("kernel")), inputs.hashes)
    vcpus = Vcpus(
        int(str(changes.get("count", 2))),
        signature_of(str(changes.get("model", SNP_CPU_MODEL))),
        int(str(changes.get("features", 1))),
    )
    claimed = launch_digest(inputs.firmware, hashes, vcpus)
    explanation = explain(claimed, inputs, (1, 2, 4))
    assert [difference.input for difference in explanation.differences] == expected
    assert explanation.vcpus == vcpus.count
    status = measure("--image", image, "--ovmf", ovmf, "--claim", claimed.hex(), "--json")
    assert status == (1 if expected else 0)
    printed = json.loads(capsys.readouterr().out)["claim"]
    assert printed["equal"] is not bool(expected)
    assert all(name in printed["reason"] for name in expected)


def test_a_claim_that_nothing_explains(image: Path, ovmf: Path) -> None:
    explanation = explain(bytes(48), read_inputs(image, ovmf), (1,))
    assert explanation.differences == ()
    assert "kernel" in explanation.reason
    assert measure("--image", image, "--ovmf", ovmf, "--claim", "00" * 48) == 1


def test_files_must_be_those_of_the_image(image: Path, ovmf: Path) -> None:
    (image / "initrd.img").write_bytes(b"INITRD" * 700)
    with pytest.raises(DataLossError):
        read_inputs(image, ovmf)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--vcpus", "0"), "list of counts"),
        (("--vcpus", "1,,2"), "list of counts"),
        (("--vcpus", "513"), "at most 512"),
        (("--vcpus", "x"), "list of counts"),
        (("--cpu", "Xeon"), "unknown CPU model"),
        (("--features", "one"), "not a number"),
        (("--features", "99999999999999999999"), "not a number"),
        (("--claim", "00"), "96 hexadecimal"),
        (("--ovmf", "nowhere"), "cannot be read"),
        (("--ovmf", os.devnull), "firmware"),
        (("--image", "nowhere"), "no UVM image"),
    ],
)
def test_bad_usage_is_one_line(
    options: tuple[str, str],
    message: str,
    image: Path,
    ovmf: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert measure("--image", image, "--ovmf", ovmf, *options) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_where_the_firmware_is_looked_for(
    image: Path, ovmf: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PARMA_OVMF", str(ovmf))
    assert measure("--image", image, "--vcpus", "1") == 0
    monkeypatch.setenv("PARMA_OVMF", str(tmp_path / "nowhere"))
    assert measure("--image", image, "--vcpus", "1") == 2
