"""image.json and the launch configuration that shim and tenant share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from parma_api.launch import Variant, VmSize, parse_image, read_image, snp_launch
from parma_api.status import ApiError, DataLossError, FailedPreconditionError, InvalidArgumentError
from parma_shim.vmm.image import candidates, find_image
from tests.tools.tiny_kernel import write_image


def edited(folder: Path, **changes: object) -> bytes:
    document = json.loads((write_image(folder) / "image.json").read_text())
    return json.dumps({**document, **changes}).encode()


def test_what_is_read(tmp_path: Path) -> None:
    image = read_image(write_image(tmp_path))
    assert (image.variant, image.cmdline) == (Variant.STUB, "console=ttyS0")
    assert [file.path.name for file in image.files] == [
        "vmlinux",
        "bzImage",
        "initrd.img",
        "root.img",
    ]
    for file in image.files:
        file.verify()
    image.root.path.write_bytes(b"\1" * image.root.size)
    with pytest.raises(DataLossError, match="SHA-256"):
        image.root.verify()
    image.root.path.write_bytes(b"")
    with pytest.raises(DataLossError, match="0 bytes"):
        read_image(tmp_path)
    image.root.path.unlink()
    with pytest.raises(FailedPreconditionError, match="make uvm"):
        read_image(tmp_path)


def test_an_snp_launch_takes_the_bzimage_and_hashes_the_firmware(tmp_path: Path) -> None:
    image = read_image(write_image(tmp_path))
    (tmp_path / "fw").write_bytes(b"firmware")
    launch = snp_launch(image, tmp_path / "fw", VmSize.LARGE)
    assert (launch.kernel, launch.initrd, launch.cmdline) == (
        image.bzimage,
        image.initrd,
        image.cmdline,
    )
    assert (launch.vcpus, launch.cpu_model, launch.guest_features, launch.policy) == (
        4,
        "EPYC-v4",
        1,
        0x30000,
    )
    launch.firmware.verify()
    with pytest.raises(FailedPreconditionError):
        snp_launch(image, tmp_path / "none", VmSize.SMALL)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"variant": "debug"},
        {"cmdline": "a\nb"},
        {"cmdline": "x" * 2048},
        {"cmdline": 5},
        {"kernel_version": None},
        {"files": []},
        {"files": {}},
    ],
)
def test_malformed(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(InvalidArgumentError, match="malformed"):
        parse_image(tmp_path, edited(tmp_path, **changes))


@pytest.mark.parametrize(
    "entry",
    [
        None,
        {"sha256": "0" * 63, "size": 1},
        {"sha256": "0" * 64, "size": 0},
        {"sha256": "0" * 64, "size": "1"},
    ],
)
def test_malformed_files(tmp_path: Path, entry: object) -> None:
    files = json.loads(edited(tmp_path))["files"]
    with pytest.raises(InvalidArgumentError, match="root"):
        parse_image(tmp_path, edited(tmp_path, files={**files, "root": entry}))


@pytest.mark.parametrize("text", [b"", b"[]", b"[" * 100000, b" " * (2 << 20)])
def test_no_document(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(InvalidArgumentError):
        parse_image(tmp_path, text)


def test_where_it_is_looked_for(tmp_path: Path) -> None:
    places = candidates({"HOME": "/h"}, Variant.STUB)
    assert [str(p) for p in places] == [
        "/h/.cache/parma/uvm/stub/current",
        "/usr/share/parma/uvm/stub",
    ]
    assert (
        str(candidates({"HOME": "/h", "PARMA_CACHE": "/c"}, Variant.RELEASE)[0])
        == "/c/uvm/release/current"
    )
    assert candidates({"PARMA_UVM": "/u", "HOME": "/h"}, Variant.STUB) == (Path("/u"),)
    with pytest.raises(ApiError, match="no UVM image"):
        find_image({"PARMA_UVM": str(tmp_path)}, Variant.STUB)


def test_the_link_of_the_cache_is_followed_once(tmp_path: Path) -> None:
    folder = tmp_path / "uvm/stub/abc"
    folder.mkdir(parents=True)
    write_image(folder)
    (folder.parent / "current").symlink_to("abc")
    assert find_image({"PARMA_CACHE": str(tmp_path)}, Variant.STUB).directory == folder
